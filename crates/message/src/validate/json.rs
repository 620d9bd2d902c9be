//! Reads JSON text into a tree that keeps the producer's spelling beside every value.
//!
//! The library parses; this room adds what a `serde_json::Value` cannot tell: the text of each
//! value (numbers are judged and payloads moved as written), keys given twice, and how deep it
//! goes. It splits level by level with `RawValue`, since under `arbitrary_precision` an ordinary
//! visitor cannot tell a number from an object that imitates the library's private number key.
//! It judges no field.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Refusal;
use super::check::Place;

/// How deep objects and arrays may nest; serde_json's own recursion limit.
const DEPTH_MAX: usize = 128;

/// The members of an object, in the order of the text.
pub(super) type Members<'a, T> = Vec<(Cow<'a, str>, T)>;

/// A value and its exact text.
pub(super) struct Node<'a> {
    pub(super) raw: &'a str,
    pub(super) value: Value<'a>,
}

/// A decoded value. A number is its text.
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number,
    Text(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Members<'a, Node<'a>>),
}

impl Node<'_> {
    /// What it is, for a refusal: "must be a string, is a number".
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number => "a number",
            Value::Text(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        }
    }
}

/// Parses `bytes` wholly; `root` is the name that places start with.
pub(super) fn parse<'a>(bytes: &'a [u8], root: &'static str) -> Result<Node<'a>, Refusal> {
    let place = Place::Root(root);
    let text = text(bytes, root)?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| unreadable(&place, &error))?;
    node(raw.get(), &place, DEPTH_MAX)
}

/// `bytes` as UTF-8.
pub(super) fn text<'a>(bytes: &'a [u8], root: &'static str) -> Result<&'a str, Refusal> {
    std::str::from_utf8(bytes).map_err(|error| {
        let detail = format!("is not UTF-8 after byte {}", error.valid_up_to());
        Refusal::new("json.utf8", &Place::Root(root), detail)
    })
}

/// The members of the object `raw`, undecoded, every key once.
pub(super) fn members<'a>(
    raw: &'a str,
    place: &Place<'_>,
) -> Result<Members<'a, &'a RawValue>, Refusal> {
    let Split(members) = serde_json::from_str(raw).map_err(|error| unreadable(place, &error))?;
    if let Some(key) = twice(&members) {
        let place = Place::Key(place, key);
        return Err(Refusal::new("json.duplicate_key", &place, "is given twice"));
    }
    Ok(members)
}

/// The decoded string `raw`.
pub(super) fn string<'a>(raw: &'a str, place: &Place<'_>) -> Result<Cow<'a, str>, Refusal> {
    let Text(text) = serde_json::from_str(raw).map_err(|error| unreadable(place, &error))?;
    Ok(text)
}

fn node<'a>(raw: &'a str, place: &Place<'_>, depth: usize) -> Result<Node<'a>, Refusal> {
    let value = match raw.as_bytes().first() {
        Some(b'{' | b'[') if depth == 0 => {
            let detail = format!("nests deeper than {DEPTH_MAX}");
            return Err(Refusal::new("json.depth", place, detail));
        }
        Some(b'{') => Value::Object(
            members(raw, place)?
                .into_iter()
                .map(|(key, raw)| {
                    let node = node(raw.get(), &Place::Key(place, &key), depth - 1)?;
                    Ok((key, node))
                })
                .collect::<Result<_, Refusal>>()?,
        ),
        Some(b'[') => {
            let items: Vec<&RawValue> =
                serde_json::from_str(raw).map_err(|error| unreadable(place, &error))?;
            let items = items.into_iter().enumerate();
            let items = items.map(|(at, raw)| node(raw.get(), &Place::Index(place, at), depth - 1));
            Value::Array(items.collect::<Result<_, Refusal>>()?)
        }
        Some(b'"') => Value::Text(string(raw, place)?),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Null,
        _ => Value::Number,
    };
    Ok(Node { raw, value })
}

/// A key that occurs twice. Postgres, SQLite and the API may each read another of the two.
fn twice<'m, T>(members: &'m Members<'_, T>) -> Option<&'m str> {
    // Sorted rather than compared in pairs: 64 KiB hold more than ten thousand keys.
    let mut keys: Vec<&str> = members.iter().map(|(key, _)| key.as_ref()).collect();
    keys.sort_unstable();
    keys.windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
}

pub(super) fn unreadable(place: &Place<'_>, error: &serde_json::Error) -> Refusal {
    let detail = error.to_string();
    // The library's error codes are private; its words are pinned by a test.
    let surrogate = ["lone leading surrogate", "unexpected end of hex escape"];
    if surrogate.iter().any(|words| detail.starts_with(words)) {
        return Refusal::new(
            "json.lone_surrogate",
            place,
            "holds half of a surrogate pair",
        );
    }
    Refusal::new("json.syntax", place, format!("is not JSON: {detail}"))
}

/// A string, borrowed when it holds no escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object, split into members without a look inside.
struct Split<'a>(Members<'a, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Split<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SplitVisitor).map(Split)
    }
}

struct SplitVisitor;

impl<'de> Visitor<'de> for SplitVisitor {
    type Value = Members<'de, &'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Text(key), value)) = map.next_entry()? {
            members.push((key, value));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &[u8]) -> String {
        parse(text, "message")
            .map(|_| ())
            .expect_err("refused")
            .rule
            .into_owned()
    }

    #[test]
    fn each_kind_of_unreadable_text_has_its_own_rule() {
        assert_eq!(rule(b"{\"a\":\"\xff\"}"), "json.utf8");
        assert_eq!(rule(b""), "json.syntax");
        assert_eq!(rule(b"{} {}"), "json.syntax");
        assert_eq!(rule(b"{\"a\":01}"), "json.syntax");
        assert_eq!(rule(b"{\"a\":\"\n\"}"), "json.syntax");
        assert_eq!(
            rule(b"{\"a\":{\"b\":1,\"\\u0062\":2}}"),
            "json.duplicate_key"
        );
        for half in [
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ud83dx""#,
            r#""\ud83d\u0041""#,
        ] {
            assert_eq!(
                rule(format!("[{half}]").as_bytes()),
                "json.lone_surrogate",
                "{half}"
            );
            assert_eq!(
                rule(format!("{{{half}:1}}").as_bytes()),
                "json.lone_surrogate",
                "{half}"
            );
        }
    }

    #[test]
    fn nesting_is_accepted_up_to_the_limit_and_refused_beyond_it() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(DEPTH_MAX).as_bytes(), "message").is_ok());
        assert_eq!(rule(nested(DEPTH_MAX + 1).as_bytes()), "json.depth");
        assert_eq!(rule(nested(30_000).as_bytes()), "json.depth");
    }

    #[test]
    fn an_object_that_imitates_the_librarys_number_stays_an_object() {
        let node = parse(br#"{"$serde_json::private::Number":"12"}"#, "message").unwrap();
        assert_eq!(node.kind(), "an object");
    }

    #[test]
    fn every_value_keeps_its_spelling() {
        let node = parse(br#" [ 75.00 , 1E2, "a\/b" ] "#, "message").unwrap();
        let Value::Array(items) = node.value else {
            panic!("an array")
        };
        assert_eq!(
            items.iter().map(|item| item.raw).collect::<Vec<_>>(),
            ["75.00", "1E2", r#""a\/b""#]
        );
    }
}
