//! A configured worker: what `run`, `demo` and the benchmark start.
//!
//! Turns a [`Config`] into connections, a client and settings, and starts the worker, the sweeper
//! and whoever keeps the secrets up to date. It refuses to parse, to print and to catch signals.

mod refresh;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::breaker::Breaker;
use crate::config::{Config, Delay, PageSecret};
use crate::deliver::Wire;
use crate::events::{Event, Events};
use crate::http::{BuildError, Endpoint, Http};
use crate::keyring::{Keyring, Pair};
use crate::ledger::Settings;
use crate::retry::Policy;
use crate::store::sql::Dialect;
use crate::store::wake::Waker;
use crate::store::{self, Pool, Use, schema};
use crate::sweep::{Retention, sweep};
use crate::worker::{Stop, Worker};

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database is away or not fit.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The client cannot be built.
    #[error(transparent)]
    Http(#[from] BuildError),
}

/// A running service.
pub struct Service {
    /// What is counted.
    pub events: Arc<Events>,
    /// A few connections for whoever looks.
    pub readers: Pool,
    stop: watch::Sender<bool>,
    ledgers: Vec<LedgerThread>,
    sweeper: JoinHandle<()>,
    sweeping: Pool,
    reloads: mpsc::Sender<Config>,
    refresher: JoinHandle<()>,
}

/// A ledger at work.
struct LedgerThread {
    thread: std::thread::JoinHandle<()>,
    /// How many outcomes it could not write; closed if it panicked.
    unwritten: oneshot::Receiver<usize>,
}

impl Config {
    /// The secrets of the pages, which decide who may send, and sign.
    fn pairs(&self) -> impl Iterator<Item = (String, Pair)> {
        let known = |secret: &PageSecret| match secret {
            PageSecret::Known(secret) => Some(secret.clone()),
            PageSecret::Inherited | PageSecret::Unread => None,
        };
        self.pages.iter().filter_map(move |(page, keys)| {
            let pair = Pair {
                current: known(&keys.secret),
                previous: known(&keys.previous),
            };
            // A page without one of its own takes that of `default`.
            (!matches!(keys.secret, PageSecret::Inherited)).then(|| (page.clone(), pair))
        })
    }

    /// The `[retry]` section as the rules take it.
    pub fn policy(&self) -> Policy {
        Policy {
            max_attempts: self.retry.max_attempts,
            first: self.retry.first,
            max: self.retry.max,
            on_ambiguous: self.retry.on_ambiguous,
            max_ambiguous: self.retry.max_ambiguous,
        }
    }

    fn settings(
        &self,
        worker: String,
        concurrency: usize,
        secrets: &Arc<Keyring>,
        wire: &Wire,
    ) -> Settings {
        let rates = self
            .pages
            .iter()
            .filter_map(|(page, keys)| Some((page.clone(), keys.rate?)));
        Settings {
            worker,
            concurrency,
            lease: self.worker.lease,
            policy: self.policy(),
            after_unknown: self.lanes.after_unknown,
            min_gap: self.lanes.min_gap,
            limits: self.message.clone(),
            delay_on_wire: self.api.delay == Delay::Api,
            rates: rates.collect(),
            default_rate: self.pages.get("default").and_then(|page| page.rate),
            secrets: Arc::<Keyring>::clone(secrets),
            breaker: Arc::clone(&wire.breaker),
            deliveries: Arc::clone(&wire.deliveries),
        }
    }

    fn wire(
        &self,
        secrets: &Arc<Keyring>,
        events: &Arc<Events>,
        breaker: &Arc<Mutex<Breaker>>,
    ) -> Result<Wire, BuildError> {
        let http = Http::new(Endpoint {
            url: self.api.url.clone(),
            signature_header: self.api.signature_header.clone(),
            timeout: self.api.timeout,
            connect_timeout: self.api.connect_timeout,
            tcp_user_timeout: self.api.tcp_user_timeout,
            max_retry_after: self.retry.max_retry_after,
            keep_alive: self.api.keep_alive,
            connections: self.worker.concurrency,
        })?;
        Ok(Wire {
            http,
            secrets: Arc::<Keyring>::clone(secrets),
            rules: Arc::clone(&self.judge.rules),
            policy: self.policy(),
            // What starts later could end after the lease.
            send_within: self
                .worker
                .lease
                .saturating_sub(self.api.timeout + self.api.tcp_user_timeout),
            delay_on_wire: self.api.delay == Delay::Api,
            breaker: Arc::clone(breaker),
            deliveries: Arc::default(),
            hurry: watch::Sender::new(false),
            events: Arc::clone(events),
        })
    }
}

