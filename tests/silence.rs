//! A database that falls silent: every call ends, what is waited for is told, nothing is sent that is
//! not recorded, and a worker that is told to stop stops.
#![expect(
    clippy::print_stderr,
    reason = "says what was skipped, and what a worker logged"
)]

mod rig;
mod support;

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postlane::clock::BootInstant;
use postlane::events::Events;
use postlane::job::OnAmbiguous;
use postlane::service::Service;
use postlane::store::call::{News, Tell, told};
use postlane::store::wake::Waker;
use postlane::store::{Error, Pool, Use, schema};
use rig::cluster::Cluster;
use rig::{Load, Producer, Setup, Sql, Worker, check, path_of, sandbox, until};
use rustix::process::Signal;
use support::proxy::{Cut, DOWN, Proxy, UP};
use support::{Db, Engine, Steps, settings};
use tokio::time::sleep;

/// By when a silent connection must have been found.
const FOUND: Duration = Duration::from_secs(20);
const TOLD: &str = "a call of the database takes long";
const AWAY: &str = "database cannot be written, nothing is sent until it can";

/// What a database's or a role's default would make of a worker is not left to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_reads_committed_whatever_the_default_is() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let name = db.text("select current_database()").await;
    let alter = format!("alter database {name} set default_transaction_isolation = serializable");
    db.sql(&alter).await.expect("alters");
    for purpose in [Use::Write, Use::Read] {
        let pool = Pool::open(&db.url, purpose, false).await.expect("opens");
        let mut tx = pool.begin().await.expect("begins");
        let ask = "select current_setting('transaction_isolation') as level".to_owned();
        let rows = tx.rows_of(ask, &[]).await.expect("reads");
        assert_eq!(rows[0].text("level").expect("text"), "read committed");
        tx.commit().await.expect("commits");
    }
}

/// A worker that is suspended in the middle of a transaction holds up the others for seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_stands_still_is_ended_by_the_server() {
    let Some(db) = support::postgres().await else {
        return;
    };
    db.insert("a", "1").await;
    let (stands, other) = (db.connect().await, db.connect().await);
    let lock = || "select id from send_jobs for update".to_owned();
    let mut suspended = stands.begin().await.expect("begins");
    suspended.rows_of(lock(), &[]).await.expect("locks");
    let began = BootInstant::now();
    let mut tx = other.begin().await.expect("begins");
    tx.rows_of(lock(), &[]).await.expect("gets the lock");
    within(began, Duration::from_secs(8));
    tx.commit().await.expect("commits");
    suspended.commit().await.expect_err("it was ended");
    stands
        .now()
        .await
        .expect("the next call has another connection");
}

/// It has taken less than `limit` since.
#[track_caller]
fn within(began: BootInstant, limit: Duration) {
    let took = began.elapsed();
    assert!(took < limit, "{took:?}");
}

/// Collects what is told of long calls.
fn listener() -> (Tell, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&heard);
    let tell: Tell = Arc::new(move |news| {
        let text = match news {
            News::Waits {
                verb, waited, why, ..
            } => {
                assert!(*waited >= Duration::from_secs(5), "{waited:?}");
                format!("{verb}: {why}")
            }
            News::Over => "over".to_owned(),
        };
        into.lock().expect("not poisoned").push(text);
    });
    (tell, heard)
}

async fn through(proxy: &Proxy) -> Pool {
    Pool::open(&proxy.url, Use::Write, false)
        .await
        .expect("opens")
}

