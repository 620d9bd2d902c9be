//! What all pages share: the frame, and how times, spans and states are written.
//!
//! Every text passes through the template's escaping; there is no way around it in this folder.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::look::Blind;
use crate::clean::safe_lines;
use crate::clock::Millis;

/// A page as an answer.
pub(super) fn page(status: StatusCode, title: &str, body: &Markup) -> Response {
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Postlane" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                header {
                    a.brand href="/" { "Postlane" }
                    nav {
                        a href="/metrics" { "metrics" }
                        a href="/readyz" { "ready?" }
                    }
                }
                main { (body) }
                footer { "postlane " (env!("CARGO_PKG_VERSION")) " · all times UTC" }
            }
        }
    };
    let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    // It may be read with curl in a terminal, which obeys control characters.
    (status, html, safe_lines(&text.into_string())).into_response()
}

/// A page that says why there is nothing to see.
pub(super) fn sorry(status: StatusCode, what: &str) -> Response {
    let body = html! {
        h1 { (what) }
        p { a href="/" { "To the overview" } }
    };
    page(status, what, &body)
}

/// A place where the database would have been.
pub(super) fn blind(why: &Blind) -> Markup {
    html! { p.trouble { (why.detail()) } }
}

/// A moment, to the second.
pub(super) fn moment(at: Millis) -> String {
    match jiff::Timestamp::from_millisecond(at) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => at.to_string(),
    }
}

/// A span in its two largest units.
pub(super) fn span(ms: Millis) -> String {
    let seconds = ms / 1000;
    let two = |large, unit, small, sub| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit} {small}{sub}"),
    };
    match seconds {
        _ if ms < 1000 => format!("{ms} ms"),
        0..10 => format!("{}.{}s", seconds, ms % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A number with thin spaces between thousands.
pub(super) fn number(value: i64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        let left = digits.len() - at;
        if at > 0 && left.is_multiple_of(3) && !out.ends_with('-') {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A state in its colour. The class is one of our own words.
pub(super) fn state(word: &str) -> Markup {
    let class = word
        .parse::<crate::job::State>()
        .map_or("other", |state| state.as_str());
    html! { span class={ "state " (class) } { (word) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_are_read_at_a_glance() {
        assert_eq!(number(0), "0");
        assert_eq!(number(-1000), "-1\u{202f}000");
        assert_eq!(number(-100), "-100");
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(span(12), "12 ms");
        assert_eq!(span(1_250), "1.2s");
        assert_eq!(span(59_000), "59s");
        assert_eq!(span(60_000), "1m");
        assert_eq!(span(3_725_000), "1h 2m");
        assert_eq!(span(200_000_000), "2d 7h");
        assert_eq!(moment(0), "1970-01-01 00:00:00");
    }

    #[test]
    fn a_state_that_nobody_knows_does_not_become_a_class() {
        let shown = state("\"><script>").into_string();
        assert_eq!(
            shown,
            "<span class=\"state other\">&quot;&gt;&lt;script&gt;</span>"
        );
    }
}
