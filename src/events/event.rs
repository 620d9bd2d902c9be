//! What the rest of the program says: plain data, neither counted nor logged here.

use std::time::Duration;

use crate::job::{AttemptNo, JobId, Outcome, PageId, State};
use crate::scope::Scope;

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
        number: AttemptNo,
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
        number: AttemptNo,
    },
    /// The database refuses to record how an attempt of a job ended; its lane waits, the others go on.
    Refused {
        /// The job.
        job: JobId,
        /// What the database said.
        why: &'a str,
    },
    /// The database refuses to change the lanes of a page; it is left alone for a minute, the others go on.
    PageRefused {
        /// The page.
        page: &'a str,
        /// What the database said.
        why: &'a str,
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
        /// Which ledger met that: a worker may have two.
        worker: &'a str,
        /// What it said.
        error: &'a str,
        /// Outcomes kept in hand until they can be written.
        kept: usize,
    },
    /// The database is back.
    LedgerRecovered {
        /// For which ledger.
        worker: &'a str,
    },
    /// A call of the database takes long; told once.
    CallWaits {
        /// Which ledger waits, or `sweeper`.
        worker: &'a str,
        /// The verb of the statement.
        verb: &'a str,
        /// How long by now.
        waited: Duration,
        /// What the server says.
        why: &'a str,
    },
    /// That call has ended, or was given up.
    CallOver {
        /// Which ledger waited, or `sweeper`.
        worker: &'a str,
    },
    /// Two workers met in a deadlock or a lock was not had; the cycle is repeated.
    Conflict {
        /// What the database said.
        error: &'a str,
    },
    /// The worker could not ask to be woken; it polls until it can.
    WakerFailed {
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
        /// Which.
        scope: &'a Scope,
        /// The rule that judged the answer.
        rule: &'a str,
        /// What the answer said.
        why: &'a str,
        /// The first pages that failed, if it is the endpoint.
        pages: &'a [PageId],
        /// Before one job is tried.
        probe_in: Duration,
    },
    /// A page or the endpoint that a worker paused goes on.
    Resumed {
        /// Which.
        scope: &'a Scope,
    },
    /// A page goes on with its other secret: the one in use was refused.
    SecretSwitched {
        /// The page.
        page: &'a str,
        /// `current` or `previous`.
        to: &'static str,
    },
    /// A secret was replaced while the worker runs.
    SecretChanged {
        /// The page, or `default`.
        page: &'a str,
    },
    /// A file with a secret cannot be read any more; the secret it held stays in use.
    SecretKept {
        /// The key of the configuration.
        key: &'a str,
        /// Path and error.
        why: &'a str,
    },
    /// The sweeper found lanes or timers missing. Must not happen.
    Healed {
        /// How many.
        lanes: usize,
    },
    /// A step of the sweeper failed; it is tried again.
    SweepFailed {
        /// `clock`, `heal`, or the kind of jobs that retention was at.
        step: &'static str,
        /// What the database said.
        error: &'a str,
    },
    /// A step of the sweeper went well.
    Swept {
        /// Which.
        step: &'static str,
    },
    /// The database refused to give up jobs that retention would delete; the others go.
    PruneRefused {
        /// How many.
        jobs: u64,
        /// What it said of one of them.
        error: &'a str,
    },
    /// SQLite's log has grown far beyond what a checkpoint leaves: another process reads an old state of the file.
    LogGrows {
        /// Bytes in the log.
        bytes: u64,
    },
    /// The SQLite file has several names: a process that opens it by another one damages it.
    Linked {
        /// Its path.
        path: &'a str,
        /// How many.
        names: u64,
    },
    /// Retention deleted old jobs.
    Pruned {
        /// How many.
        jobs: u64,
    },
    /// A client presented a wrong token to the admin server.
    WrongToken,
    /// A bug that was caught by an assertion.
    Bug {
        /// What was found.
        what: &'a str,
    },
}
