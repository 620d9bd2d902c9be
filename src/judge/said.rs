//! What a body says about itself: failure, success, suspicious or neutral.
//!
//! Spec 4.5. Which fields say so is data (`[body]` of a rule set); bodies that are
//! no JSON, or not whole, are read as far as they go.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::prefix::{completed, stepped_over};
use super::value::Pointer;
use crate::job::words;

/// How much of a text is compared with patterns, in bytes.
const TEXT_LIMIT: usize = 4096;
/// The most items of a list.
const LIST_LIMIT: usize = 200;
/// How gzip begins.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// The deepest that failures may be looked for.
const DEPTH_LIMIT: usize = 16;
/// What some APIs put before their JSON, so that no browser runs it.
const GUARDS: [&str; 4] = [")]}',", ")]}'", "while(1);", "for(;;);"];

words! {
    /// What a body says (`when.body`).
    Class, "body", {
        /// It says no.
        Failure = "failure",
        /// It says yes.
        Success = "success",
        /// It is not what this API says.
        Suspicious = "suspicious",
        /// Nothing either way: empty, or JSON without a mark.
        Neutral = "neutral",
    }
}

/// `[body]`: where to look in a body, and for what. Pointers are those of RFC 6901.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reading {
    failure: Vec<Field>,
    /// How many levels below the top failures are looked for.
    #[serde(default)]
    depth: usize,
    success: Vec<Field>,
    #[serde(default)]
    suspicious: Vec<Field>,
    success_text: Vec<String>,
    status_code: Vec<Pointer>,
    fine_code: Vec<i64>,
    fine_text: Vec<String>,
    code: Vec<Pointer>,
    subcode: Vec<Pointer>,
    text: Vec<Pointer>,
}

/// One field of a body: one of these values, there and empty, or, without either, there and not empty.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Field {
    at: Pointer,
    is: Option<Vec<toml::Value>>,
    #[serde(default)]
    empty: bool,
}

/// A body, as far as it can be understood.
#[derive(Debug)]
pub(super) struct Said<'a> {
    pub(super) class: Class,
    json: Option<Value>,
    /// The part of it that says no, if that is further in.
    inner: Option<Value>,
    plain: Cow<'a, str>,
    /// What is odd about it, if it is suspicious.
    pub(super) odd: &'static str,
}

