//! The rules beside the message: page, recipient, tag and delay.
//!
//! Spec sections 1.2, 1.3 and 1.6. Unknown keys are refused in a recipient and nowhere else: a
//! second way to name a recipient must never be lost silently.

use super::check::{Fields, Item, Place, Review, quote};
use super::json::{self, Value};
use super::{Limits, Refusal};

/// The four ways to name a recipient; exactly one is given.
const KINDS: [&str; 4] = ["id", "phone", "email", "uuid"];

/// The longest page id, in digits: that of the column.
const PAGE_ID_MAX: usize = 40;
/// The longest recipient, in bytes of its JSON text: that of the column.
const RECIPIENT_MAX: usize = 1024;

const PAGE_ID: Place<'_> = Place::Root("page_id");
const TAG: Place<'_> = Place::Root("tag");
const DELAY: Place<'_> = Place::Root("delay");

/// The recipient's part of a lane: the kind and the decoded value, for example
/// `("id", "123456")`. The value is not folded: not trimmed, not put into lower case.
pub fn recipient(json: &[u8]) -> Result<(&'static str, String), Refusal> {
    if json.len() > RECIPIENT_MAX {
        let detail = format!("is {} bytes, at most {RECIPIENT_MAX}", json.len());
        let rule = format!("recipient.max_{RECIPIENT_MAX}_bytes");
        return Err(Refusal::new(rule, &Place::Root("recipient"), detail));
    }
    let node = json::parse(json, "recipient")?;
    let root = Item {
        place: Place::Root("recipient"),
        name: "recipient",
        node: &node,
    };
    if matches!(node.value, Value::Null) {
        return Err(root.refuse("required", "is null"));
    }
    let fields = root.fields()?;
    let (kind, item) = only_kind(&root, &fields)?;
    let Value::Text(value) = &item.node.value else {
        let detail = format!("is {}, must be a string", item.node.kind());
        return Err(item.refuse("string", detail));
    };
    let value = value.as_ref();
    if value.trim().is_empty() {
        return Err(item.refuse("nonempty", "is blank"));
    }
    // Postgres cannot store it in a text column, and the lane is one.
    if value.contains('\0') {
        return Err(item.refuse("no_nul", "holds a NUL character"));
    }
    Ok((kind, value.to_owned()))
}

/// The one kind that is given, and its value.
fn only_kind<'s, 'a>(
    root: &Item<'_, '_>,
    fields: &'s Fields<'s, 'a>,
) -> Result<(&'static str, Item<'s, 'a>), Refusal> {
    let unknown = fields
        .members
        .iter()
        .find(|(key, _)| !KINDS.contains(&key.as_ref()));
    if let Some((key, _)) = unknown {
        let detail = format!("use one of {}", KINDS.join(", "));
        return Err(Refusal::new(
            "recipient.unknown_key",
            &Place::Key(&root.place, key),
            detail,
        ));
    }
    let value = |kind| {
        fields
            .optional(kind, "recipient.value")
            .map(|item| (kind, item))
    };
    let mut given = KINDS.into_iter().filter_map(value);
    match (given.next(), given.next()) {
        (Some(only), None) => Ok(only),
        _ => {
            let detail = format!(
                "has {} of {}, exactly 1",
                fields.members.len(),
                KINDS.join(", ")
            );
            Err(root.refuse("exactly_one", detail))
        }
    }
}

/// True for decimal digits of which the first is not zero.
pub(super) fn is_page_id(text: &str) -> bool {
    !text.starts_with('0') && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn page_id(text: &str) -> Result<(), Refusal> {
    if !is_page_id(text) {
        let detail = "must be a positive whole number, or a string of its digits";
        return Err(Refusal::new("page_id.type", &PAGE_ID, detail));
    }
    if text.len() > PAGE_ID_MAX {
        let detail = format!("is {} digits, at most {PAGE_ID_MAX}", text.len());
        let rule = format!("page_id.max_{PAGE_ID_MAX}");
        return Err(Refusal::new(rule, &PAGE_ID, detail));
    }
    Ok(())
}

/// The page of a document, a number or a string there, as decimal digits.
pub(super) fn page_id_of(raw: Option<&str>) -> Result<String, Refusal> {
    let Some(raw) = raw.filter(|raw| *raw != "null") else {
        return Err(Refusal::new("page_id.required", &PAGE_ID, "is missing"));
    };
    let text = match raw.starts_with('"') {
        true => json::string(raw, &PAGE_ID)?.into_owned(),
        false => raw.to_owned(),
    };
    page_id(&text)?;
    Ok(text)
}

pub(super) fn tag(tag: Option<&str>, review: &mut Review<'_>) -> Result<(), Refusal> {
    let Some(tag) = tag else { return Ok(()) };
    let limits = review.limits;
    if !limits.tags.iter().any(|known| known == tag) {
        let detail = format!("is {}, use one of {}", quote(tag), limits.tags.join(", "));
        return Err(Refusal::new("tag.enum", &TAG, detail));
    }
    if limits.tags_retired.iter().any(|retired| retired == tag) {
        review.warn(
            "tag.retired",
            &TAG,
            format!("{tag} is retired, Meta may refuse the message"),
        );
    }
    Ok(())
}

/// The tag of a document; null is as good as none.
pub(super) fn tag_of(raw: Option<&str>) -> Result<Option<String>, Refusal> {
    match raw {
        None | Some("null") => Ok(None),
        Some(raw) if raw.starts_with('"') => Ok(Some(json::string(raw, &TAG)?.into_owned())),
        Some(_) => Err(Refusal::new("tag.type", &TAG, "must be a string")),
    }
}

pub(super) fn delay(seconds: i64, limits: &Limits) -> Result<(), Refusal> {
    match (0..=limits.delay_max).contains(&seconds) {
        true => Ok(()),
        false => Err(delay_out_of_range(&seconds.to_string(), limits)),
    }
}

/// The delay of a document in seconds; null is as good as none, and none is 0.
pub(super) fn delay_of(raw: Option<&str>, limits: &Limits) -> Result<i64, Refusal> {
    let Some(raw) = raw.filter(|raw| *raw != "null") else {
        return Ok(0);
    };
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::new(
            "delay.type",
            &DELAY,
            "must be a whole number of seconds",
        ));
    }
    // JSON's digits that do not fit an i64 are far outside the range.
    raw.parse()
        .map_err(|_| delay_out_of_range(&quote(raw), limits))
}

fn delay_out_of_range(seconds: &str, limits: &Limits) -> Refusal {
    let max = limits.delay_max;
    let detail = format!("is {seconds} seconds, must be 0 to {max}");
    Refusal::new(format!("delay.range_0_{max}"), &DELAY, detail)
}
