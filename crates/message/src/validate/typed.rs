//! Judges requests that were built from the nouns: what a producer written in Rust calls.
//!
//! It writes the JSON first and judges that, so that a request in code and the same request as
//! text are judged by the same rules, with the same refusals.

use serde::Serialize;

use super::check::Place;
use super::{Limits, Refusal, Warning, document, message};
use crate::{Message, Request};

/// The parts of a request that broke no rule, as the columns of `send_jobs` take them. Only
/// [`Request::check`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    page_id: String,
    recipient: String,
    message: String,
    tag: Option<String>,
    delay: i64,
    warnings: Vec<Warning>,
}

impl Columns {
    /// `page_id`: decimal digits.
    pub fn page_id(&self) -> &str {
        &self.page_id
    }

    /// `recipient`: JSON text.
    pub fn recipient(&self) -> &str {
        &self.recipient
    }

    /// `message`: JSON text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// `tag`.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// `delay`: seconds.
    pub const fn delay(&self) -> i64 {
        self.delay
    }

    /// What the rules warn of; it is sent all the same.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

impl Request {
    /// Judges the request by all rules; gives the values of the columns for the INSERT.
    ///
    /// # Errors
    /// The first rule that it breaks, with the place, the figure and the bound.
    pub fn check(&self, limits: &Limits) -> Result<Columns, Refusal> {
        let text = json(self, "request")?;
        let document = document(text.as_bytes(), &[], limits)?;
        Ok(Columns {
            page_id: document.page_id,
            recipient: document.recipient.to_owned(),
            message: document.message.to_owned(),
            tag: document.tag,
            delay: document.delay,
            warnings: document.warnings,
        })
    }
}

impl Message {
    /// Judges the message alone, for any recipient; gives its JSON text and what to be warned of.
    ///
    /// # Errors
    /// The first rule that it breaks, with the place, the figure and the bound.
    pub fn check(&self, limits: &Limits) -> Result<(String, Vec<Warning>), Refusal> {
        let text = json(self, "message")?;
        let warnings = message(text.as_bytes(), limits)?;
        Ok((text, warnings))
    }
}

fn json(value: &impl Serialize, root: &'static str) -> Result<String, Refusal> {
    serde_json::to_string(value)
        .map_err(|error| Refusal::new("json.syntax", &Place::Root(root), error.to_string()))
}
