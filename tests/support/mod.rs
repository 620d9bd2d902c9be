//! What the tests of promises share: fresh databases, plain SQL producers, a ledger that is
//! stepped by hand, and answers without a receiver.
#![allow(
    dead_code,
    clippy::print_stderr,
    clippy::allow_attributes,
    reason = "each test binary uses its own part of this"
)]

pub mod chance;
pub mod proxy;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postlane::attempt::{Claim, Completion};
use postlane::breaker::Breaker;
use postlane::clock::{BootInstant, Millis};
use postlane::config::{Config, Overrides};
use postlane::deliver::{Wire, report};
use postlane::events::Events;
use postlane::http::{Endpoint, Http};
use postlane::job::{AfterUnknown, JobId, OnAmbiguous};
use postlane::judge::{Answer, RuleSet};
use postlane::ledger::{Doors, Ledger, Settings};
use postlane::retry::Policy;
use postlane::scope::Scope;
use postlane::secrets::{SecretId, Secrets, Signed, sign_with};
use postlane::service::Service;
use postlane::store::{Bind, Pool, Row, Use, schema};
use postlane_message::validate::Limits;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// The two engines every promise is kept on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// A database of its own for one test.
pub struct Db {
    pub engine: Engine,
    pub url: String,
    pub pool: Pool,
    _folder: Option<tempfile::TempDir>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The server that the test script found or started.
pub fn postgres_server() -> Option<String> {
    std::env::var("POSTLANE_TEST_POSTGRES_URL")
        .ok()
        .filter(|url| !url.is_empty())
}

impl Db {
    /// A fresh, migrated database; none if there is no Postgres to test on.
    pub async fn fresh(engine: Engine) -> Option<Self> {
        let db = Self::empty(engine).await?;
        schema::migrate(&db.url).await.expect("migrates");
        Some(Self {
            pool: Pool::open(&db.url, Use::Write, false).await.expect("opens"),
            ..db
        })
    }

    /// A database without a schema.
    pub async fn empty(engine: Engine) -> Option<Self> {
        match engine {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().expect("temp folder");
                let url = format!("sqlite://{}/postlane.db", folder.path().display());
                let pool = Pool::open(&url, Use::Write, true).await.expect("opens");
                Some(Self {
                    engine,
                    url,
                    pool,
                    _folder: Some(folder),
                })
            }
            Engine::Postgres => {
                let server = postgres_server()?;
                let admin = Pool::open(&server, Use::Write, false)
                    .await
                    .expect("POSTLANE_TEST_POSTGRES_URL answers");
                // Ids of processes come again, and a test that failed leaves its database behind.
                let name = format!(
                    "postlane_{}_{:x}_{}",
                    std::process::id(),
                    postlane::clock::BootInstant::now().nanos(),
                    NUMBER.fetch_add(1, Ordering::Relaxed)
                );
                admin
                    .rows_of(format!("create database {name}"), &[])
                    .await
                    .expect("creates");
                admin.close().await;
                let (base, _) = server.rsplit_once('/').expect("a URL with a database");
                let url = format!("{base}/{name}");
                let pool = Pool::open(&url, Use::Write, false).await.expect("opens");
                Some(Self {
                    engine,
                    url,
                    pool,
                    _folder: None,
                })
            }
        }
    }

    /// Another connection, as another process would have.
    pub async fn connect(&self) -> Pool {
        Pool::open(&self.url, Use::Write, false)
            .await
            .expect("opens")
    }

    /// Runs one statement as a producer or a curious human would.
    pub async fn sql(&self, text: &str) -> Result<Vec<Row>, postlane::store::Error> {
        self.pool.rows_of(text.to_owned(), &[]).await
    }

    /// One integer.
    pub async fn int(&self, text: &str) -> i64 {
        let rows = self
            .sql(&format!("select cast(({text}) as bigint) as value"))
            .await
            .expect(text);
        rows[0].int_opt("value").expect("int").unwrap_or(-1)
    }

