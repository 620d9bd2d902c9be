//! The page that sends.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// The id of a Facebook page: a positive whole number.
///
/// Read from a number or from a string of its digits, written as a number (spec section 5, no. 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct PageId(NonZeroU64);

impl PageId {
    /// None for 0.
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Number(serde_json::Number),
    Text(String),
}

impl<'de> Deserialize<'de> for PageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = match Form::deserialize(deserializer)? {
            Form::Number(number) => number.to_string(),
            Form::Text(text) => text,
        };
        let plain = !digits.starts_with(['0', '+']);
        let id = digits.parse().ok().filter(|_| plain);
        id.map(Self).ok_or_else(|| {
            D::Error::custom("page_id must be a positive whole number of 64 bits, or its digits")
        })
    }
}

// Not derived: a column and the rules take more digits than 64 bits hold.
impl JsonSchema for PageId {
    fn schema_name() -> Cow<'static, str> {
        "PageId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The id of a Facebook page: a positive whole number, or a string of its digits.",
            "anyOf": [
                {"type": "integer", "minimum": 1, "exclusiveMaximum": 1e40},
                {"type": "string", "pattern": "^[1-9][0-9]{0,39}$"}
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_from_a_number_and_from_its_digits_and_from_nothing_else() {
        for text in ["12345", "\"12345\"", "18446744073709551615"] {
            let page: PageId = serde_json::from_str(text).unwrap();
            assert_eq!(page.to_string(), text.trim_matches('"'));
            assert_eq!(
                serde_json::to_string(&page).unwrap(),
                text.trim_matches('"')
            );
        }
        for text in [
            "0", "-1", "1.0", "1e3", "\"007\"", "\"+5\"", "\"\"", "\" 1\"", "null", "[1]",
        ] {
            assert!(serde_json::from_str::<PageId>(text).is_err(), "{text}");
        }
    }
}
