//! A worker: one ledger, as many senders as there are slots, and what wakes and stops them.
//!
//! While the ledger runs a call, only the shutdown deadline is awaited beside it; channels and timers wait
//! for the call to end.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::clock::BootInstant;
use crate::deliver::{Wire, deliver};
use crate::events::{Event, Events, Pulse};
use crate::ledger::{Doors, Ledger, Settings, Step};
use crate::store::wake::{POLL, Waker, Woken};
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

/// Signals a worker to stop: true, or the sender dropped.
pub type Stop = watch::Receiver<bool>;

/// True once it was told to stop.
pub fn is_stopped(stop: &Stop) -> bool {
    *stop.borrow() || stop.has_changed().is_err()
}

/// Completes when it is told to stop.
pub async fn stopped(stop: &mut Stop) {
    // An error means that the sender is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// How long outcomes may still be written after the time that a stop leaves to requests.
pub const LAST_WRITES: Duration = Duration::from_millis(1500);

impl Worker {
    /// Runs on the ledger's own connection and reports progress to `pulse` until it is stopped, then finishes
    /// what is in flight. Returns how many attempts could not be recorded (the next worker finds them as
    /// lost), at the latest [`LAST_WRITES`] after the `shutdown_timeout`, whatever the database does.
    pub async fn run(self, pool: Pool, stop: Stop, pulse: Arc<Pulse>) -> usize {
        let (ended, completions) = mpsc::unbounded_channel();
        let (wire, senders) = (Arc::clone(&self.wire), self.senders.clone());
        let send = move |claim| {
            let (wire, ended) = (Arc::clone(&wire), ended.clone());
            senders.spawn(async move {
                // The receiver lives as long as the ledger; afterwards the completion is not needed.
                let _ = ended.send(deliver(claim, &wire).await);
            });
        };
        let doors = Doors {
            completions,
            send: Box::new(send),
        };
        let (settings, events) = (self.settings.clone(), Arc::clone(&self.events));
        let ledger = Ledger::new(pool, settings, events, doors);
        let (timeout, wire) = (self.shutdown_timeout, Arc::clone(&self.wire));
        let mut told = stop.clone();
        let mut motion = Motion {
            pulse,
            worker: self,
            ledger,
            stop,
            failures: 0,
            failing: None,
            renew: false,
            woken: Woken::Time,
            began: BootInstant::now(),
            due: None,
            has_open: true,
            again: None,
        };
        let no_time_left = async {
            stopped(&mut told).await;
            tokio::time::sleep(timeout).await;
            // Aborted requests still report themselves; a dropped sender would lose its claim.
            wire.hurry();
            tokio::time::sleep(LAST_WRITES).await;
        };
        tokio::select! {
            biased;
            () = motion.run() => {}
            // Possibly in the middle of a call; the connection is dropped with it.
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
    stop: Stop,
    failures: u32,
    /// When the first cycle began of those that failed in a row.
    failing: Option<BootInstant>,
    /// The last cycle failed: its connection may be the cause.
    renew: bool,
    /// What has ended the last sleep.
    woken: Woken,
    /// When the last cycle began.
    began: BootInstant,
    /// When something is due, as far as is known.
    due: Option<BootInstant>,
    /// Some work is left, as far as is known.
    has_open: bool,
    /// When a held-back completion is retried.
    again: Option<BootInstant>,
}

/// While cycles follow each other, marks and ends gather for so long: fewer commits for the same work.
const RHYTHM: Duration = Duration::from_millis(3);
/// The same while more jobs wait than there are slots.
const FAST_RHYTHM: Duration = Duration::from_millis(1);

/// How long a stopping worker may take to unsubscribe from wake-ups.
const LEAVE: Duration = Duration::from_millis(300);

/// How long conflicts are not reported: two workers that meet are done in milliseconds; a lock held longer
/// stops sending.
const QUIET: Duration = Duration::from_secs(5);

impl Motion {
    async fn run(&mut self) {
        self.work().await;
        self.finish().await;
        // The subscription row also expires by itself.
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
                Some(Duration::ZERO) => {
                    tokio::task::yield_now().await;
                    self.woken = self.worker.waker.time_is_up();
                }
                Some(wait) => self.sleep(wait).await,
                None => {}
            }
        }
    }

    /// One cycle, and the sending of what it claimed. Returns how long to wait, if at all.
    async fn step(&mut self) -> Option<Duration> {
        // Done here, not right after the failure: the connection was not back in the pool yet.
        if std::mem::take(&mut self.renew) {
            self.ledger.renew();
        }
        let is_hint = matches!(self.woken, Woken::Marks | Woken::Poll);
        if is_hint && !self.ledger.has_ended() && !(self.has_open && self.began.elapsed() >= POLL) {
            match self.worker.waker.has_news(self.ledger.pool()).await {
                Ok(Some(false)) => return self.rest_until_due().await,
                // Reported once: another connection has committed.
                Ok(Some(true)) => self.woken = Woken::Marks,
                // What fails here fails in the cycle, too, and is told then.
                Ok(None) | Err(_) => {}
            }
        }
        let (began, woken) = (BootInstant::now(), self.woken);
        (self.began, self.woken) = (began, Woken::Time);
        match self.ledger.cycle(woken).await {
            Ok(step) => {
                (self.failures, self.failing) = (0, None);
                let worker = &self.worker.settings.worker;
                self.worker.events.emit(&Event::LedgerRecovered { worker });
                self.start(step).await
            }
            Err(error) if error.is_conflict() && self.failing(began) < QUIET => {
                self.failures += 1;
                self.worker.events.emit(&Event::Conflict {
                    error: &error.to_string(),
                });
                Some(Duration::from_millis(u64::from(self.failures.min(20))))
            }
            Err(error) => {
                self.failing(began);
                self.failures += 1;
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
        if (step.more || step.claimed > 0)
            && let Err(error) = self
                .worker
                .waker
                .busy(self.ledger.pool(), step.claimed)
                .await
        {
            self.worker.events.emit(&Event::WakerFailed {
                error: &error.to_string(),
            });
        }
        if step.more {
            // Let the senders run: the next cycle then finds more outcomes to write at once.
            tokio::task::yield_now().await;
            return None;
        }
        self.has_open = step.has_open;
        let at = |span| BootInstant::now().later(span);
        (self.due, self.again) = (step.next_in.map(at), step.again_in.map(at));
        self.rest_until_due().await
    }

    /// How long to sleep.
    async fn rest_until_due(&mut self) -> Option<Duration> {
        let left = |at: BootInstant| at.since(BootInstant::now());
        let (next_in, again_in) = (self.due.map(left), self.again.map(left));
        let (waker, pool) = (&mut self.worker.waker, self.ledger.pool());
        match waker.before_sleep(pool, self.has_open, next_in).await {
            Ok(wait) => Some(again_in.map_or(wait, |again| again.min(wait))),
            Err(error) => {
                self.worker.events.emit(&Event::WakerFailed {
                    error: &error.to_string(),
                });
                Some(Duration::from_millis(200))
            }
        }
    }

    /// Waits for an end, a wake-up, the time, or the stop. Only channels and timers wait here.
    async fn sleep(&mut self, wait: Duration) {
        self.woken = tokio::select! {
            () = self.ledger.ended() => Woken::Ended,
            () = self.worker.waker.woken() => {
                self.worker.waker.rung();
                Woken::Marks
            }
            () = tokio::time::sleep(wait) => self.worker.waker.time_is_up(),
            () = stopped(&mut self.stop) => Woken::Time,
        };
        // The end of an attempt is worth a cycle at once if something waits for it.
        let gathers = match self.woken {
            Woken::Ended => !self.ledger.is_pressed() || self.ledger.in_flight() > 0,
            Woken::Marks => true,
            Woken::Poll | Woken::Time => false,
        };
        let rhythm = match self.ledger.is_pressed() {
            true => FAST_RHYTHM,
            false => RHYTHM,
        };
        let gathered = self.began.elapsed();
        if gathers && gathered < rhythm {
            let is_ended = self.woken == Woken::Ended;
            tokio::select! {
                () = tokio::time::sleep(rhythm - gathered) => {}
                () = stopped(&mut self.stop) => {}
            }
            if is_ended && self.worker.waker.take_ring() {
                self.woken = Woken::Marks;
            }
        }
        if self.woken == Woken::Ended && self.worker.waker.is_unarmed() {
            self.woken = Woken::Poll;
        }
    }

    /// Waits after a failure: marks and answers must not press a database that is down.
    async fn rest(&mut self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut self.stop) => {}
        }
    }

    /// Stops taking work, waits for what is in flight, and writes how it ended. The caller bounds how long
    /// that may take.
    async fn finish(&mut self) {
        self.ledger.drain();
        while self.ledger.in_flight() > 0 {
            self.pulse.rests(self.worker.shutdown_timeout);
            self.ledger.ended().await;
            if self.ledger.unwritten() > 0 {
                let _ = self.write().await;
            }
        }
        while self.ledger.unwritten() > 0 {
            match self.write().await {
                Ok(step) if step.more => {}
                // Rows are locked by another transaction.
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(_) => {
                    self.ledger.renew();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn write(&mut self) -> Result<Step> {
        self.pulse.beats();
        let done = self.ledger.cycle(Woken::Time).await;
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