async fn sessions(db: &Db) -> i64 {
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    db.int(others).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_swallowed_is_left_and_its_claims_are_not_sent() {
    let swallowed = async |cut| {
        let db = support::postgres().await?;
        for recipient in ["a", "b", "c"] {
            db.insert(recipient, "1").await;
        }
        let proxy = Proxy::before(&db.url).await;
        let mut worker = Steps::on(through(&proxy).await, settings("w1")).await;
        // The first commit is that of the tokens.
        proxy.cut(cut, 1);
        let began = BootInstant::now();
        let cycle = worker.cycle_at(worker.now, began).await;
        let error = cycle.expect_err("nobody confirms the commit").to_string();
        assert!(began.elapsed() < FOUND, "{cut:?}: {:?}", began.elapsed());
        assert!(error.contains("no answer to `intake`"), "{error}");
        assert!(worker.take_claims().is_empty(), "{cut:?}");
        assert_eq!(worker.ledger.unwritten(), 1, "{cut:?}: claims in doubt");
        let in_hand = db.int("select count(*) from send_lanes where worker is not null");
        let recorded = cut == Cut::SwallowAnswer;
        assert_eq!(in_hand.await, i64::from(recorded) * 3, "{cut:?}");
        assert_eq!(worker.deliver_all().await.len(), 3);
        let wrong = "select count(*) from send_attempts where outcome <> 'delivered'";
        assert_eq!(db.int(wrong).await, 0, "{cut:?}");
        assert_eq!(
            db.int("select count(*) from send_jobs where possible_duplicate")
                .await,
            0
        );
        Some(())
    };
    tokio::join!(swallowed(Cut::SwallowCommit), swallowed(Cut::SwallowAnswer));
}

/// A commit that was cut off and comes a second later would make `unknown` of what was never sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_would_come_late_is_ended_before_anybody_judges() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let proxy = Proxy::before(&db.url).await;
    let mut hold = settings("w1");
    hold.policy.on_ambiguous = OnAmbiguous::Hold;
    db.insert("warm", "up").await;
    let mut worker = Steps::on(through(&proxy).await, hold).await;
    assert_eq!(worker.deliver_all().await.len(), 1);
    for round in 0..5 {
        for recipient in ["a", "b", "c", "d"] {
            db.insert(recipient, "1").await;
        }
        worker.now = db.pool.now().await.expect("now") + 10;
        proxy.cut(Cut::LateCommit, 0);
        let began = BootInstant::now();
        let cycle = worker.cycle_at(worker.now, began).await;
        cycle.expect_err("nobody confirms the commit");
        assert_eq!(worker.deliver_all().await.len(), 4, "round {round}");
        // By now it would have come.
        sleep(Duration::from_millis(1200)).await;
        worker.claims().await;
        assert_eq!(
            db.int("select count(*) from send_jobs where state <> 'delivered'")
                .await,
            0
        );
    }
    let wrong = "select count(*) from send_attempts where outcome <> 'delivered'";
    assert_eq!(db.int(wrong).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_was_left_is_given_to_nobody_and_ended_on_the_server() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let proxy = Proxy::before(&db.url).await;
    let pool = through(&proxy).await;
    db.insert("a", "1").await;
    let mut tx = pool.begin().await.expect("begins");
    let lock = "select id from send_jobs for update".to_owned();
    tx.rows_of(lock, &[]).await.expect("locks");
    // Its caller is dropped in the middle of a call.
    let call = tx.rows_of("select pg_sleep(30)".to_owned(), &[]);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), call)
            .await
            .is_err()
    );
    proxy.silence(UP | DOWN);
    drop(tx);
    let began = BootInstant::now();
    let mut tx = pool.begin().await.expect("begins on another");
    let open = "select count(*) as n from pg_locks where locktype = 'transactionid' and pid <> pg_backend_pid() \
        and pid in (select pid from pg_stat_activity where datname = current_database())";
    let rows = tx.rows_of(open.to_owned(), &[]).await.expect("reads");
    assert_eq!(
        rows[0].int("n").expect("int"),
        0,
        "the old one holds its locks"
    );
    tx.commit().await.expect("commits");
    within(began, Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_that_died_in_silence_is_replaced() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let proxy = Proxy::before(&db.url).await;
    let pool = through(&proxy).await;
    sleep(Duration::from_secs(21)).await;
    proxy.silence(UP | DOWN);
    let began = BootInstant::now();
    pool.now().await.expect("answers");
    within(began, Duration::from_secs(5));
}

