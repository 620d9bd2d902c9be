//! How far a request came before it failed.
//!
//! The client says only "could not connect" for certain. The rest is read from the kinds and words
//! of its errors, and from whether anybody asked for the request's body: evidence for people and
//! for rules, never a proof. (hyper 1.12 asks for the body before it writes the first byte of the
//! head, so "not asked for" means "not sent" today; nothing promises that it stays so, and an
//! attempt that was not proven unsent is ambiguous.)

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::Gate;
use crate::judge::{Evidence, Phase};

/// A body in one piece that notes when it is asked for, and is not given if its gate says so.
pub(super) struct Noted {
    bytes: Option<Bytes>,
    asked: Arc<AtomicBool>,
    gate: Gate,
}

/// Why the gate did not let the body go.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

impl Noted {
    /// The body, and the note.
    pub(super) fn new(bytes: Bytes, gate: Gate) -> (Self, Arc<AtomicBool>) {
        let asked = Arc::new(AtomicBool::new(false));
        let body = Self {
            bytes: Some(bytes).filter(|bytes| !bytes.is_empty()),
            asked: Arc::clone(&asked),
            gate,
        };
        (body, asked)
    }
}

impl Body for Noted {
    type Data = Bytes;
    type Error = Refused;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Refused>>> {
        let body = self.get_mut();
        if let Some(why) = (body.gate)() {
            return Poll::Ready(Some(Err(Refused(why))));
        }
        body.asked.store(true, Ordering::Relaxed);
        Poll::Ready(body.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// What an error of `send` tells.
pub(super) fn of(error: &reqwest::Error, asked: &AtomicBool, is_https: bool) -> Evidence {
    let body_sent = asked.load(Ordering::Relaxed);
    let phase = if error.is_connect() {
        connecting(error, is_https)
    } else {
        sending(error, body_sent)
    };
    Evidence { phase, body_sent }
}

fn connecting(error: &reqwest::Error, is_https: bool) -> Phase {
    let is_tcp = causes(error).any(|cause| cause.to_string().starts_with("tcp "));
    match () {
        () if error.is_dns() => Phase::Resolve,
        () if is_tcp || error.is_timeout() || !is_https => Phase::Connect,
        () => Phase::Tls,
    }
}

fn sending(error: &reqwest::Error, body_sent: bool) -> Phase {
    let hyper = causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    let has_io = causes(error).any(|cause| cause.is::<io::Error>());
    match hyper {
        // The connection was gone before anything of the request was taken from the queue.
        Some(hyper) if hyper.is_canceled() => Phase::Write,
        Some(hyper) if hyper.is_parse() => Phase::Head,
        // hyper has no other word for it.
        Some(hyper) if hyper.to_string().starts_with("error writing") => Phase::Write,
        Some(hyper) if body_sent && (hyper.is_incomplete_message() || has_io) => Phase::Wait,
        None if body_sent && error.is_timeout() => Phase::Wait,
        _ => Phase::Unknown,
    }
}

/// What is behind an error, one by one.
pub(super) fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}
