//! What a person or a script may look at: the last messages, the record, the counts.
//!
//! Served beside the API, on the same address. Everything a sender wrote is escaped, and the page
//! may load and run nothing.

use std::fmt::Write as _;

use super::board::Board;
use super::playbook::Binding;
use super::record::Received;
use super::wire::{self, Route};

/// How many messages the page lists.
const LISTED: usize = 200;

const SAFE: &str = "cache-control: no-store\r\nx-content-type-options: nosniff\r\n\
    content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\n";

/// Writes the answer to a GET.
pub(super) fn show(out: &mut Vec<u8>, board: &Board, route: Route) {
    let (kind, body) = match route {
        Route::Stats => ("application/json", json(&board.stats()) + "\n"),
        Route::Received => {
            let lines = board.received(usize::MAX);
            (
                "application/x-ndjson",
                lines.iter().map(|line| json(line) + "\n").collect(),
            )
        }
        _ => ("text/html; charset=utf-8", page(board)),
    };
    wire::answer(out, 200, kind, SAFE, body.as_bytes());
}

/// Reads `recipient=TARGET`, a line break and a script.
pub(super) fn read_binding(body: &[u8]) -> Result<Binding, String> {
    let text = std::str::from_utf8(body).map_err(|why| why.to_string())?;
    let wanted = "the first line must be recipient=VALUE (or *), the second a script";
    let (target, script) = text.split_once('\n').ok_or(wanted)?;
    let target = target.trim().strip_prefix("recipient=").ok_or(wanted)?;
    let target = target.parse().map_err(|why| format!("{why}"))?;
    let script = script.trim().parse().map_err(|why| format!("{why}"))?;
    Ok(Binding { target, script })
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn page(board: &Board) -> String {
    let stats = board.stats();
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Postlane sandbox</title>\
         <style>body{font:14px sans-serif;margin:2em}td,th{text-align:left;padding:.2em .8em;\
         border-bottom:1px solid #ccc;vertical-align:top}td{overflow-wrap:anywhere}</style>\
         <h1>Postlane sandbox</h1>",
    );
    _ = write!(
        page,
        "<p>{} received, {} accepted, {} order violations, {} duplicates, {} overlaps, \
         {} bad signatures</p>",
        stats.received,
        stats.accepted,
        stats.order_violations,
        stats.duplicates,
        stats.overlaps,
        stats.bad_signatures,
    );
    for finding in board.findings() {
        _ = write!(page, "<p><strong>{}</strong></p>", escape(&finding));
    }
    page.push_str(
        "<table><tr><th>Received<th>Page<th>Recipient<th>Number<th>Status<th>Took<th>Body</tr>",
    );
    for message in board.received(LISTED).iter().rev() {
        row(&mut page, message);
    }
    page.push_str("</table></html>\n");
    page
}

fn row(page: &mut String, message: &Received) {
    let dash = || "–".to_owned();
    let took = message
        .answer_ns
        .map(|answer| answer.saturating_sub(message.head_ns) / 1_000);
    let body = message
        .body
        .as_deref()
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    _ = write!(
        page,
        "<tr><td>{}<td>{}<td>{}: {}<td>{}<td>{}<td>{}<td>{}</tr>",
        message.seq,
        escape(&message.page_id),
        message.kind,
        escape(&message.recipient),
        message
            .number
            .map_or_else(dash, |number| number.to_string()),
        message
            .status
            .map_or_else(dash, |status| status.to_string()),
        took.map_or_else(dash, |micros| format!("{micros} µs")),
        escape(&body),
    );
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && c != '\n' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
