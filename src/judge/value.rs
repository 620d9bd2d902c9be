//! Values that a rule set writes as text: statuses, patterns, pointers and waits.

use std::fmt;
use std::time::Duration;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;

/// The longest pattern, in bytes, and the room its compiled form may take.
const PATTERN_LIMIT: usize = 1000;
const PATTERN_ROOM: usize = 256 * 1024;
/// The longest pointer, in bytes.
const POINTER_LIMIT: usize = 200;
/// The longest wait that a rule may ask for.
const WAIT_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Statuses from the first to the last; written `404` or `"500-599"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statuses(pub(super) u16, pub(super) u16);

/// A text that is looked for: a regular expression, upper and lower case alike.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Regex);

/// A place in a JSON document, as RFC 6901 writes it. Taken apart when it is read: every answer is
/// looked into at several of them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "String")]
pub(super) struct Pointer {
    text: String,
    names: Vec<String>,
}

/// A wait, such as `"30m"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait(pub(super) Duration);

impl Statuses {
    /// True if this status is one of them.
    pub(super) fn holds(self, status: u16) -> bool {
        (self.0..=self.1).contains(&status)
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (100 <= first && first <= last && last <= 999).then_some(Self(first, last))
    }
}

impl Pattern {
    /// True if the text holds it. Takes time in proportion to the text.
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Pointer {
    /// Says what cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { text, .. } = self;
        if text.starts_with('/') && text.len() <= POINTER_LIMIT {
            return Ok(());
        }
        Err(format!(
            "{text:?} is no pointer: use \"/errors/code\" and the like, at most {POINTER_LIMIT} bytes"
        ))
    }

    /// What stands at this place.
    pub(super) fn find<'j>(&self, json: &'j Value) -> Option<&'j Value> {
        self.names.iter().try_fold(json, |at, name| match at {
            Value::Object(members) => members.get(name),
            Value::Array(items) => items.get(index(name)?),
            _ => None,
        })
    }
}

impl From<String> for Pointer {
    fn from(text: String) -> Self {
        let name = |name: &str| name.replace("~1", "/").replace("~0", "~");
        let names = text.split('/').skip(1).map(name).collect();
        Self { text, names }
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The index of an item: digits without a sign, and without a zero in front.
fn index(name: &str) -> Option<usize> {
    let is_index = name == "0" || !name.starts_with(['0', '+']);
    is_index.then(|| name.parse().ok()).flatten()
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(from)?;
        let text = match &value {
            toml::Value::Integer(status) => status.to_string(),
            toml::Value::String(range) => range.clone(),
            _ => String::new(),
        };
        let wrong = || {
            D::Error::custom(format!(
                "{value}: use a status from 100 to 999, or a range such as \"500-599\""
            ))
        };
        Self::parse(&text).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() || text.len() > PATTERN_LIMIT {
            let length = text.len();
            return Err(D::Error::custom(format!(
                "text is {length} bytes: use 1 to {PATTERN_LIMIT}"
            )));
        }
        let mut builder = RegexBuilder::new(&text);
        let built = builder
            .case_insensitive(true)
            .size_limit(PATTERN_ROOM)
            .build();
        let wrong = |error| {
            let error = format!("{error}");
            let error = error.lines().last().unwrap_or_default().trim().to_owned();
            D::Error::custom(format!("text = {text:?} is no regular expression: {error}"))
        };
        built.map(Self).map_err(wrong)
    }
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let span = humantime::parse_duration(&text).ok();
        let allowed = Duration::from_secs(1)..=WAIT_LIMIT;
        let wrong = || D::Error::custom(format!("{text:?}: use a duration from \"1s\" to \"24h\""));
        span.filter(|span| allowed.contains(span))
            .map(Self)
            .ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_finds_what_the_rfc_says() {
        let json = serde_json::json!({
            "a": {"b": [10, {"c": 20}]}, "x/y": 1, "m~n": 2, "~1": 3, "": {"": 4}, "0": 5, "s": "text",
        });
        for at in [
            "/a",
            "/a/b",
            "/a/b/0",
            "/a/b/1/c",
            "/a/b/00",
            "/a/b/+1",
            "/a/b/-1",
            "/a/b/01",
            "/a/b/2",
            "/a/b/-",
            "/a/b/",
            "/a/b/99999999999999999999",
            "/x~1y",
            "/x/y",
            "/m~0n",
            "/m~n",
            "/~01",
            "/",
            "//",
            "/0",
            "/s/0",
            "/none",
            "/a/none/c",
        ] {
            assert_eq!(
                Pointer::from(at.to_owned()).find(&json),
                json.pointer(at),
                "{at}"
            );
        }
        let found = |at: &str| {
            Pointer::from(at.to_owned())
                .find(&json)
                .and_then(Value::as_i64)
        };
        assert_eq!(
            ["/x~1y", "/m~0n", "/~01", "//"].map(found),
            [1, 2, 3, 4].map(Some)
        );
    }
}