impl Reading {
    /// Says what cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        let fields = self.failure.iter().chain(&self.success);
        for field in fields.chain(&self.suspicious) {
            field.check()?;
        }
        if self.depth > DEPTH_LIMIT {
            return Err(format!("depth = {}: use at most {DEPTH_LIMIT}", self.depth));
        }
        let lists = [&self.status_code, &self.code, &self.subcode, &self.text];
        for list in lists {
            bounded("a list of pointers", list.len())?;
            list.iter().try_for_each(Pointer::check)?;
        }
        bounded("failure", self.failure.len())?;
        bounded("success", self.success.len())?;
        bounded("suspicious", self.suspicious.len())?;
        bounded("success_text", self.success_text.len())?;
        bounded("fine_code", self.fine_code.len())?;
        bounded("fine_text", self.fine_text.len())
    }

    /// Reads a body.
    pub(super) fn read<'a>(
        &self,
        body: &'a [u8],
        content_type: Option<&str>,
        cut: bool,
    ) -> Said<'a> {
        let plain = trimmed(String::from_utf8_lossy(body));
        let is_html = content_type.is_some_and(|kind| kind.contains("html"));
        let (json, form) = match read_json(&plain) {
            Ok(json) => (Some(json), Form::Whole),
            Err(could_go_on) if cut => {
                let json = completed(&plain).and_then(|part| serde_json::from_str(&part).ok());
                (json, if could_go_on { Form::Cut } else { Form::Broken })
            }
            Err(_) => (stepped_over(&plain), Form::Framed),
        };
        let (mut class, mut odd, mut inner) = match &json {
            Some(json) => self.class(json, is_html),
            None => (Class::Neutral, "", None),
        };
        // What carries no mark must be just what was expected.
        if class == Class::Neutral {
            (class, odd) = match form {
                _ if plain.is_empty() && !(cut && is_html) => (Class::Neutral, ""),
                _ if has_word(&self.success_text, &plain) => match is_html {
                    true => (Class::Suspicious, "an HTML page"),
                    false => (Class::Success, ""),
                },
                Form::Whole => (Class::Neutral, ""),
                Form::Cut if !is_html => (Class::Neutral, ""),
                _ if is_html => (Class::Suspicious, "an HTML page"),
                _ if body.starts_with(GZIP) => (Class::Suspicious, "compressed (gzip), unasked"),
                Form::Framed if json.is_some() => (Class::Suspicious, "JSON in something else"),
                _ => (Class::Suspicious, "text that is not JSON"),
            };
        }
        if class != Class::Failure {
            inner = None;
        }
        Said {
            class,
            json,
            inner,
            plain,
            odd,
        }
    }

    /// What the marks of a document say, what is odd about it, and the part that says no, if that is not
    /// the top.
    fn class(&self, json: &Value, is_html: bool) -> (Class, &'static str, Option<Value>) {
        if self.fails(json) {
            return (Class::Failure, "", None);
        }
        let succeeds = self.success.iter().any(|field| self.holds(field, json));
        match (self.failing_part(json, self.depth), succeeds) {
            (Some(_), true) => {
                return (
                    Class::Suspicious,
                    "JSON that says yes, and no further in",
                    None,
                );
            }
            (Some(part), false) => return (Class::Failure, "", Some(part.clone())),
            (None, true) => return (Class::Success, "", None),
            (None, false) => {}
        }
        if is_html {
            return (Class::Suspicious, "JSON that is called HTML", None);
        }
        let mut codes = numbers(&self.status_code, json);
        let is_fine = || first_text(&self.text, json).is_some_and(|t| has_word(&self.fine_text, t));
        if codes.any(|code| !self.fine_code.contains(&code)) && !is_fine()
            || self.suspicious.iter().any(|field| self.holds(field, json))
        {
            return (
                Class::Suspicious,
                "JSON with a code that is no success",
                None,
            );
        }
        (Class::Neutral, "", None)
    }

    fn fails(&self, json: &Value) -> bool {
        self.failure.iter().any(|field| self.holds(field, json))
    }

    /// The first part that says no, at most so many levels below.
    fn failing_part<'j>(&self, json: &'j Value, depth: usize) -> Option<&'j Value> {
        let depth = depth.checked_sub(1)?;
        let below = |part: &'j Value| match self.fails(part) {
            true => Some(part),
            false => self.failing_part(part, depth),
        };
        match json {
            Value::Object(members) => members.values().find_map(below),
            Value::Array(items) => items.iter().find_map(below),
            _ => None,
        }
    }

    /// True if this field of a document is as asked for.
    fn holds(&self, field: &Field, json: &Value) -> bool {
        let Some(found) = field.at.find(json) else {
            return false;
        };
        match &field.is {
            Some(values) => values.iter().any(|value| equal(value, found)),
            None if field.empty => is_empty(found),
            None => !self.says_nothing(found),
        }
    }

    /// Empty, a word that means well, or nothing but such things; or a code 0 without words.
    fn says_nothing(&self, value: &Value) -> bool {
        let is_fine = |text: &str| has_word(&self.fine_text, text.trim());
        match value {
            Value::String(text) => is_empty(value) || is_fine(text),
            Value::Array(items) => items.iter().all(|item| self.says_nothing(item)),
            Value::Object(members) => {
                members.values().all(|member| self.says_nothing(member))
                    || numbers(&self.code, value).next() == Some(0)
                        && first_text(&self.text, value).is_none_or(is_fine)
            }
            _ => is_empty(value),
        }
    }

    /// True if a body has this field.
    pub(super) fn has(&self, said: &Said<'_>, field: &Field) -> bool {
        said.json
            .as_ref()
            .is_some_and(|json| self.holds(field, json))
    }

    /// The code that a body carries.
    pub(super) fn code(&self, said: &Said<'_>) -> Option<i64> {
        said.parts()
            .find_map(|part| numbers(&self.code, part).next())
    }

    /// The subcode that a body carries.
    pub(super) fn subcode(&self, said: &Said<'_>) -> Option<i64> {
        said.parts()
            .find_map(|part| numbers(&self.subcode, part).next())
    }

    /// What a body says in words, if it is JSON.
    pub(super) fn words<'s>(&self, said: &'s Said<'_>) -> Option<&'s str> {
        said.parts()
            .find_map(|part| first_text(&self.text, part))
            .map(beginning)
    }

    /// What patterns are compared with: the words, or the text of what is not JSON.
    pub(super) fn text<'s>(&self, said: &'s Said<'_>) -> &'s str {
        match said.json {
            Some(_) => self.words(said).unwrap_or_default(),
            None => beginning(&said.plain),
        }
    }
}

