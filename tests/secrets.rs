//! Secrets that change while the worker runs: by SIGHUP, in their files, and two of them for the
//! time of a rotation. The real binary against the sandbox, which has the last word on signatures.

mod rig;
mod support;

use std::fs::{Permissions, rename, set_permissions, write};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use postlane::attempt::Claim;
use postlane::breaker::Change;
use postlane::clock::BootInstant;
use postlane::deliver::report;
use postlane::job::{AttemptNo, JobId, Token};
use postlane::judge::judge;
use postlane::keyring::{Keyring, Pair};
use postlane::secrets::{SecretId, Secrets as _};
use rig::{SECRET, Setup, Sql, Worker, sandbox, until};
use rustix::process::Signal;
use support::{Db, Engine};

const LONG: Duration = Duration::from_secs(20);
/// How soon a changed file is used.
const SOON: Duration = Duration::from_secs(5);

/// A database, a receiver and the configuration of a service between them.
struct Stage {
    db: Db,
    sql: Sql,
    mock: Arc<sandbox::Mock>,
    setup: Setup,
}

impl Stage {
    async fn new(pages: &str) -> Self {
        let db = Db::fresh(Engine::Sqlite).await.expect("sqlite is built in");
        let mock = sandbox();
        let setup = Setup {
            pages: pages.to_owned(),
            ..Setup::new(&db.url, &mock.url())
        };
        let sql = Sql::open(&db.url);
        Self {
            db,
            sql,
            mock,
            setup,
        }
    }

    /// A file beside the configuration, put in its place at once.
    fn put(&self, name: &str, content: &str, mode: u32) {
        let folder = self.setup.folder.path();
        let fresh = folder.join(format!("{name}.fresh"));
        write(&fresh, content).expect("writes");
        set_permissions(&fresh, Permissions::from_mode(mode)).expect("its mode");
        rename(fresh, folder.join(name)).expect("renames");
    }

    /// Other pages in the configuration file, and the rest as it was put.
    fn configure(&self, edit: impl Fn(&str) -> String) {
        let path = self.setup.folder.path().join("a.toml");
        let text = std::fs::read_to_string(&path).expect("the configuration");
        write(path, edit(&text)).expect("writes");
    }

    /// A job for each recipient, to the end.
    async fn delivers(&self, recipients: &[&str], limit: Duration) {
        for recipient in recipients {
            self.db.insert(recipient, "hello #1").await;
        }
        self.delivered(limit).await;
    }

    /// All jobs so far.
    async fn delivered(&self, limit: Duration) {
        until("all are delivered", limit, async || {
            self.sql.count("send_jobs where state <> 'delivered'").await == 0
        })
        .await;
    }

    fn accepts(&self, secret: &str) {
        self.mock.set_secrets(None, &[secret.to_owned()]);
    }
}

async fn says(worker: &Worker, text: &str, times: usize) {
    until(text, LONG, async || worker.says(text) >= times).await;
    assert_eq!(worker.says(text), times, "{text}");
}

