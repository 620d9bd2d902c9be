//! Splits a whole API request, as producers write it, into the columns of a row.
//!
//! For `postlane enqueue`: one line of JSON, `{page_id, recipient, message, tag, delay}`, and the
//! further keys that the caller allows. Recipient and message keep their bytes. It refuses what
//! the rules refuse, and decides nothing about the further keys.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::check::Place;
use super::{Limits, Refusal, Request, Warning, envelope, json};

const KEYS: [&str; 5] = ["page_id", "recipient", "message", "tag", "delay"];

/// A request that broke no rule, in its parts.
#[derive(Debug, Clone)]
pub struct Document<'a> {
    /// Decimal digits, whether it was a number or a string.
    pub page_id: String,
    /// The recipient's own text.
    pub recipient: &'a str,
    /// The message's own text.
    pub message: &'a str,
    /// The tag, decoded; null counts as none.
    pub tag: Option<String>,
    /// Seconds; 0 if not given or null.
    pub delay: i64,
    /// The further keys that were allowed, undecoded, in the order of the text.
    pub extras: Vec<(String, &'a RawValue)>,
    /// What the rules warn of.
    pub warnings: Vec<Warning>,
}

impl Document<'_> {
    /// Its parts as a row holds them.
    pub fn request(&self) -> Request<'_> {
        Request {
            page_id: &self.page_id,
            recipient: self.recipient.as_bytes(),
            message: self.message.as_bytes(),
            tag: self.tag.as_deref(),
            delay: Some(self.delay),
        }
    }
}

/// Splits and judges `line`. A top-level key that is neither the API's nor in `extra_allowed` is
/// refused: it may be a misspelt `send_at`.
pub fn document<'a>(
    line: &'a [u8],
    extra_allowed: &[&str],
    limits: &Limits,
) -> Result<Document<'a>, Refusal> {
    let root = Place::Root("request");
    let text = json::text(line, "request")?;
    let whole: &RawValue = serde_json::from_str(text).map_err(|e| json::unreadable(&root, &e))?;
    if !whole.get().starts_with('{') {
        return Err(Refusal::new("request.object", &root, "must be an object"));
    }
    let members = json::members(whole.get(), &root)?;
    let extras = extras(&members, extra_allowed)?;
    let part = |name: &str| {
        members
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.get())
    };
    let required = |name: &'static str| {
        part(name).ok_or_else(|| {
            Refusal::new(format!("{name}.required"), &Place::Root(name), "is missing")
        })
    };
    let page_id = envelope::page_id_of(part("page_id"))?;
    let recipient = required("recipient")?;
    let message = required("message")?;
    let tag = envelope::tag_of(part("tag"))?;
    let delay = envelope::delay_of(part("delay"), limits)?;
    let mut document = Document {
        page_id,
        recipient,
        message,
        tag,
        delay,
        extras,
        warnings: Vec::new(),
    };
    document.warnings = super::request(&document.request(), limits)?;
    Ok(document)
}

fn extras<'a>(
    members: &json::Members<'a, &'a RawValue>,
    allowed: &[&str],
) -> Result<Vec<(String, &'a RawValue)>, Refusal> {
    let mut extras = Vec::new();
    for (key, value) in members {
        let name = Cow::as_ref(key);
        if KEYS.contains(&name) {
            continue;
        }
        if !allowed.contains(&name) {
            let place = Place::Key(&Place::Root("request"), name);
            return Err(Refusal::new(
                "request.unknown_key",
                &place,
                "is not a known key",
            ));
        }
        extras.push((name.to_owned(), *value));
    }
    Ok(extras)
}
