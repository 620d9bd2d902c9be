//! The board: what was received, answered and found wrong, and who plays which script.
//!
//! One lock around all of it, held for a few hash look-ups per request and never across a wait.
//! A request is in flight from the moment its head was seen until right before the first byte of
//! its answer, so a sender that waits for answers cannot look as if it did not.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::journal::Journal;
use super::order::Order;
use super::playbook::{Binding, Cursor, Playbook};
use super::record::{MockStats, Name, Received, Record, Seen};
use super::referee::Line;
use super::script::{Manner, PLAIN, Step};
use crate::clock::BootInstant;

/// The most findings kept in words; the counts go on.
const MAX_FINDINGS: usize = 100;

/// What the server has to do about one request.
pub(super) struct Turn {
    step: Option<Arc<Step>>,
    /// To be waited before anything else.
    pub wait: Duration,
    seen: Seen,
    lane: usize,
    /// 0 if the script hides the request.
    seq: u64,
    /// True if it stands in the lane's `waiting`.
    waits: bool,
}

impl Turn {
    /// What to do.
    pub fn step(&self) -> &Step {
        self.step.as_deref().unwrap_or(&PLAIN)
    }

    /// True if there is no script, and the answer is made the short way.
    pub fn is_plain(&self) -> bool {
        self.step.is_none()
    }
}

/// How a turn ends.
pub(super) enum End {
    /// The next byte written is that of an answer.
    Answer,
    /// The server closes the connection without one.
    Silence,
    /// The client went first.
    ClientGone,
}

struct Lane {
    name: Arc<Name>,
    cursor: Cursor,
    line: Line,
    /// Requests in flight whose turn takes no time.
    open: usize,
    /// Those in flight whose turn takes time, with a handle to see whether the client is still there.
    waiting: Vec<(u64, std::net::TcpStream)>,
    answered_ns: u64,
}

#[derive(Default)]
struct State {
    stats: MockStats,
    playbook: Playbook,
    latency: Duration,
    index: HashMap<Box<str>, usize>,
    lanes: Vec<Lane>,
    records: VecDeque<Record>,
    findings: Vec<String>,
}

/// See the module.
pub(super) struct Board {
    state: Mutex<State>,
    changed: Notify,
    requests: AtomicU64,
    resets_unread: AtomicBool,
    keep: usize,
    keep_bodies: bool,
    pub journal: Option<Journal>,
}

