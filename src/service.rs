//! A configured worker: what `run`, `demo` and the benchmark start.
//!
//! Turns a [`Config`] into connections, a client and settings, and starts the worker, the sweeper
//! and the task that keeps secrets up to date. It never parses, prints or catches signals.

mod refresh;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::breaker::Breaker;
use crate::clock::BootInstant;
use crate::config::{Config, Delay, PageSecret};
use crate::deliver::Wire;
use crate::events::{Event, Events, Pulse};
use crate::http::{BuildError, Endpoint, Http};
use crate::keyring::{Keyring, Pair};
use crate::ledger::Settings;
use crate::retry::Policy;
use crate::store::call::{News, Tell, told};
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
    /// A few connections for readers.
    pub readers: Pool,
    /// The secrets of the pages, as they are now.
    pub secrets: Arc<Keyring>,
    shutdown_timeout: Duration,
    stop: watch::Sender<bool>,
    ledgers: Vec<LedgerThread>,
    sweeper: JoinHandle<()>,
    sweeping: Pool,
    reloads: mpsc::Sender<Config>,
    refresher: JoinHandle<()>,
}

/// A connected ledger waiting for its start signal; dropped, it ends.
struct Waiting {
    go: oneshot::Sender<()>,
    thread: LedgerThread,
}

/// A ledger at work.
struct LedgerThread {
    thread: std::thread::JoinHandle<()>,
    /// How many attempts it could not record; closed if it panicked.
    unrecorded: oneshot::Receiver<usize>,
    /// Closed once its connection is.
    closed: oneshot::Receiver<()>,
}

/// The most a stop may take beyond `shutdown_timeout`, whatever the database does.
const END: Duration = Duration::from_millis(1800);

impl Config {
    /// The pages' secrets: they sign, and a page without one may not send.
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

