//! A small JSON Schema checker: the keywords that our schema uses, and a panic at any other.
//!
//! Not a library's, since those that know draft 2020-12 bring forty crates and a licence that is
//! not on our list. It knows nothing of the rules.

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Map, Value};

/// A schema that requests are checked against.
pub struct Checker {
    root: Value,
    patterns: HashMap<String, Regex>,
}

impl Checker {
    pub fn new(root: Value) -> Self {
        let mut patterns = HashMap::new();
        compile(&root, &mut patterns);
        Self { root, patterns }
    }

    /// Says which keyword refuses `value`.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        self.schema(&self.root, value)
    }

    fn schema(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let Value::Object(schema) = schema else {
            panic!("a schema is an object: {schema}")
        };
        for (keyword, wanted) in schema {
            if !self.keyword(keyword, wanted, schema, value) {
                let value = value.to_string();
                let short: String = value.chars().take(80).collect();
                return Err(format!("{keyword} of {short}"));
            }
        }
        Ok(())
    }

    fn fits(&self, schema: &Value, value: &Value) -> bool {
        self.schema(schema, value).is_ok()
    }

    fn keyword(
        &self,
        keyword: &str,
        wanted: &Value,
        schema: &Map<String, Value>,
        value: &Value,
    ) -> bool {
        let list = || wanted.as_array().unwrap().iter();
        let fitting = || list().filter(|schema| self.fits(schema, value)).count();
        let members = value.as_object();
        let number = value.as_f64().filter(|_| value.is_number());
        let bound = || wanted.as_f64().unwrap();
        match keyword {
            "$schema" | "title" | "description" | "$defs" => true,
            "$ref" => {
                let pointer = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                self.fits(self.root.pointer(pointer).unwrap(), value)
            }
            "type" => is(wanted.as_str().unwrap(), value),
            "const" => value == wanted,
            "enum" => list().any(|one| one == value),
            "anyOf" => fitting() > 0,
            "oneOf" => fitting() == 1,
            "not" => !self.fits(wanted, value),
            "required" => members.is_none_or(|members| {
                list().all(|name| members.contains_key(name.as_str().unwrap()))
            }),
            "properties" => members.is_none_or(|members| {
                members.iter().all(|(key, value)| {
                    let schema = wanted.get(key);
                    schema.is_none_or(|schema| self.fits(schema, value))
                })
            }),
            "additionalProperties" => {
                assert_eq!(*wanted, Value::Bool(false));
                let known = &schema["properties"];
                members.is_none_or(|members| members.keys().all(|key| known.get(key).is_some()))
            }
            "items" => value
                .as_array()
                .is_none_or(|items| items.iter().all(|item| self.fits(wanted, item))),
            "minItems" => value
                .as_array()
                .is_none_or(|items| items.len() as u64 >= wanted.as_u64().unwrap()),
            "maxItems" => value
                .as_array()
                .is_none_or(|items| items.len() as u64 <= wanted.as_u64().unwrap()),
            "maxLength" => value
                .as_str()
                .is_none_or(|text| text.chars().count() as u64 <= wanted.as_u64().unwrap()),
            "pattern" => value
                .as_str()
                .is_none_or(|text| self.patterns[wanted.as_str().unwrap()].is_match(text)),
            "minimum" => number.is_none_or(|number| number >= bound()),
            "maximum" => number.is_none_or(|number| number <= bound()),
            "exclusiveMaximum" => number.is_none_or(|number| number < bound()),
            other => panic!("a keyword that this checker does not know: {other}"),
        }
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        // Whole, however it is spelt.
        "integer" => value
            .as_f64()
            .is_some_and(|number| number.is_infinite() || number.fract() == 0.0),
        other => panic!("a type that this checker does not know: {other}"),
    }
}

/// Compiles all patterns below `schema`: thousands of requests are checked.
fn compile(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(pattern) if key == "pattern" => {
                        patterns.insert(pattern.clone(), Regex::new(pattern).unwrap());
                    }
                    value => compile(value, patterns),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| compile(item, patterns)),
        _ => {}
    }
}
