//! The names of all rules: what a refusal may say.
//!
//! A list to read and to hold the tests to (each rule is broken by one at least); the rules
//! themselves are where the fields are, and none of them looks here.

use super::Limits;

/// What is checked, and the suffixes of its rules. `{…}` is a bound by its name in [`Limits`].
const RULES: &[(&str, &str)] = &[
    ("json", "utf8 syntax lone_surrogate duplicate_key depth"),
    ("request", "object unknown_key"),
    ("page_id", "required type max_40"),
    (
        "recipient",
        "required object exactly_one unknown_key max_1024_bytes",
    ),
    ("recipient.value", "string nonempty no_nul"),
    ("tag", "type enum"),
    ("delay", "type range_0_{delay_max}"),
    ("message", "required object max_{message_bytes_max}_bytes"),
    ("template_type", "required enum"),
    ("text", "required type nonempty max_{text_max}"),
    ("sharable", "type"),
    ("image_aspect_ratio", "enum"),
    ("top_element_style", "enum"),
    ("image_url", "type format"),
    ("buttons", "required array min_1 max_{buttons_max}"),
    ("button", "object"),
    ("button.type", "required enum"),
    (
        "button.title",
        "required type nonempty max_{button_title_max}",
    ),
    ("web_url.url", "required type format"),
    ("webview_height_ratio", "enum"),
    ("messenger_extensions", "type"),
    ("fallback_url", "type format"),
    (
        "postback.payload",
        "required type nonempty max_{payload_max} object_keys object_values",
    ),
    ("default_action", "object type.web_url no_title"),
    (
        "generic.elements",
        "required array min_1 max_{generic_elements_max}",
    ),
    ("generic.element", "object one_more_property"),
    (
        "generic.element.title",
        "required type nonempty max_{element_title_max}",
    ),
    (
        "generic.element.subtitle",
        "type max_{element_subtitle_max}",
    ),
    ("generic.element.buttons", "array min_1 max_{buttons_max}"),
    (
        "list.elements",
        "required array min_2 max_{list_elements_max}",
    ),
    ("list.element", "object image_or_subtitle"),
    (
        "list.element.title",
        "required type nonempty max_{element_title_max}",
    ),
    ("list.element.subtitle", "type max_{element_subtitle_max}"),
    ("list.element.buttons", "array min_1 max_1"),
    ("list.buttons", "array min_1 max_1"),
    ("receipt.recipient_name", "required type"),
    ("receipt.order_number", "required type"),
    ("receipt.currency", "required type"),
    ("receipt.payment_method", "required type"),
    ("receipt.order_url", "type format"),
    ("receipt.timestamp", "type seconds"),
    ("receipt.summary", "required object number"),
    ("receipt.summary.total_cost", "required"),
    ("receipt.elements", "array max_{receipt_elements_max}"),
    ("receipt.element", "object"),
    ("receipt.element.title", "required type nonempty"),
    ("receipt.element.subtitle", "type"),
    ("receipt.element.quantity", "type"),
    ("receipt.element.price", "required type non_negative"),
    ("receipt.element.currency", "type"),
    ("receipt.address", "object"),
    ("receipt.address.street_1", "required type"),
    ("receipt.address.street_2", "type"),
    ("receipt.address.city", "required type"),
    ("receipt.address.postal_code", "required type"),
    ("receipt.address.state", "required type"),
    ("receipt.address.country", "required type two_letter"),
    ("receipt.adjustments", "array"),
    ("receipt.adjustment", "object"),
    ("receipt.adjustment.name", "required type"),
    ("receipt.adjustment.amount", "required type"),
];

/// The name of every rule that a request can break, with the bounds in `limits`.
pub fn rules(limits: &Limits) -> Vec<String> {
    RULES
        .iter()
        .flat_map(|(name, suffixes)| {
            let suffixes = suffixes.split(' ');
            suffixes.map(move |suffix| format!("{name}.{}", figured(suffix, limits)))
        })
        .collect()
}

/// The suffix with its bound in figures.
fn figured(suffix: &str, limits: &Limits) -> String {
    let parts = suffix.split_once('{').and_then(|(before, rest)| {
        let (bound, after) = rest.split_once('}')?;
        Some(format!("{before}{}{after}", limits.figure(bound)?))
    });
    parts.unwrap_or_else(|| suffix.to_owned())
}
