//! The short way of a lane: its job ends and the next of its line begins in one go.
//!
//! While a job is on the wire its ledger reads who follows it. If the job then ends for good, and
//! nothing else asks for the slot, one statement does what [`super::settle`] needs several for. Whoever
//! does not fit, or is no longer next, goes the long way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::pages::Pages;
use super::{Cycle, Ledger, Step, settle};
use crate::clock::{BootInstant, Millis, millis};
use crate::deliver::Claim;
use crate::job::{Head, JobId, Line};
use crate::store::advance::{self, Advance};
use crate::store::lanes::Begin;
use crate::store::record::Ended;
use crate::store::{Result, line};
use crate::turn::Turn;

/// How long a cycle's view of the pages is good for the next one.
const FRESH: Duration = Duration::from_millis(5);

/// How long what was read ahead is good: somebody who holds a job, changes its message by hand and releases
/// it needs longer.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// How a cycle saw the pages.
pub(super) struct View {
    pub pages: Pages,
    /// The database's clock.
    pub now: Millis,
    /// This machine's, after it: what is added since never runs ahead of the database's.
    pub at: BootInstant,
    pub next_in: Option<Duration>,
}

/// Who follows the jobs in flight.
#[derive(Default)]
pub(super) struct Ahead {
    /// Jobs that have just begun, and their lanes.
    begun: Vec<(Arc<str>, JobId)>,
    /// By the job in flight: who, if anybody, and when that was read.
    following: HashMap<JobId, (Option<Head>, BootInstant)>,
}

impl Ahead {
    /// Notes claims that go out. A job that is alone in its lane has nobody behind it; of one that began
    /// as the one before it ended it is known.
    pub fn begun(&mut self, claims: &[Claim]) {
        let others = claims
            .iter()
            .filter(|claim| !claim.alone && !self.following.contains_key(&claim.job));
        self.begun = others
            .map(|claim| (Arc::clone(&claim.lane), claim.job))
            .collect();
    }

    /// These go the long way.
    pub fn forget(&mut self, ended: &[Ended]) {
        if !self.following.is_empty() {
            ended
                .iter()
                .for_each(|e| drop(self.following.remove(&e.job)));
        }
    }
}

impl Ledger {
    /// Reads who follows the jobs of the last step, which are on the wire meanwhile; not while other
    /// lanes wait for their slots.
    pub async fn read_ahead(&mut self) -> Result<()> {
        let begun = std::mem::take(&mut self.ahead.begun);
        let crowded = self.view.as_ref().is_none_or(|v| !v.pages.due.is_empty());
        if !begun.is_empty() && !crowded {
            let now = BootInstant::now();
            let following = line::following(&self.pool, &begun).await?;
            let known = following.into_iter().map(|(job, head)| (job, (head, now)));
            self.ahead.following.extend(known);
        }
        Ok(())
    }

    /// A cycle that only advances, by what the last one has seen; none if it takes a whole one.
    pub(super) async fn advance_at_once(&mut self, claimed: BootInstant) -> Result<Option<Step>> {
        let Some(view) = self.view.take_if(|view| view.at.elapsed() < FRESH) else {
            return Ok(None);
        };
        let pages = &view.pages;
        let quiet = pages.marks.is_empty() && !pages.timers_due;
        if !quiet || !self.unsent.is_empty() || !self.has_tokens() {
            return Ok(None);
        }
        let passed = view.at.elapsed();
        let mut cycle = Cycle::new(view.now + millis(passed), claimed);
        match self.advance(&mut cycle, pages).await {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(error) => {
                self.undo(cycle, error.is_conflict()).await;
                return Err(error);
            }
        }
        let mut step = Step {
            more: !self.pending.is_empty(),
            next_in: view.next_in.map(|next| next.saturating_sub(passed)),
            ..Step::default()
        };
        self.view = Some(view);
        self.hand_out(&mut step);
        Ok(Some(step))
    }

    /// Writes the outcomes whose lanes can go on at once, and begins their next jobs. True if any could.
    pub(super) async fn advance(&mut self, cycle: &mut Cycle, pages: &Pages) -> Result<bool> {
        if self.ahead.following.is_empty() || !pages.due.is_empty() {
            return Ok(false);
        }
        cycle.token = self.token();
        let (mut lanes, mut claims) = (Vec::new(), Vec::new());
        for ended in std::mem::take(&mut self.pending) {
            let next = match lanes.len() < advance::MOST {
                true => self.next_of(&ended, cycle, pages),
                false => None,
            };
            match next {
                None => self.pending.push(ended),
                Some((next, claim)) => {
                    lanes.push(Advance { ended, next });
                    claims.push(claim);
                }
            }
        }
        if lanes.is_empty() {
            return Ok(false);
        }
        let (lease, after) = (self.lease(cycle), self.settings.after_unknown);
        cycle.began = BootInstant::now();
        self.recording = lanes.len();
        let began = advance::advance(&self.pool, &lanes, &lease, after).await;
        let mut has_begun = vec![began.is_err(); lanes.len()];
        let began = began.map(|began| {
            for (at, following) in began {
                has_begun[at] = true;
                let known = (following, cycle.began);
                self.ahead.following.insert(lanes[at].next.job, known);
            }
        });
        for ((lane, claim), has_begun) in lanes.into_iter().zip(claims).zip(has_begun) {
            if has_begun {
                cycle.batch.push(lane.ended);
                cycle.claims.push(claim);
            } else {
                self.take_back(&claim.page);
                self.pending.push(lane.ended);
            }
        }
        match began {
            // Nothing of it has happened.
            Err(error) if error.is_conflict() => return Err(error),
            began => self.confirm(cycle, began)?,
        }
        Ok(true)
    }

    /// The job that may begin as this one ends.
    fn next_of(&mut self, ended: &Ended, cycle: &Cycle, pages: &Pages) -> Option<(Begin, Claim)> {
        let (head, read) = self.ahead.following.remove(&ended.job)?;
        let head = head.filter(|_| read.elapsed() < KNOWN_FOR)?;
        let rests = !ended.rest.max(self.settings.min_gap).is_zero();
        if !ended.state.is_final() || rests || self.is_probed(&ended.page) {
            return None;
        }
        let mut line = Line {
            lane: Arc::clone(&ended.lane),
            page: Arc::clone(&ended.page),
            alone: false,
            paused: false,
            head: Some(head),
        };
        let Turn::Send(body) = self.turn(&line, cycle.now) else {
            return None;
        };
        let head = line.head.take()?;
        let may_send = self.may_send(&line.page, pages);
        may_send.then(|| settle::begins(cycle, false, false, line.lane, line.page, head, body))
    }
}
