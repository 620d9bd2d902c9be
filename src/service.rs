//! A configured worker: what `run`, `demo` and the benchmark start.
//!
//! Turns a [`Config`] into connections, a client and settings, and starts the worker and the
//! sweeper. It refuses to parse, to print and to catch signals.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Fuse, FusedFuture as _};
use secrecy::ExposeSecret as _;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::breaker::Breaker;
use crate::config::{Config, Delay};
use crate::deliver::{Secrets, Wire, sign_with};
use crate::events::Events;
use crate::http::{BuildError, Endpoint, Http};
use crate::ledger::Settings;
use crate::retry::Policy;
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
    worker: Ended,
    sweeper: JoinHandle<()>,
    sweeping: Pool,
}

/// Resolves when the ledger's thread ends: how many outcomes it could not write.
type Ended = Fuse<oneshot::Receiver<usize>>;

impl Config {
    /// The secrets of the pages decide which may send, and sign.
    fn secrets(&self) -> Arc<dyn Secrets> {
        Arc::new(Configured(self.clone()))
    }

    /// The `[retry]` section as the rules take it.
    pub fn policy(&self) -> Policy {
        Policy {
            max_attempts: self.retry.max_attempts,
            first: self.retry.first,
            max: self.retry.max,
            on_ambiguous: self.retry.on_ambiguous,
        }
    }

    fn settings(&self, worker: String, breaker: &Arc<Mutex<Breaker>>) -> Settings {
        let rates = self
            .pages
            .iter()
            .filter_map(|(page, keys)| Some((page.clone(), keys.rate?)));
        Settings {
            worker,
            concurrency: self.worker.concurrency,
            lease: self.worker.lease,
            policy: self.policy(),
            after_unknown: self.lanes.after_unknown,
            min_gap: self.lanes.min_gap,
            limits: self.message.clone(),
            delay_on_wire: self.api.delay == Delay::Api,
            rates: rates.collect(),
            default_rate: self.pages.get("default").and_then(|page| page.rate),
            secrets: self.secrets(),
            breaker: Arc::clone(breaker),
        }
    }

    fn wire(
        &self,
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
            connections: self.worker.concurrency,
        })?;
        Ok(Wire {
            http,
            secrets: self.secrets(),
            rules: Arc::clone(&self.judge.rules),
            policy: self.policy(),
            // What starts later could end after the lease.
            send_within: self
                .worker
                .lease
                .saturating_sub(self.api.timeout + self.api.tcp_user_timeout),
            delay_on_wire: self.api.delay == Delay::Api,
            breaker: Arc::clone(breaker),
            hurry: watch::Sender::new(false),
            events: Arc::clone(events),
        })
    }
}

struct Configured(Config);

impl Secrets for Configured {
    fn sign(&self, page: &str, body: &[u8]) -> Option<String> {
        Some(sign_with(
            self.0.secret(page)?.expose_secret().as_bytes(),
            body,
        ))
    }

    fn has(&self, page: &str) -> bool {
        self.0.secret(page).is_some()
    }
}

impl Service {
    /// Connects, checks the schema and starts to deliver. Never migrates.
    ///
    /// # Errors
    /// A database that is away or not fit, or a client that cannot be built.
    pub async fn start(config: &Config, events: &Arc<Events>) -> Result<Self, Error> {
        let url = config.database_url.expose();
        let breaker = Arc::new(Mutex::new(Breaker::new(config.circuit.clone())));
        let wire = Arc::new(config.wire(events, &breaker)?);
        let readers = Pool::open(url, Use::Read, false).await?;
        schema::check(&readers).await?;
        let sweeping = Pool::open(url, Use::Write, false).await?;
        let name = worker_name(config.worker.name.as_deref());
        let waker = Waker::start(&readers, &name, config.worker.notify).await?;
        let (stop, stopping) = watch::channel(false);
        let worker = Worker {
            waker,
            settings: config.settings(name, &breaker),
            wire,
            events: Arc::clone(events),
            shutdown_timeout: config.worker.shutdown_timeout,
            senders: Handle::current(),
        };
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
        Ok(Self {
            readers,
            stop,
            worker: ledger_thread(url.to_owned(), worker, stopping).await?,
            sweeper: tokio::spawn(sweeper),
            sweeping,
            events: Arc::clone(events),
        })
    }

    /// Stops taking work, finishes what is in flight within the configured time, and closes.
    /// Returns how many outcomes could not be written.
    pub async fn stop(self) -> usize {
        self.stop.send_replace(true);
        // A worker that panicked has lost what it had in hand; whoever comes next finds it.
        let unwritten = self.worker.await.unwrap_or(usize::MAX);
        let _ = self.sweeper.await;
        self.sweeping.close().await;
        // Listeners hold a connection of this one; they end with the process.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.readers.close()).await;
        unwritten
    }

    /// True once the worker's task has ended by itself, which it never should.
    pub fn has_died(&self) -> bool {
        self.worker.is_terminated()
    }
}

/// Gives the ledger a thread and a connection of its own: among hundreds of senders it would wait
/// for its turn after every statement.
async fn ledger_thread(url: String, worker: Worker, stop: Stop) -> Result<Ended, Error> {
    let (opened, connected) = oneshot::channel();
    let (end, ended) = oneshot::channel();
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
    std::thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(run)
        .map_err(|_| gone())?;
    connected.await.map_err(|_| gone())??;
    Ok(ended.fuse())
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