    /// The longest wait between two attempts of a job: its backoff, what a receiver may ask for, what a rule says.
    fn longest_wait(&self) -> Duration {
        let backoff = self.retry.max * 4 / 3;
        backoff
            .max(self.retry.max_retry_after)
            .max(self.judge.rules.longest_wait())
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
            .filter_map(|(page, keys)| Some((page.as_str().into(), keys.rate?)));
        Settings {
            worker,
            concurrency,
            lease: self.worker.lease,
            longest_wait: self.longest_wait(),
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
    /// Connects, checks the schema and starts to deliver. Never migrates. Nothing is delivered before
    /// every connection is there: what fails half-way, or is dropped, leaves nothing behind that runs.
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
        schema::check_fit(&readers).await?;
        if let Some(file) = readers.file().filter(|file| file.names() > 1) {
            let (path, names) = (&*file.path().to_string_lossy(), file.names());
            events.emit(&Event::Linked { path, names });
        }
        let sweeping = Pool::open(url, Use::Write, false).await?;
        let name = worker_name(config.worker.name.as_deref());
        let mut waker = Waker::start(&readers, &name, config.worker.notify).await?;
        let (engine, concurrency) = (readers.dialect(), config.worker.concurrency);
        events.know_rules(config.judge.rules.names());
        let (stop, stopping) = watch::channel(false);
        let relief = match engine {
            Dialect::Postgres => concurrency / 2,
            Dialect::Sqlite => 0,
        };
        let second = (relief > 0).then(|| (format!("{name}+"), relief, waker.relief()));
        let first = (name.clone(), concurrency - relief, waker);
        let mut waiting = Vec::new();
        for (name, concurrency, waker) in std::iter::once(first).chain(second) {
            let worker = Worker {
                waker,
                settings: config.settings(name, concurrency, &keyring, &wire),
                wire: Arc::clone(&wire),
                events: Arc::clone(events),
                shutdown_timeout: config.worker.shutdown_timeout,
                senders: senders.clone(),
            };
            waiting.push(ledger_thread(url.to_owned(), worker, stopping.clone()).await?);
        }
        // From here on nothing fails and nothing is awaited.
        events.emit(&Event::Started {
            worker: &name,
            engine: engine.as_str(),
            concurrency,
        });
        let go = |Waiting { go, thread }| {
            // If it has ended meanwhile, that is seen.
            let _ = go.send(());
            thread
        };
        let ledgers = waiting.into_iter().map(go).collect();
        let retention = Retention {
            delivered: config.retention.delivered,
            dead: config.retention.dead,
        };
        let sweeper = sweep(
            sweeping.clone(),
            retention,
            config.longest_wait(),
            Arc::clone(events),
            stopping.clone(),
        );
        let sweeper = told(
            teller("sweeper".to_owned(), Arc::clone(events), None),
            sweeper,
        );
        let (reloads, reloading) = mpsc::channel(1);
        let refresh = refresh::refresh(
            Arc::clone(&keyring),
            config.secret_files().to_vec(),
            reloading,
            Arc::clone(events),
            stopping.clone(),
        );
        Ok(Self {
            secrets: keyring,
            readers,
            shutdown_timeout: config.worker.shutdown_timeout,
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
        // Fails only while the service stops, when no secret is needed.
        let _ = self.reloads.send(config).await;
    }

    /// Stops taking work, finishes what is in flight within the configured time, and closes, all within
    /// two seconds more. Returns how many attempts could not be recorded; `usize::MAX` if a ledger
    /// panicked.
    pub async fn stop(mut self) -> usize {
        let in_flight = self.in_flight();
        self.events.emit(&Event::Stopping { in_flight });
        self.stop.send_replace(true);
        let limit = Instant::now() + self.shutdown_timeout + END;
        let mut unrecorded: usize = 0;
        for ledger in &mut self.ledgers {
            unrecorded =
                unrecorded.saturating_add(match timeout_at(limit, &mut ledger.unrecorded).await {
                    Ok(Ok(count)) => count,
                    // Its claims are lost; the next worker will find them.
                    Ok(Err(_)) => usize::MAX,
                    // The thread itself hangs, perhaps in a file system.
                    Err(_) => in_flight.max(1),
                });
        }
        self.events.emit(&Event::Stopped);
        // What takes too long ends with the process.
        let close = async {
            for ledger in &mut self.ledgers {
                let _ = (&mut ledger.closed).await;
            }
            let _ = (&mut self.sweeper).await;
            let _ = (&mut self.refresher).await;
            self.sweeping.close().await;
            self.readers.close().await;
        };
        if timeout_at(limit, close).await.is_err() {
            self.sweeper.abort();
            self.refresher.abort();
        }
        unrecorded
    }

    fn in_flight(&self) -> usize {
        usize::try_from(self.events.in_flight()).unwrap_or_default()
    }

    /// Refuses to go on with a SQLite file that has been replaced or removed. Its connections then end
    /// with the process: closed before, they would delete the log of whatever has its name now.
    ///
    /// # Errors
    /// [`store::Error::Replaced`].
    pub fn check_file(&self) -> store::Result<()> {
        let checked = self.readers.file().map_or(Ok(()), |file| file.check());
        if checked.is_err() {
            self.readers.leave_open();
            self.sweeping.leave_open();
        }
        checked
    }

    /// True once a ledger's thread has ended by itself, which it never should.
    pub fn has_died(&self) -> bool {
        self.ledgers
            .iter()
            .any(|ledger| ledger.thread.is_finished())
    }
}

const NO_THREAD: store::Error =
    store::Error::Gone("cannot start a thread for a ledger (too many processes?)");

/// Gives the ledger a thread and a connection of its own: among hundreds of senders it would wait
/// for its turn after every statement. It connects, and waits.
async fn ledger_thread(url: String, worker: Worker, stop: Stop) -> Result<Waiting, Error> {
    let (opened, connected) = oneshot::channel();
    let (go, may_go) = oneshot::channel();
    let (end, unrecorded) = oneshot::channel();
    let (open, closed) = oneshot::channel();
    let run = move || {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(_) => return drop(opened.send(Err(NO_THREAD))),
        };
        runtime.block_on(async {
            let pool = match Pool::open(&url, Use::Write, false).await {
                Ok(pool) => pool,
                Err(error) => return drop(opened.send(Err(error))),
            };
            let _ = opened.send(Ok(()));
            if may_go.await.is_ok() {
                let _ = end.send(work(worker, pool.clone(), stop).await);
            }
            pool.close().await;
        });
        drop::<oneshot::Sender<()>>(open);
    };
    let thread = std::thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(run)
        .map_err(|_| NO_THREAD)?;
    connected.await.map_err(|_| NO_THREAD)??;
    let thread = LedgerThread {
        thread,
        unrecorded,
        closed,
    };
    Ok(Waiting { go, thread })
}

/// Runs the worker, reporting slow calls.
async fn work(worker: Worker, pool: Pool, stop: Stop) -> usize {
    let (name, events) = (worker.settings.worker.clone(), Arc::clone(&worker.events));
    let pulse = events.pulse(&name);
    told(
        teller(name, events, Some(Arc::clone(&pulse))),
        worker.run(pool, stop, pulse),
    )
    .await
}

/// Reports slow calls of a ledger or the sweeper.
fn teller(worker: String, events: Arc<Events>, pulse: Option<Arc<Pulse>>) -> Tell {
    Arc::new(move |news| match *news {
        News::Waits {
            verb,
            waited,
            why,
            is_known,
        } => {
            if let Some(pulse) = &pulse {
                pulse.waits(verb, waited, why, is_known);
            }
            events.emit(&Event::CallWaits {
                worker: &worker,
                verb,
                waited,
                why,
            });
        }
        News::Over => {
            if let Some(pulse) = &pulse {
                pulse.goes_on();
            }
            events.emit(&Event::CallOver { worker: &worker });
        }
    })
}

/// A name that no other process has, also not this one after a restart: a stalled worker must
/// not take its successor's leases for its own.
pub fn worker_name(configured: Option<&str>) -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let base = configured.map_or(host, str::to_owned);
    // Clones of a machine may start alike: the same host, process and moment.
    let chance = RandomState::new().hash_one(BootInstant::now().nanos());
    format!("{base}-{}-{chance:x}", std::process::id())
}
