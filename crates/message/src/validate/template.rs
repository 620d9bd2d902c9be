//! The rules of a message: which of the five types it is, and those of text, button, generic
//! and list; a receipt has a room of its own.
//!
//! Spec section 1.5. Unknown fields of a message get a warning and are sent: the vendor's tables
//! are incomplete by their own samples.

use super::check::{Fields, Item, Place, Review};
use super::json::{self, Value};
use super::{Refusal, button, receipt};

const TYPES: &[&str] = &["text", "button", "generic", "list", "receipt"];
const TEXT: &[&str] = &["template_type", "text"];
const BUTTON: &[&str] = &["template_type", "text", "buttons", "sharable"];
const GENERIC: &[&str] = &[
    "template_type",
    "elements",
    "sharable",
    "image_aspect_ratio",
];
const LIST: &[&str] = &[
    "template_type",
    "elements",
    "sharable",
    "top_element_style",
    "buttons",
];
const ELEMENT: &[&str] = &[
    "title",
    "subtitle",
    "image_url",
    "default_action",
    "buttons",
];

/// Judges the message, given as its JSON text.
pub(super) fn message(json: &[u8], review: &mut Review<'_>) -> Result<(), Refusal> {
    let place = Place::Root("message");
    let max = review.limits.message_bytes_max;
    if json.len() > max {
        let detail = format!("is {} bytes, at most {max}", json.len());
        return Err(Refusal::new(
            format!("message.max_{max}_bytes"),
            &place,
            detail,
        ));
    }
    let node = json::parse(json, "message")?;
    let root = Item {
        place,
        name: "message",
        node: &node,
    };
    if matches!(node.value, Value::Null) {
        return Err(root.refuse("required", "is null"));
    }
    let fields = root.fields()?;
    match fields
        .required("template_type", "template_type")?
        .one_of(TYPES)?
    {
        "text" => {
            text(&fields, review)?;
            fields.warn_unknown(TEXT, review);
            Ok(())
        }
        "button" => {
            text(&fields, review)?;
            let buttons = fields.required("buttons", "buttons")?;
            button::buttons(&buttons, 1..=review.limits.buttons_max, review)?;
            sharable(&fields)?;
            fields.warn_unknown(BUTTON, review);
            Ok(())
        }
        "generic" => generic(&fields, review),
        "list" => list(&fields, review),
        _ => receipt::receipt(&fields, review),
    }
}

/// Whether the card may be shared on; in every type but text.
pub(super) fn sharable(fields: &Fields<'_, '_>) -> Result<(), Refusal> {
    fields
        .optional("sharable", "sharable")
        .map_or(Ok(true), |item| item.boolean())?;
    Ok(())
}

fn text(fields: &Fields<'_, '_>, review: &mut Review<'_>) -> Result<(), Refusal> {
    let text = fields.required("text", "text")?;
    text.at_most(text.filled()?, review.limits.text_max, review)
}

fn generic(fields: &Fields<'_, '_>, review: &mut Review<'_>) -> Result<(), Refusal> {
    sharable(fields)?;
    if let Some(ratio) = fields.optional("image_aspect_ratio", "image_aspect_ratio") {
        ratio.one_of(&["horizontal", "square"])?;
    }
    fields.warn_unknown(GENERIC, review);
    let elements = fields.required("elements", "generic.elements")?;
    for item in elements.items(1..=review.limits.generic_elements_max, "generic.element")? {
        let fields = item.fields()?;
        let mut more = title_and_subtitle(
            &fields,
            ["generic.element.title", "generic.element.subtitle"],
            review,
        )?;
        more |= image(&fields)?;
        if let Some(action) = fields.optional("default_action", "default_action") {
            button::default_action(&action, review)?;
            more = true;
        }
        if let Some(buttons) = fields.optional("buttons", "generic.element.buttons") {
            button::buttons(&buttons, 1..=review.limits.buttons_max, review)?;
            more = true;
        }
        if !more {
            let detail = "has only a title, needs subtitle, image_url, default_action or buttons";
            return Err(item.refuse("one_more_property", detail));
        }
        fields.warn_unknown(ELEMENT, review);
    }
    Ok(())
}

fn list(fields: &Fields<'_, '_>, review: &mut Review<'_>) -> Result<(), Refusal> {
    review.warn(
        "list.deprecated",
        &fields.place,
        "Meta shows lists as carousels or refuses them",
    );
    sharable(fields)?;
    // Meta's default is large, which shows the first element's image.
    let large = match fields.optional("top_element_style", "top_element_style") {
        Some(style) => style.one_of(&["compact", "large"])? == "large",
        None => true,
    };
    if let Some(buttons) = fields.optional("buttons", "list.buttons") {
        button::buttons(&buttons, 1..=1, review)?;
    }
    fields.warn_unknown(LIST, review);
    let elements = fields.required("elements", "list.elements")?;
    let mut needs_image = large;
    for item in elements.items(2..=review.limits.list_elements_max, "list.element")? {
        let fields = item.fields()?;
        let subtitle = title_and_subtitle(
            &fields,
            ["list.element.title", "list.element.subtitle"],
            review,
        )?;
        let image = image(&fields)?;
        if !subtitle && !image {
            return Err(item.refuse("image_or_subtitle", "needs image_url or subtitle"));
        }
        if std::mem::take(&mut needs_image) && !image {
            let detail = "has no image_url, which a large first element needs";
            review.warn("list.first_element.image_url", &item.place, detail);
        }
        if let Some(action) = fields.optional("default_action", "default_action")
            && !button::default_action(&action, review)?
        {
            // One of the vendor's pages demands it, both of their samples go without.
            let detail = "may need messenger_extensions to be true";
            review.warn(
                "list.default_action.messenger_extensions",
                &action.place,
                detail,
            );
        }
        if let Some(buttons) = fields.optional("buttons", "list.element.buttons") {
            button::buttons(&buttons, 1..=1, review)?;
        }
        fields.warn_unknown(ELEMENT, review);
    }
    Ok(())
}

/// Judges both, by rules that begin with `names`; returns whether there is a subtitle to see.
fn title_and_subtitle(
    fields: &Fields<'_, '_>,
    names: [&'static str; 2],
    review: &mut Review<'_>,
) -> Result<bool, Refusal> {
    let title = fields.required("title", names[0])?;
    title.at_most(title.filled()?, review.limits.element_title_max, review)?;
    let Some(subtitle) = fields.optional("subtitle", names[1]) else {
        return Ok(false);
    };
    let text = subtitle.text()?;
    subtitle.at_most(text, review.limits.element_subtitle_max, review)?;
    Ok(!text.trim().is_empty())
}

/// Judges the image; returns whether there is one.
pub(super) fn image(fields: &Fields<'_, '_>) -> Result<bool, Refusal> {
    let image = fields.optional("image_url", "image_url");
    image
        .as_ref()
        .map(Item::url)
        .transpose()
        .map(|url| url.is_some())
}
