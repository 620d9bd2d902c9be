//! Builds the bytes that are signed and sent.
//!
//! Puts the producer's own text of recipient and message between the keys of the documented
//! example, in its order. The one change it makes: an object as postback payload becomes a
//! string that holds it (the newer page's type; Meta takes only strings), unless it is told to
//! leave it as given. It judges nothing, and what it cannot read it leaves as it is.

use std::borrow::Cow;

use super::Request;
use super::envelope::is_page_id;
use super::json::{self, Node, Value};

/// How the body spells what the API takes in two ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WireForm {
    /// `page_id` (spec section 5, no. 4).
    pub page_id: PageForm,
    /// An object as postback payload (spec section 5, no. 5).
    pub payload: PayloadForm,
}

/// How `page_id` goes out (`api.page_id`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PageForm {
    /// As a number, as in every sample of the vendor; as a string if it does not fit 64 bits.
    #[default]
    Number,
    /// As a string, as in the newer page's table.
    String,
}

/// How an object as postback payload goes out (`api.payload`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PayloadForm {
    /// As a string that holds it without blanks: the newer page's type, and all that Meta takes.
    #[default]
    String,
    /// As the producer wrote it.
    AsGiven,
}

/// The exact body of a request, spelt as `form` says.
///
/// `tag` and `delay` are there only if they are given. The same row and the same form give the
/// same bytes at every attempt.
pub fn body(request: &Request<'_>, form: WireForm) -> Vec<u8> {
    let size = request.recipient.len() + request.message.len() + request.page_id.len() + 128;
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(b"{\"page_id\":");
    let number = form.page_id == PageForm::Number
        && is_page_id(request.page_id)
        && request.page_id.parse::<u64>().is_ok();
    if number {
        out.extend_from_slice(request.page_id.as_bytes());
    } else {
        push_string(&mut out, request.page_id);
    }
    out.extend_from_slice(b",\"recipient\":");
    out.extend_from_slice(request.recipient);
    out.extend_from_slice(b",\"message\":");
    match form.payload {
        PayloadForm::String => push_message(&mut out, request.message),
        PayloadForm::AsGiven => out.extend_from_slice(request.message),
    }
    if let Some(tag) = request.tag {
        out.extend_from_slice(b",\"tag\":");
        push_string(&mut out, tag);
    }
    if let Some(delay) = request.delay {
        out.extend_from_slice(format!(",\"delay\":{delay}").as_bytes());
    }
    out.push(b'}');
    out
}

/// The string that an object payload goes out as: the object without blanks between its tokens,
/// everything else as the producer spelt it.
pub(super) fn payload_text(raw: &str) -> Cow<'_, str> {
    if !raw.contains([' ', '\t', '\n', '\r']) {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in raw.chars() {
        if quoted || !matches!(c, ' ' | '\t' | '\n' | '\r') {
            text.push(c);
        }
        // A quote ends a string unless a backslash stands before it that is not itself escaped.
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
    }
    Cow::Owned(text)
}

fn push_message(out: &mut Vec<u8>, message: &[u8]) {
    // Without the word, and without an escape that could spell it, no key is `payload`: most messages
    // need not be read again.
    let plain = |text: &str| !text.contains("payload") && !text.contains('\\');
    if std::str::from_utf8(message).is_ok_and(plain) {
        return out.extend_from_slice(message);
    }
    let mut sent = 0;
    if let Ok(node) = json::parse(message, "message") {
        for object in object_payloads(&node) {
            // `raw` is a piece of `message`, so the distance of their addresses is its offset.
            let at = object.raw.as_ptr().addr() - message.as_ptr().addr();
            out.extend_from_slice(&message[sent..at]);
            push_string(out, &payload_text(object.raw));
            sent = at + object.raw.len();
        }
    }
    out.extend_from_slice(&message[sent..]);
}

/// The objects that stand as payload of a postback button, in the order of the text.
fn object_payloads<'n, 'a>(message: &'n Node<'a>) -> Vec<&'n Node<'a>> {
    let mut found = Vec::new();
    for (key, node) in members(message) {
        match key.as_ref() {
            "buttons" => of_buttons(node, &mut found),
            "elements" => {
                for (key, node) in items(node).iter().flat_map(members) {
                    if key == "buttons" {
                        of_buttons(node, &mut found);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn of_buttons<'n, 'a>(buttons: &'n Node<'a>, found: &mut Vec<&'n Node<'a>>) {
    for button in items(buttons) {
        let field = |name: &str| {
            members(button)
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, node)| node)
        };
        let postback = field("type")
            .is_some_and(|node| matches!(&node.value, Value::Text(kind) if kind == "postback"));
        let object = field("payload").filter(|node| matches!(node.value, Value::Object(_)));
        found.extend(object.filter(|_| postback));
    }
}

fn members<'n, 'a>(node: &'n Node<'a>) -> &'n [(Cow<'a, str>, Node<'a>)] {
    match &node.value {
        Value::Object(members) => members,
        _ => &[],
    }
}

fn items<'n, 'a>(node: &'n Node<'a>) -> &'n [Node<'a>] {
    match &node.value {
        Value::Array(items) => items,
        _ => &[],
    }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_loses_the_blanks_between_tokens_and_no_others() {
        let raw = "{ \"block_id\" : \"a b\\\" \\\\\" ,\n\t\"n\" : 1.50 }";
        assert_eq!(
            payload_text(raw),
            "{\"block_id\":\"a b\\\" \\\\\",\"n\":1.50}"
        );
    }
}
