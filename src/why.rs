//! What an unfinished job waits for, in words, the most important first: for `show` and for its page.
//!
//! The words hold texts of producers and receivers as they are; callers must escape them.

use crate::clock::Millis;
use crate::job::AfterUnknown;
use crate::store::read::{Ahead, Attempt, Job};

/// A job that expires within this is told so.
const SOON: Millis = 10 * 60 * 1_000;

/// What is known beside the database's rows.
pub struct Known<'a> {
    /// Failures after which a job is dead.
    pub max_attempts: u32,
    /// What an unknown job does to its lane.
    pub after_unknown: AfterUnknown,
    /// What is known of the secret of the job's page.
    pub secret: Secret,
    /// Whether a worker is seen on the database, if that can be told.
    pub worker: Option<bool>,
    /// The database's clock.
    pub now: Millis,
    /// How a moment is shown.
    pub at: &'a dyn Fn(Millis) -> String,
}

/// What is known of a page's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    /// There is one, or it cannot be told from here.
    There,
    /// The worker has none.
    Missing,
    /// This configuration has none; the worker's may differ.
    NotHere,
}

/// The reasons, none for a finished job.
pub fn reasons(job: &Job, ahead: &Ahead, known: &Known<'_>) -> Vec<String> {
    let Known { now, at, .. } = *known;
    let mut words = match job.state.as_str() {
        "queued" => queued(job, ahead, known),
        "sending" => vec![match (&ahead.stuck, &ahead.worker) {
            (Some(why), _) => format!(
                "for its outcome to be recorded, which the database refuses, tried again every minute: {why}"
            ),
            (None, Some(worker)) => format!("for the answer to its attempt, by {worker}"),
            (None, None) => "for a worker to take over its attempt".to_owned(),
        }],
        "unknown" => vec![format!(
            "for `postlane resolve {}`: it may have arrived",
            job.id
        )],
        "held" => vec![format!("for `postlane release {}`", job.id)],
        _ => return Vec::new(),
    };
    if let Some(expires) = job.expires_at {
        if expires <= now {
            words.push("it has expired, and becomes dead when its turn comes".to_owned());
        } else if expires - now <= SOON {
            words.push(format!("it expires soon: {}", at(expires)));
        }
    }
    if known.worker == Some(false) && matches!(job.state.as_str(), "queued" | "sending") {
        let word = "for a worker: none is seen on this database; start `postlane run`";
        words.insert(0, word.to_owned());
    }
    words
}

/// A note for a job that did not end as delivered although one attempt was accepted: that answer came after
/// the next attempt had begun.
pub fn late(job: &Job, attempts: &[Attempt]) -> Option<String> {
    let ended_otherwise = job.state != "delivered";
    let accepted = attempts
        .iter()
        .find(|attempt| attempt.outcome.as_deref() == Some("delivered"));
    accepted.filter(|_| ended_otherwise).map(|attempt| {
        let number = attempt.number;
        format!("attempt {number} was accepted, but its answer came when the next had begun: it has arrived")
    })
}

fn queued(job: &Job, ahead: &Ahead, known: &Known<'_>) -> Vec<String> {
    let Known { now, at, .. } = *known;
    let mut words = Vec::new();
    for pause in &ahead.pauses {
        let scope = &pause.scope;
        let why = match pause.evidence() {
            why if why.is_empty() => why,
            why => format!(" ({why})"),
        };
        words.push(match pause.next(at) {
            None => format!("for `postlane resume`: {scope} is paused{why}"),
            Some(next) => format!(
                "until {scope} is well again, since {}{why}: {next}",
                at(pause.since)
            ),
        });
    }
    if known.secret == Secret::Missing {
        let page = &job.page_id;
        words.push(format!(
            "for a secret: page {page} has none in the worker's configuration"
        ));
    }
    match job.send_at {
        Some(join) if join > now => words.push(format!("for its send_at: {}", at(join))),
        Some(_) if job.is_scheduled => words.push(
            "to join its lane: its send_at has passed, and a worker lets it in; within two minutes if its row in \
             send_timers is missing"
                .to_owned(),
        ),
        _ if job.due_at > now && job.attempts > 0 => words.push(format!(
            "for its backoff after {} of {} failures: {}",
            job.failures,
            known.max_attempts,
            at(job.due_at)
        )),
        _ if job.due_at > now && job.delay > 0 => {
            words.push(format!("for its delay: {}", at(job.due_at)));
        }
        _ => {}
    }
    if let Some((head, state, reason)) = &ahead.head {
        let jobs = if ahead.jobs == 1 { "job" } else { "jobs" };
        let reason = reason
            .as_deref()
            .map_or(String::new(), |why| format!(": {why}"));
        let passes = state == "unknown" && known.after_unknown == AfterUnknown::Continue;
        if !passes {
            words.push(format!(
                "for {} {jobs} ahead of it in its lane; {head} is {state}{reason}",
                ahead.jobs
            ));
        }
    }
    if words.is_empty() && known.worker != Some(false) {
        words.push("for nothing: the next cycle sends it".to_owned());
    }
    if known.secret == Secret::NotHere {
        words.push(format!(
            "for a secret, if the worker has none for page {} either: this configuration names none",
            job.page_id
        ));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::AttemptNo;

    fn attempt(number: i64, outcome: &str) -> Attempt {
        Attempt {
            number: AttemptNo(number),
            started_at: 0,
            finished_at: Some(1),
            outcome: Some(outcome.to_owned()),
            http_status: None,
            error: None,
            response: None,
            rule: None,
            worker: "w".to_owned(),
        }
    }

    #[test]
    fn an_answer_that_came_too_late_to_count_is_told() {
        let mut job = Job {
            state: "dead".to_owned(),
            ..Job::default()
        };
        let attempts = [attempt(1, "delivered"), attempt(2, "refused")];
        assert!(
            late(&job, &attempts).is_some_and(|late| late.starts_with("attempt 1 was accepted"))
        );
        assert_eq!(late(&job, &attempts[1..]), None);
        job.state = "delivered".to_owned();
        assert_eq!(late(&job, &attempts), None);
    }
}