impl Service {
    /// Connects, checks the schema and starts to deliver. Never migrates.
    ///
    /// # Errors
    /// A database that is away or not fit, or a client that cannot be built.
    pub async fn start(config: &Config, events: &Arc<Events>) -> Result<Self, Error> {
        let url = config.database_url.expose();
        let keyring = Arc::new(Keyring::new(config.pairs()));
        let breaker = Arc::new(Mutex::new(Breaker::new(config.circuit.clone())));
        let wire = Arc::new(config.wire(&keyring, events, &breaker)?);
        let senders = Handle::current();
        let readers = Pool::open(url, Use::Read, false).await?;
        schema::check(&readers).await?;
        let sweeping = Pool::open(url, Use::Write, false).await?;
        let name = worker_name(config.worker.name.as_deref());
        let mut waker = Waker::start(&readers, &name, config.worker.notify).await?;
        let (engine, concurrency) = (readers.dialect(), config.worker.concurrency);
        events.emit(&Event::Started {
            worker: &name,
            engine: engine.as_str(),
            concurrency,
        });
        let (stop, stopping) = watch::channel(false);
        let relief = match engine {
            Dialect::Postgres => concurrency / 2,
            Dialect::Sqlite => 0,
        };
        let second = (relief > 0).then(|| (format!("{name}+"), relief, waker.relief()));
        let first = (name, concurrency - relief, waker);
        let mut ledgers = Vec::new();
        for (name, concurrency, waker) in std::iter::once(first).chain(second) {
            let worker = Worker {
                waker,
                settings: config.settings(name, concurrency, &keyring, &wire),
                wire: Arc::clone(&wire),
                events: Arc::clone(events),
                shutdown_timeout: config.worker.shutdown_timeout,
                senders: senders.clone(),
            };
            ledgers.push(ledger_thread(url.to_owned(), worker, stopping.clone()).await?);
        }
        let retention = Retention {
            delivered: config.retention.delivered,
            dead: config.retention.dead,
        };
        let sweeper = sweep(
            sweeping.clone(),
            retention,
            Arc::clone(events),
            stopping.clone(),
        );
        let (reloads, reloading) = mpsc::channel(1);
        let refresh = refresh::refresh(
            keyring,
            config.secret_files().to_vec(),
            reloading,
            Arc::clone(events),
            stopping.clone(),
        );
        Ok(Self {
            readers,
            stop,
            ledgers,
            sweeper: tokio::spawn(sweeper),
            sweeping,
            events: Arc::clone(events),
            reloads,
            refresher: tokio::spawn(refresh),
        })
    }

    /// Takes the secrets of the pages from another configuration, and nothing else.
    pub async fn reload(&self, config: Config) {
        // It fails only while the service stops, and then nobody signs any more.
        let _ = self.reloads.send(config).await;
    }

    /// Stops taking work, finishes what is in flight within the configured time, and closes.
    /// Returns how many outcomes could not be written.
    pub async fn stop(self) -> usize {
        let in_flight = usize::try_from(self.events.in_flight()).unwrap_or_default();
        self.events.emit(&Event::Stopping { in_flight });
        self.stop.send_replace(true);
        // A worker that panicked has lost what it had in hand; whoever comes next finds it.
        let mut unwritten: usize = 0;
        for ledger in self.ledgers {
            unwritten = unwritten.saturating_add(ledger.unwritten.await.unwrap_or(usize::MAX));
        }
        self.events.emit(&Event::Stopped);
        let _ = self.sweeper.await;
        let _ = self.refresher.await;
        self.sweeping.close().await;
        // Listeners hold a connection of this one; they end with the process.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.readers.close()).await;
        unwritten
    }

    /// True once a ledger's thread has ended by itself, which it never should.
    pub fn has_died(&self) -> bool {
        self.ledgers
            .iter()
            .any(|ledger| ledger.thread.is_finished())
    }
}

/// Gives the ledger a thread and a connection of its own: among hundreds of senders it would wait
/// for its turn after every statement.
async fn ledger_thread(url: String, worker: Worker, stop: Stop) -> Result<LedgerThread, Error> {
    let (opened, connected) = oneshot::channel();
    let (end, unwritten) = oneshot::channel();
    let run = move || {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(opened.send(Err(store::Error::Database(error.into())))),
        };
        runtime.block_on(async {
            match Pool::open(&url, Use::Write, false).await {
                Err(error) => drop(opened.send(Err(error))),
                Ok(pool) => {
                    let _ = opened.send(Ok(()));
                    let unwritten = worker.run(pool.clone(), stop).await;
                    pool.close().await;
                    let _ = end.send(unwritten);
                }
            }
        });
    };
    let gone = || Error::Store(store::Error::Database(sqlx::Error::WorkerCrashed));
    let thread = std::thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(run)
        .map_err(|_| gone())?;
    connected.await.map_err(|_| gone())??;
    Ok(LedgerThread { thread, unwritten })
}

/// A name that no other process has, also not this one after a restart: a stalled worker must
/// not take its successor's leases for its own.
pub fn worker_name(configured: Option<&str>) -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let base = configured.map_or(host, str::to_owned);
    let started = crate::clock::BootInstant::now().nanos() / 1_000_000;
    format!("{base}-{}-{:x}", std::process::id(), started)
}
