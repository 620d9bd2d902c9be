//! What the tests of faults share: the real binary as a process, a producer that knows what was
//! accepted, and a checker that reads the tables and the sandbox's record by itself.
//!
//! Nothing here uses the worker's code beyond its migrations: a judge that used the defendant's
//! code would repeat its mistakes. It refuses to sleep for luck: every wait polls and has an end.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::print_stderr,
    reason = "each test binary uses its own part of this, and a failing one shows the log"
)]

pub mod cluster;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sandbox::{Mock, MockConfig, Received};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Row as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::support::chance::splitmix;

/// The secret of every page.
pub const SECRET: &str = "xxxxx";

/// Waits until `done` says so, looking every few milliseconds.
///
/// # Panics
/// After `limit`, with `what` was waited for.
#[track_caller]
pub fn until<F: AsyncFnMut() -> bool>(
    what: &str,
    limit: Duration,
    mut done: F,
) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let end = Instant::now() + limit;
        while !done().await {
            assert!(
                Instant::now() < end,
                "not within {limit:?}: {what} ({place})"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Waits until requests arrive: some that are on their way, and more.
pub async fn flows(mock: &Mock, limit: Duration) {
    let before = mock.count();
    until("requests arrive", limit, async || {
        mock.count() > before + 100
    })
    .await;
}

/// Random numbers from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        splitmix(&mut self.0)
    }

    /// A number of `low..high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high - low)
    }

    pub fn ms(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }
}

