//! A receipt with its lines and totals, the figures spelt as they were sent.

use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::Value;

use super::bubble::{image, items, line, word};

pub(super) fn show(message: &Value) -> Markup {
    let currency = line(message, "currency");
    let money = |of: &Value, field: &str| amount(of, field, &currency);
    let summary = message.get("summary").unwrap_or(&Value::Null);
    let totals = [
        ("Subtotal", "subtotal"),
        ("Shipping", "shipping_cost"),
        ("Tax", "total_tax"),
    ];
    html! {
        div.bubble.template.receipt {
            h3 { "Order " (line(message, "order_number")) }
            @for item in items(message, "elements") {
                div.row {
                    (image(item, true))
                    div.words {
                        strong { (line(item, "title")) }
                        span.soft { (line(item, "subtitle")) }
                        @if item.get("quantity").is_some() {
                            span.soft { "Qty. " (line(item, "quantity")) }
                        }
                    }
                    span.money {
                        (amount(item, "price", word(item, "currency").unwrap_or(&currency)))
                    }
                }
            }
            dl.facts {
                dt { "For" } dd { (line(message, "recipient_name")) }
                dt { "Paid with" } dd { (line(message, "payment_method")) }
                @if let Some(at) = word(message, "timestamp") { dt { "On" } dd { (moment(at)) } }
                @if let Some(address) = message.get("address") {
                    dt { "Ships to" } dd { (place(address)) }
                }
                @if let Some(url) = word(message, "order_url") {
                    dt { "See" } dd.target title=(url) { (url) }
                }
            }
            dl.totals {
                @for (word, field) in totals {
                    @if summary.get(field).is_some() {
                        dt { (word) } dd { (money(summary, field)) }
                    }
                }
                @for adjustment in items(message, "adjustments") {
                    dt { (line(adjustment, "name")) }
                    dd { "−" (money(adjustment, "amount")) }
                }
                dt.total { "Total" } dd.total { (money(summary, "total_cost")) }
            }
        }
    }
}

fn amount(of: &Value, field: &str, currency: &str) -> String {
    format!("{} {currency}", line(of, field))
}

/// Seconds as a date and time in UTC, or as they are.
fn moment(seconds: &str) -> String {
    let parsed = seconds.parse().ok();
    let at = parsed.and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.map_or(seconds.to_owned(), |at| {
        at.strftime("%Y-%m-%d %H:%M UTC").to_string()
    })
}

fn place(address: &Value) -> String {
    let fields = [
        "street_1",
        "street_2",
        "postal_code",
        "city",
        "state",
        "country",
    ];
    let parts = fields.map(|field| line(address, field));
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}
