//! The metrics, and what each event adds to them.
//!
//! What runs for each delivery copies no label, and takes no lock but that of a histogram.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::Event;
use crate::clock::BootInstant;
use crate::job::{Outcome, State};

/// How often what others can cause at will is logged.
const MINUTE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) registry: Registry,
    attempts: Labelled,
    judgements: Labelled,
    jobs: Labelled,
    pauses_opened: Labelled,
    pauses_closed: Labelled,
    attempt_seconds: Histogram,
    commit_seconds: Histogram,
    commits: Counter,
    pub(super) recorded: Counter,
    pub(super) in_flight: Gauge,
    fenced: Counter,
    refused: Counter,
    lost: Counter,
    conflicts: Counter,
    ledger_failures: Counter,
    ledger_up: Gauge,
    last_cycle_seconds: Gauge<f64, AtomicU64>,
    /// A worker was started.
    started: AtomicBool,
    /// The ledgers that cannot write.
    failing: Mutex<BTreeSet<String>>,
    healed: Counter,
    sweep_failures: Counter,
    /// What was last said of each step of the sweeper that fails.
    sweep_told: Mutex<BTreeMap<&'static str, String>>,
    pruned: Counter,
    prune_refused: Counter,
    bugs: Counter,
    wrong_tokens: Counter,
    /// When a wrong token was last told of.
    wrong_told: Mutex<Option<BootInstant>>,
    oldest_due_seconds: Gauge<f64, AtomicU64>,
    /// How long the oldest had been due when a ledger last looked, and when that was.
    oldest_due: Mutex<(Duration, BootInstant)>,
    pub(super) sqlite_log_bytes: Gauge,
}

impl Metrics {
    /// Registers every metric.
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("postlane");
        let mut labelled = |name: &str, help: &str, label, known: &[&'static str]| {
            // What is first seen when it counts 1 has not grown for a scraper that compares.
            let counters = Labelled::new(label);
            for value in known {
                drop(counters.of(value));
            }
            registry.register(name, help, counters.family.clone());
            counters
        };
        let outcomes: Vec<_> = Outcome::ALL.iter().map(|o| o.as_str()).collect();
        let attempts = labelled(
            "attempts",
            "Attempts that ended, by outcome",
            "outcome",
            &outcomes,
        );
        let judgements = labelled(
            "judgements",
            "Attempts that ended, by the rule that judged them",
            "rule",
            &[],
        );
        let jobs = labelled(
            "jobs_ended",
            "Jobs that left the lane, by the state they went to",
            "state",
            &ENDS,
        );
        let pauses_opened = labelled(
            "pauses_opened",
            "Pauses that workers set, by what was paused",
            "scope",
            &["page", "endpoint"],
        );
        let pauses_closed = labelled(
            "pauses_closed",
            "Pauses that workers ended, by what was paused",
            "scope",
            &["page", "endpoint"],
        );
        let attempt_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        registry.register_with_unit(
            "attempt",
            "Time of one attempt",
            Unit::Seconds,
            attempt_seconds.clone(),
        );
        let commit_seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        registry.register_with_unit(
            "commit",
            "Time of one transaction of the ledger",
            Unit::Seconds,
            commit_seconds.clone(),
        );
        let oldest_due_seconds = Gauge::<f64, AtomicU64>::default();
        registry.register(
            "oldest_due_seconds",
            "How long the lane that waits longest has been due",
            oldest_due_seconds.clone(),
        );
        let last_cycle_seconds = Gauge::<f64, AtomicU64>::default();
        registry.register(
            "ledger_last_cycle_seconds",
            "How long ago a ledger finished a cycle or was to end its sleep; grows while one stands still",
            last_cycle_seconds.clone(),
        );
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let commits = counter("commits", "Transactions of the ledger");
        let recorded = counter("recorded_attempts", "Attempts whose outcome is committed");
        let fenced = counter(
            "fenced_reports",
            "Reports that came after their lane had been taken over",
        );
        let lost = counter("lost_attempts", "Attempts whose worker was gone");
        let refused = counter(
            "refused_completions",
            "Outcomes that the database refused to record; their lanes wait",
        );
        let conflicts = counter(
            "ledger_conflicts",
            "Cycles repeated after a deadlock or a lock not had",
        );
        let ledger_failures = counter(
            "ledger_failures",
            "Cycles that failed because of the database",
        );
        let healed = counter(
            "healed_lanes",
            "Lanes and timers the sweeper had to restore; must stay 0",
        );
        let sweep_failures = counter(
            "sweep_failures",
            "Steps of the sweeper (healing, retention) that failed because of the database",
        );
        let pruned = counter("pruned_jobs", "Jobs deleted by retention");
        let prune_refused = counter(
            "prune_refused_jobs",
            "Jobs that retention would delete and the database refused to give up",
        );
        let bugs = counter("bugs", "Assertions that fired; must stay 0");
        let wrong_tokens = counter(
            "admin_wrong_tokens",
            "Requests to the admin server with a wrong token",
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::<i64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let in_flight = gauge("in_flight", "Requests in flight");
        let ledger_up = gauge("ledger_up", "1 while all ledgers move and can write");
        let sqlite_log_bytes = gauge(
            "sqlite_log_bytes",
            "Size of SQLite's write-ahead log, looked at when the file is swept; 0 on Postgres",
        );
        Self {
            registry,
            attempts,
            judgements,
            jobs,
            pauses_opened,
            pauses_closed,
            attempt_seconds,
            commit_seconds,
            commits,
            recorded,
            in_flight,
            fenced,
            refused,
            lost,
            conflicts,
            ledger_failures,
            ledger_up,
            last_cycle_seconds,
            started: AtomicBool::new(false),
            failing: Mutex::default(),
            healed,
            sweep_failures,
            sweep_told: Mutex::default(),
            pruned,
            prune_refused,
            bugs,
            wrong_tokens,
            wrong_told: Mutex::default(),
            oldest_due_seconds,
            sqlite_log_bytes,
            oldest_due: Mutex::new((Duration::ZERO, BootInstant::now())),
        }
    }

