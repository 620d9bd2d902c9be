//! A line of requests: read with a bound, judged in full, turned into a row.
//!
//! What the message rules do not cover is checked here against the bounds of the columns, so that
//! no valid line can be refused by the database for anything but a key that is taken.

use std::io::{self, BufRead};

use jiff::Timestamp;
use postlane_message::validate::{Limits, Refusal, Warning, document};
use serde_json::value::RawValue;

use crate::clock::Millis;
use crate::store::enqueue::NewJob;

/// The longest line, in bytes.
pub const LONGEST: usize = 1024 * 1024;

/// The further keys: the columns that a producer writes.
const EXTRA: [&str; 6] = [
    "send_at",
    "expires_at",
    "ordering_key",
    "idempotency_key",
    "on_ambiguous",
    "metadata",
];

/// The longest `ordering_key` and `idempotency_key`, in bytes.
const KEY_MAX: usize = 1024;
/// The longest `metadata`, in bytes.
const METADATA_MAX: usize = 64 * 1024;
/// The last moment a column takes.
const LAST: Millis = 253_402_128_000_000;

/// What reading brought.
pub enum Read {
    /// A line, without its end; the bytes it took with it.
    Line(usize),
    /// A line that is longer than [`LONGEST`]; it was skipped.
    TooLong(usize),
    /// There are no more.
    End,
}

