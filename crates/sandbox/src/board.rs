//! The board: what was received, answered and found wrong, and who plays which script.
//!
//! One lock around all of it, held for a few hash look-ups per request and never across a wait.
//! A request is in flight from the moment its head was seen until right before the first byte of
//! its answer, so a sender that waits for answers cannot look as if it did not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::clock::boot_ns;
use crate::history::History;
use crate::journal::Journal;
use crate::lane::Lane;
use crate::order::Order;
use crate::playbook::{Binding, Playbook};
use crate::record::{MockStats, Received, Record, Seen, TurnedAway};
use crate::rules::Breach;
use crate::script::{Manner, PLAIN, Step};

/// The most findings kept in words; the counts go on.
const MAX_FINDINGS: usize = 100;
/// The longest body kept of a request whose signature is not good; no message may be longer.
const MAX_STRANGE_BODY: usize = 64 * 1024;

/// What the server has to do about one request.
pub(crate) struct Turn {
    step: Option<Arc<Step>>,
    /// To be waited before anything else.
    pub wait: Duration,
    seen: Seen,
    lane: usize,
    /// 0 if the script hides the request.
    pub seq: u64,
    /// True if it stands in the lane's `waiting`.
    pub waits: bool,
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
pub(crate) enum End {
    /// The next byte written is that of an answer.
    Answer,
    /// The server closes the connection without one.
    Silence,
    /// The client went first.
    ClientGone,
}

/// A request that was read whole, with a good signature.
pub(crate) struct Arrival<'a> {
    pub order: Order<'a>,
    pub body: &'a [u8],
    pub seen: Seen,
    /// The rule that it breaks, if anybody looked.
    pub breach: Option<Breach>,
    /// What to do with it, whatever its recipient's script says.
    pub refusal: Option<Arc<Step>>,
}

struct State {
    stats: MockStats,
    playbook: Playbook,
    latency: Duration,
    index: HashMap<Box<str>, usize>,
    lanes: Vec<Lane>,
    history: History,
    findings: Vec<String>,
}

/// See the module.
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Notify,
    requests: AtomicU64,
    resets_unread: AtomicBool,
    pub journal: Option<Journal>,
}

impl Board {
    pub fn new(history: History, journal: Option<Journal>) -> Self {
        let state = State {
            stats: MockStats::default(),
            playbook: Playbook::default(),
            latency: Duration::ZERO,
            index: HashMap::new(),
            lanes: Vec::new(),
            history,
            findings: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            requests: AtomicU64::new(0),
            resets_unread: AtomicBool::new(false),
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

    /// A request was read whole, and its signature is not good.
    pub fn turn_away(&self, order: &Order<'_>, seen: Seen, body: &[u8]) {
        let mut state = self.state();
        state.stats.bad_signatures += 1;
        let body = state.history.body(body);
        state.history.turn_away(TurnedAway {
            name: order.name(),
            seen,
            body: body.filter(|body| body.len() <= MAX_STRANGE_BODY),
        });
        drop(state);
        self.changed.notify_waiters();
    }

    /// Enters a request and says what to do. `key` is scratch space.
    pub fn begin(&self, arrival: Arrival<'_>, stream: &TcpStream, key: &mut String) -> Turn {
        let order = &arrival.order;
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
            history,
            findings,
        } = &mut *state;
        let at = index.get(key.as_str()).copied().unwrap_or_else(|| {
            stats.lanes += 1;
            index.insert(key.as_str().into(), lanes.len());
            lanes.push(Lane::new(order));
            lanes.len() - 1
        });
        let lane = &mut lanes[at];
        let step = arrival
            .refusal
            .or_else(|| playbook.next(&mut lane.cursor, &order.page_id, &order.recipient));
        let mut turn = Turn {
            step,
            wait: Duration::ZERO,
            seen: arrival.seen,
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
        let record = Record {
            lane: at,
            seen: arrival.seen,
            answer: None,
            number: order.number,
            overlaps: lane.in_flight() || lane.answered_ns > arrival.seen.head_ns,
            taken: turn.step().takes(),
            verdict: lane
                .line
                .enter(order.number, arrival.body, turn.step().takes()),
            breach: arrival.breach.map(|breach| breach.to_string().into()),
            body: history.body(arrival.body),
        };
        stats.count(&record);
        for what in record.troubles() {
            if findings.len() == MAX_FINDINGS {
                break;
            }
            let message = order
                .number
                .map_or("a message".to_owned(), |n| format!("#{n}"));
            findings.push(format!("{key} (received {}): {message} {what}", turn.seq));
        }
        lane.open(&mut turn, stream);
        history.push(record);
        drop(state);
        self.changed.notify_waiters();
        turn
    }

    /// Ends a turn, right before the server acts on it.
    pub fn finish(&self, turn: &Turn, end: End) {
        let now = boot_ns();
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
            history,
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
        if answers && let Some(record) = history.get_mut(turn.seq) {
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

    /// All records, oldest first.
    pub fn received(&self) -> Vec<Received> {
        let state = self.state();
        let show = |(seq, record): (u64, &Record)| record.show(seq, &state.lanes[record.lane].name);
        state.history.records().map(show).collect()
    }

    /// The newest of those whose signature was not good, oldest first.
    pub fn turned_away(&self) -> Vec<TurnedAway> {
        self.state().history.turned_away().cloned().collect()
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
