//! The small checks that every rule is made of: present, string, at most, URL, one of.
//!
//! Each check refuses with the name of the field's rule and its own suffix, so that a rule's name
//! exists once: `button.title` and the check "at most 20" give `button.title.max_20`. Places are
//! linked steps on the stack and become text only in a refusal or a warning. No check knows
//! which field it looks at.

use std::fmt;
use std::ops::RangeInclusive;

use url::Url;

use super::json::{Members, Node, Value};
use super::{Limits, Refusal, Warning};

/// More warnings than this about one request are dropped: a message of 64 KiB can hold ten
/// thousand unknown fields, more than anyone reads.
const WARNINGS_MAX: usize = 32;

/// The longest piece of the producer's own text that a place or a detail repeats, in characters.
const QUOTE_MAX: usize = 40;

/// The longest place that is told, in characters; only unknown fields lie deeper.
const PLACE_MAX: usize = 200;

/// Where in the request, from the root down: `message.buttons[0].title`.
#[derive(Clone, Copy)]
pub(super) enum Place<'p> {
    Root(&'static str),
    Key(&'p Place<'p>, &'p str),
    Index(&'p Place<'p>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => f.write_str(name),
            Self::Key(parent, key) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "_-$".contains(c);
                match !key.is_empty() && key.len() <= QUOTE_MAX && key.chars().all(plain) {
                    true => write!(f, "{parent}.{key}"),
                    false => write!(f, "{parent}[{}]", quote(key)),
                }
            }
            Self::Index(parent, at) => write!(f, "{parent}[{at}]"),
        }
    }
}

impl Place<'_> {
    /// The place in words, cut when it is long.
    pub(super) fn told(&self) -> String {
        let text = self.to_string();
        match text.char_indices().nth(PLACE_MAX) {
            Some((cut, _)) => format!("{}…", &text[..cut]),
            None => text,
        }
    }
}

/// The producer's text in quotes: one line whatever it holds, cut when it is long.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_MAX) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// What a check works with beside the value: the bounds, and where warnings go.
pub(super) struct Review<'l> {
    pub(super) limits: &'l Limits,
    pub(super) warnings: Vec<Warning>,
}

impl<'l> Review<'l> {
    pub(super) fn new(limits: &'l Limits) -> Self {
        Self {
            limits,
            warnings: Vec::new(),
        }
    }

    pub(super) fn warn(
        &mut self,
        rule: impl Into<String>,
        place: &Place<'_>,
        detail: impl Into<String>,
    ) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(Warning {
                rule: rule.into().into(),
                place: place.told(),
                detail: detail.into(),
            });
        }
    }
}

/// The members of an object, and where it is.
pub(super) struct Fields<'n, 'a> {
    pub(super) place: Place<'n>,
    pub(super) members: &'n Members<'a, Node<'a>>,
}

impl<'n, 'a> Fields<'n, 'a> {
    /// The field `key` if it is there, be it null; `name` begins the names of its rules.
    pub(super) fn optional<'s>(&'s self, key: &'s str, name: &'static str) -> Option<Item<'s, 'a>> {
        let (_, node) = self.members.iter().find(|(have, _)| have == key)?;
        Some(Item {
            place: Place::Key(&self.place, key),
            name,
            node,
        })
    }

    /// The field `key`, which must be there and not null.
    pub(super) fn required<'s>(
        &'s self,
        key: &'s str,
        name: &'static str,
    ) -> Result<Item<'s, 'a>, Refusal> {
        match self.optional(key, name) {
            Some(item) if matches!(item.node.value, Value::Null) => {
                Err(item.refuse("required", "is null"))
            }
            Some(item) => Ok(item),
            None => {
                let place = Place::Key(&self.place, key);
                Err(Refusal::new(
                    format!("{name}.required"),
                    &place,
                    "is missing",
                ))
            }
        }
    }

    /// Warns about every field whose name is not in `known`: it is sent as it is.
    pub(super) fn warn_unknown(&self, known: &[&str], review: &mut Review<'_>) {
        for (key, _) in self.members {
            if !known.contains(&key.as_ref()) {
                let place = Place::Key(&self.place, key);
                review.warn("unknown_field", &place, "is not documented, sent as it is");
            }
        }
    }
}

/// One value, where it is, and the name that its rules begin with.
pub(super) struct Item<'n, 'a> {
    pub(super) place: Place<'n>,
    pub(super) name: &'static str,
    pub(super) node: &'n Node<'a>,
}

impl<'n, 'a> Item<'n, 'a> {
    /// A refusal by the rule `<name>.<suffix>`.
    pub(super) fn refuse(&self, suffix: impl fmt::Display, detail: impl Into<String>) -> Refusal {
        Refusal::new(format!("{}.{suffix}", self.name), &self.place, detail)
    }