const SWITCHED: &str = "secret was refused, page goes on with its other one";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_a_rotation_whichever_secret_the_receiver_takes_is_used() {
    let pages = "[pages.default]\nsecret = \"n3w\"\nprevious_secret = \"0ld\"";
    let stage = Stage::new(pages).await;
    stage.accepts("0ld");
    let mut worker = stage.setup.start();
    stage.delivers(&["a", "b", "c", "d", "e", "f"], LONG).await;
    says(&worker, SWITCHED, 1).await;
    let refused = stage.mock.stats().bad_signatures;
    assert!(refused > 0);
    stage.delivers(&["a", "g"], LONG).await;
    assert_eq!(stage.mock.stats().bad_signatures, refused, "it stays");
    stage.accepts("n3w");
    stage.delivers(&["a", "b", "c", "d", "e", "h"], LONG).await;
    says(&worker, SWITCHED, 2).await;
    let log = worker.log();
    assert!(log.contains("previous") && log.contains("current"), "{log}");
    assert!(!log.contains("n3w") && !log.contains("0ld"), "{log}");
    assert_eq!(stage.mock.stats().order_violations, 0);
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_changes_in_its_file_is_used_within_seconds() {
    let stage = Stage::new("[pages.1]\nsecret_file = \"s\"").await;
    stage.put("s", "wrong", 0o600);
    let mut worker = stage.setup.start();
    stage.db.insert("a", "hello #1").await;
    let refused = async || stage.mock.stats().bad_signatures > 0;
    until("it is refused", LONG, refused).await;
    stage.put("s", &format!("{SECRET}\n"), 0o600);
    stage.delivered(SOON).await;
    says(&worker, "secret of a page changed", 1).await;
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_file_that_is_broken_leaves_the_secret_as_it_is() {
    let stage = Stage::new("[pages.1]\nsecret_file = \"s\"").await;
    stage.put("s", SECRET, 0o600);
    let mut worker = stage.setup.start();
    stage.delivers(&["a"], LONG).await;
    stage.put("s", "0ther", 0o644);
    let kept = "secret cannot be read again, the one in use stays";
    says(&worker, kept, 1).await;
    let log = worker.log();
    let file = stage.setup.folder.path().join("s");
    assert!(log.contains("pages.1.secret_file"), "{log}");
    assert!(log.contains(file.to_str().expect("UTF-8")), "{log}");
    std::fs::remove_file(file).expect("removes");
    stage.delivers(&["a", "b"], LONG).await;
    stage.accepts("0ther");
    stage.put("s", "0ther", 0o600);
    says(&worker, "secret of a page changed", 1).await;
    stage.delivers(&["a", "b"], LONG).await;
    assert_eq!(worker.says(kept), 1, "once");
    assert!(!worker.log().contains("0ther"));
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_takes_the_secrets_of_pages_and_nothing_else() {
    let stage = Stage::new("[pages.2]\nsecret = \"tw0\"").await;
    let mut worker = stage.setup.start();
    stage.db.insert("a", "hello #1").await;
    says(&worker, "page has no secret in the configuration", 1).await;
    let taken = "secrets of the pages are taken from it";
    let restart = "restart to apply other changes";

    stage.configure(|text| format!("{text}[pages.1]\nsecret = \"{SECRET}\"\n"));
    worker.signal(Signal::HUP);
    stage.delivered(SOON).await;
    says(&worker, taken, 1).await;
    assert_eq!(worker.says("secret of a page changed"), 1);
    assert_eq!(worker.says(restart), 0);

    stage.configure(|text| text.replace("[retry]", "[retry]\nmisspelt = 1"));
    worker.signal(Signal::HUP);
    says(&worker, "configuration cannot be read again", 1).await;
    assert!(worker.log().contains("retry.misspelt"));
    stage.configure(|text| text.replace("misspelt = 1", "max_attempts = 3"));
    stage.delivers(&["a"], LONG).await;

    worker.signal(Signal::HUP);
    says(&worker, taken, 2).await;
    says(&worker, restart, 1).await;
    assert_eq!(worker.says("secret of a page changed"), 1);
    stage.delivers(&["a"], LONG).await;
    let log = worker.log();
    assert!(!log.contains(SECRET) && !log.contains("tw0"), "{log}");
    assert_eq!(worker.stop().await, 0);
}

fn slot() -> postlane::pace::Slot {
    postlane::pace::Slots::new(1)
        .take(&"1".into())
        .expect("one is free")
}

fn claim() -> Claim {
    Claim {
        ambiguous: 0,
        since_previous: None,
        lane: "1/id:a".into(),
        token: Token(1),
        job: JobId(1),
        number: AttemptNo(1),
        page: "1".into(),
        body: "{}".into(),
        failures: 0,
        on_ambiguous: None,
        delay: Duration::ZERO,
        expires_in: None,
        slot: slot(),
        started: 0,
        claimed: BootInstant::now(),
    }
}

#[test]
fn a_page_pauses_only_once_both_of_its_secrets_are_refused() {
    let pair = Pair {
        current: Some("new".into()),
        previous: Some("old".into()),
    };
    let ring = Arc::new(Keyring::new([("1".to_owned(), pair)]));
    // Whether the page pauses after this answer, another recipient having been refused before.
    let pauses = |status: u16, signed: Option<SecretId>| {
        let breaker = support::breaker();
        let wire = support::wire("http://127.0.0.1:9/", Duration::from_secs(1), &breaker);
        let mut wire = Arc::into_inner(wire).expect("one owner");
        let refusal = support::status_answer(401);
        let mut other = judge(&wire.rules, &refusal);
        let mut watched = breaker.lock().expect("not poisoned");
        watched.saw(
            BootInstant::now(),
            &"1".into(),
            &"1/id:other".into(),
            &mut other,
        );
        drop(watched);
        wire.secrets = Arc::<Keyring>::clone(&ring);
        report(&claim(), &support::status_answer(status), signed, &wire);
        let changes = breaker.lock().expect("not poisoned").changes();
        matches!(&changes[..], [Change::Open { .. }])
    };
    let signing = || Some(ring.sign("1", b"").expect("a secret").secret);
    let new = signing();
    assert!(pauses(429, new), "too fast, not refused");
    assert_eq!(signing(), new);
    assert!(pauses(401, None), "nothing was signed");
    assert!(!pauses(401, new), "there is another");
    assert!(!pauses(401, new), "late");
    let old = signing();
    assert_ne!(new, old);
    assert!(pauses(401, old), "neither works");
    assert!(!pauses(200, new));
    assert!(!pauses(401, new), "old is to be tried again");
}
