//! `/jobs/ID`: one job, what it waits for, and the attempts that were made.
//!
//! What the producer wrote (recipient, message, metadata) is shown only to who asks for it.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::page::{moment, page, sorry, span, state};
use super::{Rules, Shown};
use crate::clock::Millis;
use crate::job::{AttemptNo, JobId};
use crate::store::read::{Ahead, Attempt, Job, ahead, attempts, find};
use crate::why::{self, Known, Secret};

/// Attempts shown.
const ATTEMPTS: i64 = 100;

/// What else is asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    payload: String,
}

struct Found {
    job: Job,
    attempts: Vec<Attempt>,
    ahead: Ahead,
    now: Millis,
}

pub(super) async fn show(
    Shared(shown): Shared<Arc<Shown>>,
    id: Result<Path<JobId>, PathRejection>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let Ok(Path(id)) = id else {
        return sorry(StatusCode::NOT_FOUND, "a job's id is a number");
    };
    let payload = asked.is_ok_and(|Query(asked)| asked.payload == "1");
    let found = shown.look.page(move |pool| async move {
        let Some(job) = find(&pool, id).await? else {
            return Ok(None);
        };
        let attempts = attempts(&pool, id, ATTEMPTS).await?;
        let ahead = ahead(&pool, &job).await?;
        let now = pool.now().await?;
        Ok(Some(Found {
            job,
            attempts,
            ahead,
            now,
        }))
    });
    match found.await {
        Ok(Some(found)) => {
            let waits_for = waits_for(&found, &shown.worker);
            let body = body(&found, &waits_for, payload);
            page(StatusCode::OK, &format!("Job {id}"), &body)
        }
        Ok(None) => sorry(StatusCode::NOT_FOUND, "there is no such job"),
        Err(why) => sorry(StatusCode::SERVICE_UNAVAILABLE, &why.detail()),
    }
}

/// What `show` says, too.
fn waits_for(found: &Found, worker: &Rules) -> Vec<String> {
    let Found {
        job, ahead, now, ..
    } = found;
    let known = Known {
        max_attempts: worker.max_attempts,
        after_unknown: worker.after_unknown,
        secret: match (worker.has_secret)(&job.page_id) {
            true => Secret::There,
            false => Secret::Missing,
        },
        worker: Some(true),
        now: *now,
        at: &|at| match at > *now {
            true => format!("{} UTC, in {}", moment(at), span(at - now)),
            false => format!("{} UTC, {} ago", moment(at), span(now - at)),
        },
    };
    why::reasons(job, ahead, &known)
}

fn body(found: &Found, waits_for: &[String], payload: bool) -> Markup {
    let job = &found.job;
    html! {
        h1 { "Job " (job.id) " " (state(&job.state)) }
        @if let Some(reason) = &job.reason { p.reason { bdi { (reason) } } }
        @if !waits_for.is_empty() {
            p.muted { "It waits" }
            ul.waits { @for reason in waits_for { li { bdi { (reason) } } } }
            @if let Some((head, ..)) = &found.ahead.head {
                p { a href={ "/jobs/" (head) } { "To job " (head) ", the first before it" } }
            }
        }
        (columns(job))
        (producer(job, payload))
        section {
            h2 { "Attempts" }
            (timeline(&found.attempts))
            @if let Some(late) = why::late(&found.job, &found.attempts) { p { (late) } }
        }
    }
}

fn columns(job: &Job) -> Markup {
    let text = |name: &str, value: Option<&str>| {
        html! { @if let Some(value) = value { dt { (name) } dd { bdi { (value) } } } }
    };
    let time = |name: &str, at: Option<Millis>| {
        html! { @if let Some(at) = at { dt { (name) } dd.time { (moment(at)) } } }
    };
    html! {
        dl.columns {
            (text("lane", Some(&job.lane)))
            dt { "page_id" } dd { a href={ "/?page=" (job.page_id) } { (job.page_id) } }
            (text("tag", job.tag.as_deref()))
            dt { "attempts" } dd { (job.attempts) ", " (job.failures) " count as failures" }
            @if let Some(status) = job.last_status { dt { "last_status" } dd { (status) } }
            @if let Some(rule) = &job.last_rule { dt { "last_rule" } dd { (rule) } }
            @if job.possible_duplicate { dt { "possible_duplicate" } dd { "sent again after an attempt that may have arrived" } }
            @if let Some(from) = job.requeued_from { dt { "requeued_from" } dd { a href={ "/jobs/" (from) } { (from) } } }
            @if job.delay != 0 { dt { "delay" } dd { (job.delay) " s" } }
            (time("created_at", Some(job.created_at)))
            (time("send_at", job.send_at))
            (time("due_at", Some(job.due_at)))
            (time("expires_at", job.expires_at))
            (time("finished_at", job.finished_at))
            (text("on_ambiguous", job.on_ambiguous.as_deref()))
            (text("ordering_key", job.ordering_key.as_deref()))
            (text("idempotency_key", job.idempotency_key.as_deref()))
        }
    }
}

fn producer(job: &Job, payload: bool) -> Markup {
    html! {
        section {
            h2 { "What the producer wrote" }
            @if payload {
                h3 { "recipient" } pre { (job.recipient) }
                h3 { "message" } pre { (job.message) }
                @if let Some(metadata) = &job.metadata { h3 { "metadata" } pre { (metadata) } }
                p { a href={ "/jobs/" (job.id) } { "hide it" } }
            } @else {
                p.muted { "Hidden. " a href={ "/jobs/" (job.id) "?payload=1" } { "Show recipient, message and metadata" } }
            }
        }
    }
}

fn timeline(attempts: &[Attempt]) -> Markup {
    html! {
        @if attempts.is_empty() {
            p.muted { "None yet." }
        } @else {
            @if attempts.first().is_some_and(|first| first.number > AttemptNo::FIRST) {
                p.muted { "The last " (attempts.len()) "." }
            }
            ol.timeline {
                @for attempt in attempts { li value=(attempt.number) { (line(attempt)) } }
            }
        }
    }
}

fn line(attempt: &Attempt) -> Markup {
    let outcome = attempt.outcome.as_deref().unwrap_or("running");
    html! {
        div.what {
            strong { (outcome) }
            @if let Some(status) = attempt.http_status { span { "HTTP " (status) } }
            @if let Some(rule) = &attempt.rule { span.muted { "by rule " bdi { (rule) } } }
        }
        div.muted {
            (moment(attempt.started_at))
            @if let Some(at) = attempt.finished_at { ", took " (span((at - attempt.started_at).max(0))) }
            ", by " bdi { (attempt.worker) }
        }
        @if let Some(error) = &attempt.error { p.reason { bdi { (error) } } }
        @if let Some(response) = attempt.response.as_deref().filter(|text| !text.is_empty()) {
            pre { (response) }
        }
    }
}
