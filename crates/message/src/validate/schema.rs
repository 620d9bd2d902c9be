//! The JSON Schema of a request, for producers in other languages.
//!
//! The shape is derived from the nouns. Bounds and patterns stand in the derive under a name
//! (`"maxLength" = "text_max"`) and become figures here, so that the schema follows the same
//! [`Limits`] as the rules. What a schema cannot say (bytes, lengths of a payload once it is a
//! string, hosts of URLs) the rules say alone; `tests/messages/schema.rs` has the list.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Limits;
use crate::Request;

/// Unicode's blanks (`White_Space`, what [`str::trim`] takes away), as a piece of a class of
/// characters. Written out: engines disagree about `\s`, and about escapes beyond two digits.
const BLANKS: &str =
    "\\t-\\r \\x85\\xa0\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";

/// The keywords whose values are names of bounds.
const BOUNDS: [&str; 3] = ["maxLength", "maxItems", "maximum"];

/// The JSON Schema (draft 2020-12) of a request, with the bounds and the tags in `limits`.
///
/// `#/$defs/Message` is the schema of the column `message`, `#/$defs/Recipient` that of
/// `recipient`.
pub fn schema(limits: &Limits) -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Request>().to_value();
    let Some(root) = schema.as_object_mut() else {
        return schema;
    };
    settle(root, limits);
    root.insert(
        "title".to_owned(),
        "A request to JoinChat's send API".into(),
    );
    root["properties"]["tag"] = nullable(tag(limits), &root["properties"]["tag"]);
    let delay = json!({"type": "integer", "minimum": 0, "maximum": limits.delay_max});
    root["properties"]["delay"] = nullable(delay, &root["properties"]["delay"]);
    if let Some(Value::Object(defs)) = root.get_mut("$defs") {
        defs.shift_remove("Tag");
    }
    // What it is stands first, for people who open the file.
    let heads = ["$schema", "title", "description"];
    let head = heads.map(|key| (key.to_owned(), root.shift_remove(key)));
    let head = head
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    head.chain(std::mem::take(root)).collect()
}

/// The same as text, in ASCII: the blanks in its patterns cannot be seen otherwise.
pub fn schema_text(limits: &Limits) -> String {
    let mut text = String::new();
    for unit in format!("{:#}\n", schema(limits)).encode_utf16() {
        // Writing into a String cannot fail.
        let _ = match char::from_u32(unit.into()).filter(char::is_ascii) {
            Some(c) => write!(text, "{c}"),
            None => write!(text, "\\u{unit:04x}"),
        };
    }
    text
}

/// The tags of the configuration, not those of the type.
fn tag(limits: &Limits) -> Value {
    json!({"type": "string", "enum": limits.tags})
}

/// `schema` or null, which counts as absent; with the description that was there.
fn nullable(schema: Value, old: &Value) -> Value {
    json!({"description": old["description"], "anyOf": [schema, {"type": "null"}]})
}

/// Puts figures and patterns for their names, here and below, and takes away what the library adds
/// for Rust's own sake: that an optional field may be null, and formats such as `uint8`.
fn settle(schema: &mut Map<String, Value>, limits: &Limits) {
    schema.shift_remove("format");
    not_null(schema);
    for (key, value) in schema.iter_mut() {
        let named = value.as_str().map(str::to_owned);
        match named.as_deref() {
            Some(name) if BOUNDS.contains(&key.as_str()) => {
                *value = limits.figure(name).into();
            }
            Some(name) if key == "pattern" => *value = pattern(name).into(),
            _ => below(value, limits),
        }
    }
}

fn below(value: &mut Value, limits: &Limits) {
    match value {
        Value::Object(schema) => settle(schema, limits),
        Value::Array(schemas) => schemas.iter_mut().for_each(|value| below(value, limits)),
        _ => {}
    }
}

/// Turns "this or null" into "this".
fn not_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let null = json!({"type": "null"});
    let Some(Value::Array(choices)) = schema.get_mut("anyOf") else {
        return;
    };
    if choices.len() == 2 && choices[1] == null {
        let only = choices.swap_remove(0);
        schema.shift_remove("anyOf");
        if let Value::Object(only) = only {
            schema.extend(only);
        }
    }
}

/// The pattern of this name; any other is a pattern already.
fn pattern(name: &str) -> String {
    match name {
        "filled" => format!("[^{BLANKS}]"),
        // Not blank, and without NUL, which Postgres does not store.
        "name" => format!(r"^[^\x00]*[^\x00{BLANKS}][^\x00]*$"),
        // What follows the slashes is left to the rules, but that it is there and has no blanks.
        "url" => {
            let bad = format!(r"{BLANKS}\x00-\x1f\x7f-\x9f");
            format!(r"^[Hh][Tt][Tt][Pp][Ss]?://[^/\\?#{bad}][^{bad}]*$")
        }
        _ => name.to_owned(),
    }
}