    /// One text.
    pub async fn text(&self, text: &str) -> String {
        let rows = self
            .sql(&format!("select cast(({text}) as text) as value"))
            .await
            .expect(text);
        rows[0]
            .text_opt("value")
            .expect("text")
            .unwrap_or_else(|| "null".to_owned())
    }

    /// Inserts a text message for a recipient of page 1, as a producer would.
    pub async fn insert(&self, recipient: &str, text: &str) -> JobId {
        self.insert_with(recipient, text, &[]).await
    }

    /// Inserts with further columns, their values as SQL literals.
    pub async fn insert_with(&self, recipient: &str, text: &str, more: &[(&str, &str)]) -> JobId {
        self.insert_on("1", recipient, text, more).await
    }

    /// Inserts on a page.
    pub async fn insert_on(
        &self,
        page: &str,
        recipient: &str,
        text: &str,
        more: &[(&str, &str)],
    ) -> JobId {
        let (columns, values) = further(more);
        let text = format!(
            "insert into send_jobs (page_id, recipient, message{columns}) \
             values ('{page}', '{}', '{}'{values}) returning id",
            braces(&format!("\"id\":\"{recipient}\"")),
            braces(&format!("\"template_type\":\"text\",\"text\":\"{text}\""))
        );
        self.pool.rows_of(text, &[]).await.expect("inserts")[0]
            .job("id")
            .expect("id")
    }

    /// The state of a job.
    pub async fn state(&self, job: JobId) -> String {
        self.text(&format!("select state from send_status where id = {job}"))
            .await
    }

    /// A moment as an SQL literal of this engine.
    pub fn time(&self, at: Millis) -> String {
        match self.engine {
            Engine::Sqlite => at.to_string(),
            Engine::Postgres => format!("to_timestamp({at} / 1000.0)"),
        }
    }

    /// Runs a statement with binds.
    pub async fn run(&self, text: &str, binds: &[Bind]) {
        let mut tx = self.pool.begin().await.expect("begins");
        tx.rows_of(text.to_owned(), binds).await.expect(text);
        tx.commit().await.expect("commits");
    }
}

/// Further columns of an INSERT with their values as SQL literals: the ends of both lists.
pub fn further(more: &[(&str, &str)]) -> (String, String) {
    let ends = |(column, value): &(&str, &str)| (format!(", {column}"), format!(", {value}"));
    more.iter().map(ends).unzip()
}

/// A JSON object for SQL text that passes through the store's templates: they use braces too.
pub fn braces(inner: &str) -> String {
    format!("{{{inner}}}")
}

/// Every page has this secret.
pub const SECRET: &[u8] = b"xxxxx";

/// Pages from 900 on have none.
pub struct AllPages;

impl Secrets for AllPages {
    fn sign(&self, page: &str, body: &[u8]) -> Option<Signed> {
        self.has(page).then(|| Signed {
            signature: sign_with(SECRET, body),
            secret: SecretId(1),
        })
    }
    fn has(&self, page: &str) -> bool {
        !page.starts_with('9')
    }
}

/// What is paused, by its word.
pub fn scope(word: &str) -> Scope {
    word.parse().expect("a scope")
}

/// The retry policy of the tests: short steps.
pub fn policy() -> Policy {
    Policy {
        max_attempts: 5,
        first: Duration::from_millis(200),
        max: Duration::from_secs(2),
        on_ambiguous: OnAmbiguous::Retry,
        max_ambiguous: 5,
    }
}

/// Settings of a ledger that a test steps.
pub fn settings(worker: &str) -> Settings {
    Settings {
        worker: worker.to_owned(),
        concurrency: 64,
        lease: Duration::from_secs(45),
        longest_wait: Duration::from_secs(3600),
        policy: policy(),
        after_unknown: AfterUnknown::Block,
        min_gap: Duration::ZERO,
        limits: Limits::default(),
        delay_on_wire: false,
        rates: Default::default(),
        default_rate: None,
        secrets: Arc::new(AllPages),
        breaker: breaker(),
        deliveries: Arc::default(),
    }
}

