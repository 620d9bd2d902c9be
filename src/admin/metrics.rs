//! `/metrics`: what was counted, and a few gauges of the small tables.
//!
//! No label holds a page, a lane or a recipient: the number of series does not grow with use.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::Shown;
use crate::store::look::Waiting;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const END: &str = "# EOF\n";

pub(super) async fn show(State(shown): State<Arc<Shown>>) -> Response {
    let mut text = shown.events.metrics();
    // A scrape must not fail because the database does; the gauges are then absent.
    let more = gauges(shown.look.waiting().await.ok());
    text.truncate(text.strip_suffix(END).map_or(text.len(), str::len));
    text.push_str(&more);
    ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response()
}

fn gauges(waiting: Option<Waiting>) -> String {
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
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}
