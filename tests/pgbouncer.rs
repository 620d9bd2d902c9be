//! A worker behind a real PgBouncer: session mode works, transaction mode is refused with a sentence.
#![expect(clippy::print_stderr, reason = "says what was skipped")]

mod rig;
mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rig::{Setup, Sql, sandbox, until};
use support::{Db, Engine};

const SOON: Duration = Duration::from_secs(20);

/// A pooler in front of the test's server; ended when dropped.
struct Bouncer {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Bouncer {
    /// None, said aloud, where it is not installed.
    async fn start(db: &Db, settings: &str) -> Option<Self> {
        let program = [
            "/usr/sbin/pgbouncer",
            "/usr/bin/pgbouncer",
            "/usr/local/bin/pgbouncer",
        ];
        let Some(program) = program.into_iter().find(|path| Path::new(path).exists()) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "in CI nothing may be skipped: install pgbouncer"
            );
            eprintln!("skipped: pgbouncer is not installed");
            return None;
        };
        let (_, place) = db.url.rsplit_once('@').expect("a user");
        let (address, _) = place.split_once('/').expect("a database");
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "5432"));
        let folder = tempfile::tempdir().expect("a folder");
        let (own, file) = (rig::free_port(), folder.path().join("pgbouncer.ini"));
        let text = format!(
            "[databases]\n* = host={host} port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own}\n\
             auth_type = any\nunix_socket_dir =\nmax_client_conn = 100\ndefault_pool_size = 20\n{settings}\n\
             [users]\n",
        )
        .replace("* = host", "* = user=postgres host");
        std::fs::write(&file, text).expect("writes");
        let mut command = match rustix::process::geteuid().is_root() {
            false => Command::new(program),
            true => {
                let mut chown = Command::new("chown");
                let chowned = chown.args(["-R", "postgres"]).arg(folder.path()).status();
                assert!(chowned.is_ok_and(|status| status.success()), "chown");
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", "postgres", "--clear-groups", "--"])
                    .arg(program);
                command
            }
        };
        let child = command
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let bouncer = Self {
            child,
            port: own,
            _folder: folder,
        };
        until("PgBouncer listens", SOON, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", own))
                .await
                .is_ok()
        })
        .await;
        Some(bouncer)
    }

    fn url(&self, db: &Db) -> String {
        let (_, name) = db.url.rsplit_once('/').expect("a database");
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn fresh() -> Option<Db> {
    support::postgres().await
}

async fn insert(sql: &Sql, jobs: usize) {
    sql.rows(&format!(
        "insert into send_jobs (page_id, recipient, message) select '1', json_build_object('id', 'r' || g % 20), \
         '{{\"template_type\":\"text\",\"text\":\"x\"}}' from generate_series(1, {jobs}) g"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_session_mode_a_worker_delivers_and_has_its_settings() {
    for settings in [
        // What a pooler refuses at the start …
        "pool_mode = session",
        // … and what it drops without a word.
        "pool_mode = session\nignore_startup_parameters = extra_float_digits, options",
    ] {
        let Some(db) = fresh().await else { return };
        let Some(bouncer) = Bouncer::start(&db, settings).await else {
            return;
        };
        let sql = Sql::open(&db.url);
        let name = db.url.rsplit('/').next().expect("a name");
        // What would lose records in a crash, if it were left to the database.
        sql.rows(&format!(
            "alter database {name} set synchronous_commit = off"
        ))
        .await;
        let mock = sandbox();
        let setup = Setup {
            lease: "30s",
            ..Setup::new(&bouncer.url(&db), &mock.url())
        };
        let mut worker = setup.start();
        worker.ready(true, SOON).await;
        insert(&sql, 300).await;
        sql.finished(SOON).await;
        assert_eq!(mock.count(), 300, "{settings}");
        // A worker that sleeps is woken through the pooler, too.
        tokio::time::sleep(Duration::from_secs(3)).await;
        insert(&sql, 1).await;
        until("it is woken", Duration::from_millis(1800), async || {
            mock.count() == 301
        })
        .await;
        for verb in [&["stats"][..], &["list"], &["show", "1"]] {
            let (code, out, error) = setup.verb(verb);
            assert_eq!(code, 0, "{verb:?}: {out}{error}");
        }
        assert_eq!(worker.stop().await, 0, "{}", worker.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_transaction_mode_a_worker_says_why_it_waits_and_leaves_no_settings_behind() {
    let Some(db) = fresh().await else { return };
    let settings =
        "pool_mode = transaction\nignore_startup_parameters = extra_float_digits, options";
    let Some(bouncer) = Bouncer::start(&db, settings).await else {
        return;
    };
    let sql = Sql::open(&db.url);
    insert(&sql, 10).await;
    let mock = sandbox();
    let setup = Setup::new(&bouncer.url(&db), &mock.url());
    let mut worker = setup.start();
    until("it is said", SOON, async || {
        worker.says("pool_mode = transaction") > 0
    })
    .await;
    // It goes on asking: the pooler may be mended meanwhile.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!worker.is_ready().await);
    let (code, _, error) = setup.verb(&["migrate"]);
    assert!(
        code == 1 && error.contains("pool_mode = session"),
        "{error}"
    );
    let others = Sql::open(&bouncer.url(&db));
    for _ in 0..5 {
        let rows = others
            .rows("select current_setting('enable_seqscan'), current_setting('lock_timeout')")
            .await;
        assert_eq!(
            rows[0],
            [Some("on".to_owned()), Some("0".to_owned())],
            "left to others"
        );
    }
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    assert_eq!(mock.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_url_sets_holds_behind_a_pooler_too() {
    for settings in [
        "pool_mode = session",
        "pool_mode = session\nignore_startup_parameters = extra_float_digits, options",
    ] {
        let Some(db) = support::Db::empty(Engine::Postgres).await else {
            return;
        };
        let Some(bouncer) = Bouncer::start(&db, settings).await else {
            return;
        };
        let sql = Sql::open(&db.url);
        sql.rows("create schema \"sh'op\"").await;
        // Else the tables would be made, and looked for, in `public`.
        let path = "options=-csearch_path%3D%22sh'op%22,public";
        let setup = Setup::new(
            &format!("{}?{path}", bouncer.url(&db)),
            "http://127.0.0.1:9/",
        );
        let (code, _, error) = setup.verb(&["migrate"]);
        assert_eq!(code, 0, "{error}");
        assert_eq!(sql.count("\"sh'op\".send_jobs").await, 0, "{settings}");
        let (code, _, error) = setup.verb(&["stats"]);
        assert_eq!(code, 0, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_shares_sessions_is_found_out_whatever_a_role_has_set() {
    let Some(db) = fresh().await else { return };
    let sql = Sql::open(&db.url);
    let name = db.url.rsplit('/').next().expect("a name");
    // All that a session could be asked about.
    for (key, value) in [
        ("synchronous_commit", "on"),
        ("statement_timeout", "60s"),
        ("lock_timeout", "10s"),
        ("default_transaction_isolation", "read committed"),
    ] {
        sql.rows(&format!("alter database {name} set {key} = '{value}'"))
            .await;
    }
    let ignore = "ignore_startup_parameters = extra_float_digits, options";
    for (settings, sentence) in [
        (
            format!("pool_mode = transaction\n{ignore}"),
            "pool_mode = transaction",
        ),
        (
            "pool_mode = transaction".to_owned(),
            "pool_mode = transaction",
        ),
        (
            "pool_mode = statement".to_owned(),
            "pool_mode = transaction or statement",
        ),
        // One session for all: whoever has a second connection waits for ever.
        (
            format!("pool_mode = session\n{ignore}\ndefault_pool_size = 1"),
            "default_pool_size",
        ),
        (
            format!("pool_mode = transaction\n{ignore}\ndefault_pool_size = 1"),
            "use pool_mode = session",
        ),
    ] {
        let Some(bouncer) = Bouncer::start(&db, &settings).await else {
            return;
        };
        let setup = Setup::new(&bouncer.url(&db), "http://127.0.0.1:9/");
        let (code, _, error) = setup.verb(&["stats"]);
        assert!(
            code == 1 && error.contains(sentence),
            "{settings}: {code} {error}"
        );
    }
}

#[tokio::test]
async fn settings_of_a_role_are_for_sqlite_no_business() {
    let db = Db::fresh(Engine::Sqlite).await.expect("sqlite is built in");
    let setup = Setup::new(&db.url, "http://127.0.0.1:9/");
    let (code, _, error) = setup.verb(&["migrate", "--role", "worker"]);
    assert!(
        code == 1 && error.contains("SQLite has no roles"),
        "{error}"
    );
}
