//! What a person or a script may look at: the conversations, the record, the counts.
//!
//! Served beside the API, on the same address. Pages may load nothing but the style sheet, and
//! run nothing.

use crate::board::Board;
use crate::phone;
use crate::playbook::{Binding, Target};
use crate::wire::{self, Head, Route};

const SAFE: &str = "cache-control: no-store\r\nx-content-type-options: nosniff\r\n\
    referrer-policy: no-referrer\r\ncontent-security-policy: default-src 'none'; \
    style-src 'self'; img-src 'none'; form-action 'none'; base-uri 'none'; \
    frame-ancestors 'none'\r\n";

const HTML: &str = "text/html; charset=utf-8";

/// Writes the answer to a GET.
pub(crate) fn show(out: &mut Vec<u8>, board: &Board, head: &Head) {
    let (kind, body) = match &head.route {
        Route::Stats => ("application/json", json(&board.stats()) + "\n"),
        Route::Received => {
            let lines = board.received();
            let lines = lines.iter().map(|line| json(line) + "\n").collect();
            ("application/x-ndjson", lines)
        }
        Route::Style => ("text/css; charset=utf-8", phone::STYLE.to_owned()),
        Route::Chat(lane) => match phone::chat(board, lane, head.follow) {
            Some(page) => (HTML, page),
            None => return wire::refuse(out, 404, "use /chat/PAGE/KIND:VALUE", SAFE),
        },
        _ => (HTML, phone::inbox(board, head.follow)),
    };
    wire::answer(out, 200, kind, SAFE, body.as_bytes());
}

/// Reads scripts: a line `recipient=TARGET` and below it the script, or TOML, `"TARGET" = "SCRIPT"`.
pub(crate) fn read_bindings(body: &[u8]) -> Result<Vec<Binding>, String> {
    let text = std::str::from_utf8(body).map_err(|why| why.to_string())?;
    let one = text.split_once('\n').and_then(|(target, script)| {
        let target = target.trim().strip_prefix("recipient=")?;
        Some((target, script.trim()))
    });
    if let Some((target, script)) = one {
        let target: Target = target.parse().map_err(|why| format!("{why}"))?;
        let script = script.parse().map_err(|why| format!("{why}"))?;
        return Ok(vec![Binding { target, script }]);
    }
    let wanted = "the first line must be recipient=VALUE (or *), the second a script; or \
        send TOML with lines like \"VALUE\" = \"500 x2, ok\"";
    Binding::from_toml(text).map_err(|why| format!("{wanted}: {why}"))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
