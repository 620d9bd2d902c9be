//! What producers may send and what they may not, through the public interface alone.
//!
//! `published` holds the vendor's samples and the list of cases, `bounds` both sides of every
//! bound, `broken` generated messages that break exactly one of the rules in `breaks.txt`,
//! `bodies` the bytes that are signed (`src/sign.rs` of the worker has their signatures), `documents`
//! how a request splits, `damage` what any damage meets, `schema` whether rules and schema agree,
//! `typed` requests built in Rust. The sandbox's own rules are asked about the same requests in the
//! worker's `tests/sandbox.rs`. No database and no network.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

mod bodies;
mod bounds;
mod broken;
mod checker;
mod damage;
mod documents;
mod published;
mod schema;
#[path = "../support/mod.rs"]
mod support;
mod typed;

use postlane_message::validate::{self, Limits, Refusal, Warning};
use serde_json::Value;

/// The judgement of a whole request.
fn judge(request: &Value) -> Result<Vec<Warning>, Refusal> {
    let text = request.to_string();
    validate::document(text.as_bytes(), &[], &Limits::default()).map(|document| document.warnings)
}

/// The rule that refuses `request`.
fn rule(request: &Value) -> String {
    match judge(request) {
        Ok(_) => panic!("not refused: {request}"),
        Err(refusal) => refusal.rule.into_owned(),
    }
}

/// The names of the warnings about `request`, which is valid.
fn warnings(request: &Value) -> Vec<String> {
    match judge(request) {
        Ok(warnings) => warnings
            .into_iter()
            .map(|warning| warning.rule.into_owned())
            .collect(),
        Err(refusal) => panic!("{refusal}: {request}"),
    }
}
