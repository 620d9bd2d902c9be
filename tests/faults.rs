//! The running service while what it depends on breaks, and after it is mended.
//!
//! Each test breaks one thing under load, sees `/readyz` and the log tell it, mends it, and has
//! the independent checker judge: nothing lost, order kept, no request without its attempt row.
#![expect(
    clippy::print_stdout,
    reason = "figures are for whoever runs the tests"
)]

mod rig;
mod support;

use std::sync::Arc;
use std::time::Duration;

use rig::cluster::Cluster;
use rig::{
    Dice, Load, Producer, SECRET, Setup, Sql, Verdict, Worker, check, path_of, sandbox, until,
};
use rustix::process::Signal;
use sandbox::{Mock, MockConfig, Script};
use tokio::time::{Instant, sleep};

/// How soon the service must be itself again.
const SOON: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(30);

const AWAY: &str = "database cannot be written, nothing is sent until it can";
const BACK: &str = "database can be written again";

/// A service that delivers, and a producer that keeps it busy.
struct Scene {
    sql: Sql,
    mock: Arc<Mock>,
    worker: Worker,
    producer: Producer,
    began: Instant,
}

impl Scene {
    async fn new(url: &str) -> Self {
        let mock = sandbox();
        mock.set_latency(Duration::from_millis(5));
        let setup = Setup::new(url, &mock.url());
        Self::with(&setup, mock, Load::default()).await
    }

    async fn with(setup: &Setup, mock: Arc<Mock>, load: Load) -> Self {
        let sql = Sql::open(&setup.database_url);
        let producer = Producer::start(sql.clone(), Arc::clone(&mock), load, 7);
        let scene = Self {
            sql,
            mock,
            worker: setup.start(),
            producer,
            began: Instant::now(),
        };
        scene.worker.ready(true, LONG).await;
        scene.flows(LONG).await;
        scene
    }

    /// Requests arrive: some that are on their way, and more.
    async fn flows(&self, limit: Duration) {
        rig::flows(&self.mock, limit).await;
    }

    async fn is_mended(&self) {
        self.worker.ready(true, SOON).await;
        self.flows(SOON).await;
    }

    /// Everything ends, the service stops with 0, and the checker finds nothing.
    async fn ends(mut self, what: &str) -> (Verdict, String) {
        let accepted = self.producer.stop().await;
        self.sql.finished(LONG).await;
        assert_eq!(self.worker.stop().await, 0);
        let verdict = check(&self.sql, &accepted, &self.mock, &[]).await;
        println!("{what}: {verdict}, {:.1?}", self.began.elapsed());
        verdict.is_clean();
        assert!(verdict.duplicates as u64 <= verdict.ambiguous, "{verdict}");
        let log = self.worker.log();
        assert!(!log.contains("please report"), "{log}");
        (verdict, log)
    }
}