/// Plain SQL on either engine; every column that is read is cast to text.
#[derive(Clone)]
pub enum Sql {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Sql {
    pub fn open(url: &str) -> Self {
        if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url)
                .expect("a URL")
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(1));
            let pool = SqlitePoolOptions::new().max_connections(2);
            return Self::Sqlite(pool.connect_lazy_with(options));
        }
        let options = PgConnectOptions::from_str(url).expect("a URL");
        let pool = PgPoolOptions::new()
            .max_connections(3)
            .acquire_timeout(Duration::from_secs(2));
        // Whatever becomes of the database, the producer may write: it would keep its session.
        let options = options.options([("default_transaction_read_only", "off")]);
        Self::Postgres(pool.connect_lazy_with(options.application_name("producer")))
    }

    pub async fn try_rows(&self, text: &str) -> Result<Vec<Vec<Option<String>>>, sqlx::Error> {
        let query = AssertSqlSafe(text.to_owned());
        macro_rules! read {
            ($pool:expr) => {{
                let rows = sqlx::query(query).fetch_all($pool).await?;
                rows.iter()
                    .map(|row| (0..row.len()).map(|at| row.try_get(at)).collect())
                    .collect()
            }};
        }
        match self {
            Self::Sqlite(pool) => read!(pool),
            Self::Postgres(pool) => read!(pool),
        }
    }

    pub async fn rows(&self, text: &str) -> Vec<Vec<Option<String>>> {
        let mut last = None;
        // The database may just have been away or locked: that is what these tests are for.
        for _ in 0..20 {
            match self.try_rows(text).await {
                Ok(rows) => return rows,
                Err(error) => last = Some(error),
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("{text}: {last:?}")
    }

    /// Ends its connections.
    pub async fn close(self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }

    /// One number.
    pub async fn count(&self, what: &str) -> u64 {
        let rows = self
            .rows(&format!("select cast(count(*) as text) from {what}"))
            .await;
        let text = rows[0][0].as_deref().expect("a count");
        text.parse().expect("a number")
    }

    /// Attempts without an outcome; of one process, or of all.
    pub async fn open_attempts(&self, of: Option<&Worker>) -> HashSet<(i64, i64)> {
        let whose = of.map_or("%".to_owned(), |worker| format!("{}%", worker.signature()));
        let rows = self
            .rows(&format!(
                "select cast(job as text), cast(number as text) from send_lanes where worker like '{whose}'"
            ))
            .await;
        rows.iter()
            .map(|row| (number(&row[0]), number(&row[1])))
            .collect()
    }

    /// Waits until no job is left that may still be sent.
    pub async fn finished(&self, limit: Duration) {
        let open = "send_jobs where state not in ('delivered', 'dead', 'cancelled')";
        let (mut left, end) = (u64::MAX, Instant::now() + limit);
        while left > 0 {
            left = self.count(open).await;
            if Instant::now() > end {
                let rows = self
                    .rows("select cast(id as text), lane, state, cast(attempts as text), cast(due_at as text), reason from send_jobs where state not in ('delivered', 'dead', 'cancelled') order by id limit 10")
                    .await;
                let lanes = self
                    .rows("select lane, cast(due_at as text), worker, cast(job as text) from send_lanes limit 10")
                    .await;
                panic!("{left} jobs unfinished after {limit:?}: {rows:?}; lanes {lanes:?}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Makes the standby of a primary a synchronous one, and waits until it is.
pub async fn synchronise(primary: &str) {
    let sql = Sql::open(primary);
    sql.rows("alter system set synchronous_standby_names = '*'")
        .await;
    sql.rows("select cast(pg_reload_conf() as text)").await;
    let is_sync = "pg_stat_replication where sync_state = 'sync' and state = 'streaming'";
    until(
        "the standby is synchronous",
        Duration::from_secs(60),
        async || sql.count(is_sync).await == 1,
    )
    .await;
    sql.close().await;
}

fn number(text: &Option<String>) -> i64 {
    let text = text.as_deref().expect("not null");
    text.parse().expect("a number")
}

/// A sandbox that remembers everything.
pub fn sandbox() -> Arc<Mock> {
    let config = MockConfig {
        default_secrets: vec![SECRET.to_owned()],
        ..MockConfig::default()
    };
    Arc::new(Mock::start(config).expect("a free port on loopback"))
}

/// How a worker of a test is configured.
#[derive(Clone)]
pub struct Setup {
    pub database_url: String,
    pub api_url: String,
    pub name: String,
    pub port: u16,
    pub concurrency: usize,
    pub on_ambiguous: &'static str,
    pub shutdown_timeout: &'static str,
    pub timeout: &'static str,
    pub lease: &'static str,
    pub pages: String,
    pub env: Vec<(String, String)>,
    /// Most bytes of a file, while nobody lifts the limit.
    pub file_limit: Option<u64>,
    /// Most open files, for good.
    pub open_files: Option<u64>,
    pub folder: Arc<tempfile::TempDir>,
}

impl Setup {
    pub fn new(database_url: &str, api_url: &str) -> Self {
        Self {
            database_url: database_url.to_owned(),
            api_url: api_url.to_owned(),
            name: "a".to_owned(),
            port: free_port(),
            concurrency: 32,
            on_ambiguous: "retry",
            shutdown_timeout: "5s",
            timeout: "1s",
            lease: "1400ms",
            pages: format!("[pages.default]\nsecret = \"{SECRET}\""),
            env: Vec::new(),
            file_limit: None,
            open_files: None,
            folder: Arc::new(tempfile::tempdir().expect("temp folder")),
        }
    }

    pub fn named(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            port: free_port(),
            ..self.clone()
        }
    }

    fn file(&self) -> PathBuf {
        let Self {
            database_url,
            api_url,
            name,
            port,
            concurrency,
            on_ambiguous,
            shutdown_timeout,
            timeout,
            lease,
            pages,
            ..
        } = self;
        let text = format!(
            "database_url = \"{database_url}\"\n\
             [api]\nurl = \"{api_url}\"\ntimeout = \"{timeout}\"\nconnect_timeout = \"500ms\"\n\
             tcp_user_timeout = \"300ms\"\n\
             [worker]\nname = \"{name}\"\nconcurrency = {concurrency}\n\
             shutdown_timeout = \"{shutdown_timeout}\"\nlease = \"{lease}\"\n\
             [retry]\nfirst = \"50ms\"\nmax = \"500ms\"\non_ambiguous = \"{on_ambiguous}\"\n\
             [admin]\nlisten = \"127.0.0.1:{port}\"\n{pages}\n"
        );
        let path = self.folder.path().join(format!("{name}.toml"));
        std::fs::write(&path, text).expect("writes");
        path
    }

    /// Runs another verb on the same configuration.
    pub fn verb(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().expect("starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (
            output.status.code().unwrap_or(-1),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_postlane");
        // A write beyond the limit then fails like one on a full disk.
        let bytes = self
            .file_limit
            .map(|bytes| format!("trap '' XFSZ; ulimit -S -f {};", bytes / 512));
        let files = self.open_files.map(|files| format!("ulimit -n {files};"));
        let mut command = match (bytes, files) {
            (None, None) => Command::new(binary),
            (bytes, files) => {
                let limits = bytes.into_iter().chain(files).collect::<String>();
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("{limits} exec \"$@\""), "sh", binary]);
                shell
            }
        };
        command.args(arguments).arg("--config").arg(self.file());
        command
            .env_clear()
            .env("TZ", "UTC")
            .env("USER", "tester")
            .envs(std::env::var("POSTLANE_TEST_LOG").map(|level| ("POSTLANE_LOG__LEVEL", level)))
            .envs(self.env.iter().cloned())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts the service.
    pub fn start(&self) -> Worker {
        let mut child = self.command(&["run"]).spawn().expect("starts");
        let (log, err) = (
            Arc::new(Mutex::new(String::new())),
            child.stderr.take().expect("piped"),
        );
        let into = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(err);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let mut log = into.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Worker {
            child,
            log,
            name: self.name.clone(),
            port: self.port,
        }
    }
}

/// A port of this process's own that nobody listens on, below those that the system gives to connections: one of these
/// could take it before it is used.
pub fn free_port() -> u16 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = u64::from(std::process::id()) * 131;
    loop {
        let next = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + next % 10_000).expect("a port");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A running service; killed when dropped.
pub struct Worker {
    child: Child,
    log: Arc<Mutex<String>>,
    name: String,
    port: u16,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|code| code.is_none()) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(3000);
            let tail = (tail..).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("{}: …{}", self.name, &log[tail..]);
        }
    }
}

impl Worker {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the names begin with which this process signs its attempts.
    pub fn signature(&self) -> String {
        format!("{}-{}-", self.name, self.child.id())
    }

    /// SIGKILL, and the end of it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("ends");
    }

    /// Waits for its end; its exit code.
    pub async fn ends(&mut self, limit: Duration) -> i32 {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "still running after {limit:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGTERM; its exit code.
    pub async fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.ends(Duration::from_secs(15)).await
    }

    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }

    /// How often the log says this.
    pub fn says(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// Whether `/readyz` says yes; false also while nobody listens.
    pub async fn is_ready(&self) -> bool {
        self.get("/readyz")
            .await
            .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    pub async fn get(&self, path: &str) -> Option<String> {
        let ask = async {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .ok()?;
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok()?;
            Some(String::from_utf8_lossy(&answer).into_owned())
        };
        timeout(Duration::from_secs(15), ask).await.ok().flatten()
    }

    /// Waits for `/readyz`.
    pub async fn ready(&self, wanted: bool, limit: Duration) {
        until(&format!("ready: {wanted}"), limit, async || {
            self.is_ready().await == wanted
        })
        .await;
    }
}

/// A job whose INSERT was acknowledged.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub id: i64,
    pub page: String,
    pub recipient: String,
    pub number: u64,
}

/// A producer in a task of its own: plain INSERTs, numbered per recipient, a few in one statement.
pub struct Producer {
    accepted: Arc<Mutex<Vec<Accepted>>>,
    stop: Arc<AtomicBool>,
    pub failures: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// Who is written to, and how far the producer may run ahead of the receiver.
#[derive(Clone)]
pub struct Load {
    pub pages: Vec<String>,
    pub recipients: u64,
    pub ahead: u64,
    /// Between two INSERTs.
    pub rest: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            pages: vec!["1".to_owned()],
            recipients: 200,
            ahead: 200,
            rest: Duration::from_millis(2),
        }
    }
}

