//! What producers may send and what they may not, through the public interface alone.
//!
//! `published` holds the vendor's samples and the list of cases, `bounds` both sides of every
//! bound, `broken` generated messages that break exactly one of the rules in `breaks`, `bodies`
//! the bytes that go out, `documents` how a request splits, `damage` what any damage meets, `schema`
//! whether rules and schema agree, `sandbox` that the mock, which has rules of its own, judges all
//! of them alike, `typed` requests built in Rust. No database and no network.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

mod bodies;
mod bounds;
mod breaks;
mod broken;
mod checker;
mod damage;
mod documents;
mod generate;
mod published;
mod sandbox;
mod schema;
mod typed;

use postlane::validate::{self, Limits, Refusal, Warning};
use serde_json::{Value, json};

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

/// A request with this message and nothing that a rule could mind.
fn with_message(message: Value) -> Value {
    json!({"page_id": 12345, "recipient": {"id": "123456"}, "message": message})
}

fn text(text: impl Into<Value>) -> Value {
    with_message(json!({"template_type": "text", "text": text.into()}))
}

fn button(button: Value) -> Value {
    with_message(json!({"template_type": "button", "text": "Next?", "buttons": [button]}))
}

fn generic(element: Value) -> Value {
    with_message(json!({"template_type": "generic", "elements": [element]}))
}

fn list(element: Value) -> Value {
    let other = json!({"title": "Other", "subtitle": "s", "image_url": "https://shop.example/a"});
    with_message(json!({
        "template_type": "list", "top_element_style": "compact", "elements": [element, other]
    }))
}

/// The smallest receipt, with `fields` over it.
fn receipt(fields: Value) -> Value {
    let mut message = json!({
        "template_type": "receipt", "recipient_name": "Ann", "order_number": "1",
        "currency": "EUR", "payment_method": "cash", "summary": {"total_cost": 1.50}
    });
    if let (Value::Object(message), Value::Object(fields)) = (&mut message, fields) {
        message.extend(fields);
    }
    with_message(message)
}
