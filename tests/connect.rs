//! What is said when a database cannot be had or refuses, and what libpq's variables mean; with the real binary.
//!
//! Each sentence names the server or the file, and what is wrong with it. None has the driver's plumbing or a secret.
#![expect(clippy::print_stderr, reason = "says what was skipped")]

mod rig;
mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rig::{Sql, free_port, until};
use support::{Db, Engine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What no sentence may have.
const PLUMBING: &[&str] = &[
    "error returned from database",
    "error communicating",
    "error with configuration",
    "while executing migration",
    "os error",
    "at line",
    "canary",
];

fn postlane(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postlane"));
    command
        .args(arguments)
        .env_clear()
        .env("TZ", "UTC")
        .env("USER", "tester")
        .env("POSTLANE_DATABASE_URL", url)
        .stdin(Stdio::null());
    command
}

/// The last line of what it says, which may not be on the standard output; its exit code.
#[track_caller]
fn said(command: &mut Command) -> (i32, String) {
    let output = command.output().expect("starts");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    for word in PLUMBING {
        assert!(!text.contains(word), "{word:?} in {text}");
    }
    let last = text.lines().last().unwrap_or_default().trim().to_owned();
    (output.status.code().expect("ends by itself"), last)
}

/// Host and port of the tests' server, and the name of a database on it.
fn address(db: &Db) -> (&str, &str) {
    let (_, place) = db.url.rsplit_once('@').expect("a user");
    place.split_once('/').expect("a database")
}

#[tokio::test]
async fn a_server_that_cannot_be_had_is_named_with_what_is_wrong() {
    let Some(db) = Db::empty(Engine::Postgres).await else {
        return;
    };
    let (at, name) = address(&db);
    let nobody = format!("127.0.0.1:{}", free_port());
    for (url, sentence) in [
        (
            format!("postgres://me:canary@{nobody}/x"),
            format!("database: {nobody}: connection refused (nothing listens there)"),
        ),
        (
            "postgres://me:canary@no-such-host.invalid/x".to_owned(),
            "database: no-such-host.invalid:5432: the name of the host is not known".to_owned(),
        ),
        (
            "postgres:///x?host=/no/such/folder&port=7".to_owned(),
            "database: /no/such/folder/.s.PGSQL.7: no such file: no server has its socket there"
                .to_owned(),
        ),
        (
            format!("postgres://no_such_role:canary@{at}/{name}"),
            format!("database: {at}: role \"no_such_role\" does not exist (SQLSTATE 28000)"),
        ),
        (
            format!("postgres://postgres@{at}/no_such_database"),
            format!(
                "database: {at}: database \"no_such_database\" does not exist (SQLSTATE 3D000)"
            ),
        ),
        (
            format!("postgres://postgres@{at}/{name}?sslmode=require"),
            format!("database: {at}: TLS: server does not support TLS"),
        ),
        (
            format!("postgres://postgres@{at}/{name}?sslmode=verify-ca&sslrootcert=/no/such.crt"),
            format!("database: {at}: sslrootcert /no/such.crt cannot be read: no such file"),
        ),
        (
            format!("postgres://postgres@{at}/{name}?options=-cno_such%3D1"),
            format!(
                "database: {at}: unrecognized configuration parameter \"no_such\" (SQLSTATE 42704)"
            ),
        ),
        (
            format!("postgres://postgres@{nobody},{at}/no_such_database"),
            format!("{nobody}: connection refused (nothing listens there)"),
        ),
        (
            db.url.clone(),
            format!(
                "schema: {at}, database {name}: there are no tables yet; run `postlane migrate`"
            ),
        ),
    ] {
        let (code, last) = said(&mut postlane(&url, &["list"]));
        assert_eq!(code, 1, "{url}: {last}");
        match url.contains(',') {
            true => assert!(
                last.contains(&sentence) && last.contains("no_such_database"),
                "{last}"
            ),
            false => assert_eq!(last, format!("postlane: {sentence}"), "{url}"),
        }
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_used_says_what_to_write_and_shows_no_secret() {
    for (url, sentence) in [
        ("postlane.db", "did you mean sqlite://postlane.db?"),
        ("sqlite:postlane.db", "did you mean sqlite://postlane.db?"),
        (
            "sqlite://x.db?mode=ro",
            "mode is rw or rwc: the queue is written to",
        ),
        (
            "sqlite://x.db?immutable=1",
            "the parameter immutable is not supported: leave it out",
        ),
        (
            "sqlite://x.db?cach=shared",
            "it has a parameter that is none (in a file's name, write ? as %3F)",
        ),
        (
            "host=h password=canary dbname=x",
            "postgres:///?NAME=VALUE&NAME=VALUE is",
        ),
        (
            "postgres://me:12/canary@h/x",
            "an @ stands behind the first /: in a user name or a password, write / as %2F",
        ),
        (
            "postgres://me@h/x?schema=canary",
            "use options=-csearch_path%3DNAME",
        ),
        (
            "postgres://me@h/x?sslpassword=canary",
            "the parameter sslpassword is not supported: leave it out",
        ),
        (
            "postgres://me@h/x?sslmode=allow",
            "sslmode=allow is not supported: use prefer or require",
        ),
        (
            "postgres://me@h/x?sslmode=require&sslrootcert=system",
            "sslrootcert=system needs sslmode=verify-full",
        ),
    ] {
        for verb in [
            &["list"][..],
            &["check", "--offline"],
            &["migrate"],
            &["run"],
        ] {
            let (code, last) = said(&mut postlane(url, verb));
            assert!(
                code == 2 && last.contains(sentence),
                "{url} {verb:?}: {code} {last}"
            );
        }
    }
}

/// Runs as a user who owns nothing here, where that is possible.
fn as_nobody(folder: &Path, arguments: &[&str]) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: what others may not do is tried as root only");
        return None;
    }
    // The binary may lie where others may not look.
    let binary = folder.join("postlane");
    if !binary.exists() {
        std::fs::hard_link(env!("CARGO_BIN_EXE_postlane"), &binary)
            .or_else(|_| std::fs::copy(env!("CARGO_BIN_EXE_postlane"), &binary).map(drop))
            .expect("copies");
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "nobody", "--clear-groups", "--"])
        .arg(binary)
        .args(arguments)
        .env_remove("POSTLANE_DATABASE_URL")
        .current_dir(folder)
        .stdin(Stdio::null());
    Some(command)
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("changes");
}