/// A breaker of its own, with the figures that the configuration has by default.
pub fn breaker() -> Arc<Mutex<Breaker>> {
    Arc::new(Mutex::new(Breaker::new(Config::default().circuit)))
}

/// The senders' part, for a receiver at `url`.
pub fn wire(url: &str, timeout: Duration, breaker: &Arc<Mutex<Breaker>>) -> Arc<Wire> {
    let http = Http::new(Endpoint {
        url: url.parse().expect("url"),
        signature_header: "x-joinchat-signature".parse().expect("header"),
        timeout,
        connect_timeout: timeout.min(Duration::from_secs(2)),
        tcp_user_timeout: Duration::from_secs(2),
        max_retry_after: Duration::from_secs(3600),
        keep_alive: Duration::from_secs(1),
        connections: 64,
    })
    .expect("client");
    Arc::new(Wire {
        http,
        secrets: Arc::new(AllPages),
        rules: RuleSet::built_in(),
        policy: policy(),
        send_within: Duration::from_secs(10),
        delay_on_wire: false,
        breaker: Arc::clone(breaker),
        deliveries: Arc::default(),
        hurry: tokio::sync::watch::Sender::new(false),
        events: Arc::new(Events::new()),
    })
}

/// The configuration of a file with this text, and no environment.
pub fn config(text: &str) -> Config {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("postlane.toml");
    std::fs::write(&path, text).expect("writes");
    let overrides = Overrides {
        config: Some(path),
        ..Overrides::default()
    };
    let none: [(String, String); 0] = [];
    Config::load(&overrides, none).expect("a configuration")
}

/// A service in this process, with the text of its configuration file and no environment.
pub async fn service(text: &str) -> Service {
    let events = Arc::new(Events::new());
    Service::start(&config(text), &events)
        .await
        .expect("starts")
}

/// A ledger stepped by hand, with a clock moved by hand and answers given by hand.
pub struct Steps {
    pub ledger: Ledger,
    pub wire: Arc<Wire>,
    pub now: Millis,
    completions: UnboundedSender<Completion>,
    claims: Arc<Mutex<Vec<Claim>>>,
}

/// What a cycle did.
#[derive(Debug, Default)]
pub struct Step {
    pub claims: Vec<Claim>,
    pub more: bool,
    pub next_in: Option<Duration>,
}

impl Steps {
    /// A worker of this name, its clock a moment after what has been inserted.
    pub async fn new(db: &Db, worker: &str) -> Self {
        Self::with(db, settings(worker)).await
    }

    pub async fn with(db: &Db, settings: Settings) -> Self {
        Self::on(db.connect().await, settings).await
    }

    /// A worker on a connection of the test's.
    pub async fn on(pool: Pool, mut settings: Settings) -> Self {
        let now = pool.now().await.expect("now") + 10;
        let wire = wire(
            "http://127.0.0.1:9/",
            Duration::from_secs(1),
            &settings.breaker,
        );
        settings.deliveries = Arc::clone(&wire.deliveries);
        let (sender, completions) = unbounded_channel();
        let claims: Arc<Mutex<Vec<Claim>>> = Arc::default();
        let taken = Arc::clone(&claims);
        let doors = Doors {
            completions,
            send: Box::new(move |claim| taken.lock().expect("claims").push(claim)),
        };
        let ledger = Ledger::new(pool, settings, Arc::new(Events::new()), doors);
        Self {
            ledger,
            wire,
            now,
            completions: sender,
            claims,
        }
    }

    /// One cycle at the hand-moved time.
    pub async fn cycle(&mut self) -> Step {
        self.try_cycle().await.expect("cycle")
    }

    /// One cycle at the hand-moved time, which may fail.
    pub async fn try_cycle(&mut self) -> postlane::store::Result<Step> {
        self.cycle_at(self.now, BootInstant::now()).await
    }

