//! Requests to judge: samples, generated ones, ways to break them, and the smallest of each type.

pub mod breaks;
pub mod generate;
pub mod samples;

use serde_json::{Value, json};

pub const URL: &str = "https://shop.example/a?b=1";

/// URLs that the rules take, here and in the sandbox.
pub const URLS: [&str; 6] = [
    "http://a.example",
    "HTTPS://a.example:8443/x#y",
    "https://例え.jp/订单",
    "https://user@a.example:",
    "http://[::1]:80?a=@b",
    URL,
];

/// Texts that are not absolute http or https URLs to either.
pub const NO_URLS: [&str; 20] = [
    "",
    " ",
    "/a",
    "//a.example",
    "a.example",
    "https:",
    "https://",
    "https:a.example",
    "https:a.example/?u=https://b.example",
    "https:///a.example",
    "https://\\a.example",
    "ftp://a.example",
    "javascript:alert(1)",
    "mailto:a@a.example",
    " https://a.example",
    "https://a.example/a b",
    "https://a.example/\n",
    "https://a.example:99999",
    "https://:80/",
    "https://a.example:+80",
];

/// A request with a button that leads to `url`.
pub fn linked(url: &str) -> Value {
    button(json!({"type": "web_url", "title": "Go", "url": url}))
}

/// A request with this message and nothing that a rule could mind.
pub fn with_message(message: Value) -> Value {
    json!({"page_id": 12345, "recipient": {"id": "123456"}, "message": message})
}

pub fn text(text: impl Into<Value>) -> Value {
    with_message(json!({"template_type": "text", "text": text.into()}))
}

pub fn button(button: Value) -> Value {
    with_message(json!({"template_type": "button", "text": "Next?", "buttons": [button]}))
}

pub fn generic(element: Value) -> Value {
    with_message(json!({"template_type": "generic", "elements": [element]}))
}

pub fn list(element: Value) -> Value {
    let other = json!({"title": "Other", "subtitle": "s", "image_url": "https://shop.example/a"});
    with_message(json!({
        "template_type": "list", "top_element_style": "compact", "elements": [element, other]
    }))
}

/// The smallest receipt, with `fields` over it.
pub fn receipt(fields: Value) -> Value {
    let mut message = json!({
        "template_type": "receipt", "recipient_name": "Ann", "order_number": "1",
        "currency": "EUR", "payment_method": "cash", "summary": {"total_cost": 1.50}
    });
    if let (Value::Object(message), Value::Object(fields)) = (&mut message, fields) {
        message.extend(fields);
    }
    with_message(message)
}