    fn mistyped(&self, suffix: &str, wanted: &str) -> Refusal {
        self.refuse(suffix, format!("is {}, must be {wanted}", self.node.kind()))
    }

    /// A string, blank or not.
    pub(super) fn text(&self) -> Result<&'n str, Refusal> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.mistyped("type", "a string")),
        }
    }

    /// A string that is not blank.
    pub(super) fn filled(&self) -> Result<&'n str, Refusal> {
        let text = self.text()?;
        if text.trim().is_empty() {
            return Err(self.refuse("nonempty", "is blank"));
        }
        Ok(text)
    }

    /// A string that ought not to be blank, though no page forbids it.
    pub(super) fn filled_or_warn(&self, review: &mut Review<'_>) -> Result<(), Refusal> {
        if self.text()?.trim().is_empty() {
            review.warn(format!("{}.blank", self.name), &self.place, "is blank");
        }
        Ok(())
    }

    /// `text`, at most `max` code points; more UTF-16 units than that get a warning, since how
    /// the receiving platform counts is not documented.
    pub(super) fn at_most(
        &self,
        text: &str,
        max: usize,
        review: &mut Review<'_>,
    ) -> Result<(), Refusal> {
        // Neither count exceeds the number of bytes.
        if text.len() <= max {
            return Ok(());
        }
        let characters = text.chars().count();
        if characters > max {
            let detail = format!("is {characters} characters, at most {max}");
            return Err(self.refuse(format_args!("max_{max}"), detail));
        }
        let units = text.encode_utf16().count();
        if units > max {
            let detail = format!("is {units} UTF-16 units, may be counted as over {max}");
            review.warn(format!("{}.utf16", self.name), &self.place, detail);
        }
        Ok(())
    }

    /// An absolute http or https URL.
    pub(super) fn url(&self) -> Result<&'n str, Refusal> {
        let text = self.text()?;
        // The parser repairs what it can (blanks, tabs, `https:host`, `https:///host`); what is
        // sent is the text.
        let clean = text.split_once("://").is_some_and(|(scheme, rest)| {
            let known = ["http", "https"].map(|name| scheme.eq_ignore_ascii_case(name));
            let blank = |c: char| c.is_whitespace() || c.is_control();
            known.contains(&true) && !rest.starts_with(['/', '\\']) && !rest.contains(blank)
        });
        match clean && Url::parse(text).is_ok_and(|url| url.has_host()) {
            true => Ok(text),
            false => Err(self.refuse("format", "must be an absolute http or https URL")),
        }
    }

    /// One of `words`, exactly as written there.
    pub(super) fn one_of(&self, words: &[&'static str]) -> Result<&'static str, Refusal> {
        let have = match &self.node.value {
            Value::Text(text) => match words.iter().find(|word| **word == text.as_ref()) {
                Some(word) => return Ok(word),
                None => quote(text),
            },
            _ => self.node.kind().to_owned(),
        };
        Err(self.refuse(
            "enum",
            format!("is {have}, use one of {}", words.join(", ")),
        ))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, Refusal> {
        match self.node.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.mistyped("type", "true or false")),
        }
    }

    /// A number that a double can hold, as written; refuses with `suffix`.
    pub(super) fn number(&self, suffix: &str) -> Result<&'a str, Refusal> {
        if !matches!(self.node.value, Value::Number) {
            return Err(self.mistyped(suffix, "a number"));
        }
        if !self.node.raw.parse().is_ok_and(f64::is_finite) {
            return Err(self.refuse(suffix, "is beyond every double"));
        }
        Ok(self.node.raw)
    }

    /// The items of an array of as many items as `bounds` says; `name` begins their rules.
    pub(super) fn items<'s>(
        &'s self,
        bounds: RangeInclusive<usize>,
        name: &'static str,
    ) -> Result<impl Iterator<Item = Item<'s, 'a>>, Refusal> {
        let Value::Array(nodes) = &self.node.value else {
            return Err(self.mistyped("array", "an array"));
        };
        let (min, max) = bounds.into_inner();
        if nodes.len() < min {
            let detail = format!("has {} items, at least {min}", nodes.len());
            return Err(self.refuse(format_args!("min_{min}"), detail));
        }
        if nodes.len() > max {
            let detail = format!("has {} items, at most {max}", nodes.len());
            return Err(self.refuse(format_args!("max_{max}"), detail));
        }
        let place = move |at| Place::Index(&self.place, at);
        Ok(nodes.iter().enumerate().map(move |(at, node)| Item {
            place: place(at),
            name,
            node,
        }))
    }

    /// The members of an object.
    pub(super) fn fields(&self) -> Result<Fields<'n, 'a>, Refusal> {
        match &self.node.value {
            Value::Object(members) => Ok(Fields {
                place: self.place,
                members,
            }),
            _ => Err(self.mistyped("object", "an object")),
        }
    }
}