    pub(super) fn progress(&self) -> (u64, u64) {
        let ended = Outcome::ALL
            .iter()
            .map(|o| self.attempts.of(o.as_str()).get());
        let delivered = self.attempts.of(Outcome::Delivered.as_str()).get();
        (delivered, ended.sum::<u64>().saturating_sub(delivered))
    }

    /// Counts for these rules begin at 0.
    pub(super) fn know_rules<'a>(&self, rules: impl Iterator<Item = &'a str>) {
        rules.for_each(|rule| drop(self.judgements.of(rule)));
    }

    /// Brings up to date what changes while nothing happens. While no ledger looks, what was due then
    /// is due for longer.
    pub(super) fn look(&self, is_up: bool, overdue: Duration) {
        self.ledger_up.set(i64::from(is_up));
        self.last_cycle_seconds.set(overdue.as_secs_f64());
        let (waited, at) = *self.oldest_due();
        let since = match is_up || !self.started.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => at.elapsed(),
        };
        self.oldest_due_seconds.set((waited + since).as_secs_f64());
    }

    pub(super) fn set_oldest_due(&self, waited: Duration) {
        *self.oldest_due() = (waited, BootInstant::now());
    }

    fn oldest_due(&self) -> MutexGuard<'_, (Duration, BootInstant)> {
        self.oldest_due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker was started and no ledger's cycle fails.
    pub(super) fn can_write(&self) -> bool {
        self.started.load(Ordering::Relaxed) && self.failing().is_empty()
    }

    fn failing(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what happened. False if it only goes on: the database is still away, or was not.
    pub(super) fn count(&self, event: &Event<'_>) -> bool {
        match *event {
            Event::Started { .. } => self.started.store(true, Ordering::Relaxed),
            Event::Attempt {
                outcome,
                rule,
                state,
                took,
                ..
            } => self.attempt(outcome, rule, state, took),
            Event::Ended { .. } => self.jobs.inc(State::Dead.as_str()),
            Event::Lost { .. } => drop(self.lost.inc()),
            Event::Fenced { reports, .. } => add(&self.fenced, reports),
            Event::Refused { .. } => drop(self.refused.inc()),
            Event::Committed { ended, took, .. } => {
                self.commits.inc();
                add(&self.recorded, ended);
                self.commit_seconds.observe(took.as_secs_f64());
            }
            Event::LedgerFailed { worker, .. } => {
                self.ledger_failures.inc();
                let mut failing = self.failing();
                let first = failing.is_empty();
                failing.insert(worker.to_owned());
                return first && self.started.load(Ordering::Relaxed);
            }
            Event::LedgerRecovered { worker } => {
                let mut failing = self.failing();
                let last = failing.remove(worker) && failing.is_empty();
                return last;
            }
            Event::Conflict { .. } => drop(self.conflicts.inc()),
            Event::Paused { scope, .. } => self.pauses_opened.inc(scope.kind()),
            Event::Resumed { scope } => self.pauses_closed.inc(scope.kind()),
            Event::Healed { lanes } => add(&self.healed, lanes),
            Event::SweepFailed { step, error } => {
                self.sweep_failures.inc();
                let mut told = self
                    .sweep_told
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                return told
                    .insert(step, error.to_owned())
                    .is_none_or(|last| last != error);
            }
            Event::Swept { step } => {
                let mut told = self
                    .sweep_told
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                return told.remove(step).is_some();
            }
            Event::PruneRefused { jobs, .. } => drop(self.prune_refused.inc_by(jobs)),
            Event::Pruned { jobs } => drop(self.pruned.inc_by(jobs)),
            Event::Bug { .. } => drop(self.bugs.inc()),
            Event::WrongToken => {
                self.wrong_tokens.inc();
                let mut told = self
                    .wrong_told
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let is_news = told.is_none_or(|at| at.elapsed() >= MINUTE);
                if is_news {
                    *told = Some(BootInstant::now());
                }
                return is_news;
            }
            Event::Stopping { .. }
            | Event::Stopped
            | Event::CallWaits { .. }
            | Event::CallOver { .. }
            | Event::WakerFailed { .. }
            | Event::PageRefused { .. }
            | Event::NoSecret { .. }
            | Event::SecretSwitched { .. }
            | Event::SecretChanged { .. }
            | Event::SecretKept { .. }
            | Event::LogGrows { .. }
            | Event::Linked { .. } => {}
        }
        true
    }

    fn attempt(&self, outcome: Outcome, rule: &str, state: State, took: Duration) {
        self.attempts.inc(outcome.as_str());
        // As many series as there are rules.
        self.judgements.inc(rule);
        self.attempt_seconds.observe(took.as_secs_f64());
        if state != State::Queued {
            self.jobs.inc(state.as_str());
        }
    }
}

