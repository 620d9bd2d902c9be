//! What a valid request is: the sandbox's own reading of the vendor's documents.
//!
//! The tables in `tables` say which fields there are, this file says what a kind of value is. It
//! shares no line with `postlane_message::validate`, so that neither hides a mistake of the other;
//! the tests hold the two together. The first breach ends the look.
//!
//! Rules of Postlane that the vendor has not, so that they are none here: other keys at the top of
//! a request (they pass, like every undocumented field), the sizes of its columns (40 digits of a
//! page, 1 KiB of a recipient, 64 KiB of a message), a NUL in a recipient, and a key that is given
//! twice (the last one is read). What only the real API knows: a domain's place on the white list,
//! whether a phone or an e-mail is bound to a person, and whether an `order_number` is new.

mod tables;

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Number, Value};

use crate::vendor;

/// What becomes of a request that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Rules {
    /// Rules are not checked.
    #[default]
    Off,
    /// It is answered as if it were valid, and the breach is shown beside it.
    Note,
    /// It is refused with status 400 in the vendor's words, and its recipient's script waits.
    Enforce,
}

/// A rule that a request breaks. As text it is the `msg` of the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("(#{code}) {place} {what}")]
pub struct Breach {
    /// 105 for too few or too many items of a list, else 100; both are Meta's.
    pub code: i64,
    /// Where, for example `message.elements[2].buttons[0].title`.
    pub place: String,
    /// What is wrong there, with the figure and the bound.
    pub what: String,
}

/// Checks the body of a request against the vendor's rules.
pub fn check(body: &[u8]) -> Result<(), Breach> {
    let place = Place::Top;
    match serde_json::from_slice(body) {
        Ok(request) => judge(&Kind::Object(&tables::REQUEST), &request, &place),
        Err(why) => place.breaks(format!("is no JSON ({why})")),
    }
}

/// A kind of value.
enum Kind {
    /// A positive integer, or a string of its digits.
    Page,
    /// A string of so many code points at most.
    AtMost(usize),
    /// The same, and not blank.
    Text(usize),
    /// A string of ASCII digits.
    Digits,
    /// Two letters.
    Country,
    /// An absolute http or https URL.
    Url,
    /// One of these strings.
    Word(&'static [&'static str]),
    Flag,
    Number,
    /// A number not below zero.
    Price,
    /// A whole number of seconds from 0.
    Seconds(i64),
    /// What a postback button sends back.
    Payload,
    Object(&'static Shape),
    /// An object whose shape is named by one of its fields.
    Choice(&'static str, &'static [(&'static str, &'static Shape)]),
    /// Between so many and so many values.
    List(usize, usize, &'static Kind),
}

/// Whether a field has to be there.
#[derive(PartialEq, Eq)]
enum Need {
    Must,
    May,
    /// As `May`, and null is the same as nothing.
    MayBeNull,
    MustNot,
}

struct Field {
    name: &'static str,
    need: Need,
    kind: Kind,
}

/// What is to be said about the fields together.
enum Together {
    Nothing,
    /// Exactly one of those that are known, and no other.
    One,
    /// At least one of these, with something in it.
    AnyOf(&'static [&'static str]),
}

struct Shape {
    fields: &'static [Field],
    together: Together,
}

impl Shape {
    fn names(&self) -> Vec<&'static str> {
        self.fields.iter().map(|field| field.name).collect()
    }
}

fn judge(kind: &Kind, value: &Value, at: &Place<'_>) -> Result<(), Breach> {
    match kind {
        Kind::Page => at.hold(is_page(value), || "is no positive integer".into()),
        Kind::AtMost(most) => at_most(text(value, at)?, *most, at),
        Kind::Text(most) => words(text(value, at)?, *most, at),
        Kind::Digits => {
            let text = text(value, at)?;
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            at.hold(digits, || "is no number of seconds".into())
        }
        Kind::Country => {
            let text = text(value, at)?;
            let two = text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic());
            at.hold(two, || "is not two letters".into())
        }
        Kind::Url => {
            let absolute = is_web_url(text(value, at)?);
            at.hold(absolute, || "is no absolute http or https URL".into())
        }
        Kind::Word(known) => {
            let found = value.as_str().is_some_and(|word| known.contains(&word));
            at.hold(found, || format!("is none of {}", known.join(", ")))
        }
        Kind::Flag => at.hold(value.is_boolean(), || "is not true or false".into()),
        Kind::Number => at.hold(number(value).is_some(), || "is no number".into()),
        Kind::Price => {
            let Some(price) = number(value) else {
                return at.breaks("is no number");
            };
            at.hold(!is_negative(price), || format!("is {price}, at least 0"))
        }
        Kind::Seconds(most) => match value.as_i64() {
            Some(seconds) if (0..=*most).contains(&seconds) => Ok(()),
            Some(seconds) => at.breaks(format!("is {seconds}, from 0 to {most} seconds")),
            None => at.breaks("is no whole number of seconds"),
        },
        Kind::Payload => payload(value, at),
        Kind::Object(shape) => fields(shape, object(value, at)?, at),
        Kind::Choice(key, shapes) => {
            let given = object(value, at)?;
            let word = given.get(*key).and_then(Value::as_str);
            let shape = shapes.iter().find(|(name, _)| word == Some(name));
            let names = || shapes.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            let unknown =
                || Place::Key(at, key).breach(format!("is none of {}", names().join(", ")));
            fields(shape.ok_or_else(unknown)?.1, given, at)
        }
        Kind::List(least, most, kind) => list(value, *least..=*most, kind, at),
    }
}

