//! `/metrics`: what was counted, and a few gauges of the small tables.
//!
//! No label holds a page, a lane or a recipient: the number of series does not grow with use.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::Shown;
use crate::store::look::Waiting;
use crate::store::waits::{Cause, Waits};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const END: &str = "# EOF\n";

pub(super) async fn show(State(shown): State<Arc<Shown>>) -> Response {
    let mut text = shown.events.metrics();
    // A scrape must not fail because the database does; the gauges are then absent.
    let (waiting, waits) = tokio::join!(shown.look.waiting(), shown.look.waits());
    let more = gauges(waiting.ok(), waits.ok().as_deref());
    text.truncate(text.strip_suffix(END).map_or(text.len(), str::len));
    text.push_str(&more);
    ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response()
}

fn gauges(waiting: Option<Waiting>, waits: Option<&Waits>) -> String {
    let mut registry = Registry::with_prefix("postlane");
    let up = Gauge::<i64>::default();
    up.set(i64::from(waiting.is_some()));
    registry.register("database_up", "1 while the database can be read", up);
    if let Some(waiting) = waiting {
        let gauges = [
            ("lanes", "Lanes with undelivered work", waiting.lanes),
            ("leased_lanes", "Lanes that a worker holds", waiting.leased),
            ("inbox_marks", "Marks not yet taken in", waiting.inbox),
            (
                "scheduled_jobs",
                "Jobs waiting for their send_at",
                waiting.scheduled,
            ),
            ("pauses", "Scopes that are paused", waiting.pauses),
        ];
        for (name, help, value) in gauges {
            registry.register(name, help, ConstGauge::new(value));
        }
    }
    if let Some(waits) = waits {
        // All of them, always: what is not there cannot be compared with a bound.
        let oldest = Family::<[(&str, &str); 1], Gauge<f64, AtomicU64>>::default();
        for cause in Cause::ALL {
            let waited = waits.oldest.get(&cause).copied().unwrap_or(0);
            let waited = Duration::from_millis(waited.unsigned_abs());
            oldest
                .get_or_create(&[("cause", cause.as_str())])
                .set(waited.as_secs_f64());
        }
        registry.register(
            "oldest_waiting_seconds",
            "How long the oldest job of each cause has been waiting since it was enqueued or its send_at came",
            oldest,
        );
        let jobs = Family::<[(&str, &str); 1], Gauge<i64>>::default();
        for (state, count) in &waits.jobs {
            jobs.get_or_create(&[("state", *state)]).set(*count);
        }
        registry.register(
            "jobs",
            "Jobs that are open or dead, by state, each counted up to 50000",
            jobs,
        );
    }
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}
