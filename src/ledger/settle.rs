//! What becomes of locked lanes: claimed, parked, ended, or looked at again.
//!
//! The middle of a cycle: the heads are read, [`crate::turn`] says what each may do, and what it
//! says is written, in batches, inside the transaction that locked the lanes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::pages::Pages;
use super::{Cycle, Ledger, Settings, span};
use crate::clock::{Millis, millis};
use crate::deliver::Claim;
use crate::events::Event;
use crate::job::{Head, Line};
use crate::judge::Judgement;
use crate::retry::{self, Attempted};
use crate::store::Result;
use crate::store::lanes::{self, Begin, End, Locked, Park};
use crate::store::line;
use crate::store::record::{self, Ended};
use crate::turn::{Turn, turn};

/// How often a cycle looks again at lanes whose head just ended.
const ROUNDS: usize = 16;

/// Places that lanes keep among those that were not chosen for a probe, a millisecond each.
const MOST_PLACES: usize = 128;

/// What one look at the lanes leads to.
#[derive(Default)]
struct Plan {
    /// The lanes were born leased in this transaction.
    born: bool,
    begin: Vec<Begin>,
    claims: Vec<Claim>,
    parks: Vec<Park>,
    ends: Vec<End>,
    lost: Vec<Ended>,
    empty: Vec<Arc<str>>,
    again: Vec<Locked>,
}

impl Ledger {
    /// Decides and writes what becomes of locked lanes, until each has been claimed, parked or
    /// deleted.
    pub(super) async fn settle(
        &mut self,
        cycle: &mut Cycle,
        mut lanes: Vec<Locked>,
        pages: &Pages,
        born: bool,
    ) -> Result<()> {
        let lease = self.lease(cycle);
        let mut parks: Vec<Park> = Vec::new();
        let mut empty: Vec<Arc<str>> = Vec::new();
        for round in 0.. {
            if lanes.is_empty() {
                break;
            }
            let mut plan = Plan {
                born,
                begin: Vec::with_capacity(lanes.len()),
                claims: Vec::with_capacity(lanes.len()),
                ..Plan::default()
            };
            let mut lines = line::look(cycle.tx()?, &lanes, self.settings.after_unknown).await?;
            if self.probes_any() {
                let is_tried = |line: &Line| line.head.as_ref().is_some_and(|h| h.attempts > 0);
                lines.sort_by_key(|line| self.is_probed(&line.page) && is_tried(line));
            }
            for line in lines {
                self.plan(cycle, line, pages, &mut plan);
            }
            parks.append(&mut plan.parks);
            empty.append(&mut plan.empty);
            if !plan.ends.is_empty() {
                let now = cycle.now;
                lanes::end(cycle.tx()?, &plan.ends, now).await?;
                plan.ends.iter().for_each(|end| {
                    self.events.emit(&Event::Ended {
                        job: end.job,
                        reason: &end.reason,
                    })
                });
            }
            if !plan.lost.is_empty() {
                record::write(cycle.tx()?, &plan.lost.iter().collect::<Vec<_>>()).await?;
                plan.lost.iter().for_each(|e| {
                    self.events.emit(&Event::Lost {
                        job: e.job,
                        number: e.number,
                    })
                });
            }
            if !plan.begin.is_empty() {
                let moved = lanes::claim(cycle.tx()?, &plan.begin, &lease).await?;
                cycle.claims.reserve(plan.claims.len());
                for claim in plan.claims {
                    if !moved.contains(&claim.job) {
                        cycle.claims.push(claim);
                    } else {
                        // An operator was faster: look at its lane again.
                        self.take_back(&claim.page);
                        plan.again.push(Locked {
                            lane: claim.lane,
                            page: claim.page,
                            head: None,
                            alone: claim.alone,
                        });
                    }
                }
            }
            lanes = plan.again;
            if round == ROUNDS {
                // The rest of a long line of expired jobs is for the next cycle.
                for l in lanes.drain(..) {
                    let rest = cycle.rests.get(&l.lane).copied().unwrap_or_default();
                    parks.push(Park {
                        lane: l.lane,
                        due: Some(rest.max(cycle.now)),
                        head: l.head,
                        rest_until: rest,
                    });
                }
            }
        }
        if !parks.is_empty() {
            let token = cycle.token;
            lanes::park(cycle.tx()?, &parks, token).await?;
        }
        if !empty.is_empty() {
            lanes::delete(cycle.tx()?, &empty).await?;
        }
        Ok(())
    }

    /// What the line may do now.
    pub(super) fn turn(&self, line: &Line, now: Millis) -> Turn {
        let Settings {
            lease,
            longest_wait,
            limits,
            delay_on_wire,
            ..
        } = &self.settings;
        turn(line, now, *lease, *longest_wait, limits, *delay_on_wire)
    }

    /// True if a job of the page may go out now; takes its slot, and what it uses of the rate.
    pub(super) fn may_send(&mut self, page: &Arc<str>, pages: &Pages) -> bool {
        let may = pages.eligible.contains(&**page) && self.slots.may_take(page) && self.spend(page);
        if may {
            self.slots.take(page);
            self.unconfirmed.push(Arc::clone(page));
        }
        may
    }