/// How the JSON of a body was found.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// The body is nothing else.
    Whole,
    /// A beginning that could go on.
    Cut,
    /// A beginning that could not.
    Broken,
    /// Not at all, or between other things.
    Framed,
}

impl Said<'_> {
    /// Where codes and words are looked for, in order.
    fn parts(&self) -> impl Iterator<Item = &Value> {
        self.inner.iter().chain(&self.json)
    }
}

impl Field {
    /// Says what cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        self.at.check()?;
        let values = self.is.as_deref().unwrap_or_default();
        bounded("is", values.len())?;
        if self.is.as_ref().is_some_and(Vec::is_empty) {
            return Err(format!("{}: is = [] can never be true", self.at));
        }
        if self.is.is_some() && self.empty {
            return Err(format!("{}: use either is or empty", self.at));
        }
        let is_scalar =
            |value: &toml::Value| value.is_bool() || value.is_integer() || value.is_str();
        match values.iter().find(|value| !is_scalar(value)) {
            Some(value) => Err(format!(
                "{}: is = [{value}]: use true, false, whole numbers and strings",
                self.at
            )),
            None => Ok(()),
        }
    }
}

/// The bound of every list in a rule set.
pub(super) fn bounded(what: &str, length: usize) -> Result<(), String> {
    match length {
        0..=LIST_LIMIT => Ok(()),
        _ => Err(format!("{what} has {length} items, at most {LIST_LIMIT}")),
    }
}

/// Numbers are also found in quotes.
fn equal(wanted: &toml::Value, found: &Value) -> bool {
    match (wanted, found) {
        (toml::Value::Boolean(wanted), Value::Bool(found)) => wanted == found,
        (toml::Value::Integer(wanted), found) => number(found) == Some(*wanted),
        (toml::Value::String(wanted), Value::String(found)) => {
            wanted.to_lowercase() == found.trim().to_lowercase()
        }
        _ => false,
    }
}

/// Empty as the vendor's language, PHP, sees it (`"error": false` is not an error), also in words.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(
            text.trim().to_ascii_lowercase().as_str(),
            "" | "0" | "false" | "null" | "none"
        ),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The whole numbers at these places, also those in quotes.
fn numbers<'a>(places: &'a [Pointer], json: &'a Value) -> impl Iterator<Item = i64> + 'a {
    places.iter().filter_map(|at| number(at.find(json)?))
}

fn first_text<'a>(places: &[Pointer], json: &'a Value) -> Option<&'a str> {
    let texts = places.iter().filter_map(|at| at.find(json)?.as_str());
    texts.map(str::trim).find(|text| !text.is_empty())
}

fn has_word(words: &[String], text: &str) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(text))
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_LIMIT)]
}

/// Reads a document, also one that was written as a string; else says whether it could go on.
fn read_json(text: &str) -> Result<Value, bool> {
    let json: Value = serde_json::from_str(text).map_err(|error| error.is_eof())?;
    let within = json.as_str().and_then(|text| {
        let within: Value = serde_json::from_str(text).ok()?;
        (within.is_object() || within.is_array()).then_some(within)
    });
    Ok(within.unwrap_or(json))
}

/// Without white space around it, and without the marks that some editors and APIs put in front.
fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    let bare = text.trim_start_matches('\u{feff}').trim();
    let mut guards = GUARDS.iter();
    let bare = guards
        .find_map(|guard| bare.strip_prefix(guard))
        .map_or(bare, str::trim_start);
    if bare.len() == text.len() {
        return text;
    }
    Cow::Owned(bare.to_owned())
}
