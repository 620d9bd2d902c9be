//! A message as its recipient would see it, whatever is in it.

use maud::{Markup, html};
use serde_json::Value;

use super::receipt;

/// The most characters of a message that a list of conversations shows.
const PREVIEW: usize = 80;

/// A request body, read as far as it can be.
pub(super) struct Sent(Value);

impl Sent {
    pub fn read(body: &[u8]) -> Self {
        Self(serde_json::from_slice(body).unwrap_or_default())
    }

    pub fn tag(&self) -> Option<&str> {
        word(&self.0, "tag")
    }

    fn message(&self) -> &Value {
        &self.0["message"]
    }
}

/// The string in a field, if it is there and one.
pub(super) fn word<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field)?.as_str()
}

/// The items of a list, none if there is no list.
pub(super) fn items<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    let items = value.get(field).and_then(Value::as_array);
    items.map_or(&[], Vec::as_slice)
}

/// One line about a message.
pub(super) fn preview(body: &[u8]) -> String {
    let sent = Sent::read(body);
    let message = sent.message();
    let title = || word(items(message, "elements").first()?, "title");
    let text = match word(message, "template_type") {
        Some("receipt") => {
            let number = word(message, "order_number").unwrap_or_default();
            format!("Receipt {number}")
        }
        kind => word(message, "text")
            .or_else(title)
            .or(kind)
            .unwrap_or("…")
            .to_owned(),
    };
    match text.char_indices().nth(PREVIEW) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The whole message.
pub(super) fn show(sent: &Sent) -> Markup {
    let message = sent.message();
    match word(message, "template_type") {
        Some("text") => html! { div.bubble { (line(message, "text")) } },
        Some("button") => html! {
            div.bubble.template {
                p { (line(message, "text")) }
                (buttons(message))
            }
        },
        Some("generic") => carousel(message),
        Some("list") => list(message),
        Some("receipt") => receipt::show(message),
        _ => html! { pre.bubble { (message) } },
    }
}

fn carousel(message: &Value) -> Markup {
    let square = word(message, "image_aspect_ratio") == Some("square");
    html! {
        div.carousel tabindex="0" {
            @for card in items(message, "elements") {
                div.bubble.card {
                    (image(card, square))
                    div.words {
                        strong { (line(card, "title")) }
                        span.soft { (line(card, "subtitle")) }
                        (action(card))
                    }
                    (buttons(card))
                }
            }
        }
    }
}

fn list(message: &Value) -> Markup {
    let large = word(message, "top_element_style") != Some("compact");
    html! {
        div.bubble.template.list {
            @for (at, row) in items(message, "elements").iter().enumerate() {
                div.row.cover[large && at == 0] {
                    div.words {
                        strong { (line(row, "title")) }
                        span.soft { (line(row, "subtitle")) }
                        (action(row))
                        (buttons(row))
                    }
                    (image(row, !large || at > 0))
                }
            }
            (buttons(message))
        }
    }
}

/// A box in the place of an image: nothing is loaded from anywhere.
pub(super) fn image(of: &Value, square: bool) -> Markup {
    html! {
        @if let Some(url) = word(of, "image_url") {
            div.image.square[square] title=(url) { span { (url) } }
        }
    }
}

/// Where a tap on a card leads.
fn action(of: &Value) -> Markup {
    html! {
        @if let Some(action) = of.get("default_action") {
            @let url = word(action, "url").unwrap_or("?");
            span.target title=(url) { "tap: " (url) }
        }
    }
}

/// The buttons below a message or a card; each with what a tap on it would do.
fn buttons(of: &Value) -> Markup {
    let buttons = items(of, "buttons");
    html! {
        @if !buttons.is_empty() {
            div.buttons {
                @for button in buttons {
                    @let does = does(button);
                    div.button title=(does) {
                        strong { (line(button, "title")) }
                        span.target { (does) }
                    }
                }
            }
        }
    }
}

/// What a tap on a button does.
fn does(button: &Value) -> String {
    match word(button, "type") {
        Some("web_url") => {
            let height = word(button, "webview_height_ratio");
            let height = height
                .map(|ratio| format!(" ({ratio})"))
                .unwrap_or_default();
            format!("opens {}{height}", line(button, "url"))
        }
        Some("postback") => format!("sends {}", line(button, "payload")),
        other => format!("{}?", other.unwrap_or("no type")),
    }
}

/// A field as text: a string as it is, anything else as its JSON, nothing if it is not there.
pub(super) fn line(value: &Value, field: &str) -> String {
    match value.get(field) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
