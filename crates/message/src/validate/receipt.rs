//! The rules of a receipt.
//!
//! Spec section 1.5, the newer page only. No sum is checked, since the vendor's own sample counts
//! a line's total as its price, and no order number is compared with another.

use super::Refusal;
use super::check::{Fields, Item, Review};
use super::template::{image, sharable};

const RECEIPT: &[&str] = &[
    "template_type",
    "recipient_name",
    "order_number",
    "currency",
    "payment_method",
    "order_url",
    "timestamp",
    "address",
    "summary",
    "adjustments",
    "elements",
    "sharable",
];
const ELEMENT: &[&str] = &[
    "title",
    "subtitle",
    "quantity",
    "price",
    "currency",
    "image_url",
];
const ADDRESS: &[&str] = &[
    "street_1",
    "street_2",
    "city",
    "postal_code",
    "state",
    "country",
];
const SUMMARY: &[&str] = &["subtotal", "shipping_cost", "total_tax", "total_cost"];

/// Judges the fields of a receipt message.
pub(super) fn receipt(fields: &Fields<'_, '_>, review: &mut Review<'_>) -> Result<(), Refusal> {
    fields
        .required("recipient_name", "receipt.recipient_name")?
        .filled_or_warn(review)?;
    fields
        .required("order_number", "receipt.order_number")?
        .filled_or_warn(review)?;
    fields
        .required("currency", "receipt.currency")?
        .filled_or_warn(review)?;
    fields
        .required("payment_method", "receipt.payment_method")?
        .filled_or_warn(review)?;
    summary(&fields.required("summary", "receipt.summary")?, review)?;
    sharable(fields)?;
    if let Some(timestamp) = fields.optional("timestamp", "receipt.timestamp") {
        let text = timestamp.text()?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            let detail = "must be digits: the order's time in seconds since 1970";
            return Err(timestamp.refuse("seconds", detail));
        }
    }
    if let Some(url) = fields.optional("order_url", "receipt.order_url") {
        url.url()?;
    }
    if let Some(elements) = fields.optional("elements", "receipt.elements") {
        for item in elements.items(0..=review.limits.receipt_elements_max, "receipt.element")? {
            element(&item, review)?;
        }
    }
    if let Some(item) = fields.optional("address", "receipt.address") {
        address(&item, review)?;
    }
    if let Some(adjustments) = fields.optional("adjustments", "receipt.adjustments") {
        for item in adjustments.items(0..=usize::MAX, "receipt.adjustment")? {
            let fields = item.fields()?;
            fields
                .required("name", "receipt.adjustment.name")?
                .filled_or_warn(review)?;
            fields
                .required("amount", "receipt.adjustment.amount")?
                .number("type")?;
            fields.warn_unknown(&["name", "amount"], review);
        }
    }
    fields.warn_unknown(RECEIPT, review);
    Ok(())
}

fn summary(item: &Item<'_, '_>, review: &mut Review<'_>) -> Result<(), Refusal> {
    let fields = item.fields()?;
    fields.required("total_cost", "receipt.summary.total_cost")?;
    for key in SUMMARY {
        if let Some(cost) = fields.optional(key, "receipt.summary") {
            cost.number("number")?;
        }
    }
    fields.warn_unknown(SUMMARY, review);
    Ok(())
}

fn element(item: &Item<'_, '_>, review: &mut Review<'_>) -> Result<(), Refusal> {
    let fields = item.fields()?;
    fields
        .required("title", "receipt.element.title")?
        .filled()?;
    let price = fields.required("price", "receipt.element.price")?;
    if is_negative(price.number("type")?) {
        return Err(price.refuse("non_negative", "is below zero"));
    }
    if let Some(subtitle) = fields.optional("subtitle", "receipt.element.subtitle") {
        subtitle.text()?;
    }
    if let Some(quantity) = fields.optional("quantity", "receipt.element.quantity") {
        quantity.number("type")?;
    }
    if let Some(currency) = fields.optional("currency", "receipt.element.currency") {
        currency.text()?;
    }
    image(&fields)?;
    fields.warn_unknown(ELEMENT, review);
    Ok(())
}

/// Judged by its digits: a double would round the smallest of them to zero.
fn is_negative(number: &str) -> bool {
    let Some(rest) = number.strip_prefix('-') else {
        return false;
    };
    let mantissa = rest.split(['e', 'E']).next().unwrap_or(rest);
    mantissa.contains(|digit: char| ('1'..='9').contains(&digit))
}

fn address(item: &Item<'_, '_>, review: &mut Review<'_>) -> Result<(), Refusal> {
    let fields = item.fields()?;
    fields
        .required("street_1", "receipt.address.street_1")?
        .filled_or_warn(review)?;
    // Empty in the vendor's own sample.
    if let Some(street) = fields.optional("street_2", "receipt.address.street_2") {
        street.text()?;
    }
    fields
        .required("city", "receipt.address.city")?
        .filled_or_warn(review)?;
    fields
        .required("postal_code", "receipt.address.postal_code")?
        .filled_or_warn(review)?;
    fields
        .required("state", "receipt.address.state")?
        .filled_or_warn(review)?;
    let country = fields.required("country", "receipt.address.country")?;
    let text = country.text()?;
    if text.len() != 2 || !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(country.refuse("two_letter", "must be two letters, like US"));
    }
    fields.warn_unknown(ADDRESS, review);
    Ok(())
}