#[tokio::test]
async fn a_file_that_cannot_be_had_is_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().canonicalize().expect("a path");
    let (place, url) = (
        |name: &str| at.join(name).display().to_string(),
        |name: &str| format!("sqlite://{}", at.join(name).display()),
    );
    std::fs::write(at.join("text.db"), "no database at all, but text").expect("writes");
    std::fs::create_dir(at.join("folder.db")).expect("makes");
    std::fs::write(at.join("file"), "").expect("writes");
    let no_folder = format!("its folder {} does not exist", place("no"));
    for (name, verb, sentence) in [
        (
            "new.db",
            "list",
            format!(
                "database_url: {} does not exist; create it with `postlane migrate`",
                place("new.db")
            ),
        ),
        (
            "no/new.db",
            "list",
            format!(
                "database: {} cannot be opened: {no_folder}",
                place("no/new.db")
            ),
        ),
        (
            "no/new.db",
            "migrate",
            format!(
                "database: {} cannot be opened: {no_folder}",
                place("no/new.db")
            ),
        ),
        (
            "file/new.db",
            "migrate",
            format!(
                "database: {} cannot be opened: {} is not a folder",
                place("file/new.db"),
                place("file")
            ),
        ),
        (
            "folder.db",
            "migrate",
            format!(
                "database: {} cannot be opened: it is a folder",
                place("folder.db")
            ),
        ),
        (
            "text.db",
            "list",
            format!(
                "database: {} cannot be opened: it is not a SQLite database, or it is encrypted",
                place("text.db")
            ),
        ),
    ] {
        let (code, last) = said(&mut postlane(&url(name), &[verb]));
        assert_eq!(
            (code, last),
            (1, format!("postlane: {sentence}")),
            "{name} {verb}"
        );
    }
    let empty = at.join("empty.db");
    std::fs::write(&empty, "").expect("writes");
    let (_, last) = said(&mut postlane(&url("empty.db"), &["list"]));
    assert_eq!(
        last,
        format!(
            "postlane: schema: {}: there are no tables yet; run `postlane migrate`",
            empty.display()
        )
    );

    let (code, last) = said(&mut postlane(&url("mine.db"), &["migrate"]));
    assert_eq!(code, 0, "{last}");
    mode(&at, 0o755);
    let may_not_write = format!(
        "database: {}: attempt to write a readonly database: the user of this process must be able to write to the \
         file, to FILE-wal, FILE-shm and to their folder",
        place("mine.db")
    );
    let nobody = |verb: &[&str]| {
        let url = url("mine.db");
        let mut command = as_nobody(&at, &[&["--database-url", &url], verb].concat())?;
        Some(said(&mut command))
    };
    // It can be looked at, and `check` says that a worker could not work on it.
    mode(&at.join("mine.db"), 0o644);
    let keep_open = Sql::open(&url("mine.db"));
    keep_open.count("send_jobs").await;
    let Some((code, _)) = nobody(&["list"]) else {
        return;
    };
    assert_eq!(code, 3);
    let (code, last) = nobody(&["check"]).expect("as root");
    assert_eq!((code, last), (0, format!("warning: {may_not_write}")));
    let (code, last) = nobody(&["pause", "--page", "1"]).expect("as root");
    assert_eq!((code, last), (1, format!("postlane: {may_not_write}")));
    keep_open.close().await;
    // Where it may not even be read, and where the folder is closed.
    mode(&at.join("mine.db"), 0o600);
    let (code, last) = nobody(&["list"]).expect("as root");
    assert!(
        code == 1 && last.contains("must be able to read and write the file and its folder"),
        "{last}"
    );
    std::fs::create_dir(at.join("closed")).expect("makes");
    mode(&at.join("closed"), 0o700);
    let closed = url("closed/x.db");
    let mut command = as_nobody(&at, &["--database-url", &closed, "list"]).expect("as root");
    assert_eq!(
        said(&mut command),
        (
            1,
            format!(
                "postlane: database: {} cannot be opened: the user of this process may not look into its folder {}",
                place("closed/x.db"),
                place("closed")
            )
        )
    );
}

