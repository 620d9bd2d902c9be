//! `run`: the service, from its first look at the configuration to its exit code.
//!
//! A database that is away, or has no tables yet, never ends it: it says so once, tries again and
//! goes on when that is mended. Only a configuration that cannot be used does, and the end of the
//! worker's task, which a supervisor repairs by starting it again.

use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};

use super::reload::Reload;
use super::{Failure, Globals, Out, limits, log};
use crate::admin::{self, Admin, Readers};
use crate::clock::BootInstant;
use crate::config::Config;
use crate::events::Events;
use crate::keyring::Keyring;
use crate::secrets::Secrets as _;
use crate::service::{self, Service};
use crate::store::{self, workers};

/// Deliver: the service
///
/// Never changes the schema: without tables it says `postlane migrate` and waits. SIGTERM or
/// Ctrl-C: takes no more work, finishes what is in flight within worker.shutdown_timeout and ends
/// with 0; a second one ends at once with 1. SIGHUP: reads the configuration again and takes the
/// secrets of the pages from it; files that hold secrets are watched anyway. Under systemd it tells when it delivers (READY=1)
/// and feeds the watchdog.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane run\n  \
    postlane run --config /etc/postlane/postlane.toml --log info,postlane::ledger=debug\n  \
    POSTLANE_LOG__FORMAT=json postlane run")]
pub struct Run {}

/// The waits between two looks at a database that is away.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// How often the log says what was delivered.
const REPORT: Duration = Duration::from_secs(60);

/// How often the worker's task is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// SIGTERM and SIGINT.
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// From here on, neither ends the process by itself.
    pub fn listen() -> Result<Self, Failure> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// The next of them.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

impl Run {
    pub async fn run(&self, globals: &Globals, _out: &mut Out) -> Result<(), Failure> {
        let mut config = globals.load()?;
        config.require_secrets()?;
        let _flushed = log::start(config.log.format, &config.log.level).map_err(Failure::Usage)?;
        limits::keep_memory_private();
        for warning in config.warnings().iter().chain(config.written_out()) {
            warn!(warning, "configuration");
        }
        let wanted = config.worker.concurrency;
        config.worker.concurrency = limits::requests_by_open_files(wanted);
        if config.worker.concurrency < wanted {
            warn!(
                wanted,
                concurrency = config.worker.concurrency,
                "fewer requests in flight than worker.concurrency says: the limit of open files is too \
                 low (ulimit -n; LimitNOFILE= in the unit)"
            );
        }
        workers::call_this_process_a_worker();
        let mut signals = Signals::listen()?;
        let mut reload = Reload::listen(globals)?;
        let events = Arc::new(Events::new());
        // Before the database: /readyz says why nothing is delivered yet.
        let secrets = Arc::new(OnceLock::new());
        let (readers, stop_admin) = (Readers::default(), watch::Sender::new(false));
        let admin = serve_admin(
            &config,
            &events,
            &readers,
            Arc::clone(&secrets),
            &stop_admin,
        )
        .await?;
        let Some(service) = start(&config, &events, &mut signals).await? else {
            info!("stopped before the database could be used");
            return Ok(());
        };
        let _presence = workers::announce(&service.readers);
        let _ = secrets.set(Arc::clone(&service.secrets));
        *readers.write().unwrap_or_else(PoisonError::into_inner) = Some(service.readers.clone());
        tell(&[NotifyState::Ready]);
        let (mut watchdog, mut report) = (Watchdog::new(), Report::new());
        loop {
            let told = tokio::select! {
                () = signals.next() => true,
                () = reload.asked() => {
                    reload.reload(&config, &service).await;
                    false
                }
                () = watchdog.tick() => false,
            };
            if service.has_died() {
                error!("the worker's task has ended by itself; please report this");
                tell(&[NotifyState::Stopping]);
                return Err(Failure::Failed(
                    "the worker's task has ended by itself".to_owned(),
                ));
            }
            if let Err(error) = service.check_file() {
                error!(%error, "stopping at once: nothing more is written");
                tell(&[NotifyState::Stopping]);
                return Err(error.into());
            }
            if told {
                break;
            }
            watchdog.feed_if(may_feed(&events));
            report.tell(&events);
        }
        let stopped = stop(service, &mut signals, &mut watchdog).await;
        stop_admin.send_replace(true);
        if let Some(admin) = admin {
            let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
        }
        stopped
    }
}