    /// One cycle at a time of the test's.
    pub async fn cycle_at(
        &mut self,
        now: Millis,
        claimed: BootInstant,
    ) -> postlane::store::Result<Step> {
        let step = self.ledger.cycle_at(now, claimed).await?;
        let claims = self.take_claims();
        assert_eq!(claims.len(), step.claimed, "claims that left");
        Ok(Step {
            claims,
            more: step.more,
            next_in: step.next_in,
        })
    }

    /// Claims that have left the ledger.
    pub fn take_claims(&self) -> Vec<Claim> {
        std::mem::take(&mut self.claims.lock().expect("claims"))
    }

    /// Cycles until nothing more is claimed; returns all claims.
    pub async fn claims(&mut self) -> Vec<Claim> {
        let mut claims = Vec::new();
        for _ in 0..50 {
            let step = self.cycle().await;
            claims.extend(step.claims);
            if !step.more {
                break;
            }
        }
        claims
    }

    /// The ids that are claimed now.
    pub async fn claimed(&mut self) -> Vec<JobId> {
        self.claims().await.iter().map(|claim| claim.job).collect()
    }

    /// Moves the clock.
    pub fn pass(&mut self, span: Duration) {
        self.now += postlane::clock::millis(span);
        self.wire.deliveries.age(span);
    }

    /// Answers a claim with a status.
    pub fn answer(&mut self, claim: Claim, status: u16) {
        self.answer_with(claim, &status_answer(status));
    }

    pub fn answer_with(&mut self, claim: Claim, answer: &Answer) {
        let now = self.now;
        let mut ended = report(&claim, answer, None, &self.wire);
        // The attempt took no time on the hand-moved clock.
        let wait = ended.due - ended.finished;
        (ended.finished, ended.due) = (now, now + wait);
        ended.slot = Some(claim.slot);
        self.report(ended);
    }

    /// Hands the end of an attempt in.
    pub fn report(&self, completion: Completion) {
        self.completions.send(completion).expect("the ledger lives");
    }

    /// Delivers until nothing is left that is due; returns the ids in the order they were sent.
    pub async fn deliver_all(&mut self) -> Vec<JobId> {
        let mut sent = Vec::new();
        for _ in 0..10_000 {
            let claims = self.claims().await;
            if claims.is_empty() {
                break;
            }
            for claim in claims {
                sent.push(claim.job);
                self.answer(claim, 200);
            }
        }
        self.claims().await;
        sent
    }
}

pub fn status_answer(status: u16) -> Answer {
    Answer::Status {
        status,
        content_type: None,
        retry_after: None,
        body: Vec::new(),
        cut: None,
    }
}

/// A 429 that says how long to wait.
pub fn throttled(wait: Duration) -> Answer {
    Answer::Status {
        status: 429,
        content_type: None,
        retry_after: Some(wait),
        body: Vec::new(),
        cut: None,
    }
}

/// A fresh Postgres database for a test that needs this engine; none, said aloud, without a server.
pub async fn postgres() -> Option<Db> {
    let db = Db::fresh(Engine::Postgres).await;
    if db.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "in CI nothing may be skipped: set POSTLANE_TEST_POSTGRES_URL"
        );
        eprintln!("skipped: POSTLANE_TEST_POSTGRES_URL is not set");
    }
    db
}

/// Writes one test for both engines: `both!(a_name, |db| async move { … });`
#[macro_export]
macro_rules! both {
    ($($(#[$meta:meta])* $name:ident, |$db:ident| $body:block)+) => {
        mod sqlite {
            use super::*;
            $($(#[$meta])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let $db = support::Db::fresh(support::Engine::Sqlite).await.expect("sqlite is built in");
                $body
            })+
        }
        mod postgres {
            use super::*;
            $($(#[$meta])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some($db) = support::Db::fresh(support::Engine::Postgres).await else {
                    assert!(std::env::var_os("CI").is_none(), "in CI nothing may be skipped: set POSTLANE_TEST_POSTGRES_URL");
                    eprintln!("skipped: POSTLANE_TEST_POSTGRES_URL is not set");
                    return;
                };
                $body
            })+
        }
    };
}