/// The role is nobody's superuser and sees what its own sessions wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_the_server_works_on_is_told_and_waited_for() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let role = Role::new(&db, "plain", "").await;
    let pool = Pool::open(&role.url, Use::Write, false)
        .await
        .expect("opens");
    let other = Sql::open(&db.url);
    let Sql::Postgres(other) = &other else {
        panic!("postgres")
    };
    let mut lock = other.begin().await.expect("begins");
    sqlx::query("lock table send_schema in access exclusive mode")
        .execute(&mut *lock)
        .await
        .expect("locks");
    let (tell, heard) = listener();
    let call = tokio::spawn(told(tell, async move { schema::check(&pool).await }));
    sleep(Duration::from_millis(9300)).await;
    assert!(!call.is_finished(), "it was cut short");
    lock.rollback().await.expect("unlocks");
    call.await.expect("runs").expect("succeeds");
    let heard = heard.lock().expect("not poisoned").clone();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(
        heard[0].starts_with("schema: the server waits for a lock"),
        "{heard:?}"
    );
    assert!(
        heard[0].contains("producer"),
        "names who holds it: {heard:?}"
    );
    assert_eq!(heard[1], "over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_is_told_and_left() {
    let Some(db) = support::postgres().await else {
        return;
    };
    for ways in [UP, DOWN] {
        let proxy = Proxy::before(&db.url).await;
        let pool = through(&proxy).await;
        proxy.silence(ways);
        proxy.set_deaf(true);
        let (tell, heard) = listener();
        let began = BootInstant::now();
        let error = told(tell, pool.now()).await.expect_err("no answer comes");
        assert!(matches!(error, Error::Silent { .. }), "{error}");
        within(began, FOUND);
        let heard = heard.lock().expect("not poisoned").clone();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(
            heard[0].contains("does not answer a new connection either"),
            "{heard:?}"
        );
        proxy.set_deaf(false);
        pool.now()
            .await
            .expect("the next call has another connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_falls_silent_listens_again() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let proxy = Proxy::before(&db.url).await;
    let pool = through(&proxy).await;
    let mut waker = Waker::start(&pool, "w1", true).await.expect("listens");
    waker
        .before_sleep(&pool, false, None)
        .await
        .expect("asks to be woken");
    proxy.silence(UP | DOWN);
    let began = BootInstant::now();
    // It rings when it listens again: what came meanwhile was missed.
    tokio::time::timeout(FOUND, waker.woken())
        .await
        .expect("found");
    assert!(
        began.elapsed() > Duration::from_secs(5),
        "by itself: {:?}",
        began.elapsed()
    );
    db.sql("notify postlane").await.expect("notifies");
    let woken = tokio::time::timeout(Duration::from_secs(2), waker.woken());
    woken.await.expect("a notification wakes it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_locked_for_long_is_told() {
    let db = Db::fresh(Engine::Sqlite).await.expect("sqlite is built in");
    let lock = db.connect().await.begin().await.expect("locks");
    let (tell, heard) = listener();
    let pool = db.connect().await;
    let begin = tokio::spawn(told(tell, async move { pool.begin().await.map(drop) }));
    sleep(Duration::from_secs(6)).await;
    lock.rollback().await.expect("unlocks");
    begin.await.expect("runs").expect("begins");
    let heard = heard.lock().expect("not poisoned").clone();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(
        heard[0].starts_with("begin immediate: the database file"),
        "{heard:?}"
    );
}

/// A worker under load that nobody takes over from.
struct Scene {
    sql: Sql,
    mock: Arc<sandbox::Mock>,
    worker: Worker,
    producer: Producer,
}

impl Scene {
    /// The worker's URL and the producer's.
    async fn new(worker: &str, producer: &str) -> Self {
        let mock = sandbox();
        mock.set_latency(Duration::from_millis(5));
        let setup = Setup {
            timeout: "5s",
            lease: "45s",
            shutdown_timeout: "4s",
            ..Setup::new(worker, &mock.url())
        };
        let sql = Sql::open(producer);
        let scene = Self {
            producer: Producer::start(sql.clone(), Arc::clone(&mock), Load::default(), 7),
            sql,
            worker: setup.start(),
            mock,
        };
        scene.worker.ready(true, FOUND).await;
        scene.flows(FOUND).await;
        scene
    }

    async fn flows(&self, limit: Duration) {
        rig::flows(&self.mock, limit).await;
    }

    async fn ends(mut self) -> String {
        let accepted = self.producer.stop().await;
        self.sql.finished(Duration::from_secs(60)).await;
        assert_eq!(self.worker.stop().await, 0);
        let verdict = check(&self.sql, &accepted, &self.mock, &[]).await;
        eprintln!("{verdict}");
        verdict.is_clean();
        assert_eq!((verdict.duplicates, verdict.ambiguous), (0, 0), "{verdict}");
        self.worker.log()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_connections_fall_silent_goes_on_with_new_ones() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let proxy = Proxy::before(&db.url).await;
    let scene = Scene::new(&proxy.url, &db.url).await;
    for ways in [UP | DOWN, DOWN] {
        let said = scene.worker.says(TOLD);
        proxy.silence(ways);
        // What was on its way may still arrive.
        sleep(Duration::from_secs(1)).await;
        let quiet = scene.mock.count();
        until("it says so", Duration::from_secs(8), async || {
            scene.worker.says(TOLD) > said
        })
        .await;
        assert_eq!(scene.mock.count(), quiet, "it sends what it cannot record");
        assert!(!scene.worker.is_ready().await, "{ways}");
        scene.flows(FOUND).await;
        scene.worker.ready(true, FOUND).await;
    }
    scene.ends().await;
}

/// Stops every process of the server, or lets them go on.
fn freeze(cluster: &Cluster, signal: &str) {
    let pids = cluster.processes();
    assert!(pids.len() > 3, "{pids:?}");
    let mut kill = Command::new("kill");
    kill.arg(format!("-{signal}")).args(&pids);
    // Some may have ended meanwhile.
    let _ = kill.stderr(Stdio::null()).status().expect("kill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_told_and_a_worker_stops_all_the_same() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    cluster.start();
    let url = cluster.url("postgres");
    schema::migrate(&url).await.expect("migrates");
    let mut scene = Scene::new(&url, &url).await;
    freeze(&cluster, "STOP");
    until("it says so", Duration::from_secs(8), async || {
        scene.worker.says(TOLD) > 0
    })
    .await;
    let ready = scene.worker.get("/readyz").await.expect("answers");
    assert!(
        ready.contains("503") && ready.contains("has stood still for"),
        "{ready}"
    );
    until("it has given up", FOUND, async || {
        scene.worker.says(AWAY) > 0
    })
    .await;
    let metrics = scene.worker.get("/metrics").await.expect("answers");
    assert!(metrics.contains("postlane_ledger_up 0"), "{metrics}");
    // It obeys in the middle of it.
    let began = BootInstant::now();
    scene.worker.signal(Signal::TERM);
    assert_eq!(scene.worker.ends(Duration::from_secs(10)).await, 1);
    within(began, Duration::from_secs(6));
    assert!(
        scene.worker.says("attempts could not be recorded") == 1,
        "{}",
        scene.worker.log()
    );
    freeze(&cluster, "CONT");
    let _ = scene.producer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_stopped_in_the_first_second_of_a_silence() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let proxy = Proxy::before(&db.url).await;
    let mut scene = Scene::new(&proxy.url, &db.url).await;
    proxy.silence(UP | DOWN);
    proxy.set_deaf(true);
    sleep(Duration::from_millis(500)).await;
    let began = BootInstant::now();
    scene.worker.signal(Signal::TERM);
    assert_eq!(scene.worker.ends(Duration::from_secs(10)).await, 1);
    within(began, Duration::from_secs(6));
    let _ = scene.producer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_its_standby_and_says_so() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    cluster.start();
    let url = cluster.url("postgres");
    schema::migrate(&url).await.expect("migrates");
    let scene = Scene::new(&url, &url).await;
    let admin = Sql::open(&url);
    admin
        .rows("alter system set synchronous_standby_names = 'berlin'")
        .await;
    admin.rows("select pg_reload_conf()::text").await;
    until("it says so", Duration::from_secs(10), async || {
        scene
            .worker
            .says("waits for a synchronous standby (synchronous_standby_names: berlin")
            > 0
    })
    .await;
    let ready = scene.worker.get("/readyz").await.expect("answers");
    assert!(
        ready.contains("503") && ready.contains("a synchronous standby"),
        "{ready}"
    );
    let quiet = scene.mock.count();
    sleep(Duration::from_secs(30)).await;
    let metrics = scene.worker.get("/metrics").await.expect("answers");
    assert!(metrics.contains("postlane_ledger_up 0"), "{metrics}");
    let waited = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split(' ').next_back());
        value.and_then(|value| value.parse::<f64>().ok())
    };
    assert!(
        waited("postlane_ledger_last_cycle_seconds ") > Some(30.0),
        "{metrics}"
    );
    assert!(
        waited("postlane_oldest_due_seconds ") > Some(30.0),
        "{metrics}"
    );
    assert_eq!(scene.mock.count(), quiet, "it sends what is not committed");
    admin
        .rows("alter system set synchronous_standby_names = ''")
        .await;
    admin.rows("select pg_reload_conf()::text").await;
    scene.flows(FOUND).await;
    scene.worker.ready(true, FOUND).await;
    let log = scene.ends().await;
    assert!(!log.contains(AWAY), "it was no failure: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stops_while_a_commit_waits_for_its_standby() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    cluster.start();
    let url = cluster.url("postgres");
    schema::migrate(&url).await.expect("migrates");
    let mut scene = Scene::new(&url, &url).await;
    let admin = Sql::open(&url);
    admin
        .rows("alter system set synchronous_standby_names = 'berlin'")
        .await;
    admin.rows("select pg_reload_conf()::text").await;
    until("it says so", Duration::from_secs(10), async || {
        scene.worker.says(TOLD) > 0
    })
    .await;
    let began = BootInstant::now();
    scene.worker.signal(Signal::TERM);
    assert_eq!(scene.worker.ends(Duration::from_secs(10)).await, 1);
    within(began, Duration::from_secs(6));
    let unrecorded = scene.worker.says("attempts could not be recorded");
    assert_eq!(unrecorded, 1, "{}", scene.worker.log());
    admin
        .rows("alter system set synchronous_standby_names = ''")
        .await;
    admin.rows("select pg_reload_conf()::text").await;
    let _ = scene.producer.stop().await;
}

/// The server works, and so does its network; one process of it does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_process_is_frozen_is_replaced() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    cluster.start();
    let pool = Pool::open(&cluster.url("postgres"), Use::Write, false)
        .await
        .expect("opens");
    let rows = pool
        .rows_of("select pg_backend_pid() as pid".to_owned(), &[])
        .await;
    let pid = rows.expect("answers")[0].int("pid").expect("int");
    let signal = |name: &str| {
        let mut kill = Command::new("kill");
        let done = kill.arg(format!("-{name}")).arg(pid.to_string()).status();
        assert!(done.expect("kill").success());
    };
    signal("STOP");
    let began = BootInstant::now();
    let error = pool.now().await.expect_err("no answer comes").to_string();
    assert!(error.contains("no answer to `now`"), "{error}");
    until("another session works", FOUND, async || {
        pool.now().await.is_ok()
    })
    .await;
    within(began, FOUND);
    signal("CONT");
}

/// A role of its own for one test.
struct Role {
    url: String,
    name: String,
}

impl Role {
    async fn new(db: &Db, name: &str, options: &str) -> Self {
        let name = format!("silence_{name}_{:x}", BootInstant::now().nanos());
        db.sql(&format!("create role {name} login {options}"))
            .await
            .expect("creates");
        for grant in [
            "grant all on all tables in schema public to",
            "grant all on all sequences in schema public to",
        ] {
            db.sql(&format!("{grant} {name}")).await.expect("grants");
        }
        let (scheme, rest) = db.url.split_once("://").expect("a URL");
        let (_, place) = rest.split_once('@').expect("a URL with a user");
        Self {
            url: format!("{scheme}://{name}@{place}"),
            name,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_until_every_connection_is_there() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let mock = sandbox();
    for limit in [2, 3, 4] {
        let role = Role::new(
            &db,
            &format!("few{limit}"),
            &format!("connection limit {limit}"),
        )
        .await;
        let setup = Setup::new(&role.url, &mock.url()).named(&format!("w{limit}"));
        let mut worker = setup.start();
        let before = mock.count();
        for n in 0..20 {
            db.insert(&format!("r{limit}-{n}"), "1").await;
        }
        until("it says so", FOUND, async || {
            worker.says("nothing is sent until it can") > 0
        })
        .await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(mock.count(), before, "limit {limit}: it sends");
        assert!(!worker.is_ready().await);
        db.sql(&format!("alter role {} connection limit -1", role.name))
            .await
            .expect("alters");
        worker.ready(true, FOUND).await;
        let delivered = format!(
            "select count(*) from send_jobs where state = 'delivered' and recipient::text like '%\"r{limit}-%'"
        );
        until("they are delivered", FOUND, async || {
            db.int(&delivered).await == 20
        })
        .await;
        assert_eq!(mock.count(), before + 20);
        assert_eq!(worker.stop().await, 0);
        let left = format!(
            "select count(*) from pg_stat_activity where usename = '{}'",
            role.name
        );
        until(
            "its sessions are gone",
            Duration::from_secs(3),
            async || db.int(&left).await == 0,
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_given_up_half_way_leaves_nothing_behind() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let db = match engine {
            Engine::Postgres => support::postgres().await,
            Engine::Sqlite => Db::fresh(engine).await,
        };
        let Some(db) = db else { return };
        let mock = sandbox();
        let config = support::config(&format!(
            "database_url = \"{}\"\n[api]\nurl = \"{}\"\n[pages.default]\nsecret = \"{}\"\n[admin]\nlisten = \"\"\n",
            db.url,
            mock.url(),
            rig::SECRET
        ));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let events = Arc::new(Events::new());
        let mut given_up = 0;
        for ms in 0..40 {
            let start = Service::start(&config, &events);
            match tokio::time::timeout(Duration::from_millis(ms), start).await {
                Err(_) => given_up += 1,
                // One that nobody stops ends, too.
                Ok(service) => drop(service.expect("starts")),
            }
        }
        assert!(given_up > 3, "{given_up}");
        sleep(Duration::from_secs(1)).await;
        db.insert("a", "1").await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(mock.count(), 0, "{engine:?}: somebody works");
        assert!(events.standing().is_none());
        if engine == Engine::Postgres {
            until(
                "all sessions are gone",
                Duration::from_secs(5),
                async || sessions(&db).await == 0,
            )
            .await;
        }
    }
}

/// A disk that does not answer: a library before libc's whose `fdatasync` waits while a file is there.
fn slow_disk(folder: &std::path::Path) -> Option<(String, std::path::PathBuf)> {
    let (source, library, gate) = (
        folder.join("disk.c"),
        folder.join("disk.so"),
        folder.join("gate"),
    );
    let text = format!(
        "#include <unistd.h>\n#include <sys/syscall.h>\n\
         static void gate(void) {{ while (access(\"{0}\", F_OK) == 0) usleep(20000); }}\n\
         int fdatasync(int fd) {{ gate(); return syscall(SYS_fdatasync, fd); }}\n\
         int fsync(int fd) {{ gate(); return syscall(SYS_fsync, fd); }}\n",
        gate.display()
    );
    std::fs::write(&source, text).expect("writes");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source);
    let built = cc.stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !built {
        assert!(
            std::env::var_os("CI").is_none(),
            "in CI nothing may be skipped: install cc"
        );
        eprintln!("skipped: no cc");
    }
    built.then(|| (library.display().to_string(), gate))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_answer_is_seen_and_a_worker_stops_all_the_same() {
    let db = Db::fresh(Engine::Sqlite).await.expect("sqlite is built in");
    let folder = path_of(&db.url).parent().expect("a folder").to_owned();
    let Some((library, gate)) = slow_disk(&folder) else {
        return;
    };
    let mock = sandbox();
    let mut setup = Setup {
        timeout: "5s",
        lease: "7s",
        shutdown_timeout: "2s",
        ..Setup::new(&db.url, &mock.url())
    };
    setup.env.push(("LD_PRELOAD".to_owned(), library));
    let mut worker = setup.start();
    worker.ready(true, FOUND).await;
    db.insert("a", "1").await;
    until("it is delivered", FOUND, async || mock.count() == 1).await;
    // Its answer comes when it can no longer be recorded.
    mock.set_latency(Duration::from_secs(1));
    let second = db.insert("b", "1").await;
    let begun =
        format!("select count(*) from send_lanes where job = {second} and worker is not null");
    until("it is on its way", FOUND, async || {
        db.int(&begun).await == 1
    })
    .await;
    std::fs::write(&gate, "").expect("closes");
    until("it says why", Duration::from_secs(10), async || {
        let ready = worker.get("/readyz").await.expect("answers");
        ready.contains("503") && ready.contains("its disk does not answer")
    })
    .await;
    assert!(worker.says(TOLD) > 0);
    until("the metric grows", Duration::from_secs(10), async || {
        let metrics = worker.get("/metrics").await.expect("answers");
        metrics.contains("postlane_ledger_up 0")
    })
    .await;
    let began = BootInstant::now();
    worker.signal(Signal::TERM);
    assert_eq!(worker.ends(Duration::from_secs(10)).await, 1);
    within(began, Duration::from_secs(4));
    assert_eq!(mock.count(), 2, "it sends what is not committed");
    // The next one finds all there.
    std::fs::remove_file(&gate).expect("opens");
    let mut next = setup.named("next").start();
    until("all are delivered", Duration::from_secs(60), async || {
        db.int("select count(*) from send_jobs where state = 'delivered'")
            .await
            == 2
    })
    .await;
    assert_eq!(next.stop().await, 0);
}
