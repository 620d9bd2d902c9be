//! A worker: one ledger, as many senders as there are slots, and what wakes and stops them.
//!
//! The ledger runs on a task of its own that is never dropped half-way through a database call:
//! what is awaited beside other things here are channels and timers only.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::BootInstant;
use crate::deliver::{Claim, Wire, deliver};
use crate::events::{Event, Events};
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

/// How a worker is told to stop.
pub type Stop = watch::Receiver<bool>;

impl Worker {
    /// Works on the ledger's own connection until `stop` says true, then finishes what is in
    /// flight. Returns how many outcomes could not be written (they are found as lost attempts by
    /// whoever comes next).
    pub async fn run(self, pool: Pool, stop: Stop) -> usize {
        let ledger = Ledger::new(pool, self.settings.clone(), Arc::clone(&self.events));
        let (ended, reports) = mpsc::unbounded_channel();
        let mut motion = Motion {
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
        motion.work().await;
        motion.finish().await
    }
}

struct Motion {
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

/// How long conflicts are nobody's business: two workers that meet are done in milliseconds, a lock
/// that is held for longer stops the sending.
const QUIET: Duration = Duration::from_secs(5);

impl Motion {
    async fn work(&mut self) {
        while !*self.stop.borrow() {
            let wait = self.step().await;
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
            self.ledger.renew().await;
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
            && let Err(error) = self.worker.waker.busy(claimed).await
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
        match self.worker.waker.before_sleep(idle, step.next_in).await {
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
            _ = self.stop.changed() => {}
        }
    }

    /// Waits after a failure: producers and answers must not hurry a database that is away.
    async fn rest(&mut self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = self.stop.changed() => {}
        }
    }

    fn collect(&mut self) {
        while let Ok(ended) = self.reports.try_recv() {
            self.ledger.report(ended);
        }
    }

    /// Stops taking work, waits for what is in flight, and writes how it ended.
    async fn finish(&mut self) -> usize {
        self.ledger.drain();
        let deadline = tokio::time::Instant::now() + self.worker.shutdown_timeout;
        while self.ledger.in_flight() > 0 && tokio::time::Instant::now() < deadline {
            tokio::select! {
                Some(ended) = self.reports.recv() => self.ledger.report(ended),
                () = tokio::time::sleep_until(deadline) => {}
            }
            self.collect();
            if self.ledger.unwritten() > 0 {
                let _ = self.write().await;
            }
        }
        // What is unanswered now reports itself: dropping a sender would lose its claim. A ledger that
        // has nothing left to wait for must not hurry the senders of another.
        if self.ledger.in_flight() > 0 {
            self.worker.wire.hurry();
        }
        while self.ledger.in_flight() > 0 {
            let Some(ended) = self.reports.recv().await else {
                break;
            };
            self.ledger.report(ended);
        }
        for _ in 0..20 {
            if self.ledger.unwritten() == 0
                || self.write().await.is_ok() && self.ledger.unwritten() == 0
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.worker.waker.leave().await;
        self.ledger.unwritten()
    }

    async fn write(&mut self) -> Result<()> {
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
