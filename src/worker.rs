//! A worker: one ledger, as many senders as there are slots, and what wakes and stops them.
//!
//! Beside the ledger's calls nothing is awaited but the end of the time that a stop leaves it: channels
//! and timers take turns with them.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::BootInstant;
use crate::deliver::{Claim, Wire, deliver};
use crate::events::{Event, Events, Pulse};
use crate::ledger::{Ledger, Settings, Step};
use crate::store::record::Ended;
use crate::store::wake::Waker;
use crate::store::{Pool, Result};

/// Everything a worker is made of.
pub struct Worker {
    /// What wakes it while it sleeps.
    pub waker: Waker,
    /// The ledger's settings.
    pub settings: Settings,
    /// The senders' part.
    pub wire: Arc<Wire>,
    /// Where things are counted and logged.
    pub events: Arc<Events>,
    /// How long requests in flight may still take after a stop.
    pub shutdown_timeout: Duration,
    /// Where the senders run; the ledger has a thread of its own.
    pub senders: Handle,
}

/// How a worker is told to stop: by true, or by nobody being left who could say it.
pub type Stop = watch::Receiver<bool>;

/// True once it was told to stop.
pub fn is_stopped(stop: &Stop) -> bool {
    *stop.borrow() || stop.has_changed().is_err()
}