/// Counters told apart by one label.
///
/// The family finds one by a lock and a label of its own. Nearly all attempts count under the first
/// few labels that are met, so those are remembered beside it.
#[derive(Debug)]
struct Labelled {
    label: &'static str,
    family: Family<[(&'static str, String); 1], Counter>,
    met: [OnceLock<(String, Counter)>; 16],
}

impl Labelled {
    fn new(label: &'static str) -> Self {
        Self {
            label,
            family: Family::default(),
            met: [const { OnceLock::new() }; 16],
        }
    }

    /// The counter of a value, which exists from now on.
    fn of(&self, value: &str) -> Counter {
        let labels = [(self.label, value.to_owned())];
        self.family.get_or_create_owned(&labels)
    }

    fn inc(&self, value: &str) {
        let mut met = self.met.iter().map_while(OnceLock::get);
        if let Some((_, counter)) = met.find(|(met, _)| met == value) {
            counter.inc();
            return;
        }
        let counter = self.of(value);
        counter.inc();
        // Threads that meet a label at once may each remember it: the counter is the same.
        let mut new = (value.to_owned(), counter);
        for place in &self.met {
            match place.set(new) {
                Ok(()) => return,
                Err(back) => new = back,
            }
        }
    }
}

/// The states in which jobs leave their lanes.
const ENDS: [&str; 3] = [
    State::Delivered.as_str(),
    State::Dead.as_str(),
    State::Unknown.as_str(),
];

fn add(counter: &Counter, count: usize) {
    counter.inc_by(u64::try_from(count).unwrap_or_default());
}
