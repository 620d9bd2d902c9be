//! What an unfinished job waits for, in words, the most important first.

use super::out::safe;
use super::time::local;
use crate::clock::Millis;
use crate::config::Config;
use crate::job::AfterUnknown;
use crate::store::read::{Ahead, Job};

/// A job that expires within this is told so.
const SOON: Millis = 10 * 60 * 1_000;

/// The reasons, none for a finished job.
pub fn reasons(job: &Job, ahead: &Ahead, config: &Config, now: Millis) -> Vec<String> {
    let mut words = match job.state.as_str() {
        "queued" => queued(job, ahead, config, now),
        "sending" => vec![match &ahead.leased_by {
            Some(worker) => format!("for the answer to its attempt, by {}", safe(worker)),
            None => "for a worker to take over its attempt".to_owned(),
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
            words.push(format!("it expires soon: {}", local(expires, now)));
        }
    }
    words
}

fn queued(job: &Job, ahead: &Ahead, config: &Config, now: Millis) -> Vec<String> {
    let mut words = Vec::new();
    for pause in &ahead.pauses {
        let scope = safe(&pause.scope);
        let why = match safe(&pause.evidence()) {
            why if why.is_empty() => why,
            why => format!(" ({why})"),
        };
        words.push(match pause.next(|at| local(at, now)) {
            None => format!("for `postlane resume`: {scope} is paused{why}"),
            Some(next) => format!(
                "until {scope} is well again, since {}{why}: {next}",
                local(pause.since, now)
            ),
        });
    }
    if config.secret(&job.page_id).is_none() {
        words.push(format!(
            "for a secret: page {} has none in this configuration",
            safe(&job.page_id)
        ));
    }
    match job.send_at {
        Some(at) if at > now => words.push(format!("for its send_at: {}", local(at, now))),
        _ if job.due_at > now && job.attempts > 0 => words.push(format!(
            "for its backoff after {} of {} failures: {}",
            job.failures,
            config.retry.max_attempts,
            local(job.due_at, now)
        )),
        _ if job.due_at > now => words.push(format!("for its delay: {}", local(job.due_at, now))),
        _ => {}
    }
    if let Some((head, state, reason)) = &ahead.head {
        let jobs = if ahead.jobs == 1 { "job" } else { "jobs" };
        let reason = reason
            .as_deref()
            .map_or(String::new(), |why| format!(": {}", safe(why)));
        let passes = state == "unknown" && config.lanes.after_unknown == AfterUnknown::Continue;
        if !passes {
            words.push(format!(
                "for {} {jobs} before it in its line; {head} is {}{reason}",
                ahead.jobs,
                safe(state)
            ));
        }
    }
    if words.is_empty() {
        words.push("for nothing: it goes with the worker's next look".to_owned());
    }
    words
}