impl Producer {
    pub fn start(sql: Sql, mock: Arc<Mock>, load: Load, seed: u64) -> Self {
        let (accepted, stop, failures) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let work = produce(
            sql,
            mock,
            load,
            seed,
            Arc::clone(&accepted),
            Arc::clone(&stop),
            Arc::clone(&failures),
        );
        Self {
            accepted,
            stop,
            failures,
            task: tokio::spawn(work),
        }
    }

    pub fn count(&self) -> usize {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.len()
    }

    /// Ends with the INSERT under way; all that was accepted.
    pub async fn stop(self) -> Vec<Accepted> {
        self.stop.store(true, Ordering::Release);
        self.task.await.expect("the producer does not panic");
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut accepted)
    }
}

async fn produce(
    sql: Sql,
    mock: Arc<Mock>,
    load: Load,
    seed: u64,
    accepted: Arc<Mutex<Vec<Accepted>>>,
    stop: Arc<AtomicBool>,
    failures: Arc<AtomicU64>,
) {
    let (mut dice, mut next) = (Dice(seed), HashMap::<(usize, u64), u64>::new());
    let mut total = 0;
    while !stop.load(Ordering::Acquire) {
        if total > mock.count() + load.ahead {
            sleep(Duration::from_millis(2)).await;
            continue;
        }
        let mut batch = BTreeMap::new();
        for _ in 0..dice.between(1, 7) {
            let page = usize::try_from(dice.roll()).unwrap_or(0) % load.pages.len();
            let recipient = dice.roll() % load.recipients;
            let count = next.entry((page, recipient)).or_default();
            *count += 1;
            let (page, number) = (&load.pages[page], *count);
            let key = format!("r{recipient}#{number}");
            batch.insert(
                (page.clone(), number, recipient),
                (key, format!("r{recipient}")),
            );
        }
        let values: Vec<_> = batch
            .iter()
            .map(|((page, number, _), (key, recipient))| {
                format!(
                    "('{page}', '{{\"id\":\"{recipient}\"}}', \
                     '{{\"template_type\":\"text\",\"text\":\"hello #{number}\"}}', '{key}')"
                )
            })
            .collect();
        let insert = format!(
            "insert into send_jobs (page_id, recipient, message, idempotency_key) values {} \
             on conflict do nothing",
            values.join(", ")
        );
        // Nobody knows whether a failed INSERT was committed: its keys make it safe to repeat.
        while sql.try_rows(&insert).await.is_err() {
            failures.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(20)).await;
        }
        let keys: Vec<_> = batch.values().map(|(key, _)| format!("'{key}'")).collect();
        let rows = sql
            .rows(&format!(
                "select cast(id as text), page_id, idempotency_key from send_jobs where idempotency_key in ({})",
                keys.join(", ")
            ))
            .await;
        let ids: HashMap<_, _> = rows
            .iter()
            .map(|row| ((row[1].clone(), row[2].clone()), number(&row[0])))
            .collect();
        let new = batch
            .into_iter()
            .map(|((page, number, _), (key, recipient))| Accepted {
                id: ids[&(Some(page.clone()), Some(key))],
                page,
                recipient,
                number,
            });
        total = {
            let mut accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
            accepted.extend(new);
            accepted.len() as u64
        };
        sleep(load.rest).await;
    }
}

