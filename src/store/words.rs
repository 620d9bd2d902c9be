//! What a driver's error says, in words for people: the thing and what is wrong with it.
//!
//! Never the driver's plumbing (a line of the server's source, "error communicating with"), and never a row:
//! what a server calls the detail of an error quotes messages.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

/// The words of an error.
pub(super) fn of(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => of_database(error.as_ref()),
        sqlx::Error::Io(error) => of_io(error),
        sqlx::Error::Tls(error) => format!("TLS: {error}"),
        sqlx::Error::Protocol(what) => {
            format!("the connection does not speak Postgres' protocol: {what}")
        }
        sqlx::Error::PoolTimedOut => "no connection was free in time".to_owned(),
        sqlx::Error::PoolClosed => "the connections are closed: the worker stops".to_owned(),
        sqlx::Error::WorkerCrashed => "the connection was given up".to_owned(),
        sqlx::Error::Configuration(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn of_database(error: &dyn DatabaseError) -> String {
    let mut words = error.message().to_owned();
    let Some(postgres) = error.try_downcast_ref::<PgDatabaseError>() else {
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

fn of_io(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused (nothing listens there)".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            "the connection was lost".to_owned()
        }
        ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        ErrorKind::TimedOut => "the connection timed out".to_owned(),
        ErrorKind::NotFound => "no such file: no server has its socket there".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::HostUnreachable => "no route to the host".to_owned(),
        ErrorKind::NetworkUnreachable => "the network is unreachable".to_owned(),
        _ => {
            // "failed to lookup address information: Name or service not known", "… (os error 111)"
            let text = error.to_string();
            let text = text.split(" (os error ").next().unwrap_or_default();
            match text.contains("lookup address") {
                true => "the name of the host is not known".to_owned(),
                false => text.to_owned(),
            }
        }
    }
}

/// Why a SQLite file cannot be opened, from what the file system shows; else what SQLite says.
pub(super) fn of_opening(path: &Path, error: &sqlx::Error) -> String {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let what = match (std::fs::metadata(folder), std::fs::metadata(path)) {
        (Err(error), _) if error.kind() == ErrorKind::NotFound => {
            format!("its folder {} does not exist", folder.display())
        }
        (Err(error), _) => format!("its folder {}: {}", folder.display(), of_io(&error)),
        (Ok(about), _) if !about.is_dir() => format!("{} is no folder", folder.display()),
        (_, Ok(about)) if about.is_dir() => "it is a folder".to_owned(),
        (_, Err(error)) if error.kind() == ErrorKind::PermissionDenied => of_io(&error),
        _ => {
            let said = of(error);
            match said.as_str() {
                said if said.contains("file is not a database") => {
                    "it is no SQLite database, or is encrypted".to_owned()
                }
                said if said.contains("unable to open") || said.contains("readonly") => format!(
                    "{said}: the user of this process must be able to write to the file and to its folder {} \
                     (SQLite keeps its log there)",
                    folder.display()
                ),
                said if said.contains("full") => format!("{said}: is the disk full?"),
                said => said.to_owned(),
            }
        }
    };
    format!("{} cannot be opened: {what}", path.display())
}
