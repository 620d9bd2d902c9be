//! What happens to leased jobs: each is sent as a claim, ends without an attempt, is recorded as lost, or is released.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::batch::Batch;
use super::{Ledger, Settings, span};
use crate::attempt::{Attempt, Claim, Completion, HeldBack, InHand, Lost};
use crate::clock::{Millis, millis};
use crate::events::Event;
use crate::job::{AttemptNo, Outcome, State};
use crate::judge::Judgement;
use crate::pace::Slot;
use crate::retry::{self, Attempted};
use crate::turn::{Turn, turn};

/// How many lanes not chosen for a probe keep their order, one millisecond apart.
const MOST_PLACES: usize = 128;

impl Ledger {
    /// Judges what has come into hand. What is not sent is completed by the next cycle.
    pub(super) fn decide(&mut self, batch: &mut Batch, hands: Vec<InHand>) {
        let mut surplus = 0;
        for hand in hands {
            let now = batch.lease.now;
            if let Some(lost) = &hand.lost {
                let (job, number) = (hand.head.job, lost.number);
                self.events.emit(&Event::Lost { job, number });
                let completion = self.lost(&hand, lost, now);
                self.pending.push(completion);
                continue;
            }
            let Settings {
                limits,
                delay_on_wire,
                ..
            } = &self.settings;
            match turn(&hand.page, &hand.head, now, limits, *delay_on_wire) {
                Turn::End(reason) => {
                    let (job, words) = (hand.head.job, &reason);
                    self.events.emit(&Event::Ended { job, reason: words });
                    let reason = Some(reason.into());
                    let state = Some(State::Dead);
                    self.pending.push(Completion {
                        reason,
                        state,
                        ..given_back(&hand, now, now)
                    });
                }
                Turn::Send(body) => match batch.slot(&hand.page) {
                    Some(slot) => {
                        self.claimed += 1;
                        (self.doors.send)(claim(hand, body, slot, batch));
                    }
                    None => {
                        // Lanes already tried go behind untried ones, in this order, so each probe takes another lane.
                        surplus += 1;
                        let place = match hand.head.attempts > 0 {
                            true => surplus.min(MOST_PLACES),
                            false => 0,
                        };
                        let due = now + Millis::try_from(place).unwrap_or_default();
                        self.pending.push(given_back(&hand, now, due));
                    }
                },
            }
        }
    }

    /// The attempt of a worker that is gone: it may have arrived.
    fn lost(&self, hand: &InHand, lost: &Lost, now: Millis) -> Completion {
        let why = "its worker stopped before the answer was recorded";
        let judgement = Judgement::lost("ledger.lost", why);
        let head = &hand.head;
        let attempted = Attempted {
            job: head.job,
            number: lost.number,
            failures: head.failures,
            ambiguous: head.ambiguous,
            others_pass: {
                let within = span(now - lost.started);
                self.settings.deliveries.of_others(&hand.lane, within)
            },
            on_ambiguous: head.on_ambiguous,
        };
        let next = retry::next(&self.settings.policy, attempted, &judgement);
        Completion {
            number: lost.number,
            attempt: Some(Attempt {
                started: lost.started,
                worker: Some(Arc::clone(&lost.worker)),
                outcome: Outcome::Ambiguous,
                status: None,
                error: Some(judgement.reason.into()),
                response: None,
                rule: judgement.rule.into(),
                failed: next.failed,
                singled_out: next.singled_out,
            }),
            state: Some(next.state),
            due: now + millis(next.after),
            reason: next.reason.map(Arc::from),
            ..given_back(hand, now, now)
        }
    }
}

/// What leaves: only here, after the commit.
fn claim(hand: InHand, body: Vec<u8>, slot: Slot, batch: &Batch) -> Claim {
    let InHand {
        lane,
        page,
        token,
        head,
        ..
    } = hand;
    let now = batch.lease.now;
    Claim {
        lane,
        token,
        job: head.job,
        number: AttemptNo::after(head.attempts),
        page,
        body: Bytes::from(body),
        failures: head.failures,
        ambiguous: head.ambiguous,
        since_previous: head.since.map(|at| span(now - at)),
        on_ambiguous: head.on_ambiguous,
        delay: span(head.delay * 1000),
        expires_in: head.expires.map(|at| span(at - now)),
        started: now,
        claimed: batch.claimed,
        slot,
    }
}

/// A lane that goes back as it was: its job may be tried at `due`.
fn given_back(hand: &InHand, now: Millis, due: Millis) -> Completion {
    Completion {
        lane: hand.lane.clone(),
        page: hand.page.clone(),
        token: hand.token,
        job: hand.head.job,
        number: AttemptNo::after(hand.head.attempts),
        attempt: None,
        state: None,
        finished: now,
        due,
        reason: None,
        rest: Duration::ZERO,
        held_back: HeldBack::No,
        slot: None,
    }
}
