//! A list that is never too short.

use std::borrow::Cow;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A list of at least `MIN` items.
///
/// How many there may be at most is configurable, so no type says it. An array becomes one where
/// an array of that length compiles, a `Vec` may be too short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<T>")]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct AtLeast<const MIN: usize, T>(Vec<T>);

/// A list that is too short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("has {items} items, at least {min}")]
pub struct TooFew {
    /// How many there are.
    pub items: usize,
    /// How many there must be.
    pub min: usize,
}

impl<const MIN: usize, T> AtLeast<MIN, T> {
    /// Adds one at the end.
    pub fn push(&mut self, item: T) {
        self.0.push(item);
    }
}

impl<const MIN: usize, const N: usize, T> From<[T; N]> for AtLeast<MIN, T> {
    fn from(items: [T; N]) -> Self {
        const { assert!(N >= MIN, "too few items") };
        Self(items.into())
    }
}

impl<const MIN: usize, T> TryFrom<Vec<T>> for AtLeast<MIN, T> {
    type Error = TooFew;

    fn try_from(items: Vec<T>) -> Result<Self, TooFew> {
        match items.len() {
            few if few < MIN => Err(TooFew {
                items: few,
                min: MIN,
            }),
            _ => Ok(Self(items)),
        }
    }
}

impl<const MIN: usize, T> Deref for AtLeast<MIN, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<const MIN: usize, T: JsonSchema> JsonSchema for AtLeast<MIN, T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("AtLeast_{MIN}_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "items": generator.subschema_for::<T>(), "minItems": MIN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_too_short_is_refused_from_a_vec_and_from_json() {
        let few = AtLeast::<2, u8>::try_from(vec![1]).unwrap_err();
        assert_eq!(few.to_string(), "has 1 items, at least 2");
        assert!(serde_json::from_str::<AtLeast<2, u8>>("[1]").is_err());
        let mut enough: AtLeast<2, u8> = serde_json::from_str("[1,2]").unwrap();
        enough.push(3);
        assert_eq!(enough, AtLeast::from([1, 2, 3]));
        assert_eq!(enough.len(), 3);
        assert_eq!(serde_json::to_string(&enough).unwrap(), "[1,2,3]");
    }
}
