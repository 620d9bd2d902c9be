//! Everything that happens, and the only place where it becomes a log line or a metric.
//!
//! The rest of the program says *what* happened; here is decided what is counted, what is logged,
//! and at which level. Never logged: secrets, messages, recipients, answers' bodies.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tracing::{debug, error, info, warn};

use crate::job::{JobId, Outcome, State};

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The worker is about to take work.
    Started {
        /// Its name.
        worker: &'a str,
        /// `postgres` or `sqlite`.
        engine: &'static str,
        /// Most requests in flight.
        concurrency: usize,
    },
    /// Nothing new is taken; what is in flight may finish.
    Stopping {
        /// Requests in flight.
        in_flight: usize,
    },
    /// The worker has released what it held.
    Stopped,
    /// An attempt ended.
    Attempt {
        /// The job.
        job: JobId,
        /// The page.
        page: &'a str,
        /// Which attempt of the job.
        number: i64,
        /// How it ended.
        outcome: Outcome,
        /// The rule that judged it.
        rule: &'a str,
        /// The answer's status.
        status: Option<u16>,
        /// What the job became.
        state: State,
        /// How long it took.
        took: Duration,
    },
    /// A job ended without an attempt.
    Ended {
        /// The job.
        job: JobId,
        /// Why.
        reason: &'a str,
    },
    /// A worker is gone; its attempt may have arrived.
    Lost {
        /// The job.
        job: JobId,
        /// Which attempt of the job.
        number: i64,
    },
    /// A report came after its lane had been taken over.
    Fenced {
        /// How many reports.
        reports: usize,
        /// How many of them closed their jobs all the same.
        late_successes: usize,
    },
    /// A transaction of the ledger was committed.
    Committed {
        /// Attempts that ended in it.
        ended: usize,
        /// Attempts that began in it.
        began: usize,
        /// How long it took.
        took: Duration,
    },
    /// The database refused or is away; nothing is sent until it is back.
    LedgerFailed {
        /// What it said.
        error: &'a str,
        /// Outcomes kept in hand until they can be written.
        kept: usize,
    },
    /// The database is back.
    LedgerRecovered,
    /// Two workers met in a deadlock or a lock was not had; the cycle is repeated.
    Conflict {
        /// What the database said.
        error: &'a str,
    },
    /// A page has no secret; its jobs wait.
    NoSecret {
        /// The page.
        page: &'a str,
    },
    /// A worker paused a page or the endpoint.
    Paused {
        /// `page:ID` or `endpoint`.
        scope: &'a str,
        /// What the answer said.
        why: &'a str,
        /// Before one job is tried.
        probe_in: Duration,
    },
    /// A page or the endpoint that a worker paused goes on.
    Resumed {
        /// `page:ID` or `endpoint`.
        scope: &'a str,
    },
    /// The sweeper found a lane that should have been there. Must not happen.
    Healed {
        /// How many.
        lanes: usize,
    },
    /// Retention deleted old jobs.
    Pruned {
        /// How many.
        jobs: u64,
    },
    /// A bug that was caught by an assertion.
    Bug {
        /// What was found.
        what: &'a str,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabel {
    rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScopeLabel {
    scope: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// The counters and the log. Cheap to share.
#[derive(Debug)]
pub struct Events {
    registry: Registry,
    attempts: Family<OutcomeLabel, Counter>,
    judgements: Family<RuleLabel, Counter>,
    jobs: Family<StateLabel, Counter>,
    pauses_opened: Family<ScopeLabel, Counter>,
    pauses_closed: Family<ScopeLabel, Counter>,
    attempt_seconds: Histogram,
    commit_seconds: Histogram,
    commits: Counter,
    recorded: Counter,
    in_flight: Gauge,
    fenced: Counter,
    lost: Counter,
    conflicts: Counter,
    ledger_failures: Counter,
    ledger_up: Gauge,
    healed: Counter,
    pruned: Counter,
    bugs: Counter,
    oldest_due_seconds: Gauge<f64, AtomicU64>,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// Registers every metric.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("postlane");
        let attempts = Family::<OutcomeLabel, Counter>::default();
        registry.register(
            "attempts",
            "Attempts that ended, by outcome",
            attempts.clone(),
        );
        let judgements = Family::<RuleLabel, Counter>::default();
        registry.register(
            "judgements",
            "Attempts that ended, by the rule that judged them",
            judgements.clone(),
        );
        let jobs = Family::<StateLabel, Counter>::default();
        registry.register(
            "jobs_ended",
            "Jobs that left the line, by the state they went to",
            jobs.clone(),
        );
        let pauses_opened = Family::<ScopeLabel, Counter>::default();
        registry.register(
            "pauses_opened",
            "Pauses that workers set, by what was paused",
            pauses_opened.clone(),
        );
        let pauses_closed = Family::<ScopeLabel, Counter>::default();
        registry.register(
            "pauses_closed",
            "Pauses that workers ended, by what was paused",
            pauses_closed.clone(),
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
            "Lanes the sweeper had to restore; must stay 0",
        );
        let pruned = counter("pruned_jobs", "Jobs deleted by retention");
        let bugs = counter("bugs", "Assertions that fired; must stay 0");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::<i64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let in_flight = gauge("in_flight", "Requests in flight");
        let ledger_up = gauge("ledger_up", "1 while outcomes can be written");
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
            lost,
            conflicts,
            ledger_failures,
            ledger_up,
            healed,
            pruned,
            bugs,
            oldest_due_seconds,
        }
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// How many requests are in flight now.
    pub fn set_in_flight(&self, in_flight: usize) {
        self.in_flight
            .set(i64::try_from(in_flight).unwrap_or(i64::MAX));
    }

    /// Requests in flight, as last set.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// How long the lane that waits longest has been due.
    pub fn set_oldest_due(&self, waited: Duration) {
        self.oldest_due_seconds.set(waited.as_secs_f64());
    }

    /// Attempts whose outcome is committed.
    pub fn recorded(&self) -> u64 {
        self.recorded.get()
    }

    /// True while the ledger can write.
    pub fn is_up(&self) -> bool {
        self.ledger_up.get() == 1
    }

    /// Counts and logs what happened.
    pub fn emit(&self, event: &Event<'_>) {
        match *event {
            Event::Started {
                worker,
                engine,
                concurrency,
            } => {
                self.ledger_up.set(1);
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
                job,
                page,
                number,
                outcome,
                rule,
                status,
                state,
                took,
            } => {
                self.attempts
                    .get_or_create(&OutcomeLabel {
                        outcome: outcome.as_str(),
                    })
                    .inc();
                // As many series as there are rules.
                let rule_label = RuleLabel {
                    rule: rule.to_owned(),
                };
                self.judgements.get_or_create(&rule_label).inc();
                self.attempt_seconds.observe(took.as_secs_f64());
                if state != State::Queued {
                    self.jobs
                        .get_or_create(&StateLabel {
                            state: state.as_str(),
                        })
                        .inc();
                }
                let took_ms = took.as_secs_f64() * 1000.0;
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
            Event::Ended { job, reason } => {
                self.jobs
                    .get_or_create(&StateLabel {
                        state: State::Dead.as_str(),
                    })
                    .inc();
                // The detail may quote the message; the rule in front of it does not.
                let rule: String = reason.split(": ").take(2).collect::<Vec<_>>().join(": ");
                warn!(job, reason = rule, "job ended without an attempt");
            }
            Event::Lost { job, number } => {
                self.lost.inc();
                warn!(
                    job,
                    number, "attempt was left by a worker that is gone, it may have arrived"
                );
            }
            Event::Fenced {
                reports,
                late_successes,
            } => {
                self.fenced
                    .inc_by(u64::try_from(reports).unwrap_or_default());
                warn!(
                    reports,
                    late_successes, "reports came after their lanes had been taken over"
                );
            }
            Event::Committed { ended, began, took } => {
                self.commits.inc();
                self.recorded
                    .inc_by(u64::try_from(ended).unwrap_or_default());
                self.commit_seconds.observe(took.as_secs_f64());
                debug!(
                    ended,
                    began,
                    took_ms = took.as_secs_f64() * 1000.0,
                    "ledger committed"
                );
            }
            Event::LedgerFailed { error, kept } => {
                self.ledger_failures.inc();
                // One line when it goes away and one when it is back.
                if self.ledger_up.set(0) == 1 {
                    error!(
                        error,
                        kept, "database cannot be written, nothing is sent until it can"
                    );
                } else {
                    debug!(error, kept, "database still cannot be written");
                }
            }
            Event::LedgerRecovered => {
                if self.ledger_up.set(1) == 0 {
                    info!("database can be written again");
                }
            }
            Event::Conflict { error } => {
                self.conflicts.inc();
                debug!(error, "ledger repeats a transaction after a conflict");
            }
            Event::NoSecret { page } => warn!(
                page,
                "page has no secret in the configuration, its jobs wait"
            ),
            Event::Paused {
                scope,
                why,
                probe_in,
            } => {
                self.pauses_opened.get_or_create(&kind_of(scope)).inc();
                // The detail may quote the request.
                let why = why.split(": ").next().unwrap_or_default();
                warn!(scope, why, ?probe_in, "paused until a job is accepted");
            }
            Event::Resumed { scope } => {
                self.pauses_closed.get_or_create(&kind_of(scope)).inc();
                info!(scope, "resumed");
            }
            Event::Healed { lanes } => {
                self.healed.inc_by(u64::try_from(lanes).unwrap_or_default());
                error!(
                    lanes,
                    "lanes were missing and have been restored; please report this"
                );
            }
            Event::Pruned { jobs } => {
                self.pruned.inc_by(jobs);
                debug!(jobs, "retention deleted old jobs");
            }
            Event::Bug { what } => {
                self.bugs.inc();
                error!(what, "an assertion failed; please report this");
            }
        }
    }
}

/// As many series as there are kinds of scopes.
fn kind_of(scope: &str) -> ScopeLabel {
    let scope = if scope.starts_with("page:") {
        "page"
    } else {
        "endpoint"
    };
    ScopeLabel { scope }
}
