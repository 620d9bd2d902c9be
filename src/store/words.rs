//! What a driver's error says, in words for people: the thing and what is wrong with it.
//!
//! Never the driver's plumbing (a line of the server's source, "error communicating with"), and never what a
//! server calls the detail of an error: that quotes rows.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

/// A prefix that names the server or file.
pub(super) fn before(place: Option<&str>) -> String {
    place.map_or_else(String::new, |place| format!("{place}: "))
}

/// The words of an error.
pub(super) fn of(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => of_database(error.as_ref()),
        sqlx::Error::Io(error) => of_io(error),
        sqlx::Error::Tls(error) => format!("TLS: {error}"),
        sqlx::Error::Protocol(what) => {
            format!("the connection does not speak Postgres' protocol: {what}")
        }
        // SQLite's alone: its pool is the driver's.
        sqlx::Error::PoolTimedOut => {
            "no connection became free in time: all connections of this process are in use"
                .to_owned()
        }
        sqlx::Error::PoolClosed => "its connections are closed: the worker is stopping".to_owned(),
        sqlx::Error::WorkerCrashed => "the thread of a connection has ended".to_owned(),
        sqlx::Error::Configuration(error) => error.to_string(),
        sqlx::Error::RowNotFound => "a row was expected and none came".to_owned(),
        sqlx::Error::ColumnDecode { index, source } => {
            format!("the value of column {index} cannot be read: {source}")
        }
        other => other.to_string(),
    }
}

fn of_database(error: &dyn DatabaseError) -> String {
    let mut words = error.message().to_owned();
    let Some(postgres) = error.try_downcast_ref::<PgDatabaseError>() else {
        if let Some(more) = error.code().and_then(|code| of_sqlite(&code)) {
            let _ = write!(words, ": {more}");
        }
        return words;
    };
    // Writing into a String cannot fail.
    for (what, name) in [
        ("table", postgres.table()),
        ("column", postgres.column()),
        ("constraint", postgres.constraint()),
    ] {
        if let Some(name) = name.filter(|name| !words.contains(*name)) {
            let _ = write!(words, ", {what} {name}");
        }
    }
    if let Some(hint) = postgres.hint() {
        let _ = write!(words, " ({hint})");
    }
    match postgres.code() {
        // Names of statements come again in another session.
        "42P05" | "26000" => words.push_str(
            ": a pooler gives each transaction another session (PgBouncer: pool_mode = transaction); use \
             pool_mode = session, or connect to the server itself",
        ),
        code => {
            let _ = write!(words, " (SQLSTATE {code})");
        }
    }
    words
}

fn of_certificate(why: &str) -> &str {
    match why {
        "UnknownIssuer" => "no known authority has signed it (sslrootcert names one)",
        why if why.contains("CaUsedAsEndEntity") => {
            "it is an authority's own, not a server's (made with CA:TRUE)"
        }
        why => why,
    }
}

/// What to do about a code of SQLite; the kind of an error is in the lower byte.
fn of_sqlite(code: &str) -> Option<&'static str> {
    match code.parse::<i32>().ok()? & 0xff {
        5 => Some("another process has written to it for longer than 10 s"),
        8 => Some(
            "the user of this process must be able to write to the file, to FILE-wal, FILE-shm and to their folder",
        ),
        10 => Some("its disk refuses to read or write (the system's log says why)"),
        11 => Some("it is damaged; restore a copy (PRAGMA integrity_check says where)"),
        _ => None,
    }
}

pub(super) fn of_io(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused (nothing listens there)".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            "the connection was lost".to_owned()
        }
        ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        ErrorKind::TimedOut => "the connection timed out".to_owned(),
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::HostUnreachable => "no route to the host".to_owned(),
        ErrorKind::NetworkUnreachable => "the network is unreachable".to_owned(),
        _ => {
            // "failed to lookup address information: Name or service not known", "… (os error 111)"
            let text = error.to_string();
            let text = text.split(" (os error ").next().unwrap_or_default();
            match text.strip_prefix("invalid peer certificate: ") {
                Some(why) => format!(
                    "TLS: the server's certificate is refused: {}",
                    of_certificate(why)
                ),
                None if text.contains("lookup address") => {
                    "the name of the host is not known".to_owned()
                }
                None => text.to_owned(),
            }
        }
    }
}

/// Why there can be no database of that name, or none that this process may use; from what the file system shows.
pub(super) fn of_place(path: &Path) -> Option<String> {
    let folder = folder(path);
    let shown = folder.display();
    match (std::fs::metadata(folder), std::fs::metadata(path)) {
        (Err(error), _) if error.kind() == ErrorKind::NotFound => {
            Some(format!("its folder {shown} does not exist"))
        }
        (Err(error), _) => Some(format!("its folder {shown}: {}", of_io(&error))),
        (Ok(about), _) if !about.is_dir() => Some(format!("{shown} is not a folder")),
        (_, Ok(about)) if about.is_dir() => Some("it is a folder".to_owned()),
        (_, Err(error)) if error.kind() == ErrorKind::PermissionDenied => Some(format!(
            "the user of this process may not look into its folder {shown}"
        )),
        _ => None,
    }
}

/// Why a SQLite file cannot be opened, from what the file system shows; else what SQLite says.
pub(super) fn of_opening(path: &Path, error: &sqlx::Error) -> String {
    of_place(path).unwrap_or_else(|| {
        let said = of(error);
        match said.as_str() {
            said if said.contains("file is not a database") => {
                "it is not a SQLite database, or it is encrypted".to_owned()
            }
            said if said.contains("unable to open") => format!(
                "{said}: the user of this process must be able to read and write the file and its folder {} \
                 (SQLite keeps its log there)",
                folder(path).display()
            ),
            said => said.to_owned(),
        }
    })
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
