//! What is remembered: one record per received request, and the counts.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

/// The counts of a sandbox since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct MockStats {
    /// Connections accepted.
    pub connections: u64,
    /// Send requests of which at least the head was read.
    pub requests: u64,
    /// Requests read whole, with a good signature.
    pub received: u64,
    /// Of those, answered with a status 2xx that does not say failure.
    pub accepted: u64,
    /// Taken in but never answered (`drop`).
    pub dropped: u64,
    /// Pages and recipients seen.
    pub lanes: u64,
    /// Requests whose signature was wrong or missing.
    pub bad_signatures: u64,
    /// Requests that were no send request at all.
    pub bad_requests: u64,
    /// First receipts of a number below one already received for the same recipient.
    pub order_violations: u64,
    /// Receipts of a number received before, after a higher one.
    pub late_echoes: u64,
    /// Receipts of a message received before, whatever became of it: retries.
    pub repeats: u64,
    /// Receipts of a message that was taken in before.
    pub duplicates: u64,
    /// Requests of a recipient that began while another of the same recipient was in flight.
    pub overlaps: u64,
    /// Lines that could not be written to the log file.
    pub log_errors: u64,
}

/// One request, read whole and with a good signature. Times are nanoseconds of the boot clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Counts the received, from 1.
    pub seq: u64,
    /// Counts the requests, from 1; the key of the log file.
    pub request: u64,
    /// When the head had been read.
    pub head_ns: u64,
    /// When the body had been read.
    pub body_ns: u64,
    /// Right before the first byte of the answer; `None` if there was none.
    pub answer_ns: Option<u64>,
    /// The status answered.
    pub status: Option<u16>,
    /// The page.
    pub page_id: String,
    /// `id`, `phone`, `email` or `uuid`.
    pub kind: &'static str,
    /// The recipient's value.
    pub recipient: String,
    /// The number its text ends with.
    pub number: Option<u64>,
    /// The exact bytes, if bodies are kept.
    #[serde(serialize_with = "as_text")]
    pub body: Option<Bytes>,
}

fn as_text<S: serde::Serializer>(body: &Option<Bytes>, to: S) -> Result<S::Ok, S::Error> {
    body.as_ref()
        .map(|bytes| String::from_utf8_lossy(bytes))
        .serialize(to)
}

/// When and by which request.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub request: u64,
    pub head_ns: u64,
    pub body_ns: u64,
}

/// Whose line it is.
pub(super) struct Name {
    pub page_id: String,
    pub kind: &'static str,
    pub recipient: String,
}

/// A [`Received`] as it is kept: nothing twice.
pub(super) struct Record {
    pub name: Arc<Name>,
    pub seen: Seen,
    pub answer: Option<(u64, Option<u16>)>,
    pub number: Option<u64>,
    pub body: Option<Bytes>,
}

impl Record {
    pub fn show(&self, seq: u64) -> Received {
        Received {
            seq,
            request: self.seen.request,
            head_ns: self.seen.head_ns,
            body_ns: self.seen.body_ns,
            answer_ns: self.answer.map(|(at, _)| at),
            status: self.answer.and_then(|(_, status)| status),
            page_id: self.name.page_id.clone(),
            kind: self.name.kind,
            recipient: self.name.recipient.clone(),
            number: self.number,
            body: self.body.clone(),
        }
    }
}
