//! The rules of buttons: `web_url`, `postback`, and the `default_action` of an element.
//!
//! Spec section 1.4. Other button types of Messenger are refused: neither of the vendor's pages
//! knows them. Where a button may stand and how many there may be is its message's business.

use std::ops::RangeInclusive;

use super::Refusal;
use super::body::payload_text;
use super::check::{Fields, Item, Review};
use super::json::Value;

const TYPES: &[&str] = &["web_url", "postback"];
const RATIOS: &[&str] = &["compact", "tall", "full"];
const WEB_URL: &[&str] = &[
    "type",
    "title",
    "url",
    "webview_height_ratio",
    "messenger_extensions",
    "fallback_url",
];
const POSTBACK: &[&str] = &["type", "title", "payload"];
const BLOCKS: &[&str] = &["block_id", "flow_id"];

/// The buttons of a message or an element. An empty array breaks the card, so `count` begins
/// with 1.
pub(super) fn buttons(
    item: &Item<'_, '_>,
    count: RangeInclusive<usize>,
    review: &mut Review<'_>,
) -> Result<(), Refusal> {
    for item in item.items(count, "button")? {
        let fields = item.fields()?;
        let kind = fields.required("type", "button.type")?.one_of(TYPES)?;
        let title = fields.required("title", "button.title")?;
        title.at_most(title.filled()?, review.limits.button_title_max, review)?;
        if kind == "web_url" {
            web_url(&fields, review)?;
            fields.warn_unknown(WEB_URL, review);
        } else {
            payload(&fields.required("payload", "postback.payload")?, review)?;
            fields.warn_unknown(POSTBACK, review);
        }
    }
    Ok(())
}

/// What a tap on an element opens: a `web_url` button without a title. Returns whether it sets
/// `messenger_extensions`.
pub(super) fn default_action(
    item: &Item<'_, '_>,
    review: &mut Review<'_>,
) -> Result<bool, Refusal> {
    let fields = item.fields()?;
    match fields.optional("type", "default_action.type") {
        Some(kind) if matches!(&kind.node.value, Value::Text(text) if text == "web_url") => {}
        Some(kind) => return Err(kind.refuse("web_url", "must be \"web_url\"")),
        None => return Err(item.refuse("type.web_url", "has no type, must be \"web_url\"")),
    }
    if let Some(title) = fields.optional("title", item.name) {
        return Err(title.refuse("no_title", "is not allowed here"));
    }
    fields.warn_unknown(WEB_URL, review);
    web_url(&fields, review)
}

/// The fields that a button and a default action share. Returns whether `messenger_extensions`
/// is true.
fn web_url(fields: &Fields<'_, '_>, review: &mut Review<'_>) -> Result<bool, Refusal> {
    fields.required("url", "web_url.url")?.url()?;
    if let Some(ratio) = fields.optional("webview_height_ratio", "webview_height_ratio") {
        ratio.one_of(RATIOS)?;
    }
    let extensions = match fields.optional("messenger_extensions", "messenger_extensions") {
        Some(item) => item.boolean()?,
        None => false,
    };
    if let Some(fallback) = fields.optional("fallback_url", "fallback_url") {
        let url = fallback.url()?;
        if !extensions {
            let detail = "has no effect unless messenger_extensions is true";
            review.warn("fallback_url.messenger_extensions", &fallback.place, detail);
        }
        if !url.to_ascii_lowercase().starts_with("https:") {
            review.warn("fallback_url.https", &fallback.place, "is not https");
        }
    }
    Ok(extensions)
}

/// A postback payload: an opaque string, or an object that names a block or a flow.
fn payload(item: &Item<'_, '_>, review: &mut Review<'_>) -> Result<(), Refusal> {
    let max = review.limits.payload_max;
    match &item.node.value {
        Value::Text(_) => item.at_most(item.filled()?, max, review),
        Value::Object(_) => {
            let fields = item.fields()?;
            let mut known = BLOCKS
                .iter()
                .filter_map(|key| fields.optional(key, "postback.payload.object_values"))
                .peekable();
            if known.peek().is_none() {
                return Err(item.refuse("object_keys", "has neither block_id nor flow_id"));
            }
            if let Some(wrong) = known.find(|field| !names_a_block(field)) {
                let detail = "must be a string that is not blank, or a whole number";
                return Err(Refusal::new(wrong.name, &wrong.place, detail));
            }
            fields.warn_unknown(BLOCKS, review);
            item.at_most(&payload_text(item.node.raw), max, review)
        }
        _ => {
            let detail = format!("is {}, must be a string or an object", item.node.kind());
            Err(item.refuse("type", detail))
        }
    }
}

fn names_a_block(item: &Item<'_, '_>) -> bool {
    match &item.node.value {
        Value::Text(text) => !text.trim().is_empty(),
        Value::Number => !item.node.raw.contains(['.', 'e', 'E']),
        _ => false,
    }
}
