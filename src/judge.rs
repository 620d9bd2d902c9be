//! What came back becomes an outcome, and the rule that said so.
//!
//! Pure: no clock, no network, no job. `is_connect()` is the only proof that nothing was sent;
//! whatever else went wrong after sending began is ambiguous. What an outcome means for the job
//! is decided in [`crate::retry`].

use std::time::Duration;

use serde_json::Value;

use crate::job::Outcome;

/// What one attempt brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is certain that no byte left: the connection was never made, or the attempt was given up.
    NotSent {
        /// Why, without secrets.
        error: String,
    },
    /// Bytes may have left and no status came back.
    Lost {
        /// Why, without secrets.
        error: String,
    },
    /// A status line came back.
    Status {
        /// The HTTP status.
        status: u16,
        /// `content-type`, lower case.
        content_type: Option<String>,
        /// `Retry-After`, already bounded.
        retry_after: Option<Duration>,
        /// What was read of the body, at most 64 KiB.
        body: Vec<u8>,
        /// The body was not read to its end: too long, cut or late.
        cut: bool,
    },
}

/// The verdict on one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// How it ended.
    pub outcome: Outcome,
    /// Which rule said so.
    pub rule: &'static str,
    /// What to show as the reason, if not delivered.
    pub reason: String,
    /// False if the job is not to blame: its attempts are not used up.
    pub counts: bool,
    /// Wait at least this long.
    pub retry_after: Option<Duration>,
    /// Whatever the policy says, an operator decides.
    pub hold: bool,
    /// How many such failures end the job, if fewer than `max_attempts`.
    pub cap: Option<u32>,
}

impl Judgement {
    fn new(outcome: Outcome, rule: &'static str, reason: impl Into<String>) -> Self {
        let counts = !matches!(outcome, Outcome::Throttled | Outcome::NotSent);
        Self {
            outcome,
            rule,
            reason: reason.into(),
            counts,
            retry_after: None,
            hold: false,
            cap: None,
        }
    }
}

/// Judges an answer by `joinchat` rules: transport, then the body, then the status.
pub fn judge(answer: &Answer) -> Judgement {
    match answer {
        Answer::NotSent { error } => Judgement::new(Outcome::NotSent, "transport.not_sent", error),
        Answer::Lost { error } => Judgement::new(Outcome::Ambiguous, "transport.ambiguous", error),
        Answer::Status {
            status,
            content_type,
            retry_after,
            body,
            cut,
        } => {
            let said = Said::read(body, content_type.as_deref());
            let mut judgement = match status {
                200..=299 => success_status(*status, &said, *cut),
                _ => failure_status(*status, &said, retry_after.is_some()),
            };
            judgement.retry_after = *retry_after;
            judgement
        }
    }
}

/// What a body says about itself.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// An explicit failure, its code and its text.
    Failure { code: Option<i64>, text: String },
    /// An explicit success.
    Success,
    /// Something that looks like neither, and not like this API.
    Suspicious(&'static str),
    /// Nothing either way.
    Neutral,
}