#[tokio::test]
async fn what_a_server_refuses_is_told_with_its_place_and_its_names() {
    const REQUEST: &str = r#"{"page_id":1,"recipient":{"id":"a"},"message":{"template_type":"text","text":"canary"}}"#;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("requests");
    std::fs::write(&file, REQUEST).expect("writes");
    let file = file.display().to_string();
    for engine in [Engine::Postgres, Engine::Sqlite] {
        let Some(db) = Db::fresh(engine).await else {
            continue;
        };
        let sql = Sql::open(&db.url);
        let (place, refused) = match engine {
            Engine::Postgres => {
                sql.rows("alter table send_jobs add constraint no_ones check (page_id <> '1')")
                    .await;
                (
                    address(&db).0.to_owned(),
                    "new row for relation \"send_jobs\" violates check constraint \"no_ones\" (SQLSTATE 23514)",
                )
            }
            Engine::Sqlite => {
                sql.rows(
                    "create trigger no_ones before insert on send_jobs when new.page_id = '1' \
                     begin select raise(abort, 'no_ones'); end",
                )
                .await;
                let path = rig::path_of(&db.url).canonicalize().expect("a path");
                (path.display().to_string(), "no_ones")
            }
        };
        let (code, last) = said(&mut postlane(&db.url, &["enqueue", &file]));
        assert_eq!(
            (code, last),
            (
                1,
                format!("postlane: line 1: database: {place}: {refused}; nothing was inserted")
            ),
            "{engine:?}"
        );
    }
    let Some(db) = Db::empty(Engine::Postgres).await else {
        return;
    };
    let (at, name) = address(&db);
    let role = format!("stranger_{}", std::process::id());
    let sql = Sql::open(&db.url);
    sql.rows(&format!("create role {role} login")).await;
    let (code, last) = said(&mut postlane(
        &format!("postgres://{role}@{at}/{name}"),
        &["migrate"],
    ));
    sql.rows(&format!("drop role {role}")).await;
    assert_eq!(
        (code, last),
        (
            1,
            format!(
                "postlane: database: {at}: permission denied for schema public (SQLSTATE 42501)"
            )
        )
    );
}

