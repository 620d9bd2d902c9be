//! The ways to break a valid request by exactly one rule, read from a table.

use proptest::sample::Index;
use serde_json::{Value, json};

/// One way to break one rule: the value that is put at a place; `None` takes the field away.
pub struct Break {
    pub types: String,
    pub place: String,
    value: Option<Value>,
    pub rule: String,
    /// The line of the table, to be shown where a test fails.
    pub line: &'static str,
}

impl Break {
    /// Breaks `request`; false where there is no such place.
    pub fn apply(&self, request: &mut Value, pick: Index) -> bool {
        let kind = request["message"]["template_type"]
            .as_str()
            .unwrap_or_default();
        if !self
            .types
            .split(' ')
            .any(|name| name == kind || name == "any")
        {
            return false;
        }
        let (parents, last) = self.place.rsplit_once('/').unwrap();
        let mut at = request;
        for step in parents.split('/').skip(1) {
            let Some(next) = descend(at, step, pick) else {
                return false;
            };
            at = next;
        }
        match (at, &self.value) {
            (Value::Object(fields), None) => fields.shift_remove(last).is_some(),
            (Value::Object(fields), Some(value)) => {
                fields.insert(last.to_owned(), value.clone());
                true
            }
            (at, Some(value)) => match descend(at, last, pick) {
                Some(old) => {
                    *old = value.clone();
                    true
                }
                None => false,
            },
            _ => false,
        }
    }
}

fn descend<'v>(value: &'v mut Value, step: &str, pick: Index) -> Option<&'v mut Value> {
    match value {
        Value::Array(items) if items.is_empty() || step != "*" => None,
        Value::Array(items) => {
            let at = pick.index(items.len());
            items.get_mut(at)
        }
        value => value.get_mut(step),
    }
}

/// Every break there is.
pub fn breaks() -> Vec<Break> {
    let mut breaks = Vec::new();
    let table = include_str!("../data/breaks.txt");
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let [rule, types, place, value] = line
            .split(" | ")
            .collect::<Vec<_>>()
            .try_into()
            .expect("four columns");
        let broken = |types: &str, place: &str| Break {
            types: types.to_owned(),
            place: place.to_owned(),
            value: read(value),
            rule: rule.to_owned(),
            line,
        };
        if place == "button" {
            breaks.push(broken("button list", "/message/buttons/*"));
            breaks.push(broken("generic list", "/message/elements/*/buttons/*"));
        } else {
            breaks.push(broken(types, place));
        }
    }
    breaks
}

/// The value of a line; none for `gone`.
fn read(text: &str) -> Option<Value> {
    let many = |item: Value, count: &str| Value::from(vec![item; count.parse().unwrap()]);
    if text == "gone" {
        return None;
    }
    if let Some(count) = text.strip_prefix("links ") {
        return Some(many(
            json!({"type": "web_url", "title": "t", "url": "http://a.b"}),
            count,
        ));
    }
    if let Some(count) = text.strip_prefix("elements ") {
        // Valid in every type that has elements.
        return Some(many(
            json!({"title": "t", "subtitle": "s", "price": 0}),
            count,
        ));
    }
    let mut value = serde_json::from_str(text).expect("JSON");
    lengthen(&mut value);
    Some(value)
}

fn lengthen(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(count) = text.strip_prefix('~') {
                *text = "é".repeat(count.parse().unwrap());
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(lengthen),
        _ => {}
    }
}