/// Starts the admin server. A configured address that cannot be bound ends the start; without
/// the default one, which a second worker on a machine finds taken, the worker runs without a server.
async fn serve_admin(
    config: &Config,
    events: &Arc<Events>,
    readers: &Readers,
    secrets: Arc<OnceLock<Arc<Keyring>>>,
    stop: &watch::Sender<bool>,
) -> Result<Option<JoinHandle<()>>, Failure> {
    let Some(address) = config.admin.listen else {
        return Ok(None);
    };
    let listener = match (admin::bind(address).await, &config.admin.listen_set_by) {
        (Ok(listener), _) => listener,
        (Err(error), None) => {
            warn!(
                %address,
                %error,
                "the worker runs without an admin server: the default address cannot be had; give it \
                 another with admin.listen or POSTLANE_ADMIN__LISTEN, or \"\" for none"
            );
            return Ok(None);
        }
        (Err(error), Some(source)) => {
            return Err(Failure::Failed(format!(
                "admin.listen = \"{address}\" ({source}): cannot listen there: {error}; set another \
                 address, or \"\" for no admin server"
            )));
        }
    };
    let ready = Arc::clone(events);
    let admin = Admin {
        readers: Arc::clone(readers),
        events: Arc::clone(events),
        token: config.admin.token.clone(),
        ready: Arc::new(move || ready.is_up()),
        worker: admin::Rules {
            max_attempts: config.retry.max_attempts,
            after_unknown: config.lanes.after_unknown,
            // Until the worker has started no page has been found to lack one.
            has_secret: Arc::new(move |page| {
                let secrets = secrets.get();
                secrets.is_none_or(|secrets: &Arc<Keyring>| secrets.has(page))
            }),
        },
    };
    Ok(Some(admin::serve(listener, admin, stop.subscribe())))
}

/// Tries until the database can be used; none if a signal came first.
async fn start(
    config: &Config,
    events: &Arc<Events>,
    signals: &mut Signals,
) -> Result<Option<Service>, Failure> {
    let (mut wait, mut told) = (FIRST_WAIT, String::new());
    loop {
        let started = tokio::select! {
            () = signals.next() => return Ok(None),
            started = Service::start(config, events) => started,
        };
        let error = match started {
            Ok(service) => {
                if !told.is_empty() {
                    info!("database can be used now");
                }
                return Ok(Some(service));
            }
            Err(service::Error::Http(error)) => return Err(Failure::Usage(error.to_string())),
            Err(service::Error::Store(error @ store::Error::Url(_))) => return Err(error.into()),
            Err(service::Error::Store(error)) => error.to_string(),
        };
        if error == told {
            debug!(error, "database still cannot be used");
        } else {
            error!(
                error,
                "database cannot be used yet, nothing is sent until it can"
            );
            told = error;
        }
        // systemd shall not lose its patience either.
        tell(&[NotifyState::ExtendTimeoutUsec(60_000_000)]);
        tokio::select! {
            () = signals.next() => return Ok(None),
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Finishes what is in flight; a second signal ends it at once.
async fn stop(
    service: Service,
    signals: &mut Signals,
    watchdog: &mut Watchdog,
) -> Result<(), Failure> {
    tell(&[NotifyState::Stopping]);
    let stopping = service.stop();
    tokio::pin!(stopping);
    let unwritten = loop {
        tokio::select! {
            unwritten = &mut stopping => break unwritten,
            () = signals.next() => {
                warn!("stopped at once by a second signal; what was in flight may be sent again");
                return Err(Failure::Failed("stopped at once by a second signal".to_owned()));
            }
            () = watchdog.tick() => watchdog.feed_if(true),
        }
    };
    match unwritten {
        0 => Ok(()),
        usize::MAX => Err(Failure::Failed(
            "the worker's task has ended by itself".to_owned(),
        )),
        n => Err(Failure::Failed(format!(
            "{n} attempts could not be recorded; they count as lost"
        ))),
    }
}

/// How long a ledger may stand still before the watchdog is left hungry.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// False once a ledger hangs for an unknown reason: starting the worker again may help. What the server
/// says that it works on would only begin anew.
fn may_feed(events: &Events) -> bool {
    events
        .standing()
        .is_none_or(|standing| standing.is_known || standing.since < HANGS_AFTER)
}

/// Says once a minute what was delivered, if anything was tried: else nothing at `info` would tell.
struct Report {
    at: BootInstant,
    told: (u64, u64),
}

impl Report {
    fn new() -> Self {
        Self {
            at: BootInstant::now(),
            told: (0, 0),
        }
    }

    fn tell(&mut self, events: &Events) {
        if self.at.elapsed() < REPORT {
            return;
        }
        let now = events.progress();
        if now != self.told {
            let (delivered, failed) = (now.0 - self.told.0, now.1 - self.told.1);
            info!(delivered, failed, "attempts in the last minute");
        }
        (self.at, self.told) = (BootInstant::now(), now);
    }
}

/// Looks after the worker once a second, and feeds systemd's watchdog twice in its time.
struct Watchdog {
    ticks: tokio::time::Interval,
    watched: bool,
}

impl Watchdog {
    fn new() -> Self {
        let watchdog = sd_notify::watchdog_enabled();
        let every = watchdog.map_or(LOOK, |span| {
            (span / 2).clamp(Duration::from_millis(1), LOOK)
        });
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            watched: watchdog.is_some(),
        }
    }

    async fn tick(&mut self) {
        self.ticks.tick().await;
    }

    fn feed_if(&self, may: bool) {
        if self.watched && may {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager cannot be told");
    }
}