#[tokio::test]
async fn libpqs_variables_hold_where_the_url_says_nothing() {
    let Some(db) = Db::fresh(Engine::Postgres).await else {
        return;
    };
    let (at, name) = address(&db);
    let (host, port) = at.rsplit_once(':').expect("a port");
    let nobody = free_port().to_string();
    let user = db
        .url
        .strip_prefix("postgres://")
        .and_then(|url| url.split_once('@'))
        .expect("a user")
        .0;
    let ask = |url: &str, more: &[(&str, &str)]| {
        said(
            postlane(url, &["list"])
                .env("PGUSER", user)
                .envs(more.iter().copied()),
        )
    };
    let all = [("PGHOST", host), ("PGPORT", port), ("PGDATABASE", name)];
    assert_eq!(ask("postgres://", &all).0, 3);
    // Several hosts, as libpq has it.
    let both = format!("{nobody},{port}");
    let hosts = [
        ("PGHOST", "127.0.0.1,127.0.0.1"),
        ("PGPORT", &both),
        ("PGDATABASE", name),
    ];
    assert_eq!(ask("postgres://", &hosts).0, 3);
    // What the URL says counts.
    let other = [
        ("PGHOST", "no-such-host.invalid"),
        ("PGPORT", "1"),
        ("PGDATABASE", "no_such"),
    ];
    assert_eq!(ask(&format!("postgres://{at}/{name}"), &other).0, 3);
    for (variable, value, sentence) in [
        (
            "PGSSLMODE",
            "verify_full",
            "the environment's PGSSLMODE: sslmode is one of",
        ),
        (
            "PGPORT",
            "canary",
            "the environment's PGPORT: a port is no number",
        ),
        (
            "PGCHANNELBINDING",
            "require",
            "channel_binding=require is not supported",
        ),
        ("PGTARGETSESSIONATTRS", "standby", "the queue is written to"),
    ] {
        let (code, last) = ask(&format!("postgres://{at}/{name}"), &[(variable, value)]);
        assert!(
            code == 2 && last.contains(sentence),
            "{variable}: {code} {last}"
        );
    }
    let (code, last) = ask("postgres:///x", &[("PGSERVICE", "canary")]);
    assert!(
        code == 2 && last.contains("the parameter service is not supported"),
        "{last}"
    );
}

/// A server that takes TLS or not, keeps what it is sent, and refuses each session with `code`.
async fn refusing(
    listener: TcpListener,
    tls: bool,
    code: &'static str,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let heard = Arc::clone(&heard);
        tokio::spawn(async move {
            let answered = refuse(&mut stream, tls, code, &heard).await;
            drop(answered);
        });
    }
}

async fn refuse(
    stream: &mut TcpStream,
    tls: bool,
    code: &str,
    heard: &Mutex<Vec<Vec<u8>>>,
) -> std::io::Result<()> {
    let mut hello = vec![0; 8];
    stream.read_exact(&mut hello).await?;
    if hello == [0, 0, 0, 8, 4, 210, 22, 47] {
        stream.write_all(if tls { b"S" } else { b"N" }).await?;
        hello.clear();
    }
    let mut rest = vec![0; 4096];
    let read = stream.read(&mut rest).await?;
    hello.extend_from_slice(&rest[..read]);
    heard.lock().expect("no panic").push(hello);
    if tls {
        return Ok(());
    }
    let fields = format!("SFATAL\0VFATAL\0C{code}\0Mrefused here\0\0");
    let length = u32::try_from(fields.len() + 4).expect("short");
    stream.write_all(b"E").await?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(fields.as_bytes()).await
}

