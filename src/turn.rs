//! Whether a leased job is sent or ends without an attempt.
//!
//! Pure. The SQL of [`crate::store::lanes`] decides when a job is leased.

use postlane_message::validate::{self, Limits, Request};

use crate::clock::Millis;
use crate::job::Head;

/// What to do with a leased job.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// It must not be sent: it ends with this reason, and its lane goes on.
    End(String),
    /// It goes out with these bytes.
    Send(Vec<u8>),
}

/// The reason of a job that was not sent in time.
pub const EXPIRED: &str = "expired";

/// Decides whether a job of a page may go out at `now`. `delay_on_wire` sends the delay along (`api.delay = "api"`).
pub fn turn(page: &str, head: &Head, now: Millis, limits: &Limits, delay_on_wire: bool) -> Turn {
    if head.expires.is_some_and(|at| at <= now) {
        return Turn::End(EXPIRED.to_owned());
    }
    let request = Request {
        page_id: page,
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
            "invalid: panic: message: a validation rule crashed on it; please report this"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;

    fn head(change: impl FnOnce(&mut Head)) -> Head {
        let mut head = Head {
            job: JobId(1),
            attempts: 0,
            failures: 0,
            ambiguous: 0,
            expires: None,
            on_ambiguous: None,
            recipient: br#"{"id":"1"}"#.to_vec(),
            message: br#"{"template_type":"text","text":"hi"}"#.to_vec(),
            tag: None,
            delay: 0,
            since: None,
        };
        change(&mut head);
        head
    }

    fn at(now: Millis, head: &Head) -> Turn {
        turn("1", head, now, &Limits::default(), false)
    }

    #[test]
    fn a_head_ends_when_it_expires() {
        let expiring = head(|h| (h.attempts, h.expires) = (1, Some(500)));
        assert!(matches!(at(499, &expiring), Turn::Send(_)));
        assert_eq!(at(500, &expiring), Turn::End(EXPIRED.to_owned()));
    }

    #[test]
    fn an_invalid_head_ends_with_rule_and_place() {
        let invalid = head(|h| h.message = br#"{"template_type":"text","text":""}"#.to_vec());
        let Turn::End(reason) = at(1000, &invalid) else {
            panic!("must end")
        };
        assert!(
            reason.starts_with("invalid: text.nonempty: message.text"),
            "{reason}"
        );
    }
}
