//! Whether the ledgers move: when each last finished a cycle, until when it may rest, and what call of
//! the database it waits for. A ledger that hangs says nothing itself, so the caller works it out.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

// Not the boot clock: sleeps stand still while the machine is suspended, and so must what is due.
use tokio::time::Instant;

/// A ledger that should move and has not for so long stands still.
const STANDS_AFTER: Duration = Duration::from_secs(10);

/// The signs of life of one ledger.
#[derive(Debug)]
pub struct Pulse {
    worker: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// It must move again after this: the end of its last cycle, or of the sleep it planned.
    due: Instant,
    waiting: Option<Waiting>,
}

/// A call of the database that takes long.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    verb: String,
    since: Instant,
    why: String,
    is_known: bool,
}

/// A ledger that stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which: a worker may have two.
    pub worker: String,
    /// How long it has stood still.
    pub since: Duration,
    /// What it waits for.
    pub what: String,
    /// The server said that it is at work on what is waited for: a restart of the worker would not help.
    pub is_known: bool,
}

impl Pulse {
    pub(super) fn new(worker: &str) -> Self {
        Self {
            worker: worker.to_owned(),
            state: Mutex::new(State {
                due: Instant::now(),
                waiting: None,
            }),
        }
    }

    /// It begins or ends a cycle.
    pub fn beats(&self) {
        self.rests(Duration::ZERO);
    }

    /// It has nothing to do for that long.
    pub fn rests(&self, span: Duration) {
        self.state().due = Instant::now() + span;
    }

    /// It waits for a call of the database, since so long.
    pub fn waits(&self, verb: &str, waited: Duration, why: &str, is_known: bool) {
        self.state().waiting = Some(Waiting {
            verb: verb.to_owned(),
            since: Instant::now() - waited,
            why: why.to_owned(),
            is_known,
        });
    }

    /// What it waited for is over.
    pub fn goes_on(&self) {
        self.state().waiting = None;
    }

    /// How long it should have moved and has not.
    pub(super) fn overdue(&self) -> Duration {
        self.state().due.elapsed()
    }

    /// Whether it stands still: at once if it is known what it waits for.
    pub(super) fn standing(&self) -> Option<Standing> {
        let overdue = self.overdue();
        let waiting = self.state().waiting.clone();
        if waiting.is_none() && overdue < STANDS_AFTER {
            return None;
        }
        let since = waiting.as_ref().map_or(overdue, |w| w.since.elapsed());
        // What stands in brackets names sessions and standbys, which are the log's.
        let what = waiting.as_ref().map_or_else(
            || "it has not finished a cycle".to_owned(),
            |w| {
                let why = w.why.split(" (").next().unwrap_or_default();
                format!("it waits for the database to answer `{}`: {why}", w.verb)
            },
        );
        Some(Standing {
            worker: self.worker.clone(),
            since,
            what,
            is_known: waiting.is_some_and(|waiting| waiting.is_known),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aged(pulse: &Pulse, span: Duration) {
        let mut state = pulse.state();
        state.due -= span;
    }

    #[test]
    fn a_ledger_stands_still_once_it_should_have_moved() {
        let pulse = Pulse::new("w");
        aged(&pulse, Duration::from_secs(9));
        assert_eq!(pulse.standing(), None);
        aged(&pulse, Duration::from_secs(2));
        let standing = pulse.standing().expect("stands");
        assert!(standing.since >= Duration::from_secs(11) && !standing.is_known);
        pulse.beats();
        assert_eq!(pulse.standing(), None);
    }

    #[test]
    fn a_planned_sleep_is_no_standstill_until_it_is_over() {
        let pulse = Pulse::new("w");
        pulse.rests(Duration::from_secs(600));
        aged(&pulse, Duration::from_secs(599));
        assert_eq!((pulse.overdue(), pulse.standing()), (Duration::ZERO, None));
        aged(&pulse, Duration::from_secs(20));
        assert!(pulse.standing().is_some());
    }

    #[test]
    fn a_call_that_was_told_is_seen_at_once_and_nobody_is_named() {
        let pulse = Pulse::new("w");
        let why = "the server waits for a lock (row) that is held by 7 psql";
        pulse.waits("commit", Duration::from_secs(5), why, true);
        let standing = pulse.standing().expect("stands");
        assert!(standing.since >= Duration::from_secs(5) && standing.is_known);
        assert!(standing.what.contains("`commit`") && !standing.what.contains("psql"));
        pulse.goes_on();
        assert_eq!(pulse.standing(), None);
    }
}
