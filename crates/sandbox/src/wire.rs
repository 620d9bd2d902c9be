//! The head of a request, and the bytes of an answer.
//!
//! A deliberately small HTTP/1.1: content lengths only, keep-alive, no `Expect`, no trailers. It
//! works on byte buffers and never touches a socket.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use crate::keyring::{self, Signature};
use crate::script::Step;
use crate::vendor;

/// The most bytes of a head.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// The most bytes of a body.
pub(crate) const MAX_BODY: usize = 1024 * 1024;
const MAX_HEADERS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
    Other,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Send,
    Inbox,
    /// The rest of the path: whose conversation.
    Chat(String),
    Style,
    Received,
    Stats,
    Script,
    Unknown,
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// No word about it.
    Absent,
    Bytes(usize),
    /// A transfer coding: refused.
    Chunked,
    /// Lengths that are not numbers, or that contradict each other.
    Bad,
}

/// What the server needs of a head.
#[derive(Debug)]
pub(crate) struct Head {
    pub method: Method,
    pub route: Route,
    /// The page is to load itself again.
    pub follow: bool,
    pub length: Length,
    /// `None` if there is none, more than one, or none that can be decoded.
    pub signature: Option<Signature>,
    pub keep_alive: bool,
    /// Sent by a script in some web page.
    pub has_origin: bool,
    /// Bytes of the head, the blank line included.
    pub size: usize,
}

impl Head {
    /// Reads a head; `Ok(None)` if there is more to come, an error is the status to answer.
    pub fn parse(buffer: &[u8], path: &str, signed_by: &str) -> Result<Option<Self>, u16> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let size = match request.parse(buffer) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD => return Ok(None),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(431);
            }
            Err(_) => return Err(400),
        };
        let method = match request.method {
            Some("GET") => Method::Get,
            Some("POST") => Method::Post,
            _ => Method::Other,
        };
        let target = request.path.unwrap_or_default();
        let (at, query) = target.split_once('?').unwrap_or((target, ""));
        let route = match at {
            _ if at == path => Route::Send,
            "/" => Route::Inbox,
            "/style.css" => Route::Style,
            "/received" => Route::Received,
            "/stats" => Route::Stats,
            "/script" => Route::Script,
            _ => match at.strip_prefix("/chat/") {
                Some(lane) => Route::Chat(lane.to_owned()),
                None => Route::Unknown,
            },
        };
        let mut head = Self {
            method,
            route,
            follow: query == "follow",
            length: Length::Absent,
            signature: None,
            keep_alive: request.version == Some(1),
            has_origin: false,
            size,
        };
        let mut signatures = 0;
        for header in request.headers.iter() {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is(signed_by) {
                signatures += 1;
                head.signature = keyring::decode(header.value);
            } else if is("content-length") {
                let bytes = std::str::from_utf8(header.value)
                    .ok()
                    .and_then(|v| v.parse().ok());
                let length = bytes.map_or(Length::Bad, Length::Bytes);
                let contradicts = head.length != Length::Absent && head.length != length;
                head.length = if contradicts { Length::Bad } else { length };
            } else if is("transfer-encoding") {
                head.length = Length::Chunked;
            } else if is("connection") {
                head.keep_alive &= !header.value.eq_ignore_ascii_case(b"close");
            } else if is("origin") {
                head.has_origin = true;
            }
        }
        if signatures > 1 {
            head.signature = None;
        }
        Ok(Some(head))
    }
}

/// Writes the plain answer: delivered, to the recipient of this JSON value.
pub(crate) fn ok(out: &mut Vec<u8>, recipient_json: &str) {
    const START: &str = r#"{"success":true,"recipient_id":"#;
    let length = START.len() + recipient_json.len() + 1;
    put(
        out,
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ",
    );
    _ = write!(out, "{length}\r\n\r\n{START}{recipient_json}}}");
}

/// Writes an answer of the server's own: an error, or something to look at.
pub(crate) fn answer(out: &mut Vec<u8>, status: u16, kind: &str, headers: &str, body: &[u8]) {
    status_line(out, status);
    let length = body.len();
    _ = write!(
        out,
        "content-type: {kind}\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    put(out, body);
}

/// Writes a refusal in JoinChat's words.
pub(crate) fn refuse(out: &mut Vec<u8>, status: u16, message: &str, headers: &str) {
    answer(
        out,
        status,
        "application/json",
        headers,
        vendor::failure(status.into(), message).as_bytes(),
    );
}

/// Writes a scripted answer; returns where its body begins, and whether its length is plain.
pub(crate) fn scripted(
    out: &mut Vec<u8>,
    step: &Step,
    recipient_json: &str,
    endless: bool,
) -> (usize, bool) {
    status_line(out, step.status);
    for (name, value) in &step.headers {
        _ = write!(out, "{name}: {value}\r\n");
    }
    if let Some(span) = step.retry_date {
        // As RFC 9110 has it, to the second; rounded up, so that it is never too early.
        let date = SystemTime::from(jiff::Timestamp::now()) + span + Duration::from_millis(999);
        _ = write!(out, "retry-after: {}\r\n", httpdate::fmt_http_date(date));
    }
    let has = |name| {
        step.headers
            .iter()
            .any(|(given, _)| given.eq_ignore_ascii_case(name))
    };
    let usual = match step.status {
        100..200 | 204 | 304 => String::new(),
        200..300 => vendor::delivered(recipient_json),
        status => vendor::failure(status.into(), reason(status)),
    };
    let body = step.body.as_deref().unwrap_or(usual.as_bytes());
    if !body.is_empty() && !has("content-type") {
        put(out, b"content-type: application/json\r\n");
    }
    let framed = has("content-length") || has("transfer-encoding");
    if endless {
        put(out, b"transfer-encoding: chunked\r\n");
    } else if !framed && !matches!(step.status, 100..200 | 204 | 304) {
        _ = write!(out, "content-length: {}\r\n", body.len());
    }
    put(out, b"\r\n");
    let start = out.len();
    put(out, body);
    let closes = |(name, value): &(String, String)| {
        name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
    };
    (start, !framed && !step.headers.iter().any(closes))
}

fn status_line(out: &mut Vec<u8>, status: u16) {
    _ = write!(out, "HTTP/1.1 {status} {}\r\n", reason(status));
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

fn reason(status: u16) -> &'static str {
    let known = http::StatusCode::from_u16(status).ok();
    known
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Status")
}
