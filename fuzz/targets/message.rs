//! Any bytes as a request, as a message and as a recipient: refused in one bounded line, or accepted,
//! and then the body that goes out is a request that is accepted again and gives the same body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postlane_message::validate::{
    self, Limits, PageForm, PayloadForm, Refusal, Request, Warning, WireForm,
};

/// Some of the further keys of `postlane enqueue`.
const EXTRA: [&str; 2] = ["send_at", "metadata"];

fuzz_target!(|line: &[u8]| {
    let limits = Limits::default();
    as_document(line, &limits);
    as_row(line, &limits);
    if let Ok(typed) = serde_json::from_slice::<postlane_message::Request>(line) {
        let _ = typed.check(&limits).map_err(|refusal| told(&refusal));
    }
});

/// What `enqueue` and `check-message` do with a line.
fn as_document(line: &[u8], limits: &Limits) {
    let document = match validate::document(line, &EXTRA, limits) {
        Ok(document) => document,
        Err(refusal) => return told(&refusal),
    };
    warned(&document.warnings);
    for form in forms() {
        let body = validate::body(&document.request(), form);
        serde_json::from_slice::<&serde_json::value::RawValue>(&body).expect("the body is JSON");
        again(&body, form, &document, limits);
    }
}

/// The body, read as a request, says the same and gives itself.
fn again(body: &[u8], form: WireForm, first: &validate::Document<'_>, limits: &Limits) {
    let second = match validate::document(body, &[], limits) {
        Ok(second) => second,
        // A payload that became a string is longer: each quote in it got a backslash.
        Err(refusal) if refusal.rule == "message.max_65536_bytes" => return,
        Err(refusal) => panic!("the body of an accepted request is refused: {refusal}"),
    };
    assert_eq!(second.page_id, first.page_id);
    assert_eq!(second.recipient, first.recipient);
    assert_eq!((&second.tag, second.delay), (&first.tag, first.delay));
    if form.payload == PayloadForm::AsGiven {
        assert_eq!(second.message, first.message);
        assert_eq!(second.warnings, first.warnings);
    }
    assert_eq!(validate::body(&second.request(), form), body);
}

/// What the worker does with a row: it judges the columns and builds the body, whatever they hold.
fn as_row(text: &[u8], limits: &Limits) {
    match validate::message(text, limits) {
        Ok(warnings) => warned(&warnings),
        Err(refusal) => told(&refusal),
    }
    if let Err(refusal) = validate::recipient(text) {
        told(&refusal);
    }
    let word = String::from_utf8_lossy(text);
    let delay = i64::try_from(text.len()).unwrap_or_default();
    let row = Request {
        page_id: &word,
        recipient: text,
        message: text,
        tag: Some(&word),
        delay: Some(delay),
    };
    if let Err(refusal) = validate::request(&row, limits) {
        told(&refusal);
    }
    for form in forms() {
        let _ = validate::body(&row, form);
    }
}

fn forms() -> impl Iterator<Item = WireForm> {
    [PageForm::Number, PageForm::String]
        .into_iter()
        .flat_map(|page_id| {
            [PayloadForm::String, PayloadForm::AsGiven].map(|payload| WireForm { page_id, payload })
        })
}

fn told(refusal: &Refusal) {
    one_short_line(&refusal.to_string());
}

fn warned(warnings: &[Warning]) {
    assert!(warnings.len() <= 32, "{} warnings", warnings.len());
    for warning in warnings {
        one_short_line(&warning.to_string());
    }
}

fn one_short_line(text: &str) {
    assert!(
        !text.contains(char::is_control),
        "more than a line: {text:?}"
    );
    assert!(text.len() < 2048, "{} bytes: {text:?}", text.len());
}