impl Said {
    fn read(body: &[u8], content_type: Option<&str>) -> Self {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        let Ok(value) = serde_json::from_str::<Value>(text) else {
            let html = content_type.is_some_and(|t| t.contains("html"));
            return match text {
                "" => Self::Neutral,
                _ if html => Self::Suspicious("an HTML page"),
                _ if text.eq_ignore_ascii_case("ok") || text.eq_ignore_ascii_case("success") => {
                    Self::Success
                }
                _ => Self::Suspicious("text that is not JSON"),
            };
        };
        let success = value.get("success");
        let error = ["errors", "error"]
            .iter()
            .filter_map(|key| value.get(*key))
            .find(|e| is_something(e));
        let says_no = success.is_some_and(|s| match s {
            Value::Bool(truth) => !truth,
            Value::String(word) => word == "false",
            Value::Number(number) => number.as_i64() == Some(0),
            _ => false,
        });
        if says_no || error.is_some() {
            let error = error.unwrap_or(&Value::Null);
            let code = error
                .get("code")
                .or_else(|| value.get("code"))
                .and_then(Value::as_i64);
            return Self::Failure {
                code,
                text: words(error).unwrap_or_else(|| "no reason given".to_owned()),
            };
        }
        let has = |key: &str| value.get(key).is_some_and(is_something);
        if success == Some(&Value::Bool(true)) || has("recipient_id") || has("message_id") {
            return Self::Success;
        }
        let code = ["code", "errcode", "error_code"]
            .iter()
            .find_map(|k| value.get(*k).and_then(Value::as_i64));
        if code.is_some_and(|code| code != 0 && code != 200) {
            return Self::Suspicious("a numeric code that is neither 0 nor 200");
        }
        Self::Neutral
    }
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

fn words(error: &Value) -> Option<String> {
    let text = error.as_str().or_else(|| {
        ["msg", "message"]
            .iter()
            .find_map(|k| error.get(*k)?.as_str())
    })?;
    Some(text.chars().take(200).collect())
}

const RECIPIENT_NOT_FOUND: i64 = 10010;

/// The words that mean "your signature or token is wrong", in any failed answer.
fn is_about_the_page(text: &str) -> bool {
    let text = text.to_lowercase();
    [
        "signature",
        "sign error",
        "invalid sign",
        "签名",
        "秘钥",
        "密钥",
        "私钥",
        "unauthoris",
        "unauthoriz",
    ]
    .iter()
    .any(|pattern| text.contains(pattern))
}

fn success_status(status: u16, said: &Said, cut: bool) -> Judgement {
    match said {
        Said::Failure {
            code: Some(RECIPIENT_NOT_FOUND),
            text,
        } => Judgement::new(
            Outcome::Refused,
            "code.10010",
            format!("recipient not found: {text}"),
        ),
        Said::Failure { text, .. } if is_about_the_page(text) => {
            configuration("body.signature", text.clone())
        }
        Said::Failure { text, .. } => Judgement {
            cap: Some(3),
            ..Judgement::new(
                Outcome::Retryable,
                "body.failure",
                format!("HTTP {status}, refused: {text}"),
            )
        },
        Said::Suspicious(what) if !cut => Judgement {
            hold: true,
            ..Judgement::new(
                Outcome::Ambiguous,
                "body.suspicious",
                format!("HTTP {status}, but the body is {what}"),
            )
        },
        Said::Success => Judgement::new(Outcome::Delivered, "body.success", ""),
        // The status line said so; a body that cannot be read whole takes nothing back.
        Said::Neutral | Said::Suspicious(_) => Judgement::new(Outcome::Delivered, "status.2xx", ""),
    }
}

fn failure_status(status: u16, said: &Said, has_retry_after: bool) -> Judgement {
    let reason = match said {
        Said::Failure { text, .. } => format!("HTTP {status}: {text}"),
        _ => format!("HTTP {status}"),
    };
    if let Said::Failure {
        code: Some(RECIPIENT_NOT_FOUND),
        ..
    } = said
    {
        return Judgement::new(Outcome::Refused, "code.10010", reason);
    }
    if let Said::Failure { text, .. } = said
        && status < 500
        && is_about_the_page(text)
    {
        return configuration("body.signature", reason);
    }
    match status {
        401 | 403 => configuration("status.page", reason),
        300..=399 | 404 | 405 | 406 | 415 | 501 | 505 => configuration("status.endpoint", reason),
        429 => Judgement::new(Outcome::Throttled, "status.429", reason),
        503 if has_retry_after => Judgement::new(Outcome::Throttled, "status.503", reason),
        408 | 425 | 503 | 521 | 522 | 523 | 525 | 526 => {
            Judgement::new(Outcome::Retryable, "status.retryable", reason)
        }
        400..=499 => Judgement::new(Outcome::Refused, "status.refused", reason),
        _ => Judgement::new(Outcome::Ambiguous, "status.ambiguous", reason),
    }
}

/// The URL, the secret or the token is wrong, not the job: it waits and loses nothing.
fn configuration(rule: &'static str, reason: String) -> Judgement {
    Judgement {
        counts: false,
        ..Judgement::new(Outcome::Retryable, rule, reason)
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

    fn status(status: u16, body: &str) -> Judgement {
        judge(&Answer::Status {
            status,
            content_type: Some("application/json".to_owned()),
            retry_after: None,
            body: body.as_bytes().to_vec(),
            cut: false,
        })
    }

    #[test]
    fn each_status_without_a_body_has_its_outcome() {
        use Outcome::{Ambiguous, Delivered, Refused, Retryable, Throttled};
        for (code, outcome, counts) in [
            (200, Delivered, true),
            (204, Delivered, true),
            (302, Retryable, false),
            (400, Refused, true),
            (401, Retryable, false),
            (403, Retryable, false),
            (404, Retryable, false),
            (408, Retryable, true),
            (409, Refused, true),
            (413, Refused, true),
            (422, Refused, true),
            (429, Throttled, false),
            (500, Ambiguous, true),
            (501, Retryable, false),
            (502, Ambiguous, true),
            (503, Retryable, true),
            (504, Ambiguous, true),
            (522, Retryable, true),
            (599, Ambiguous, true),
        ] {
            let judgement = status(code, "");
            assert_eq!(
                (judgement.outcome, judgement.counts),
                (outcome, counts),
                "status {code}"
            );
        }
    }

    #[test]
    fn a_body_that_says_no_is_not_a_delivery() {
        let refused = status(
            200,
            r#"{"success":false,"errors":{"code":10010,"msg":"Recipient not found"}}"#,
        );
        assert_eq!(
            (refused.outcome, refused.rule),
            (Outcome::Refused, "code.10010")
        );
        let unknown = status(200, r#"{"success":"false","errors":"Unknow errors"}"#);
        assert_eq!(
            (unknown.outcome, unknown.cap),
            (Outcome::Retryable, Some(3))
        );
        let signature = status(200, r#"{"success":false,"errors":{"msg":"sign error"}}"#);
        assert!(!signature.counts, "a wrong secret must not use up attempts");
    }

    #[test]
    fn a_suspicious_success_is_held_for_an_operator() {
        let code = status(200, r#"{"code":401,"msg":"sign error"}"#);
        assert!(code.hold && code.outcome == Outcome::Ambiguous);
        assert!(status(200, "<html>login</html>").hold);
        assert_eq!(status(200, r#"{"code":200}"#).outcome, Outcome::Delivered);
        assert_eq!(status(200, "ok").rule, "body.success");
    }

    #[test]
    fn a_success_whose_body_is_cut_is_delivered_unless_it_says_no() {
        let cut = |body: &str| {
            judge(&Answer::Status {
                status: 200,
                content_type: None,
                retry_after: None,
                body: body.as_bytes().to_vec(),
                cut: true,
            })
        };
        assert_eq!(cut(r#"{"succ"#).outcome, Outcome::Delivered);
        assert_eq!(
            cut(r#"{"success":false,"error":"no"}"#).outcome,
            Outcome::Retryable
        );
    }

    #[test]
    fn only_a_connection_that_was_never_made_is_not_sent() {
        let error = || "connection reset".to_owned();
        assert_eq!(
            judge(&Answer::NotSent { error: error() }).outcome,
            Outcome::NotSent
        );
        assert_eq!(
            judge(&Answer::Lost { error: error() }).outcome,
            Outcome::Ambiguous
        );
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let hour = Duration::from_secs(3600);
        let now = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, expected) in [
            ("5", Some(5)),
            ("0", Some(1)),
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
}