/// What the checker found; all but the counts of jobs, requests and duplicates must be nothing.
#[derive(Debug, Default)]
pub struct Verdict {
    pub jobs: usize,
    pub requests: usize,
    /// Receipts beyond the first of each job.
    pub duplicates: usize,
    /// Jobs that were received more than once.
    pub doubled: HashSet<i64>,
    /// Late echoes: repeats after a successor.
    pub echoes: u64,
    /// Requests of a recipient that began while another was in flight.
    pub overlaps: u64,
    pub ambiguous: u64,
    /// What must not be, in words.
    pub wrong: Vec<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            jobs,
            requests,
            duplicates,
            echoes,
            overlaps,
            ambiguous,
            wrong,
            ..
        } = self;
        let wrong = wrong.len();
        write!(
            f,
            "{jobs} jobs, {requests} requests, {duplicates} duplicates, {ambiguous} ambiguous, \
             {echoes} late echoes, {overlaps} overlaps, {wrong} wrong"
        )
    }
}

impl Verdict {
    /// # Panics
    /// If anything is wrong, or arrived late or beside another request.
    #[track_caller]
    pub fn is_clean(&self) {
        self.keeps_its_order();
        assert_eq!((self.echoes, self.overlaps), (0, 0), "{self}");
    }

    /// As [`Verdict::is_clean`], but a worker that stalled between its last check and its write may
    /// have repeated a job late, which is not promised with `retry`.
    ///
    /// # Panics
    /// If anything is wrong.
    #[track_caller]
    pub fn keeps_its_order(&self) {
        let Self { wrong, .. } = self;
        assert!(
            wrong.is_empty(),
            "{} wrong: {:#?}",
            wrong.len(),
            &wrong[..wrong.len().min(20)]
        );
    }
}

