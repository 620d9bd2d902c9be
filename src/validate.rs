//! The rules of the send API, as far as they can be known before sending.
//!
//! Works on the producer's own JSON text, so that unknown fields survive and every refusal names
//! its rule and its place. Pure and synchronous: no clock, no I/O, no logging; never panics,
//! whatever the bytes. What only the API can know (white-listed domains, bound phones, unique
//! order numbers) is not judged here, and nothing is rewritten except an object as postback
//! payload, which goes out as a string.

use std::borrow::Cow;
use std::fmt;

mod body;
mod button;
mod check;
mod document;
mod envelope;
mod json;
mod receipt;
mod template;

pub use body::body;
pub use document::{Document, document};
pub use envelope::recipient;

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

/// The bounds that the rules check, all inclusive; lengths in Unicode code points.
///
/// The defaults are those of the vendor's page. Names of rules follow the bound: with a
/// `text_max` of 2000 the rule is `text.max_2000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The text of a text or button message: 640.
    pub text_max: usize,
    /// The title of a button: 20.
    pub button_title_max: usize,
    /// The title of a generic or list element: 80.
    pub element_title_max: usize,
    /// The subtitle of a generic or list element: 80.
    pub element_subtitle_max: usize,
    /// The buttons of a button message or a generic element: 3.
    pub buttons_max: usize,
    /// The elements of a generic message: 10.
    pub generic_elements_max: usize,
    /// The elements of a list message: 4.
    pub list_elements_max: usize,
    /// The elements of a receipt: 100.
    pub receipt_elements_max: usize,
    /// A postback payload: 1000 (Meta's error 100 above it).
    pub payload_max: usize,
    /// The delay: 10 seconds.
    pub delay_max: i64,
    /// The text of the message object: 65536 bytes.
    pub message_bytes_max: usize,
    /// The tags that are sent: the 17 of the vendor's page and three of Meta's later ones.
    pub tags: Vec<String>,
    /// The tags that get a warning, because Meta refuses them since 2026-04-27 or earlier.
    pub tags_retired: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        use crate::message::Tag;
        Self {
            text_max: 640,
            button_title_max: 20,
            element_title_max: 80,
            element_subtitle_max: 80,
            buttons_max: 3,
            generic_elements_max: 10,
            list_elements_max: 4,
            receipt_elements_max: 100,
            payload_max: 1000,
            delay_max: 10,
            message_bytes_max: 64 * 1024,
            tags: Tag::ALL.iter().map(|tag| tag.as_str().to_owned()).collect(),
            tags_retired: Tag::ALL
                .iter()
                .filter(|tag| tag.is_retired())
                .map(|tag| tag.as_str().to_owned())
                .collect(),
        }
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