/// Reads the next line into `line`, which never grows beyond [`LONGEST`].
pub fn read(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Read> {
    line.clear();
    let (mut taken, mut long) = (0, false);
    loop {
        let buffer = match from.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        if line.len() + piece.len() > LONGEST {
            long = true;
        } else if !long {
            line.extend_from_slice(piece);
        }
        let used = end.map_or(buffer.len(), |end| end + 1);
        let at_end = used == 0;
        from.consume(used);
        taken += used;
        if at_end && taken == 0 {
            return Ok(Read::End);
        }
        if at_end || end.is_some() {
            return Ok(if long {
                Read::TooLong(taken)
            } else {
                Read::Line(taken)
            });
        }
    }
}

/// Judges a line: the row it makes, and what to be warned of.
pub fn parse(line: &[u8], limits: &Limits) -> Result<(NewJob, Vec<Warning>), Refusal> {
    let document = document(line, &EXTRA, limits)?;
    let mut job = NewJob {
        page_id: document.page_id,
        recipient: document.recipient.to_owned(),
        message: document.message.to_owned(),
        tag: document.tag,
        delay: document.delay,
        ..NewJob::default()
    };
    for (key, value) in document.extras {
        if value.get() == "null" {
            continue;
        }
        extra(&mut job, &key, value)?;
    }
    Ok((job, document.warnings))
}

/// The refusal of a line that is too long to be read.
pub fn too_long() -> Refusal {
    refuse(
        "request",
        "max_bytes",
        format!("is over {LONGEST} bytes, the longest line"),
    )
}

fn refuse(key: &str, rule: &str, detail: impl Into<String>) -> Refusal {
    Refusal {
        rule: format!("{key}.{rule}").into(),
        place: key.to_owned(),
        detail: detail.into(),
    }
}

fn extra(job: &mut NewJob, key: &str, value: &RawValue) -> Result<(), Refusal> {
    match key {
        "send_at" => job.send_at = Some(moment(key, value)?),
        "expires_at" => job.expires_at = Some(moment(key, value)?),
        "ordering_key" => job.ordering_key = Some(name(key, value)?),
        "idempotency_key" => job.idempotency_key = Some(name(key, value)?),
        "on_ambiguous" => {
            let word = string(key, value)?;
            let word = word
                .parse()
                .map_err(|_| refuse(key, "one_of", "use \"retry\" or \"hold\""))?;
            job.on_ambiguous = Some(word);
        }
        _ => {
            let bytes = value.get().len();
            if bytes > METADATA_MAX {
                let detail = format!("is {bytes} bytes, at most {METADATA_MAX}");
                return Err(refuse(key, "max_bytes", detail));
            }
            job.metadata = Some(value.get().to_owned());
        }
    }
    Ok(())
}

fn string(key: &str, value: &RawValue) -> Result<String, Refusal> {
    serde_json::from_str(value.get()).map_err(|_| refuse(key, "type", "must be a string"))
}

fn name(key: &str, value: &RawValue) -> Result<String, Refusal> {
    let name = string(key, value)?;
    if name.is_empty() || name.len() > KEY_MAX {
        let detail = format!("is {} bytes, 1 to {KEY_MAX}", name.len());
        return Err(refuse(key, "length", detail));
    }
    if name.contains('\0') {
        return Err(refuse(key, "no_nul", "holds a NUL character"));
    }
    Ok(name)
}

/// Unix milliseconds as a number, or an RFC 3339 time as a string.
fn moment(key: &str, value: &RawValue) -> Result<Millis, Refusal> {
    let text = value.get();
    let at = if text.starts_with('"') {
        let time: Option<Timestamp> = string(key, value)?.parse().ok();
        time.map(Timestamp::as_millisecond)
    } else {
        text.parse().ok()
    };
    let wrong = "use an RFC 3339 time such as \"2026-11-22T14:00:00Z\" or whole unix milliseconds";
    let at = at.ok_or_else(|| refuse(key, "time", wrong))?;
    if !(0..=LAST).contains(&at) {
        return Err(refuse(key, "range", "must lie between 1970 and 9999"));
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(more: &str) -> Result<NewJob, Refusal> {
        let line = format!(
            r#"{{"page_id":1,"recipient":{{"id":"a"}},"message":{{"template_type":"text","text":"x"}}{more}}}"#
        );
        parse(line.as_bytes(), &Limits::default()).map(|(job, _)| job)
    }

    #[test]
    fn the_producers_columns_are_taken() {
        let job = with(
            r#","send_at":"1970-01-01T00:00:02Z","expires_at":5000,"ordering_key":"k","idempotency_key":"i","on_ambiguous":"hold","metadata":{"a": 1}"#,
        )
        .unwrap();
        assert_eq!((job.send_at, job.expires_at), (Some(2_000), Some(5_000)));
        assert_eq!(job.ordering_key.as_deref(), Some("k"));
        assert_eq!(job.metadata.as_deref(), Some(r#"{"a": 1}"#));
        assert!(with(r#","send_at":null"#).unwrap().send_at.is_none());
    }

    #[test]
    fn what_a_column_would_refuse_is_refused_before() {
        for (more, rule) in [
            (r#","send_at":"tomorrow""#, "send_at.time"),
            (r#","send_at":1.5"#, "send_at.time"),
            (r#","expires_at":-1"#, "expires_at.range"),
            (r#","expires_at":999999999999999"#, "expires_at.range"),
            (r#","ordering_key":"""#, "ordering_key.length"),
            (r#","ordering_key":7"#, "ordering_key.type"),
            (r#","idempotency_key":"a\u0000b""#, "idempotency_key.no_nul"),
            (r#","on_ambiguous":"drop""#, "on_ambiguous.one_of"),
            (r#","sendat":1"#, "request.unknown_key"),
        ] {
            let refused = with(more).expect_err(more);
            assert_eq!(refused.rule, rule, "{more}: {refused}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_one_read() {
        let mut text = vec![b'x'; LONGEST + 1];
        text.extend_from_slice(b"\nshort\n\nlast");
        let mut from = io::BufReader::with_capacity(7, text.as_slice());
        let mut line = Vec::new();
        assert!(matches!(read(&mut from, &mut line), Ok(Read::TooLong(_))));
        for wanted in ["short", "", "last"] {
            assert!(matches!(read(&mut from, &mut line), Ok(Read::Line(_))));
            assert_eq!(line, wanted.as_bytes());
        }
        assert!(matches!(read(&mut from, &mut line), Ok(Read::End)));
    }
}