#[tokio::test]
async fn a_login_that_is_refused_says_where_a_password_was_looked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("bound").to_string();
    let serving = tokio::spawn(refusing(listener, false, "28P01", Arc::default()));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pgpass");
    std::fs::write(&file, "elsewhere:*:*:*:canary\n").expect("writes");
    mode(&file, 0o600);
    let ask = async |url: String, home: &Path| {
        let mut command = postlane(&url, &["list"]);
        command.env("HOME", home);
        tokio::task::spawn_blocking(move || said(&mut command))
            .await
            .expect("ends")
            .1
    };
    let refused = format!("postlane: database: {at}: refused here (SQLSTATE 28P01)");
    let shown = file.display();
    let url = format!("postgres://me@{at}/x");
    let with_file = format!("{url}?passfile={shown}");
    assert_eq!(
        ask(format!("postgres://me:canary@{at}/x"), folder.path()).await,
        refused
    );
    assert_eq!(
        ask(url, folder.path()).await,
        format!("{refused}; no password was given (in the URL, PGPASSWORD or a password file)")
    );
    assert_eq!(
        ask(with_file.clone(), folder.path()).await,
        format!(
            "{refused}; the password file {shown}: no line matches this host, port, database and user"
        )
    );
    mode(&file, 0o644);
    assert_eq!(
        ask(with_file, folder.path()).await,
        format!(
            "{refused}; the password file {shown}: is not used, since others may read it: chmod 600 it"
        )
    );
    serving.abort();
}

#[tokio::test]
async fn a_pooler_that_lacks_the_feature_is_asked_without_settings() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("bound").to_string();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let serving = tokio::spawn(refusing(listener, false, "0A000", Arc::clone(&heard)));
    let mut command = postlane(
        &format!("postgres://me@{at}/x?options=-csearch_path%3Dshop"),
        &["list"],
    );
    let (code, _) = tokio::task::spawn_blocking(move || said(&mut command))
        .await
        .expect("ends");
    assert_eq!(code, 1);
    let heard = heard.lock().expect("no panic").clone();
    let has = |hello: &Vec<u8>, word: &str| hello.windows(word.len()).any(|w| w == word.as_bytes());
    assert!(
        has(&heard[0], "synchronous_commit=on") && has(&heard[0], "search_path=shop"),
        "{heard:?}"
    );
    assert!(
        !has(&heard[1], "options") && !has(&heard[1], "extra_float_digits"),
        "{heard:?}"
    );
    serving.abort();
}

#[tokio::test]
async fn tls_names_the_host_also_where_it_has_several_addresses() {
    let unshare = ["/usr/bin/unshare", "/bin/unshare"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let (Some(unshare), true) = (unshare, rustix::process::geteuid().is_root()) else {
        eprintln!("skipped: a name with two addresses is made with unshare, as root");
        return;
    };
    let one = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = one.local_addr().expect("bound").port();
    let other = TcpListener::bind(("127.0.0.2", port))
        .await
        .expect("the port is free there");
    let heard = Arc::new(Mutex::new(Vec::new()));
    for listener in [one, other] {
        tokio::spawn(refusing(listener, true, "", Arc::clone(&heard)));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 queue.test\n127.0.0.2 queue.test\n").expect("writes");
    let script = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    let mut command = Command::new(unshare);
    command
        .args([
            "--mount",
            "sh",
            "-c",
            &script,
            "sh",
            env!("CARGO_BIN_EXE_postlane"),
            "list",
        ])
        .env(
            "POSTLANE_DATABASE_URL",
            format!("postgres://me@queue.test:{port}/x?sslmode=require"),
        )
        .stdin(Stdio::null());
    let (code, last) = tokio::task::spawn_blocking(move || said(&mut command))
        .await
        .expect("ends");
    assert_eq!(code, 1, "{last}");
    if last.contains("mount") || last.contains("unshare") {
        eprintln!("skipped: no mounts here: {last}");
        return;
    }
    // Both are named with what is wrong with them, and somebody was told the name.
    assert!(
        last.contains("(127.0.0.1): ") && last.contains("(127.0.0.2): "),
        "{last}"
    );
    until(
        "a hello with the name",
        Duration::from_secs(5),
        async || {
            let heard = heard.lock().expect("no panic");
            heard
                .iter()
                .any(|hello| hello.windows(10).any(|w| w == b"queue.test"))
        },
    )
    .await;
}
