//! The life of an attempt: a job in hand, its claim, its completion.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{BootInstant, Millis};
use crate::job::{AttemptNo, Head, JobId, Lane, OnAmbiguous, Outcome, PageId, State, Token};
use crate::pace::Slot;

/// A lane leased by a statement, with its head job. Nothing may be sent before the commit.
#[derive(Debug)]
pub struct InHand {
    /// The lane.
    pub lane: Lane,
    /// Its page.
    pub page: PageId,
    /// The token that was written.
    pub token: Token,
    /// The job.
    pub head: Head,
    /// The unfinished attempt of a dead worker; `None` if a new attempt may begin.
    pub lost: Option<Lost>,
}

/// An attempt whose worker is gone, so its outcome will never be reported.
#[derive(Debug)]
pub struct Lost {
    /// Which attempt of the job, from 1.
    pub number: AttemptNo,
    /// When it began.
    pub started: Millis,
    /// The worker that made it.
    pub worker: Arc<str>,
}

/// A job whose attempt is recorded by its lane's row and may be sent.
#[derive(Debug)]
pub struct Claim {
    /// Its lane.
    pub lane: Lane,
    /// The token of the claim.
    pub token: Token,
    /// The job.
    pub job: JobId,
    /// Which attempt of the job, from 1.
    pub number: AttemptNo,
    /// The page; its secret signs the request.
    pub page: PageId,
    /// The exact bytes to send.
    pub body: Bytes,
    /// Failures before this attempt.
    pub failures: i64,
    /// Ambiguous attempts before this one that count towards `max_ambiguous`.
    pub ambiguous: i64,
    /// From the end of the job's previous attempt to the claim; none if it is the first.
    pub since_previous: Option<Duration>,
    /// The job's own policy.
    pub on_ambiguous: Option<OnAmbiguous>,
    /// The producer's delay.
    pub delay: Duration,
    /// How long after the claim it may still be sent; none if it never expires.
    pub expires_in: Option<Duration>,
    /// When it was claimed, on the database's clock.
    pub started: Millis,
    /// When it was claimed, on this machine's boot clock; taken before the database was asked.
    pub claimed: BootInstant,
    /// Its slot.
    pub slot: Slot,
}

/// How one attempt ended, as `send_attempts` stores it.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it began.
    pub started: Millis,
    /// The worker that made it; `None` means this one.
    pub worker: Option<Arc<str>>,
    /// How it ended.
    pub outcome: Outcome,
    /// The answer's HTTP status.
    pub status: Option<u16>,
    /// What went wrong, without secrets.
    pub error: Option<Arc<str>>,
    /// The first 2 KiB of the answer.
    pub response: Option<Arc<str>>,
    /// The rule that judged it.
    pub rule: Arc<str>,
    /// It counts towards `max_attempts`.
    pub failed: bool,
    /// It counts towards `max_ambiguous`: other lanes were delivered meanwhile.
    pub singled_out: bool,
}

/// Why a completion could not be written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeldBack {
    /// It has not been tried.
    #[default]
    No,
    /// Its rows were locked by another transaction; the last wait, in milliseconds.
    Locked(Millis),
    /// The database rejected it; it is retried alone.
    Refused,
}

/// What to write for a leased lane: how the attempt ended and the job's next state.
#[derive(Debug)]
pub struct Completion {
    /// The lane.
    pub lane: Lane,
    /// Its page.
    pub page: PageId,
    /// The token by which it was in hand.
    pub token: Token,
    /// The job.
    pub job: JobId,
    /// The number of the attempt for which it was in hand, from 1.
    pub number: AttemptNo,
    /// The attempt; none if the job ends, or its lane is given back, without one.
    pub attempt: Option<Attempt>,
    /// The state its job goes to; none if it stays as it is and the lane is given back.
    pub state: Option<State>,
    /// When it ended, on the database's clock.
    pub finished: Millis,
    /// When the job, or the lane that is given back, may be tried again.
    pub due: Millis,
    /// Why the job is where it is.
    pub reason: Option<Arc<str>>,
    /// How long the lane rests.
    pub rest: Duration,
    /// Why an earlier write of it failed.
    pub held_back: HeldBack,
    /// The slot of its request, until the ledger has heard of its end.
    pub slot: Option<Slot>,
}

impl Completion {
    /// Whether the receiver answered.
    pub fn is_answered(&self) -> bool {
        self.attempt
            .as_ref()
            .is_some_and(|attempt| attempt.status.is_some())
    }
}