fn list(
    value: &Value,
    bounds: RangeInclusive<usize>,
    kind: &Kind,
    at: &Place<'_>,
) -> Result<(), Breach> {
    let items = value.as_array().ok_or_else(|| at.breach("is no array"))?;
    let (count, least, most) = (items.len(), bounds.start(), bounds.end());
    if !bounds.contains(&count) {
        let what = format!("has {count} items, from {least} to {most}");
        return Err(Breach {
            code: vendor::COUNT,
            ..at.breach(what)
        });
    }
    let mut numbered = items.iter().enumerate();
    numbered.try_for_each(|(index, item)| judge(kind, item, &Place::Item(at, index)))
}

fn fields(shape: &Shape, given: &Map<String, Value>, at: &Place<'_>) -> Result<(), Breach> {
    for Field { name, need, kind } in shape.fields {
        let place = Place::Key(at, name);
        match (given.get(*name), need) {
            (None | Some(Value::Null), Need::Must) => return place.breaks("is missing"),
            (None, _) | (Some(Value::Null), Need::MayBeNull) => {}
            (Some(_), Need::MustNot) => return place.breaks("is not allowed here"),
            (Some(value), _) => judge(kind, value, &place)?,
        }
    }
    match shape.together {
        Together::Nothing => Ok(()),
        Together::One => {
            let names = shape.names();
            if let Some(other) = given.keys().find(|name| !names.contains(&name.as_str())) {
                return Place::Key(at, other).breaks(format!("is none of {}", names.join(", ")));
            }
            let one = given.len() == 1;
            at.hold(one, || format!("needs exactly one of {}", names.join(", ")))
        }
        Together::AnyOf(names) => {
            let says = |value: &Value| value.as_str().is_none_or(|text| !text.trim().is_empty());
            let any = names.iter().any(|name| given.get(*name).is_some_and(says));
            at.hold(any, || format!("needs one of {}", names.join(", ")))
        }
    }
}

/// An opaque string, or an object that names a block or a flow; a string to Meta either way.
fn payload(value: &Value, at: &Place<'_>) -> Result<(), Breach> {
    if let Some(text) = value.as_str() {
        return words(text, tables::PAYLOAD, at);
    }
    let given = object(value, at)?;
    let ids = tables::PAYLOAD_IDS
        .iter()
        .filter_map(|name| given.get_key_value(*name));
    let mut named = false;
    for (name, id) in ids {
        let whole = id.as_i64().is_some() || id.as_u64().is_some();
        let text = id.as_str().is_some_and(|text| !text.trim().is_empty());
        Place::Key(at, name).hold(whole || text, || "is no string or integer".into())?;
        named = true;
    }
    let either = || format!("needs one of {}", tables::PAYLOAD_IDS.join(", "));
    at.hold(named, either)?;
    words(&value.to_string(), tables::PAYLOAD, at)
}

fn object<'v>(value: &'v Value, at: &Place<'_>) -> Result<&'v Map<String, Value>, Breach> {
    value.as_object().ok_or_else(|| at.breach("is no object"))
}

fn text<'v>(value: &'v Value, at: &Place<'_>) -> Result<&'v str, Breach> {
    value.as_str().ok_or_else(|| at.breach("is no string"))
}

fn words(text: &str, most: usize, at: &Place<'_>) -> Result<(), Breach> {
    at.hold(!text.trim().is_empty(), || "is blank".into())?;
    at_most(text, most, at)
}

fn at_most(text: &str, most: usize, at: &Place<'_>) -> Result<(), Breach> {
    let length = text.chars().count();
    at.hold(length <= most, || {
        format!("is {length} characters, at most {most}")
    })
}

/// A number that a double can hold.
fn number(value: &Value) -> Option<&Number> {
    let Value::Number(number) = value else {
        return None;
    };
    number
        .as_f64()
        .is_some_and(f64::is_finite)
        .then_some(number)
}

/// By its spelling: a double would round a tiny negative amount to zero.
fn is_negative(number: &Number) -> bool {
    let text = number.to_string();
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    mantissa.starts_with('-') && mantissa.bytes().any(|b| matches!(b, b'1'..=b'9'))
}

fn is_page(value: &Value) -> bool {
    let digits = |text: &str| {
        !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit())
    };
    match value {
        Value::Number(number) => digits(&number.to_string()),
        Value::String(text) => digits(text),
        _ => false,
    }
}

/// The scheme, two slashes, a host, and perhaps a port; what clients read as a third slash ends the
/// host.
fn is_web_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    let web = ["http", "https"]
        .iter()
        .any(|name| name.eq_ignore_ascii_case(scheme));
    let whole = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let reachable = port.is_empty() || (digits && port.parse::<u16>().is_ok());
    web && whole && !host.is_empty() && reachable
}

/// The way to a value; it becomes text only where a rule is broken.
enum Place<'p> {
    Top,
    Key(&'p Place<'p>, &'p str),
    Item(&'p Place<'p>, usize),
}

impl Place<'_> {
    fn hold(&self, holds: bool, what: impl FnOnce() -> String) -> Result<(), Breach> {
        if holds { Ok(()) } else { self.breaks(what()) }
    }

    fn breaks(&self, what: impl Into<String>) -> Result<(), Breach> {
        Err(self.breach(what))
    }

    fn breach(&self, what: impl Into<String>) -> Breach {
        Breach {
            code: vendor::PARAMETER,
            place: self.to_string(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => f.write_str("request"),
            Self::Key(Self::Top, name) => f.write_str(name),
            Self::Key(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
