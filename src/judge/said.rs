//! What a body says about itself: failure, success, suspicious or neutral.
//!
//! Spec 4.5. Which fields say so is data (`[body]` of a rule set); bodies that are
//! no JSON, or not whole, are read as far as they go.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::prefix::completed;
use super::value::Pointer;
use crate::job::words;

/// How much of a text is compared with patterns, in bytes.
const TEXT_LIMIT: usize = 4096;
/// The most items of a list.
const LIST_LIMIT: usize = 200;

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
    success: Vec<Field>,
    success_text: Vec<String>,
    status_code: Vec<Pointer>,
    fine_code: Vec<i64>,
    fine_text: Vec<String>,
    code: Vec<Pointer>,
    subcode: Vec<Pointer>,
    text: Vec<Pointer>,
}

/// One field of a body: one of these values, or, without values, there and not empty.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Field {
    at: Pointer,
    is: Option<Vec<toml::Value>>,
}

/// A body, as far as it can be understood.
#[derive(Debug)]
pub(super) struct Said<'a> {
    pub(super) class: Class,
    json: Option<Value>,
    plain: Cow<'a, str>,
    /// What is odd about it, if it is suspicious.
    pub(super) odd: &'static str,
}

impl Reading {
    /// Says what cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        for field in self.failure.iter().chain(&self.success) {
            field.check()?;
        }
        let lists = [&self.status_code, &self.code, &self.subcode, &self.text];
        for list in lists {
            bounded("a list of pointers", list.len())?;
            list.iter().try_for_each(Pointer::check)?;
        }
        bounded("failure", self.failure.len())?;
        bounded("success", self.success.len())?;
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
        let json = serde_json::from_str(&plain).ok().or_else(|| {
            let prefix = cut.then(|| completed(&plain)).flatten()?;
            serde_json::from_str(&prefix).ok()
        });
        let (class, odd) = match &json {
            _ if plain.is_empty() => (Class::Neutral, ""),
            Some(json) => self.class(json, is_html),
            None if is_html => (Class::Suspicious, "an HTML page"),
            None if has_word(&self.success_text, &plain) => (Class::Success, ""),
            None => (Class::Suspicious, "text that is not JSON"),
        };
        Said {
            class,
            json,
            plain,
            odd,
        }
    }

    fn class(&self, json: &Value, is_html: bool) -> (Class, &'static str) {
        if self.failure.iter().any(|field| field.holds(json)) {
            return (Class::Failure, "");
        }
        if self.success.iter().any(|field| field.holds(json)) {
            return (Class::Success, "");
        }
        if is_html {
            return (Class::Suspicious, "JSON that is called HTML");
        }
        let mut codes = numbers(&self.status_code, json);
        let is_fine = || first_text(&self.text, json).is_some_and(|t| has_word(&self.fine_text, t));
        if codes.any(|code| !self.fine_code.contains(&code)) && !is_fine() {
            return (Class::Suspicious, "JSON with a code that is no success");
        }
        (Class::Neutral, "")
    }

    /// The code that a body carries.
    pub(super) fn code(&self, said: &Said<'_>) -> Option<i64> {
        numbers(&self.code, said.json.as_ref()?).next()
    }

    /// The subcode that a body carries.
    pub(super) fn subcode(&self, said: &Said<'_>) -> Option<i64> {
        numbers(&self.subcode, said.json.as_ref()?).next()
    }

    /// What a body says in words, if it is JSON.
    pub(super) fn words<'s>(&self, said: &'s Said<'_>) -> Option<&'s str> {
        Some(beginning(first_text(&self.text, said.json.as_ref()?)?))
    }

    /// What patterns are compared with: the words, or the text of what is not JSON.
    pub(super) fn text<'s>(&self, said: &'s Said<'_>) -> &'s str {
        match said.json {
            Some(_) => self.words(said).unwrap_or_default(),
            None => beginning(&said.plain),
        }
    }
}

impl Said<'_> {
    /// True if this field of the body is as asked for.
    pub(super) fn has(&self, field: &Field) -> bool {
        self.json.as_ref().is_some_and(|json| field.holds(json))
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

    fn holds(&self, json: &Value) -> bool {
        let Some(found) = self.at.find(json) else {
            return false;
        };
        match &self.is {
            Some(values) => values.iter().any(|value| equal(value, found)),
            None => !is_empty(found),
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

fn equal(wanted: &toml::Value, found: &Value) -> bool {
    match (wanted, found) {
        (toml::Value::Boolean(wanted), Value::Bool(found)) => wanted == found,
        (toml::Value::Integer(wanted), Value::Number(found)) => found.as_i64() == Some(*wanted),
        (toml::Value::String(wanted), Value::String(found)) => wanted.eq_ignore_ascii_case(found),
        _ => false,
    }
}

/// Empty as the vendor's language, PHP, sees it: `"error": false` is no error.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// The whole numbers at these places, also those in quotes.
fn numbers<'a>(places: &'a [Pointer], json: &'a Value) -> impl Iterator<Item = i64> + 'a {
    places.iter().filter_map(|at| match at.find(json)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
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

/// Without white space around it, and without the mark that some editors put in front.
fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    let trim = |text: &str| text.trim_start_matches('\u{feff}').trim().len() == text.len();
    if trim(&text) {
        return text;
    }
    Cow::Owned(text.trim_start_matches('\u{feff}').trim().to_owned())
}
