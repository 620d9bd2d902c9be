//! What one attempt brought back, and how far it came.
//!
//! The one place where an answer is made of a status, headers and a body; the sender and
//! `classify` both come here. What it means is said by [`super::judge`].

use std::fmt;
use std::time::Duration;

use crate::job::words;

/// How much of an answer's body is read, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

/// What one attempt brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is certain that no byte left: the connection was never made, or the attempt was given up.
    NotSent {
        /// Why, without secrets.
        error: String,
        /// How far it came; none if nothing was tried.
        evidence: Option<Evidence>,
    },
    /// Bytes may have left and no status came back.
    Lost {
        /// Why, without secrets.
        error: String,
        /// How far it came; `None` if unknown.
        evidence: Option<Evidence>,
    },
    /// A status line came back.
    Status {
        /// The HTTP status.
        status: u16,
        /// `content-type`, lower case.
        content_type: Option<String>,
        /// `Retry-After`, already bounded.
        retry_after: Option<Duration>,
        /// What was read of the body, at most [`BODY_LIMIT`].
        body: Vec<u8>,
        /// Why the body was not read to its end, if it was not.
        cut: Option<String>,
    },
}

words! {
    /// The part of a request that failed (spec 4.3).
    Phase, "phase", {
        /// Finding the address of the name.
        Resolve = "resolve",
        /// Making the connection. Where it timed out the client does not say in which part: name,
        /// TCP or TLS.
        Connect = "connect",
        /// Agreeing on encryption, certificates included.
        Tls = "tls",
        /// Writing the request to a connection.
        Write = "write",
        /// The body was handed to the connection, and nothing that could be read came back.
        Wait = "wait",
        /// What came back is not HTTP.
        Head = "head",
        /// The status came; the body after it did not come whole.
        Body = "body",
        /// The client does not say.
        Unknown = "unknown",
    }
}

/// How far a request came before it failed, as far as the client can tell. Evidence, not proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// The part that failed.
    pub phase: Phase,
    /// The connection asked for the body; some of it may be on the wire.
    pub body_sent: bool,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body_sent = if self.body_sent { "yes" } else { "no" };
        write!(f, "phase={} body_sent={body_sent}", self.phase)
    }
}

impl Evidence {
    /// The evidence, if there is any, in front of the error.
    pub(super) fn before(evidence: Option<Self>, error: &str) -> String {
        evidence.map_or_else(
            || error.to_owned(),
            |evidence| format!("{evidence}: {error}"),
        )
    }
}

impl Answer {
    /// An attempt that was given up before anything was tried.
    pub fn not_sent(error: impl Into<String>) -> Self {
        Self::NotSent {
            error: error.into(),
            evidence: None,
        }
    }

    /// An attempt whose end is unknown.
    pub fn lost(error: impl Into<String>) -> Self {
        Self::Lost {
            error: error.into(),
            evidence: None,
        }
    }

    /// What came back after a status line. `header` finds a header by its name in lower case.
    pub fn status<'h>(
        status: u16,
        header: impl Fn(&str) -> Option<&'h [u8]>,
        (body, cut): (Vec<u8>, Option<String>),
        now_unix_secs: i64,
        max_retry_after: Duration,
    ) -> Self {
        Self::Status {
            status,
            content_type: header("content-type")
                .and_then(|value| std::str::from_utf8(value).ok())
                .map(str::to_ascii_lowercase),
            retry_after: header("retry-after")
                .and_then(|value| retry_after(value, now_unix_secs, max_retry_after)),
            body,
            cut,
        }
    }
}

/// `Retry-After` as seconds or an HTTP date, bounded to `[1 s, most]`. What is neither is ignored.
pub fn retry_after(value: &[u8], now_unix_secs: i64, most: Duration) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if text.is_empty() {
        return None;
    }
    let least = Duration::from_secs(1).min(most);
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean "very long".
        return Some(
            text.parse()
                .map_or(most, Duration::from_secs)
                .clamp(least, most),
        );
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let date = date
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let now = Duration::from_secs(u64::try_from(now_unix_secs).unwrap_or_default());
    Some(date.saturating_sub(now).clamp(least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let hour = Duration::from_secs(3600);
        let now = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, expected) in [
            ("5", Some(5)),
            ("0", Some(1)),
            ("3600", Some(3600)),
            ("3601", Some(3600)),
            ("1000000000", Some(3600)),
            ("99999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(1)),
            ("-1", None),
            ("5.5", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(
                retry_after(text.as_bytes(), now, hour),
                expected.map(Duration::from_secs),
                "{text}"
            );
        }
        assert_eq!(retry_after(&[0xff, 0xfe], now, hour), None);
    }

    #[test]
    fn evidence_has_one_short_form() {
        let evidence = Evidence {
            phase: Phase::Wait,
            body_sent: true,
        };
        assert_eq!(
            Evidence::before(Some(evidence), "connection reset"),
            "phase=wait body_sent=yes: connection reset"
        );
        assert_eq!(Evidence::before(None, "expired"), "expired");
    }
}