/// Reads tables and record and says what is wrong. Every accepted job must have been delivered,
/// unless `open` names its state.
pub async fn check(sql: &Sql, accepted: &[Accepted], mock: &Mock, open: &[&str]) -> Verdict {
    let mut verdict = Verdict {
        jobs: accepted.len(),
        ..Verdict::default()
    };
    let jobs: HashMap<i64, Vec<Option<String>>> = sql
        .rows(
            "select cast(id as text), state, cast(attempts as text), \
             cast(case when possible_duplicate then 1 else 0 end as text), cast(finished_at as text) \
             from send_jobs",
        )
        .await
        .into_iter()
        .map(|row| (number(&row[0]), row))
        .collect();
    let mut rows = HashMap::<i64, Vec<(i64, Option<String>)>>::new();
    for row in sql
        .rows("select cast(job_id as text), cast(number as text), outcome from send_attempts")
        .await
    {
        let attempts = rows.entry(number(&row[0])).or_default();
        attempts.push((number(&row[1]), row[2].clone()));
        verdict.ambiguous += u64::from(row[2].as_deref() == Some("ambiguous"));
    }
    let received = mock.received();
    verdict.requests = received.len();
    let mut receipts = HashMap::<(&str, &str, u64), Vec<&Received>>::new();
    for request in &received {
        let number = request.number.expect("every message has a number");
        let key = (request.page_id.as_str(), request.recipient.as_str(), number);
        receipts.entry(key).or_default().push(request);
    }
    for job in accepted {
        let name = format!("job {} ({} #{})", job.id, job.recipient, job.number);
        let mut say = |what: String| verdict.wrong.push(format!("{name}: {what}"));
        let Some(row) = jobs.get(&job.id) else {
            say("lost: it has no row".to_owned());
            continue;
        };
        let state = row[1].as_deref().unwrap_or_default();
        let key = (job.page.as_str(), job.recipient.as_str(), job.number);
        let got = receipts.remove(&key).unwrap_or_default();
        let attempts = rows.remove(&job.id).unwrap_or_default();
        if state != "delivered" && !open.contains(&state) {
            say(format!("lost: it is {state}"));
        }
        if (state == "delivered") != row[4].is_some() {
            say(format!("{state}, finished at {:?}", row[4]));
        }
        let answered = got.iter().any(|r| r.status == Some(200));
        let told = attempts
            .iter()
            .any(|(_, outcome)| outcome.as_deref() == Some("delivered"));
        if state == "delivered" && !(answered && told) {
            say(format!(
                "phantom: answered {answered}, recorded {told}, received {}",
                got.len()
            ));
        }
        if got.len() > attempts.len() {
            say(format!(
                "{} requests, {} attempt rows",
                got.len(),
                attempts.len()
            ));
        }
        if number(&row[2]) != i64::try_from(attempts.len()).unwrap_or(-1) {
            say(format!("attempts {:?}, {} rows", row[2], attempts.len()));
        }
        if let Some((attempt, _)) = attempts.iter().find(|(_, outcome)| outcome.is_none()) {
            say(format!("attempt {attempt} has no outcome"));
        }
        // What was answered like this was surely not taken in.
        let taken = got.iter().filter(|r| !matches!(r.status, Some(429 | 503)));
        let taken = taken.count();
        if taken > 1 {
            verdict.doubled.insert(job.id);
            verdict.duplicates += taken - 1;
            if row[3].as_deref() != Some("1") {
                verdict
                    .wrong
                    .push(format!("{name}: doubled without possible_duplicate"));
            }
        }
    }
    for (who, got) in receipts {
        let what = format!("{who:?} was received {} times, but not accepted", got.len());
        verdict.wrong.push(what);
    }
    for (job, _) in rows {
        verdict
            .wrong
            .push(format!("attempts of job {job}, which was not accepted"));
    }
    verdict.echoes = order(&received, &mut verdict.wrong);
    let stats = mock.stats();
    verdict.overlaps = stats.overlaps;
    if stats.order_violations + stats.bad_signatures + stats.bad_requests > 0 {
        verdict
            .wrong
            .push(format!("{stats:?} {:?}", mock.findings()));
    }
    verdict
}

/// First receipts of each recipient must rise; counts the echoes that came after a successor.
fn order(received: &[Received], wrong: &mut Vec<String>) -> u64 {
    let mut lines = HashMap::<(&str, &str), (u64, HashSet<u64>)>::new();
    let mut echoes = 0;
    for request in received {
        let number = request.number.unwrap_or_default();
        let line = (request.page_id.as_str(), request.recipient.as_str());
        let (highest, seen) = lines.entry(line).or_default();
        let first = seen.insert(number);
        if first && number != *highest + 1 {
            wrong.push(format!("{line:?}: #{number} came after #{highest}"));
        }
        echoes += u64::from(!first && number < *highest);
        *highest = number.max(*highest);
    }
    echoes
}

/// The file of a SQLite URL.
pub fn path_of(url: &str) -> &Path {
    Path::new(url.trim_start_matches("sqlite://"))
}
