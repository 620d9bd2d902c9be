//! Everything that happens, and the only place where it becomes a log line or a metric.
//!
//! The rest of the program says *what* happened; here is decided what is counted, what is logged,
//! and at which level. Never logged: secrets, messages, recipients, answers' bodies.

mod event;
mod metrics;
mod pulse;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::job::{AttemptNo, JobId, State};
pub use event::Event;
use metrics::Metrics;
pub use pulse::{Pulse, Standing};

/// The counters and the log. Cheap to share.
#[derive(Debug)]
pub struct Events {
    metrics: Metrics,
    /// Of the ledgers that run.
    pulses: Mutex<Vec<Weak<Pulse>>>,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// Registers every metric.
    pub fn new() -> Self {
        Self {
            metrics: Metrics::new(),
            pulses: Mutex::default(),
        }
    }

    /// Where a ledger of that name leaves its signs of life, for as long as it keeps this.
    pub fn pulse(&self, worker: &str) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::new(worker));
        let mut pulses = self.pulses();
        pulses.retain(|pulse| pulse.strong_count() > 0);
        pulses.push(Arc::downgrade(&pulse));
        pulse
    }

    fn pulses(&self) -> MutexGuard<'_, Vec<Weak<Pulse>>> {
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger that has stood still for longest, if any does.
    pub fn standing(&self) -> Option<Standing> {
        let pulses = self.pulses();
        let standing = pulses.iter().filter_map(Weak::upgrade);
        let standing = standing.filter_map(|pulse| pulse.standing());
        standing.max_by_key(|standing| standing.since)
    }

    /// Counts for these rules begin at 0: what appears with its first count has not grown for an alert.
    pub fn know_rules<'a>(&self, rules: impl Iterator<Item = &'a str>) {
        self.metrics.know_rules(rules);
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let pulses = self.pulses().clone();
        let overdue = pulses.iter().filter_map(Weak::upgrade);
        let overdue = overdue.map(|pulse| pulse.overdue()).max();
        self.metrics.look(self.is_up(), overdue.unwrap_or_default());
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.metrics.registry);
        text
    }

    /// So many more requests of a ledger are in flight than it last said.
    pub fn add_in_flight(&self, more: i64) {
        self.metrics.in_flight.inc_by(more);
    }

    /// Requests in flight, as last set.
    pub fn in_flight(&self) -> i64 {
        self.metrics.in_flight.get()
    }

    /// How long the lane that waits longest has been due.
    pub fn set_oldest_due(&self, waited: Duration) {
        self.metrics.set_oldest_due(waited);
    }

    /// Bytes in SQLite's log.
    pub fn set_log_size(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.sqlite_log_bytes.set(bytes);
    }

    /// Attempts whose outcome is committed.
    pub fn recorded(&self) -> u64 {
        self.metrics.recorded.get()
    }

    /// Jobs that were delivered, and attempts that ended otherwise, since the start.
    pub fn progress(&self) -> (u64, u64) {
        self.metrics.progress()
    }

    /// True while every ledger moves and can write.
    pub fn is_up(&self) -> bool {
        self.metrics.can_write() && self.standing().is_none()
    }

    /// Counts and logs what happened.
    pub fn emit(&self, event: &Event<'_>) {
        let news = self.metrics.count(event);
        log(event, news);
    }
}

