//! Scripts: what the sandbox does with the next requests of a recipient.
//!
//! A script is a list of steps, one per request; after the last comes `ok` for ever, or the last
//! step again if a `*` follows it. The form that people type is in `words`; nothing here knows of
//! sockets.

mod words;

use std::sync::Arc;
use std::time::Duration;

use crate::vendor;

pub use words::WORDS;

/// A text that is not a script, a target or a script file, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScriptError(pub(crate) String);

/// How an answer goes out, if it goes out at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Manner {
    /// Status, headers and body in one write.
    #[default]
    Whole,
    /// Every byte alone, this far apart.
    Drip(Duration),
    /// The head at once, then every byte of the body alone, this far apart.
    DripBody(Duration),
    /// The head and half of the body, then FIN.
    Cut,
    /// The head and half of the body, then RST.
    ResetMid,
    /// The head and a chunked body without end.
    Endless,
    /// These bytes, HTTP or not, then FIN.
    Raw(Vec<u8>),
    /// No answer; the connection stays until the client gives up.
    Hang,
    /// The message is taken in, then FIN without an answer.
    Drop,
    /// FIN without an answer; the request does not count as received.
    Close,
    /// RST after the request was read and counted as received.
    Reset,
    /// RST, not counted as received. Before the body is read if the script for everybody says
    /// nothing else (`reset-before *`); else the body is read to know whose request it is.
    ResetBefore,
}

impl Manner {
    /// True if the request leaves no trace in the record.
    pub(crate) fn hides_the_request(&self) -> bool {
        matches!(self, Self::Close | Self::ResetBefore)
    }

    /// True if at least the status line of an answer reaches the client.
    fn answers(&self) -> bool {
        !matches!(
            self,
            Self::Hang | Self::Drop | Self::Close | Self::Reset | Self::ResetBefore
        )
    }
}

/// What is done with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Waited after the request was read, before anything else.
    pub delay: Duration,
    /// The status of the answer.
    pub status: u16,
    /// Further headers; `content-type` and `content-length` replace the usual ones.
    pub headers: Vec<(String, String)>,
    /// The body; `None` is what JoinChat says to this status.
    pub body: Option<Vec<u8>>,
    /// Adds `Retry-After` with the date so long after the answer.
    pub retry_date: Option<Duration>,
    /// The person gets the message although the answer, or its absence, says otherwise.
    pub taken: bool,
    /// How the answer goes out.
    pub manner: Manner,
}

/// The step of every request without a script.
pub(crate) static PLAIN: Step = Step {
    delay: Duration::ZERO,
    status: 200,
    headers: Vec::new(),
    body: None,
    retry_date: None,
    taken: false,
    manner: Manner::Whole,
};

impl Default for Step {
    fn default() -> Self {
        Self::answer(200)
    }
}

impl Step {
    /// A whole answer with this status and its usual body.
    pub fn answer(status: u16) -> Self {
        Self {
            status,
            ..PLAIN.clone()
        }
    }

    /// A refusal with a code, in the vendor's words.
    pub(crate) fn refusal(code: i64, msg: &str) -> Self {
        Self {
            body: Some(vendor::failure(code, msg).into_bytes()),
            ..Self::answer(400)
        }
    }

    /// The status the client can see; `None` if there is no answer.
    pub(crate) fn seen_status(&self) -> Option<u16> {
        match &self.manner {
            Manner::Raw(bytes) => raw_status(bytes),
            manner => manner.answers().then_some(self.status),
        }
    }

    /// True if the answer tells the client that the message was delivered.
    pub(crate) fn accepts(&self) -> bool {
        let success = self
            .seen_status()
            .is_some_and(|status| (200..300).contains(&status));
        success && !self.body.as_deref().is_some_and(says_failure)
    }

    /// True if the person gets the message, whatever the client is told.
    pub(crate) fn takes(&self) -> bool {
        self.taken || self.manner == Manner::Drop || self.accepts()
    }
}

fn raw_status(bytes: &[u8]) -> Option<u16> {
    let status = bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(status).ok()?.parse().ok()
}

/// An explicit failure in the body, by whatever status it comes.
fn says_failure(body: &[u8]) -> bool {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) else {
        return false;
    };
    let set = |key: &str| answer.get(key).is_some_and(|error| !error.is_null());
    answer.get("success") == Some(&serde_json::Value::Bool(false)) || set("error") || set("errors")
}

/// The steps for a row of requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    steps: Vec<Arc<Step>>,
    repeat_last: bool,
}

impl Script {
    /// These steps once each, then `ok` for ever.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().map(Arc::new).collect(),
            repeat_last: false,
        }
    }

    /// The last step again for ever, instead of `ok`.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.repeat_last = true;
        self
    }

    /// The step for request `number`, counted from 0; `None` is a plain `ok`.
    pub(crate) fn step(&self, number: usize) -> Option<&Arc<Step>> {
        let last = if self.repeat_last {
            self.steps.last()
        } else {
            None
        };
        self.steps.get(number).or(last)
    }

    /// True if no request needs its body read to know what happens.
    pub(crate) fn only_resets_before(&self) -> bool {
        let resets = |step: &Arc<Step>| step.manner == Manner::ResetBefore;
        self.repeat_last && !self.steps.is_empty() && self.steps.iter().all(resets)
    }
}