/// Completes when it is told to stop.
pub async fn stopped(stop: &mut Stop) {
    // An error means that nobody is left.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// How long outcomes may still be written after the time that a stop leaves to requests.
pub const LAST_WRITES: Duration = Duration::from_millis(1500);

impl Worker {
    /// Works on the ledger's own connection, leaving its signs of life, until it is stopped, then finishes what is in flight.
    /// Returns how many attempts could not be recorded (they are found as lost by whoever comes next),
    /// at the latest [`LAST_WRITES`] after the `shutdown_timeout`, whatever the database does.
    pub async fn run(self, pool: Pool, stop: Stop, pulse: Arc<Pulse>) -> usize {
        let ledger = Ledger::new(pool, self.settings.clone(), Arc::clone(&self.events));
        let (ended, reports) = mpsc::unbounded_channel();
        let (timeout, wire) = (self.shutdown_timeout, Arc::clone(&self.wire));
        let mut told = stop.clone();
        let mut motion = Motion {
            pulse,
            worker: self,
            ledger,
            ended,
            reports,
            stop,
            senders: JoinSet::new(),
            failures: 0,
            failing: None,
            renew: false,
            only_ended: false,
        };
        let no_time_left = async {
            stopped(&mut told).await;
            tokio::time::sleep(timeout).await;
            // What is unanswered now reports itself: dropping a sender would lose its claim.
            wire.hurry();
            tokio::time::sleep(LAST_WRITES).await;
        };
        tokio::select! {
            biased;
            () = motion.run() => {}
            // In the middle of a call, it may be: its connection goes with it.
            () = no_time_left => {}
        }
        motion.ledger.unrecorded()
    }
}

struct Motion {
    /// Its signs of life.
    pulse: Arc<Pulse>,
    worker: Worker,
    ledger: Ledger,
    ended: mpsc::UnboundedSender<Ended>,
    reports: mpsc::UnboundedReceiver<Ended>,
    stop: Stop,
    senders: JoinSet<()>,
    failures: u32,
    /// When the first cycle began of those that failed in a row.
    failing: Option<BootInstant>,
    /// The last cycle failed: its connection may be the cause.
    renew: bool,
    /// Nothing has ended the last sleep but the end of an attempt.
    only_ended: bool,
}

/// How long a worker that stops may take to say that nobody needs to wake it.
const LEAVE: Duration = Duration::from_millis(300);

/// How long conflicts are nobody's business: two workers that meet are done in milliseconds, a lock
/// that is held for longer stops the sending.
const QUIET: Duration = Duration::from_secs(5);

impl Motion {
    async fn run(&mut self) {
        self.work().await;
        self.finish().await;
        // The row of a sleeper runs out by itself, too.
        let leave = self.worker.waker.leave(self.ledger.pool());
        let _ = tokio::time::timeout(LEAVE, leave).await;
    }

    async fn work(&mut self) {
        while !is_stopped(&self.stop) {
            self.pulse.beats();
            let wait = self.step().await;
            self.pulse.rests(wait.unwrap_or_default());
            match wait {
                Some(wait) if self.failures > 0 => self.rest(wait).await,
                // No timer is as short as that.
                Some(Duration::ZERO) => tokio::task::yield_now().await,
                Some(wait) => self.sleep(wait).await,
                None => {}
            }
        }
    }

    /// One cycle, and the sending of what it claimed. Returns how long to wait, if at all.
    async fn step(&mut self) -> Option<Duration> {
        self.collect();
        // Not right after the failure: the connection was not yet back in its pool then.
        if std::mem::take(&mut self.renew) {
            self.ledger.renew();
        }
        let (reports, began) = (&mut self.reports, BootInstant::now());
        let only_ended = std::mem::take(&mut self.only_ended);
        let more_ended = &mut || reports.try_recv().ok();
        match self.ledger.cycle(only_ended, more_ended).await {
            Ok(step) => {
                (self.failures, self.failing) = (0, None);
                let worker = &self.worker.settings.worker;
                self.worker.events.emit(&Event::LedgerRecovered { worker });
                self.start(step).await
            }
            Err(error) if error.is_conflict() && self.failing(began) < QUIET => {
                self.failures += 1;
                let claims = self.ledger.take_claims();
                self.send(claims);
                self.worker.events.emit(&Event::Conflict {
                    error: &error.to_string(),
                });
                Some(Duration::from_millis(u64::from(self.failures.min(20))))
            }
            Err(error) => {
                self.failing(began);
                self.failures += 1;
                let claims = self.ledger.take_claims();
                self.send(claims);
                let kept = self.ledger.unwritten();
                self.worker.events.emit(&Event::LedgerFailed {
                    worker: &self.worker.settings.worker,
                    error: &error.to_string(),
                    kept,
                });
                if error.is_unique_violation() {
                    self.worker.events.emit(&Event::Bug {
                        what: &error.to_string(),
                    });
                }
                self.renew = true;
                Some(Duration::from_millis(
                    100 * u64::from(self.failures.min(10)),
                ))
            }
        }
    }

    /// How long cycles have failed, the first of which began then.
    fn failing(&mut self, began: BootInstant) -> Duration {
        self.failing.get_or_insert(began).elapsed()
    }

    async fn start(&mut self, step: Step) -> Option<Duration> {
        let claimed = step.claims.len();
        self.send(step.claims);
        // What fails here fails in the next cycle, too, and is told then.
        let _ = self.ledger.read_ahead().await;
        if (step.more || claimed > 0)
            && let Err(error) = self.worker.waker.busy(self.ledger.pool(), claimed).await
        {
            self.worker.events.emit(&Event::Conflict {
                error: &error.to_string(),
            });
        }
        if step.more {
            // Let the senders run: the next cycle then finds more outcomes to write at once.
            tokio::task::yield_now().await;
            return None;
        }
        let idle = self.ledger.in_flight() == 0;
        let (waker, pool) = (&mut self.worker.waker, self.ledger.pool());
        match waker.before_sleep(pool, idle, step.next_in).await {
            Ok(wait) => Some(wait),
            Err(error) => {
                self.worker.events.emit(&Event::Conflict {
                    error: &error.to_string(),
                });
                Some(Duration::from_millis(200))
            }
        }
    }

    fn send(&mut self, claims: Vec<Claim>) {
        for claim in claims {
            let (wire, ended) = (Arc::clone(&self.worker.wire), self.ended.clone());
            let send = async move {
                // The receiver lives as long as the ledger; after that nobody needs the report.
                let _ = ended.send(deliver(claim, &wire).await);
            };
            self.senders.spawn_on(send, &self.worker.senders);
        }
        while self.senders.try_join_next().is_some() {}
    }

    /// Waits for an outcome, a wake-up, the time, or the stop. Only channels and timers wait here.
    async fn sleep(&mut self, wait: Duration) {
        tokio::select! {
            Some(ended) = self.reports.recv() => {
                self.ledger.report(ended);
                self.only_ended = true;
            }
            () = self.worker.waker.woken() => self.worker.waker.rung(),
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut self.stop) => {}
        }
    }

    /// Waits after a failure: producers and answers must not hurry a database that is away.
    async fn rest(&mut self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut self.stop) => {}
        }
    }

    fn collect(&mut self) {
        while let Ok(ended) = self.reports.try_recv() {
            self.ledger.report(ended);
        }
    }

    /// Stops taking work, waits for what is in flight, and writes how it ended. Whoever calls it knows
    /// how long that may take.
    async fn finish(&mut self) {
        self.ledger.drain();
        while self.ledger.in_flight() > 0 {
            self.pulse.rests(self.worker.shutdown_timeout);
            let Some(ended) = self.reports.recv().await else {
                break;
            };
            self.ledger.report(ended);
            self.collect();
            if self.ledger.unwritten() > 0 {
                let _ = self.write().await;
            }
        }
        while self.ledger.unwritten() > 0 {
            if self.write().await.is_err() {
                self.ledger.renew();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn write(&mut self) -> Result<()> {
        self.pulse.beats();
        let done = self.ledger.cycle(false, &mut || None).await.map(|_| ());
        if let Err(error) = &done {
            let kept = self.ledger.unwritten();
            self.worker.events.emit(&Event::LedgerFailed {
                worker: &self.worker.settings.worker,
                error: &error.to_string(),
                kept,
            });
        }
        done
    }
}
