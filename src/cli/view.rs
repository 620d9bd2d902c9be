//! A job as it is shown: as JSON with the columns' names, and as lines for people.
//!
//! Message, recipient and metadata are shown only when asked for; without, their keys are there and null.

use serde::Serialize;
use serde_json::value::RawValue;

use super::time::utc;
use crate::clock::Millis;
use crate::job::{AttemptNo, JobId};
use crate::store::read::{Attempt, Job, raw};

/// A job in JSON.
#[derive(Serialize)]
pub struct JobView<'a> {
    id: JobId,
    page_id: &'a str,
    recipient: Option<Box<RawValue>>,
    message: Option<Box<RawValue>>,
    tag: Option<&'a str>,
    delay: i64,
    send_at: Option<String>,
    expires_at: Option<String>,
    ordering_key: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    on_ambiguous: Option<&'a str>,
    metadata: Option<Box<RawValue>>,
    lane: &'a str,
    state: &'a str,
    attempts: i64,
    failures: i64,
    possible_duplicate: bool,
    requeued_from: Option<JobId>,
    due_at: String,
    reason: Option<&'a str>,
    last_status: Option<i64>,
    last_rule: Option<&'a str>,
    created_at: String,
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts_log: Option<Vec<AttemptView<'a>>>,
}

/// An attempt in JSON.
#[derive(Serialize)]
pub struct AttemptView<'a> {
    number: AttemptNo,
    started_at: String,
    finished_at: Option<String>,
    outcome: Option<&'a str>,
    http_status: Option<i64>,
    error: Option<&'a str>,
    response: Option<&'a str>,
    rule: Option<&'a str>,
    worker: &'a str,
}

impl<'a> JobView<'a> {
    /// All columns of a job.
    pub fn new(job: &'a Job, payload: bool) -> Self {
        let shown = |text: &str| payload.then(|| raw(text));
        let at = |at: Option<Millis>| at.map(utc);
        Self {
            id: job.id,
            page_id: &job.page_id,
            recipient: shown(&job.recipient),
            message: shown(&job.message),
            tag: job.tag.as_deref(),
            delay: job.delay,
            send_at: at(job.send_at),
            expires_at: at(job.expires_at),
            ordering_key: job.ordering_key.as_deref(),
            idempotency_key: job.idempotency_key.as_deref(),
            on_ambiguous: job.on_ambiguous.as_deref(),
            metadata: job.metadata.as_deref().and_then(shown),
            lane: &job.lane,
            state: &job.state,
            attempts: job.attempts,
            failures: job.failures,
            possible_duplicate: job.possible_duplicate,
            requeued_from: job.requeued_from,
            due_at: utc(job.due_at),
            reason: job.reason.as_deref(),
            last_status: job.last_status,
            last_rule: job.last_rule.as_deref(),
            created_at: utc(job.created_at),
            finished_at: at(job.finished_at),
            waits_for: None,
            attempts_log: None,
        }
    }

    /// With its history, and what it waits for.
    #[must_use]
    pub fn with(mut self, log: &'a [Attempt], waits_for: Vec<String>, payload: bool) -> Self {
        self.waits_for = Some(waits_for);
        let view = |attempt: &'a Attempt| AttemptView {
            number: attempt.number,
            started_at: utc(attempt.started_at),
            finished_at: attempt.finished_at.map(utc),
            outcome: attempt.outcome.as_deref(),
            http_status: attempt.http_status,
            error: attempt.error.as_deref(),
            response: attempt.response.as_deref().filter(|_| payload),
            rule: attempt.rule.as_deref(),
            worker: &attempt.worker,
        };
        self.attempts_log = Some(log.iter().map(view).collect());
        self
    }
}
