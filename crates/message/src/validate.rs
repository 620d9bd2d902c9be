//! The rules of the send API, as far as they can be known before sending.
//!
//! Works on the producer's own JSON text, so that unknown fields survive and every refusal names
//! its rule and its place. Pure and synchronous: no clock, no I/O, no logging; never panics,
//! whatever the bytes. What only the API can know (white-listed domains, bound phones, unique
//! order numbers) is not judged here, and nothing is rewritten except an object as postback
//! payload, which goes out as a string. The JSON Schema for producers in other languages is made
//! here too, of the nouns and the same bounds.

use std::borrow::Cow;
use std::fmt;

mod body;
mod button;
mod check;
mod document;
mod envelope;
mod json;
mod limits;
mod receipt;
mod rules;
mod schema;
mod template;
mod typed;

pub use body::{PageForm, PayloadForm, WireForm, body};
pub use document::{Document, document};
pub use envelope::recipient;
pub use limits::Limits;
pub use rules::rules;
pub use schema::{schema, schema_text};
pub use typed::Columns;

use check::{Place, Review};

/// The request's parts as the row holds them: raw JSON text.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Decimal digits, the first not zero.
    pub page_id: &'a str,
    /// JSON text of the recipient object.
    pub recipient: &'a [u8],
    /// JSON text of the message object.
    pub message: &'a [u8],
    /// The message tag, undecorated.
    pub tag: Option<&'a str>,
    /// The delay in seconds.
    pub delay: Option<i64>,
}

/// Why a request is not sent: the first rule it breaks.
///
/// Displays as `<rule>: <place>: <detail>`, always one line; of the producer's text it repeats
/// at most a short quoted piece.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {place}: {detail}")]
pub struct Refusal {
    /// The rule's name, for example `button.title.max_20`.
    pub rule: Cow<'static, str>,
    /// Where in the request, for example `message.buttons[0].title`.
    pub place: String,
    /// What is wrong there, for example `is 21 characters, at most 20`.
    pub detail: String,
}

impl Refusal {
    fn new(
        rule: impl Into<Cow<'static, str>>,
        place: &Place<'_>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            rule: rule.into(),
            place: place.told(),
            detail: detail.into(),
        }
    }
}

/// What is sent all the same, though it may be refused or shown otherwise than meant.
///
/// Displays like a [`Refusal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The warning's name, for example `tag.retired`.
    pub rule: Cow<'static, str>,
    /// Where in the request.
    pub place: String,
    /// What may go wrong.
    pub detail: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.rule, self.place, self.detail)
    }
}

/// Judges a whole request: the first rule it breaks, or what to be warned of.
pub fn request(request: &Request<'_>, limits: &Limits) -> Result<Vec<Warning>, Refusal> {
    let mut review = Review::new(limits);
    envelope::page_id(request.page_id)?;
    envelope::recipient(request.recipient)?;
    envelope::tag(request.tag, &mut review)?;
    envelope::delay(request.delay.unwrap_or_default(), limits)?;
    template::message(request.message, &mut review)?;
    Ok(review.warnings)
}

/// Judges a message alone, given as its JSON text: what goes into the column `message`.
pub fn message(json: &[u8], limits: &Limits) -> Result<Vec<Warning>, Refusal> {
    let mut review = Review::new(limits);
    template::message(json, &mut review)?;
    Ok(review.warnings)
}
