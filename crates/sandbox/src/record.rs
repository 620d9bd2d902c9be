//! What is remembered: one record per received request, and the counts.

use bytes::Bytes;
use serde::Serialize;

use crate::referee::Verdict;

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
    /// Received requests that break a rule of the vendor's; 0 if rules are not checked.
    #[serde(default)]
    pub invalid: u64,
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

impl MockStats {
    /// Counts what was found when a request was received.
    pub(crate) fn count(&mut self, record: &Record) {
        self.invalid += u64::from(record.breach.is_some());
        self.overlaps += u64::from(record.overlaps);
        self.duplicates += u64::from(record.verdict.duplicate);
        self.order_violations += u64::from(record.verdict.late.is_some());
        self.repeats += u64::from(record.verdict.repeat);
        self.late_echoes += u64::from(record.verdict.echo);
    }
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
    /// True if the person gets the message.
    pub taken: bool,
    /// True if it was received before, whatever became of it.
    pub repeat: bool,
    /// True if it was taken in before.
    pub duplicate: bool,
    /// A higher number that was received before it, if that makes it an order violation.
    pub after: Option<u64>,
    /// True if another request of this recipient was in flight.
    pub overlaps: bool,
    /// The rule of the vendor's that it breaks, in words; `None` if rules were not checked.
    pub invalid: Option<String>,
    /// The exact bytes, if bodies are kept.
    #[serde(serialize_with = "as_text")]
    pub body: Option<Bytes>,
}

impl Received {
    pub(crate) fn name(&self) -> Name {
        Name {
            page_id: self.page_id.clone(),
            kind: self.kind,
            recipient: self.recipient.clone(),
        }
    }

    pub(crate) fn is_for(&self, name: &Name) -> bool {
        (&self.page_id, self.kind, &self.recipient) == (&name.page_id, name.kind, &name.recipient)
    }

    /// True if it should not have come, not like this, or not now.
    pub(crate) fn is_troubled(&self) -> bool {
        self.duplicate || self.after.is_some() || self.overlaps || self.invalid.is_some()
    }
}

fn as_text<S: serde::Serializer>(body: &Option<Bytes>, to: S) -> Result<S::Ok, S::Error> {
    body.as_ref()
        .map(|bytes| String::from_utf8_lossy(bytes))
        .serialize(to)
}

/// When and by which request.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub request: u64,
    pub head_ns: u64,
    pub body_ns: u64,
}

/// Whose line it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub page_id: String,
    pub kind: &'static str,
    pub recipient: String,
}

/// A request whose signature was wrong or missing. Its sender may have lied about everything.
#[derive(Clone)]
pub(crate) struct TurnedAway {
    pub name: Name,
    pub seen: Seen,
    pub body: Option<Bytes>,
}

/// A [`Received`] as it is kept: nothing twice.
pub(crate) struct Record {
    /// Its place on the board.
    pub lane: usize,
    pub seen: Seen,
    pub answer: Option<(u64, Option<u16>)>,
    pub number: Option<u64>,
    pub overlaps: bool,
    pub taken: bool,
    pub verdict: Verdict,
    pub breach: Option<Box<str>>,
    pub body: Option<Bytes>,
}

impl Record {
    /// Bytes of the body that is kept.
    pub fn weight(&self) -> usize {
        self.body.as_ref().map_or(0, Bytes::len)
    }

    /// What is wrong with it, in words.
    pub fn troubles(&self) -> impl Iterator<Item = String> {
        let late = |highest| format!("after #{highest}");
        let invalid = |why: &str| format!("is invalid: {why}");
        let all = [
            self.overlaps.then(|| "overlaps another request".to_owned()),
            (self.verdict.duplicate).then(|| "was taken in before".to_owned()),
            self.verdict.late.map(late),
            self.breach.as_deref().map(invalid),
        ];
        all.into_iter().flatten()
    }

    pub fn show(&self, seq: u64, name: &Name) -> Received {
        Received {
            seq,
            request: self.seen.request,
            head_ns: self.seen.head_ns,
            body_ns: self.seen.body_ns,
            answer_ns: self.answer.map(|(at, _)| at),
            status: self.answer.and_then(|(_, status)| status),
            page_id: name.page_id.clone(),
            kind: name.kind,
            recipient: name.recipient.clone(),
            number: self.number,
            taken: self.taken,
            repeat: self.verdict.repeat,
            duplicate: self.verdict.duplicate,
            after: self.verdict.late,
            overlaps: self.overlaps,
            invalid: self.breach.as_deref().map(str::to_owned),
            body: self.body.clone(),
        }
    }
}