fn times(log: &str, text: &str) -> usize {
    log.matches(text).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_at_start_and_tables_that_are_missing_are_waited_for() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    let mock = sandbox();
    let setup = Setup::new(&cluster.url("postgres"), &mock.url());
    let mut worker = setup.start();
    until("it says so", LONG, async || {
        worker.says("database cannot be used yet") > 0
    })
    .await;
    assert!(!worker.is_ready().await);
    assert!(
        worker
            .get("/healthz")
            .await
            .expect("it lives")
            .starts_with("HTTP/1.1 200")
    );
    // More tries are not more lines.
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(
        worker.says("database cannot be used yet"),
        1,
        "{}",
        worker.log()
    );
    cluster.start();
    until("it asks for tables", LONG, async || {
        worker.says("run `postlane migrate`") > 0
    })
    .await;
    assert!(!worker.is_ready().await);
    let (code, _, err) = setup.verb(&["migrate"]);
    assert_eq!(code, 0, "{err}");
    worker.ready(true, SOON).await;
    assert_eq!(worker.says("database can be used now"), 1);
    let sql = Sql::open(&setup.database_url);
    let load = Load {
        ahead: 50,
        ..Load::default()
    };
    let producer = Producer::start(sql.clone(), Arc::clone(&mock), load, 7);
    assert!(mock.wait_for(100, LONG).await);
    let accepted = producer.stop().await;
    sql.finished(LONG).await;
    assert_eq!(worker.stop().await, 0);
    let verdict = check(&sql, &accepted, &mock, &[]).await;
    verdict.is_clean();
    assert_eq!((verdict.duplicates, verdict.ambiguous), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_or_restarts_costs_time_and_nothing_else() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    cluster.start();
    let url = cluster.url("postgres");
    postlane::store::schema::migrate(&url)
        .await
        .expect("migrates");
    let scene = Scene::new(&url).await;
    for (outage, mode) in ["immediate", "fast", "immediate"].into_iter().enumerate() {
        cluster.stop(mode);
        scene.worker.ready(false, SOON).await;
        until("it says so", SOON, async || {
            scene.worker.says(AWAY) > outage
        })
        .await;
        let quiet = scene.mock.count();
        sleep(Duration::from_millis(500)).await;
        // What was on its way may still arrive.
        assert!(
            scene.mock.count() <= quiet + 32,
            "it sends without a database"
        );
        cluster.start();
        scene.is_mended().await;
    }
    let (verdict, log) = scene.ends("server restarts").await;
    assert_eq!((times(&log, AWAY), times(&log, BACK)), (3, 3), "{log}");
    assert_eq!(
        (verdict.duplicates, verdict.ambiguous),
        (0, 0),
        "nothing of the receiver's failed"
    );
}

const TERMINATE: &str = "select cast(count(pg_terminate_backend(pid)) as text) from pg_stat_activity \
    where application_name like 'postlane%' and datname = current_database()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_terminated_at_random_are_opened_again() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let scene = Scene::new(&db.url).await;
    let (mut dice, end) = (Dice(7), Instant::now() + Duration::from_secs(4));
    let before = scene.mock.count();
    let mut terminated = 0;
    while Instant::now() < end {
        let some = format!("{TERMINATE} and random() < 0.5");
        let rows = scene.sql.rows(&some).await;
        terminated += rows[0][0]
            .as_deref()
            .unwrap_or("0")
            .parse::<u64>()
            .expect("a number");
        sleep(dice.ms(20, 300)).await;
    }
    assert!(terminated > 5, "{terminated}");
    assert!(scene.mock.count() > before + 100, "it went on meanwhile");
    scene.is_mended().await;
    let (verdict, log) = scene
        .ends(&format!("{terminated} sessions terminated"))
        .await;
    assert_eq!((verdict.duplicates, verdict.ambiguous), (0, 0));
    assert_eq!(times(&log, AWAY), times(&log, BACK), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_read_only_is_written_again() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let scene = Scene::new(&db.url).await;
    let name = db.url.rsplit('/').next().expect("a name").to_owned();
    let set = format!("alter database {name} set default_transaction_read_only = on");
    scene.sql.rows(&set).await;
    scene.sql.rows(TERMINATE).await;
    until("it says so", SOON, async || scene.worker.says(AWAY) > 0).await;
    scene.worker.ready(false, SOON).await;
    // Long enough for the lease of what was in flight to end.
    sleep(Duration::from_secs(2)).await;
    scene
        .sql
        .rows(&format!(
            "alter database {name} reset default_transaction_read_only"
        ))
        .await;
    scene.is_mended().await;
    let (verdict, log) = scene.ends("read-only").await;
    assert_eq!(verdict.duplicates, 0);
    assert!(
        times(&log, AWAY) <= 2 && times(&log, AWAY) == times(&log, BACK),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_that_somebody_locks_costs_time_and_nothing_else() {
    let db = support::Db::fresh(support::Engine::Sqlite)
        .await
        .expect("sqlite is built in");
    let scene = Scene::new(&db.url).await;
    let Sql::Sqlite(pool) = &scene.sql else {
        panic!("sqlite")
    };
    let lock = pool.begin_with("begin exclusive").await.expect("locks");
    sleep(Duration::from_secs(3)).await;
    lock.rollback().await.expect("unlocks");
    scene.is_mended().await;
    let (verdict, log) = scene.ends("locked file").await;
    assert_eq!((verdict.duplicates, verdict.ambiguous), (0, 0));
    assert!(!log.contains("ERROR"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_somebody_locks_for_long_is_told_and_costs_time_only() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let scene = Scene::new(&db.url).await;
    let Sql::Postgres(pool) = &scene.sql else {
        panic!("postgres")
    };
    let mut lock = pool.begin().await.expect("begins");
    sqlx::query("lock table send_lanes in access exclusive mode")
        .execute(&mut *lock)
        .await
        .expect("locks");
    // The server gives up waiting after 10 seconds.
    until("it says so", Duration::from_secs(15), async || {
        scene.worker.says(AWAY) == 1
    })
    .await;
    scene.worker.ready(false, SOON).await;
    lock.rollback().await.expect("unlocks");
    scene.is_mended().await;
    let (verdict, log) = scene.ends("locked table").await;
    assert_eq!((verdict.duplicates, verdict.ambiguous), (0, 0));
    assert_eq!((times(&log, AWAY), times(&log, BACK)), (1, 1), "{log}");
}

/// A small file system, mounted while this lives.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("temp folder");
        let mut mount = std::process::Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"])
            .arg(folder.path());
        let mounted = mount.stderr(std::process::Stdio::null()).status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

/// Jobs of some size, so that the disk is full soon.
fn bulky() -> Load {
    Load {
        ahead: 400,
        ..Load::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_sending_until_there_is_room() {
    let mock = sandbox();
    let Some(disk) = Mounted::new() else {
        eprintln!("no small file system without root: only the limit on files is tested");
        return;
    };
    let url = format!("sqlite://{}/jobs.db", disk.0.path().display());
    let setup = Setup::new(&url, &mock.url());
    assert_eq!(setup.verb(&["migrate"]).0, 0);
    let load = Load {
        ahead: 1000,
        ..Load::default()
    };
    let scene = Scene::with(&setup, mock, load).await;
    // So much is queued that the log must grow for it: a log that was begun anew has some room.
    scene.mock.set_latency(Duration::from_millis(500));
    until("a queue grows", LONG, async || {
        scene.sql.count("send_jobs where state = 'queued'").await >= 800
    })
    .await;
    let ballast = disk.0.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).expect("creates");
    let mut room = 1 << 20;
    while room > 0 {
        use std::io::Write as _;
        if file.write_all(&vec![0; room]).is_err() {
            room /= 2;
        }
    }
    until("it says so", LONG, async || scene.worker.says(AWAY) > 0).await;
    scene.worker.ready(false, SOON).await;
    std::fs::remove_file(&ballast).expect("frees");
    scene.mock.set_latency(Duration::from_millis(5));
    drop(file);
    scene.is_mended().await;
    let (verdict, log) = scene.ends("full disk").await;
    assert_eq!((verdict.duplicates, verdict.ambiguous), (0, 0));
    assert_eq!(times(&log, AWAY), times(&log, BACK), "{log}");
    assert!(log.contains("full"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_grow_stops_sending_until_it_may() {
    let db = support::Db::fresh(support::Engine::Sqlite)
        .await
        .expect("sqlite is built in");
    let mock = sandbox();
    // Less than the log has when it is checkpointed, more than the first hundreds of requests take.
    let limit = 5 << 19;
    let setup = Setup {
        file_limit: Some(limit),
        ..Setup::new(&db.url, &mock.url())
    };
    let scene = Scene::with(&setup, mock, bulky()).await;
    until("it says so", LONG, async || scene.worker.says(AWAY) > 0).await;
    scene.worker.ready(false, SOON).await;
    assert!(path_of(&db.url).exists());
    let pid = rustix::process::Pid::from_raw(i32::try_from(scene.worker.pid()).expect("a pid"));
    let none = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    rustix::process::prlimit(pid, rustix::process::Resource::Fsize, none).expect("lifts the limit");
    scene.is_mended().await;
    let (verdict, log) = scene.ends("file limit").await;
    assert_eq!((verdict.duplicates, verdict.ambiguous), (0, 0));
    assert_eq!(times(&log, AWAY), times(&log, BACK), "{log}");
}

both! {
    a_page_without_a_secret_waits_beside_one_that_delivers, |db| {
        let mock = sandbox();
        let setup = Setup {
            pages: format!("[pages.1]\nsecret = \"{SECRET}\""),
            ..Setup::new(&db.url, &mock.url())
        };
        let load = Load { pages: vec!["1".to_owned(), "2".to_owned()], ahead: 2000, ..Load::default() };
        let mut scene = Scene::with(&setup, mock, load).await;
        let accepted = scene.producer.stop().await;
        until("page 1 is done", LONG, async || {
            scene.sql.count("send_jobs where page_id = '1' and state <> 'delivered'").await == 0
        }).await;
        assert!(scene.worker.is_ready().await);
        assert_eq!(scene.worker.stop().await, 0);
        let verdict = check(&scene.sql, &accepted, &scene.mock, &["queued"]).await;
        verdict.is_clean();
        assert_eq!(verdict.ambiguous, 0);
        assert!(scene.sql.count("send_jobs where page_id = '2'").await > 50);
        assert_eq!(scene.sql.count("send_jobs where page_id = '2' and (state <> 'queued' or attempts > 0)").await, 0);
        assert_eq!(scene.worker.says("page has no secret"), 1);
    }

    a_receiver_that_is_down_uses_up_no_attempts, |db| {
        let port = rig::free_port();
        let mut setup = Setup::new(&db.url, &format!("http://127.0.0.1:{port}/api/send_message"));
        setup.env.push(("POSTLANE_RETRY__MAX_ATTEMPTS".to_owned(), "2".to_owned()));
        setup.env.push(("POSTLANE_CIRCUIT__MAX_PROBE".to_owned(), "1s".to_owned()));
        let elsewhere = sandbox();
        let sql = Sql::open(&db.url);
        let load = Load { recipients: 30, ahead: 60, ..Load::default() };
        let producer = Producer::start(sql.clone(), elsewhere, load, 7);
        let mut worker = setup.start();
        until("the circuit opens", LONG, async || {
            sql.count("send_pauses where scope = 'page:1'").await == 1
        }).await;
        let before = sql.count("send_attempts where outcome = 'not_sent'").await;
        until("it is probed, one job at a time", LONG, async || {
            sql.count("send_attempts where outcome = 'not_sent'").await >= before + 3
        }).await;
        assert_eq!(worker.says("paused until a job is accepted"), 1, "{}", worker.log());
        assert!(worker.is_ready().await, "the database is well");
        let accepted = producer.stop().await;
        assert_eq!(sql.count("send_attempts where outcome is not null and outcome <> 'not_sent'").await, 0);
        assert_eq!(sql.count("send_jobs where failures > 0 or state <> 'queued'").await, 0);
        let mock = Mock::start(MockConfig {
            listen: ([127, 0, 0, 1], port).into(),
            default_secrets: vec![SECRET.to_owned()],
            ..MockConfig::default()
        }).expect("the port is free");
        assert!(mock.wait_for(1, SOON).await);
        sql.finished(LONG).await;
        assert_eq!(worker.stop().await, 0);
        let verdict = check(&sql, &accepted, &mock, &[]).await;
        verdict.is_clean();
        assert_eq!((verdict.duplicates, verdict.ambiguous), (0, 0));
        assert_eq!(sql.count("send_jobs where possible_duplicate or failures > 0").await, 0);
    }

    recipients_whose_requests_go_wrong_do_not_hold_up_the_others, |db| {
        let mock = sandbox();
        let wrong = ["hang x2, ok", "drop x2, ok", "reset x2, ok", "500 x3, ok", "close x2, ok", "cut 500 x2, ok", "503 x2, ok", "garbage x2, ok"];
        for (recipient, script) in wrong.iter().enumerate() {
            let script: Script = script.parse().expect("a script");
            mock.script(&format!("r{recipient}"), script);
        }
        let setup = Setup::new(&db.url, &mock.url());
        let load = Load { recipients: 60, ahead: 300, ..Load::default() };
        let scene = Scene::with(&setup, mock, load).await;
        until("all have been there", LONG, async || scene.mock.stats().lanes == 60).await;
        let ahead = scene.sql.count("send_jobs where state = 'delivered'").await;
        assert!(ahead > 50, "{ahead} delivered");
        let sql = scene.sql.clone();
        let (verdict, log) = scene.ends("bad recipients").await;
        assert!(verdict.ambiguous >= 2 * 6, "{verdict}");
        let tried = sql.count("send_jobs where attempts >= 3").await;
        assert!(tried >= 8, "{tried} jobs were tried three times");
        assert!(!log.contains("ERROR"), "{log}");
    }

    sigterm_under_load_leaves_nothing_ambiguous_and_repeats_nothing, |db| {
        let mock = sandbox();
        mock.set_latency(Duration::from_millis(30));
        let setup = Setup::new(&db.url, &mock.url());
        let mut scene = Scene::with(&setup, mock, Load::default()).await;
        for _ in 0..5 {
            assert_eq!(scene.worker.stop().await, 0);
            assert!(scene.sql.open_attempts(None).await.is_empty(), "an attempt without outcome after a stop");
            scene.worker = setup.start();
            scene.flows(LONG).await;
        }
        let (verdict, log) = scene.ends("SIGTERM").await;
        assert_eq!((verdict.duplicates, verdict.ambiguous), (0, 0));
        assert!(!log.contains("WARN attempt"), "{log}");
    }

    sigterm_does_not_wait_for_a_hanging_receiver_longer_than_it_was_told, |db| {
        let mock = sandbox();
        mock.set_default("hang x20, ok".parse().expect("a script"));
        let setup = Setup { timeout: "20s", lease: "23s", shutdown_timeout: "1s", ..Setup::new(&db.url, &mock.url()) };
        let sql = Sql::open(&db.url);
        for recipient in 0..20 {
            db.insert(&format!("r{recipient}"), "hello #1").await;
        }
        let mut worker = setup.start();
        assert!(mock.wait_for(20, LONG).await);
        let told = Instant::now();
        worker.signal(Signal::TERM);
        assert_eq!(worker.ends(SOON).await, 0);
        let took = told.elapsed();
        assert!(took > Duration::from_millis(900) && took < Duration::from_millis(2500), "{took:?}");
        assert_eq!(sql.count("send_attempts where outcome = 'ambiguous'").await, 20);
        assert_eq!(sql.count("send_jobs where state = 'queued'").await, 20);
        // The lanes were released: nobody waits for a lease of 23 seconds.
        mock.set_default(Script::default());
        let mut worker = setup.start();
        sql.finished(SOON).await;
        assert_eq!(worker.stop().await, 0);
        assert_eq!(mock.count(), 40);
        assert_eq!(sql.count("send_jobs where state = 'delivered' and possible_duplicate").await, 20);
    }
}