impl Board {
    pub fn new(keep: usize, keep_bodies: bool, journal: Option<Journal>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            requests: AtomicU64::new(0),
            resets_unread: AtomicBool::new(false),
            keep,
            keep_bodies,
            journal,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bind(&self, binding: Binding) {
        let mut state = self.state();
        state.playbook.bind(binding);
        self.resets_unread
            .store(state.playbook.resets_unread(), Ordering::Release);
    }

    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// A head was read: the number of the request.
    pub fn request(&self) -> u64 {
        let request = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        self.changed.notify_waiters();
        request
    }

    /// True if requests are to be reset without a look at their bodies.
    pub fn resets_unread(&self) -> bool {
        self.resets_unread.load(Ordering::Acquire)
    }

    /// Counts what has no turn.
    pub fn count(&self, add: impl FnOnce(&mut MockStats)) {
        add(&mut self.state().stats);
        self.changed.notify_waiters();
    }

    /// A request was read whole: enters it and says what to do. `key` is scratch space.
    pub fn begin(
        &self,
        order: &Order<'_>,
        body: &[u8],
        seen: Seen,
        stream: &TcpStream,
        key: &mut String,
    ) -> Turn {
        key.clear();
        for part in [&order.page_id, "/", order.kind, ":", &order.recipient] {
            key.push_str(part);
        }
        let mut state = self.state();
        let State {
            stats,
            playbook,
            latency,
            index,
            lanes,
            records,
            findings,
        } = &mut *state;
        let at = index.get(key.as_str()).copied().unwrap_or_else(|| {
            stats.lanes += 1;
            index.insert(key.as_str().into(), lanes.len());
            lanes.push(Lane::new(order));
            lanes.len() - 1
        });
        let lane = &mut lanes[at];
        let step = playbook.next(&mut lane.cursor, &order.page_id, &order.recipient);
        let mut turn = Turn {
            step,
            wait: Duration::ZERO,
            seen,
            lane: at,
            seq: 0,
            waits: false,
        };
        turn.wait = turn.step().delay;
        if turn.step().manner == Manner::Whole {
            turn.wait += *latency;
        }
        if turn.step().manner.hides_the_request() {
            return turn;
        }

        stats.received += 1;
        turn.seq = stats.received;
        let overlaps = lane.in_flight() || lane.answered_ns > seen.head_ns;
        let verdict = lane.line.enter(order.number, body, turn.step().takes());
        let mut find = |what: &str| {
            if findings.len() < MAX_FINDINGS {
                let message = order
                    .number
                    .map_or("a message".to_owned(), |n| format!("#{n}"));
                findings.push(format!("{key} (received {}): {message} {what}", turn.seq));
            }
        };
        if overlaps {
            stats.overlaps += 1;
            find("overlaps another request");
        }
        if verdict.duplicate {
            stats.duplicates += 1;
            find("was taken in before");
        }
        if let Some(highest) = verdict.late {
            stats.order_violations += 1;
            find(&format!("after #{highest}"));
        }
        stats.repeats += u64::from(verdict.repeat);
        stats.late_echoes += u64::from(verdict.echo);

        lane.open(&mut turn, stream);
        if self.keep > 0 {
            let (name, number) = (Arc::clone(&lane.name), order.number);
            let body = self.keep_bodies.then(|| Bytes::copy_from_slice(body));
            records.push_back(Record {
                name,
                seen,
                answer: None,
                number,
                body,
            });
            if records.len() > self.keep {
                records.pop_front();
            }
        }
        drop(state);
        self.changed.notify_waiters();
        turn
    }

    /// Ends a turn, right before the server acts on it.
    pub fn finish(&self, turn: &Turn, end: End) {
        let now = BootInstant::now().nanos();
        let answers = matches!(end, End::Answer);
        let status = if answers {
            turn.step().seen_status()
        } else {
            None
        };
        if let Some(journal) = &self.journal
            && let Err(why) = journal.answer(turn.seen.request, now, status)
        {
            self.log_failed(&why);
        }
        if turn.seq == 0 {
            return;
        }
        let mut state = self.state();
        let State {
            stats,
            lanes,
            records,
            ..
        } = &mut *state;
        let lane = &mut lanes[turn.lane];
        lane.close(turn);
        match end {
            End::Answer => stats.accepted += u64::from(turn.step().accepts()),
            End::Silence => stats.dropped += u64::from(turn.step().takes()),
            End::ClientGone => {}
        }
        if !matches!(end, End::ClientGone) {
            lane.answered_ns = now;
        }
        let first = stats.received + 1 - records.len() as u64;
        let place = turn
            .seq
            .checked_sub(first)
            .and_then(|place| usize::try_from(place).ok());
        if let Some(record) = place.and_then(|place| records.get_mut(place))
            && answers
        {
            record.answer = Some((now, status));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Says once that the record on disk has holes, and counts them.
    pub fn log_failed(&self, why: &std::io::Error) {
        let mut state = self.state();
        state.stats.log_errors += 1;
        if state.stats.log_errors == 1 {
            tracing::error!(error = %why, "the sandbox cannot write its log");
        }
    }

    pub fn stats(&self) -> MockStats {
        let requests = self.requests.load(Ordering::Relaxed);
        MockStats {
            requests,
            ..self.state().stats.clone()
        }
    }

    pub fn findings(&self) -> Vec<String> {
        self.state().findings.clone()
    }

    /// The last `limit` records, oldest first.
    pub fn received(&self, limit: usize) -> Vec<Received> {
        let state = self.state();
        let kept = state.records.len();
        let skip = kept.saturating_sub(limit);
        let first = state.stats.received + 1 - kept as u64;
        let numbered = (first..).zip(&state.records).skip(skip);
        numbered.map(|(seq, record)| record.show(seq)).collect()
    }

    /// Waits until the counts are as wanted; no time limit.
    pub async fn wait_until(&self, mut wanted: impl FnMut(&MockStats) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // before the look, so that no change falls between
            if wanted(&self.stats()) {
                return;
            }
            changed.await;
        }
    }
}

impl Lane {
    fn new(order: &Order<'_>) -> Self {
        let (page_id, recipient) = (order.page_id.to_string(), order.recipient.to_string());
        Self {
            name: Arc::new(Name {
                page_id,
                kind: order.kind,
                recipient,
            }),
            cursor: Cursor::default(),
            line: Line::default(),
            open: 0,
            waiting: Vec::new(),
            answered_ns: 0,
        }
    }

    /// True if a request is in flight whose client has not hung up; forgets the others.
    fn in_flight(&mut self) -> bool {
        self.waiting
            .retain(|(_, stream)| match stream.peek(&mut [0]) {
                Ok(read) => read > 0,
                Err(why) => why.kind() == std::io::ErrorKind::WouldBlock,
            });
        self.open > 0 || !self.waiting.is_empty()
    }

    fn open(&mut self, turn: &mut Turn, stream: &TcpStream) {
        let slow = !turn.wait.is_zero() || turn.step().manner == Manner::Hang;
        if slow && let Ok(handle) = stream.as_fd().try_clone_to_owned() {
            self.waiting.push((turn.seq, handle.into()));
            turn.waits = true;
        } else {
            self.open += 1;
        }
    }

    fn close(&mut self, turn: &Turn) {
        if turn.waits {
            self.waiting.retain(|(seq, _)| *seq != turn.seq);
        } else {
            self.open -= 1;
        }
    }
}