    /// Takes back the slot of a claim that did not come about.
    pub(super) fn take_back(&mut self, page: &Arc<str>) {
        self.slots.give_back(page);
        if let Some(at) = self.unconfirmed.iter().rposition(|p| p == page) {
            self.unconfirmed.swap_remove(at);
        }
    }

    /// Turns the line of one lane into what must be written.
    fn plan(&mut self, cycle: &Cycle, line: Line, pages: &Pages, plan: &mut Plan) {
        let now = cycle.now;
        let step = self.turn(&line, now);
        let Line {
            lane,
            page,
            alone,
            head,
            ..
        } = line;
        let rest = cycle.rests.get(&lane).copied().filter(|until| *until > now);
        let begun = head.as_ref().filter(|h| h.attempts > 0).map(|h| h.job);
        let park = |due| Park {
            lane: Arc::clone(&lane),
            due,
            head: begun,
            rest_until: rest.unwrap_or_default(),
        };
        let again = || Locked {
            lane: Arc::clone(&lane),
            page: Arc::clone(&page),
            head: begun,
            alone,
        };
        match (step, head) {
            // An empty line rests too: the next job may come at once.
            (Turn::Empty, _) | (_, None) => match rest {
                None => plan.empty.push(lane),
                rest => plan.parks.push(park(rest)),
            },
            (Turn::Wait(until), _) => plan.parks.push(park(rest.max(Some(until)))),
            (Turn::Block, _) => plan.parks.push(park(None)),
            (Turn::End(reason), Some(head)) => {
                plan.again.push(again());
                plan.ends.push(End {
                    job: head.job,
                    reason,
                });
            }
            (Turn::Lost, Some(head)) => {
                plan.again.push(again());
                plan.lost
                    .push(self.lost_attempt(cycle, &lane, &page, &head));
            }
            (Turn::Send(body), Some(head)) => {
                if let Some(until) = rest {
                    plan.parks.push(park(Some(until)));
                } else if self.may_send(&page, pages) {
                    let (begin, claim) = begins(cycle, plan.born, alone, lane, page, head, body);
                    plan.begin.push(begin);
                    plan.claims.push(claim);
                } else {
                    // Who has been tried waits behind those who have not, in this order: each probe is another's.
                    let place = match head.attempts > 0 && self.is_probed(&page) {
                        true => 1 + plan.parks.len().min(MOST_PLACES),
                        false => 0,
                    };
                    let place = Millis::try_from(place).unwrap_or_default();
                    plan.parks.push(park(Some(now + place)));
                }
            }
        }
    }

    /// The attempt of a worker that is gone, as an outcome: it may have arrived.
    fn lost_attempt(&self, cycle: &Cycle, lane: &Arc<str>, page: &Arc<str>, head: &Head) -> Ended {
        let why = "its worker stopped before the answer was recorded";
        let judgement = Judgement::lost("ledger.lost", why);
        let attempted = Attempted {
            job: head.job,
            number: head.attempts,
            failures: head.failures,
            ambiguous: head.ambiguous,
            others_pass: head.started.is_some_and(|at| {
                let within = span(cycle.now - at);
                self.settings.deliveries.of_others(lane, within)
            }),
            on_ambiguous: head.on_ambiguous,
        };
        let next = retry::next(&self.settings.policy, attempted, &judgement);
        Ended {
            lane: Arc::clone(lane),
            page: Arc::clone(page),
            token: cycle.token,
            job: head.job,
            number: head.attempts,
            finished: cycle.now,
            outcome: judgement.outcome,
            status: None,
            error: Some(judgement.reason.into()),
            response: None,
            rule: judgement.rule.into(),
            state: next.state,
            failed: i64::from(next.failed),
            due: cycle.now + millis(next.after),
            reason: next.reason.map(Arc::from),
            ambiguous: true,
            singled_out: i64::from(next.singled_out),
            rest: Duration::ZERO,
            alone: false,
        }
    }
}

/// The next attempt of a head, as the database takes it and as a sender does.
pub(super) fn begins(
    cycle: &Cycle,
    born: bool,
    alone: bool,
    lane: Arc<str>,
    page: Arc<str>,
    head: Head,
    body: Vec<u8>,
) -> (Begin, Claim) {
    let number = head.attempts + 1;
    let begin = Begin {
        lane: Arc::clone(&lane),
        job: head.job,
        number,
        born,
    };
    let claim = Claim {
        lane,
        token: cycle.token,
        job: head.job,
        number,
        page,
        body: Bytes::from(body),
        failures: head.failures,
        ambiguous: head.ambiguous,
        since_previous: head.started.map(|at| span(cycle.now - at)),
        on_ambiguous: head.on_ambiguous,
        delay: span(head.delay * 1000),
        alone,
        expires_in: head.expires.map(|at| span(at - cycle.now)),
        started: cycle.now,
        claimed: cycle.claimed,
    };
    (begin, claim)
}
