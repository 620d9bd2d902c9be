//! What may happen to a lane now, from what stands at its head.
//!
//! The rules of the line, pure: whether the head waits, ends, blocks, was lost by a worker that
//! is gone, or goes out. The ledger reads lines, asks here, and writes what is answered.

use std::time::Duration;

use postlane_message::validate::{self, Limits, Request};

use crate::clock::{Millis, millis};
use crate::job::{Head, Line, State};

/// What to do with a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is in the line: the lane ends.
    Empty,
    /// Nobody touches it before this time.
    Wait(Millis),
    /// Nobody touches it before a mark.
    Block,
    /// The head must not be sent: it ends with this reason, and the line goes on.
    End(String),
    /// The head's worker is gone: its attempt may have arrived.
    Lost,
    /// The head goes out with these bytes.
    Send(Vec<u8>),
}

/// The reason of a job that was not sent in time.
pub const EXPIRED: &str = "expired";

/// Decides what a line may do at `now`. `lease` is how long a claim lasts, `longest_wait` the longest that any
/// rule gives between two attempts; `delay_on_wire` sends the delay along (`api.delay = "api"`).
pub fn turn(
    line: &Line,
    now: Millis,
    lease: Duration,
    longest_wait: Duration,
    limits: &Limits,
    delay_on_wire: bool,
) -> Turn {
    let Some(head) = &line.head else {
        return Turn::Empty;
    };
    match head.state {
        // A claim whose lane row vanished is still on the wire until its lease would have ended.
        State::Sending => match head.started.map(|at| at.saturating_add(millis(lease))) {
            Some(until) if until > now => Turn::Wait(until),
            _ => Turn::Lost,
        },
        State::Unknown => Turn::Block,
        _ if head.expires.is_some_and(|at| at <= now) => Turn::End(EXPIRED.to_owned()),
        _ if line.paused => Turn::Block,
        _ => match due(head, now, longest_wait, delay_on_wire) {
            due if due > now => Turn::Wait(head.expires.map_or(due, |at| at.min(due))),
            _ => send(line, head, limits, delay_on_wire),
        },
    }
}

/// What was written a moment ago may be ahead of the time at which a line is looked at.
const MARGIN: Millis = 60_000;

/// When the head may go out. A delay that goes out on the wire is not waited for here as well. One without a delay
/// is due whatever the clock said when it was inserted. No rule lets a head wait for longer than its delay, or once
/// it has begun than the longest wait: then the clock has been set back since, nobody knows what is left, and it is
/// due.
fn due(head: &Head, now: Millis, longest_wait: Duration, delay_on_wire: bool) -> Millis {
    let longest = match head.attempts {
        0 if delay_on_wire || head.delay == 0 => return now,
        0 => head.delay * 1000,
        _ => millis(longest_wait),
    };
    match head.due > now.saturating_add(longest).saturating_add(MARGIN) {
        true => now,
        false => head.due,
    }
}

fn send(line: &Line, head: &Head, limits: &Limits, delay_on_wire: bool) -> Turn {
    let request = Request {
        page_id: &line.page,
        recipient: &head.recipient,
        message: &head.message,
        tag: head.tag.as_deref(),
        delay: delay_on_wire.then_some(head.delay),
    };
    // A payload that panics a rule must not come back and panic the next worker.
    let judged = std::panic::catch_unwind(|| {
        validate::request(&request, limits).map(|_warnings| validate::body(&request, limits.form))
    });
    match judged {
        Ok(Ok(body)) => Turn::Send(body),
        Ok(Err(refusal)) => Turn::End(format!("invalid: {refusal}")),
        Err(_) => Turn::End(
            "invalid: panic: message: the rules failed on it; please report this".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(change: impl FnOnce(&mut Head)) -> Line {
        let mut head = Head {
            job: 1,
            state: State::Queued,
            attempts: 0,
            failures: 0,
            ambiguous: 0,
            due: 1000,
            expires: None,
            on_ambiguous: None,
            recipient: br#"{"id":"1"}"#.to_vec(),
            message: br#"{"template_type":"text","text":"hi"}"#.to_vec(),
            tag: None,
            delay: 0,
            started: None,
        };
        change(&mut head);
        Line {
            lane: "1/id:1".into(),
            page: "1".into(),
            alone: false,
            paused: false,
            head: Some(head),
        }
    }

    fn at(now: Millis, line: &Line) -> Turn {
        turn(
            line,
            now,
            Duration::from_secs(45),
            Duration::from_secs(3600),
            &Limits::default(),
            false,
        )
    }

    #[test]
    fn a_head_waits_until_it_is_due_and_not_a_millisecond_longer() {
        let delayed = line(|h| h.delay = 1);
        assert_eq!(at(999, &delayed), Turn::Wait(1000));
        assert!(matches!(at(1000, &delayed), Turn::Send(_)));
        let tried = line(|h| h.attempts = 1);
        assert_eq!(at(999, &tried), Turn::Wait(1000));
        assert!(matches!(at(1000, &tried), Turn::Send(_)));
    }

    #[test]
    fn no_head_waits_for_longer_than_any_rule_says_when_the_clock_is_set_back() {
        let hour = 3_600_000;
        assert!(matches!(at(999, &line(|_| ())), Turn::Send(_)), "no delay");
        let delayed = |due| line(move |h| (h.delay, h.due) = (10, due));
        assert_eq!(at(0, &delayed(70_000)), Turn::Wait(70_000));
        assert!(matches!(at(0, &delayed(70_001)), Turn::Send(_)));
        let tried = |due| line(move |h| (h.attempts, h.due) = (3, due));
        let most = hour + 60_000;
        assert_eq!(at(0, &tried(most)), Turn::Wait(most));
        assert!(matches!(at(0, &tried(most + 1)), Turn::Send(_)));
    }

    #[test]
    fn a_head_ends_when_it_expires_even_in_its_backoff() {
        let expiring = line(|h| (h.attempts, h.expires) = (1, Some(500)));
        assert_eq!(at(499, &expiring), Turn::Wait(500));
        assert_eq!(at(500, &expiring), Turn::End(EXPIRED.to_owned()));
    }

    #[test]
    fn an_unknown_head_blocks_and_a_sending_one_is_lost_after_its_lease() {
        assert_eq!(at(0, &line(|h| h.state = State::Unknown)), Turn::Block);
        let sending = line(|h| (h.state, h.started) = (State::Sending, Some(1000)));
        assert_eq!(at(45_999, &sending), Turn::Wait(46_000));
        assert_eq!(at(46_000, &sending), Turn::Lost);
    }

    #[test]
    fn an_invalid_head_ends_with_rule_and_place() {
        let invalid = line(|h| h.message = br#"{"template_type":"text","text":""}"#.to_vec());
        let Turn::End(reason) = at(1000, &invalid) else {
            panic!("must end")
        };
        assert!(
            reason.starts_with("invalid: text.nonempty: message.text"),
            "{reason}"
        );
    }

    #[test]
    fn a_paused_lane_blocks_until_a_mark_and_an_empty_one_ends() {
        assert_eq!(
            at(
                1000,
                &Line {
                    paused: true,
                    ..line(|_| ())
                }
            ),
            Turn::Block
        );
        assert_eq!(
            at(
                1000,
                &Line {
                    head: None,
                    ..line(|_| ())
                }
            ),
            Turn::Empty
        );
    }
}