/// Milliseconds with one decimal.
fn tenths(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Writes the line of an event; for what only goes on there is a quiet one or none.
fn log(event: &Event<'_>, news: bool) {
    match *event {
        Event::Started {
            worker,
            engine,
            concurrency,
        } => {
            info!(
                worker,
                engine,
                concurrency,
                version = env!("CARGO_PKG_VERSION"),
                "worker started"
            );
        }
        Event::Stopping { in_flight } => {
            info!(in_flight, "worker stopping, finishing requests in flight")
        }
        Event::Stopped => info!("worker stopped"),
        Event::Attempt {
            job: JobId(job),
            page,
            number: AttemptNo(number),
            outcome,
            rule,
            status,
            state,
            took,
        } => {
            let took_ms = tenths(took);
            match state {
                State::Delivered => {
                    debug!(job, page, number, status, rule, took_ms, "job delivered")
                }
                State::Queued => {
                    info!(job, page, number, %outcome, status, rule, took_ms, "attempt failed, job will be retried");
                }
                _ => {
                    warn!(job, page, number, %outcome, status, rule, took_ms, %state, "job ended badly")
                }
            }
        }
        Event::Ended {
            job: JobId(job),
            reason,
        } => {
            // The detail may quote the message; the rule in front of it does not.
            let rule: String = reason.split(": ").take(2).collect::<Vec<_>>().join(": ");
            warn!(job, reason = rule, "job ended without an attempt");
        }
        Event::Lost {
            job: JobId(job),
            number: AttemptNo(number),
        } => warn!(
            job,
            number, "attempt was left by a worker that is gone, it may have arrived"
        ),
        Event::Fenced {
            reports,
            late_successes,
        } => warn!(
            reports,
            late_successes, "reports came after their lanes had been taken over"
        ),
        Event::Refused {
            job: JobId(job),
            why,
        } => error!(
            job,
            error = why,
            "the database refuses the outcome of this job: its lane waits, and it is tried again every minute"
        ),
        Event::PageRefused { page, why } => error!(
            page,
            error = why,
            "the database refuses to change the lanes of this page: it waits, and is tried again every minute"
        ),
        Event::Committed { ended, began, took } => {
            debug!(ended, began, took_ms = tenths(took), "ledger committed")
        }
        // One line when it goes away and one when it is back.
        Event::LedgerFailed { error, kept, .. } if news => error!(
            error,
            kept, "database cannot be written, nothing is sent until it can"
        ),
        Event::LedgerFailed { error, kept, .. } => {
            debug!(error, kept, "database still cannot be written")
        }
        Event::LedgerRecovered { .. } if news => info!("database can be written again"),
        Event::LedgerRecovered { .. } => {}
        Event::CallWaits {
            worker,
            verb,
            waited,
            why,
        } => warn!(
            worker,
            verb,
            waited_s = waited.as_secs(),
            why,
            "a call of the database takes long, and what waits for it stands still"
        ),
        Event::CallOver { worker } => {
            info!(worker, "the call of the database that took long is over")
        }
        Event::Conflict { error } => {
            debug!(error, "ledger repeats a transaction after a conflict")
        }
        Event::WakerFailed { error } => {
            debug!(
                error,
                "the worker could not ask to be woken, and polls until it can"
            )
        }
        Event::NoSecret { page } => warn!(
            page,
            "page has no secret in the configuration, its jobs wait"
        ),
        Event::Paused {
            scope,
            rule,
            why,
            pages,
            probe_in,
        } => {
            // The detail may quote the request.
            let why = why.split(": ").next().unwrap_or_default();
            let pages = (!pages.is_empty()).then(|| pages.join(" "));
            warn!(
                scope = scope.to_string(),
                rule,
                why,
                pages,
                ?probe_in,
                "paused until a job is accepted"
            );
        }
        Event::Resumed { scope } => info!(scope = scope.to_string(), "resumed"),
        Event::SecretSwitched { page, to } => warn!(
            page,
            to, "secret was refused, page goes on with its other one"
        ),
        Event::SecretChanged { page } => info!(page, "secret of a page changed"),
        Event::SecretKept { key, why } => warn!(
            key,
            why, "secret cannot be read again, the one in use stays"
        ),
        Event::Healed { lanes } => error!(
            lanes,
            "lanes or timers were missing and have been restored; unless the tables were changed by hand \
             (use requeue, resolve, cancel), please report this"
        ),
        Event::SweepFailed { step, error } if news => {
            error!(
                step,
                error, "sweeper failed, it tries again every 30 seconds"
            )
        }
        Event::SweepFailed { step, error } => debug!(step, error, "sweeper still fails"),
        Event::Swept { step } if news => info!(step, "sweeper works again"),
        Event::Swept { .. } => {}
        Event::PruneRefused { jobs, error } => warn!(
            jobs,
            error, "retention leaves jobs alone that the database does not give up, for an hour"
        ),
        Event::LogGrows { bytes } => warn!(
            mib = bytes >> 20,
            "SQLite's log grows: another process reads an old state of the file, so it cannot be checkpointed; \
             find who has it open (fuser FILE) and end its transaction"
        ),
        Event::Linked { path, names } => warn!(
            path,
            names,
            "the database's file has several names (hard links): SQLite keeps a log for each of them, and \
             a process that opens the file by another one damages it; remove the others"
        ),
        Event::Pruned { jobs } => debug!(jobs, "retention deleted old jobs"),
        Event::WrongToken if news => warn!(
            "a wrong token was presented to the admin server; more within a minute are only counted"
        ),
        Event::WrongToken => {}
        Event::Bug { what } => error!(what, "an assertion failed; please report this"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Outcome;

    #[test]
    fn each_label_has_a_counter_of_its_own_however_many_there_are() {
        let events = Events::new();
        let rules: Vec<String> = (0..40).map(|n| format!("rule.{n}")).collect();
        for times in 1..=3 {
            for rule in &rules {
                events.emit(&Event::Attempt {
                    job: JobId(1),
                    page: "1",
                    number: AttemptNo(1),
                    outcome: Outcome::Retryable,
                    rule,
                    status: None,
                    state: State::Queued,
                    took: Duration::ZERO,
                });
            }
            let metrics = events.metrics();
            for rule in &rules {
                let line = format!("postlane_judgements_total{{rule=\"{rule}\"}} {times}\n");
                assert!(metrics.contains(&line), "{line}{metrics}");
            }
            let line = format!(
                "postlane_attempts_total{{outcome=\"retryable\"}} {}\n",
                40 * times
            );
            assert!(metrics.contains(&line), "{line}{metrics}");
        }
        let metrics = events.metrics();
        assert!(
            metrics.contains("jobs_ended_total{state=\"dead\"} 0\n"),
            "none has ended: {metrics}"
        );
    }

    #[test]
    fn a_database_that_is_away_is_news_once() {
        let events = Events::new();
        let metrics = &events.metrics;
        let failed = |worker| Event::LedgerFailed {
            worker,
            error: "gone",
            kept: 0,
        };
        let recovered = |worker| Event::LedgerRecovered { worker };
        let started = Event::Started {
            worker: "w",
            engine: "sqlite",
            concurrency: 1,
        };
        assert!(metrics.count(&started) && events.is_up());
        assert!(!metrics.count(&recovered("w")), "it was not away");
        assert!(metrics.count(&failed("w")) && !events.is_up());
        assert!(!metrics.count(&failed("w")), "still away");
        assert!(!metrics.count(&failed("w+")), "away for the other, too");
        assert!(!metrics.count(&recovered("w")) && !events.is_up());
        assert!(metrics.count(&recovered("w+")) && events.is_up());
    }
}
