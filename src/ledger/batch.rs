//! What one cycle writes, statement by statement, until it is confirmed.
//!
//! A statement reserves slots for all lanes it may lease; unused slots are released. Nothing leaves before
//! its commit is confirmed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::admission::{PAGES, Pages};
use super::{Ledger, Step, span};
use crate::attempt::{Completion, HeldBack, InHand};
use crate::clock::{BootInstant, Millis, millis};
use crate::events::Event;
use crate::job::{PageId, State, Token};
use crate::pace::Slot;
use crate::store::complete::{self, complete};
use crate::store::intake::{self, Ask};
use crate::store::lanes::{Lease, Unconfirmed};
use crate::store::take;
use crate::store::work::Work;
use crate::store::{Error, Pool, Result};

/// Most marks taken in one statement, of one page.
const MARKS: usize = 20_000;
/// The minimum, so that marks behind a deep lane are reached.
const FEWEST_MARKS: usize = 64;
/// First and longest wait before locked rows are retried.
const LOCKED: [Millis; 2] = [4, 256];
/// Most timers taken at once.
pub(super) const TIMERS: i64 = 1000;
/// When what the database refuses is tried again.
const REFUSED: Millis = 60_000;

/// What may be refused for a row of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Writes {
    Completions,
    Timers,
    /// Lanes of these pages.
    Lanes(Vec<PageId>),
}

/// What one cycle writes.
pub(super) struct Batch {
    work: Work,
    pub lease: Lease,
    pub claimed: BootInstant,
    /// What a statement is writing, or an open transaction has written.
    completions: Vec<Completion>,
    /// What is in hand once that is committed.
    hands: Vec<InHand>,
    /// Slots for it, by page.
    slots: HashMap<PageId, Vec<Slot>>,
    /// Pages whose lanes may be in hand.
    pages: HashSet<PageId>,
    /// Tokens of the statements that put them there.
    tokens: Vec<Token>,
    began: BootInstant,
    /// What the database refuses, if it refuses something now.
    writes: Option<Writes>,
}

impl Batch {
    pub fn new(pool: &Pool, lease: Lease, claimed: BootInstant) -> Self {
        Self {
            work: Work::new(pool),
            lease,
            claimed,
            completions: Vec::new(),
            hands: Vec::new(),
            slots: HashMap::new(),
            pages: HashSet::new(),
            tokens: Vec::new(),
            began: claimed,
            writes: None,
        }
    }

    /// A slot that was taken for a page.
    pub fn slot(&mut self, page: &str) -> Option<Slot> {
        self.slots.get_mut(page)?.pop()
    }
}

impl Ledger {
    /// Puts due lanes into hand.
    pub(super) async fn take(
        &mut self,
        batch: &mut Batch,
        pages: &Pages,
        step: &mut Step,
    ) -> Result<()> {
        let (mut asked, mut wanted) = (Vec::new(), 0);
        for (at, page) in pages.due.iter().enumerate() {
            if self.is_probed(page) && self.pending.iter().any(|c| c.page == *page) {
                // A failed probe must be written back before the next lane is chosen.
                step.more = true;
                continue;
            }
            let slots = self.reserve(batch, page, self.part(pages.due.len() - at));
            if slots > 0 && self.is_probed(page) {
                self.begin(batch);
                let reach = self.reach(page, slots);
                let hands = take::take_to_probe(&mut batch.work, page, reach, &batch.lease).await?;
                batch.hands.extend(hands);
                self.done(batch);
            } else if slots > 0 {
                wanted += slots;
                asked.push(take::Ask {
                    page: page.clone(),
                    lanes: slots,
                    since: self.agenda.from(page).due,
                });
            }
        }
        if !asked.is_empty() {
            self.begin(batch);
            let of = asked.iter().map(|ask| ask.page.clone());
            batch.writes = Some(Writes::Lanes(of.collect()));
            let hands = take::take(&mut batch.work, &asked, &batch.lease).await?;
            batch.writes = None;
            step.more |= hands.len() >= wanted && self.slots.free() > 0;
            batch.hands.extend(hands);
        }
        self.done(batch);
        Ok(())
    }

    /// Writes completions and continues their lanes where slots are free.
    pub(super) async fn complete(
        &mut self,
        batch: &mut Batch,
        pages: &Pages,
        step: &mut Step,
    ) -> Result<()> {
        let completions = self.next_completions();
        if completions.is_empty() {
            return Ok(());
        }
        self.begin(batch);
        self.recording = completions.len();
        let go = completions.iter().map(|c| {
            let ends = c.state.is_some_and(|state| state != State::Queued);
            let goes_on = ends && c.rest.is_zero() && pages.eligible.contains(&*c.page);
            goes_on && self.reserve(batch, &c.page, 1) > 0
        });
        let go: Vec<bool> = go.collect();
        batch.completions = completions;
        batch.writes = Some(Writes::Completions);
        let done = complete(&mut batch.work, &batch.completions, &go, &batch.lease).await?;
        batch.writes = None;
        self.bite = self.bite.saturating_mul(2);
        let permille = done.hands.len() * 1000 / batch.completions.len();
        self.going_on = (7 * self.going_on + permille) / 8;
        batch.hands.extend(done.hands);
        if done.waits {
            self.look_again(step);
            let pages = batch.completions.iter().map(|c| &c.page);
            pages.for_each(|page| self.agenda.touch(page));
        }
        let mut written = vec![false; batch.completions.len()];
        done.written.iter().for_each(|at| written[*at] = true);
        let others = split_off(&mut batch.completions, &written);
        self.done(batch);
        match others.is_empty() {
            true => Ok(()),
            false => self.complete_late(batch, others, step).await,
        }
    }

    /// What was just written left lanes waiting; the next survey says until when.
    fn look_again(&mut self, step: &mut Step) {
        self.view = None;
        step.more = true;
    }

    /// Completions whose lane has a new owner, or whose rows are locked.
    async fn complete_late(
        &mut self,
        batch: &mut Batch,
        mut late: Vec<Completion>,
        step: &mut Step,
    ) -> Result<()> {
        batch.writes = Some(Writes::Completions);
        self.recording = late.len();
        let done = match complete::late(&mut batch.work, &self.worker, &late).await {
            Ok(done) => done,
            Err(error) => {
                batch.completions.append(&mut late);
                return Err(error);
            }
        };
        batch.writes = None;
        for mut completion in split_off(&mut late, &done.written) {
            let wait = match completion.held_back {
                HeldBack::Locked(last) => (last * 2).min(LOCKED[1]),
                _ => LOCKED[0],
            };
            completion.held_back = HeldBack::Locked(wait);
            self.held_back.push((completion, batch.lease.now + wait));
        }
        let reports = late.iter().filter(|c| c.attempt.is_some()).count();
        let late_successes = done.closed;
        late.iter().for_each(|c| self.agenda.touch(&c.page));
        if reports > 0 {
            self.events.emit(&Event::Fenced {
                reports,
                late_successes,
            });
        }
        step.more |= late_successes > 0;
        batch.completions.append(&mut late);
        self.done(batch);
        Ok(())
    }

    /// The completions of the next statement: at most one per lane; one that was rejected before goes alone.
    fn next_completions(&mut self) -> Vec<Completion> {
        if let Some(at) = self
            .pending
            .iter()
            .position(|c| c.held_back == HeldBack::Refused)
        {
            return vec![self.pending.remove(at)];
        }
        let bite = self.bite;
        let mut seen = HashSet::with_capacity(self.pending.len());
        let one_each = |c: &mut Completion| seen.len() < bite && seen.insert(c.lane.clone());
        self.pending.extract_if(.., one_each).collect()
    }

    /// Lets jobs whose `send_at` has come join their lanes.
    pub(super) async fn join_lanes(&mut self, batch: &mut Batch, step: &mut Step) -> Result<()> {
        batch.writes = Some(Writes::Timers);
        let joined = intake::timers(&mut batch.work, batch.lease.now, self.timers).await?;
        batch.writes = None;
        self.timers = (self.timers * 2).min(TIMERS);
        step.more |= joined.taken > 0;
        joined.pages.iter().for_each(|page| self.agenda.touch(page));
        Ok(())
    }

    /// Takes marks in.
    pub(super) async fn take_in(
        &mut self,
        batch: &mut Batch,
        pages: &Pages,
        step: &mut Step,
    ) -> Result<()> {
        let mut asks = Vec::with_capacity(pages.marks.len());
        for (at, page) in pages.marks.iter().enumerate() {
            let slots = self.reserve(batch, page, self.part(pages.marks.len() - at));
            asks.push(Ask {
                page: page.clone(),
                marks: self.appetite.max(slots).clamp(FEWEST_MARKS, MARKS),
                slots,
                after: self.agenda.from(page).mark,
            });
        }
        if asks.is_empty() {
            return Ok(());
        }
        self.begin(batch);
        let of = asks.iter().map(|ask| ask.page.clone());
        batch.writes = Some(Writes::Lanes(of.collect()));
        let taken = intake::intake(&mut batch.work, &asks, &batch.lease).await?;
        batch.writes = None;
        self.at_once = (self.at_once * 2).min(PAGES);
        let marks: usize = taken.marks.values().map(|(marks, _)| marks).sum();
        let of = |ask: &Ask| taken.marks.get(&ask.page).copied().unwrap_or_default();
        let is_full = |ask: &Ask| of(ask).0 >= ask.marks;
        // Many marks and few new lanes: deep lanes are in front, so take more marks next time.
        let is_deep = asks.iter().all(is_full) && taken.born < marks / 2;
        let most = asks.iter().map(|ask| ask.marks).max().unwrap_or_default();
        self.appetite = if is_deep { most * 2 } else { 0 };
        self.is_behind = asks.iter().any(is_full);
        if taken.born > taken.hands.len() || taken.woken > 0 {
            self.look_again(step);
        }
        for (page, (_, last)) in &taken.marks {
            self.agenda.took(page, *last);
        }
        step.found_marks = marks > 0;
        if step.found_marks {
            let now = BootInstant::now();
            let pages = asks.iter().map(|ask| (ask.page.clone(), now));
            self.recent.extend(pages);
        }
        step.more |= self.is_behind && self.slots.free() > 0;
        batch.hands.extend(taken.hands);
        self.done(batch);
        Ok(())
    }

    /// How many slots each of so many pages may take.
    fn part(&self, pages: usize) -> usize {
        self.slots.free().div_ceil(pages)
    }

    /// Takes slots for a page: as many as it may have, its rate allows, and are wanted.
    fn reserve(&mut self, batch: &mut Batch, page: &PageId, most: usize) -> usize {
        let mut slots = 0;
        while slots < most
            && self.allowance(page) > 0
            && let Some(slot) = self.slots.take(page)
        {
            self.spend(page);
            batch.slots.entry(page.clone()).or_default().push(slot);
            slots += 1;
        }
        if slots > 0 {
            batch.pages.insert(page.clone());
        }
        slots
    }

    /// Starts a statement with its own token, by which its claims can be released if the commit is not confirmed.
    fn begin(&mut self, batch: &mut Batch) {
        batch.lease.token = self.token();
        batch.tokens.push(batch.lease.token);
        if batch.work.commits_each() || batch.completions.is_empty() && batch.hands.is_empty() {
            batch.began = BootInstant::now();
        }
    }

    /// A statement is done: what it did is committed where each is, and slots that it did not need are free.
    fn done(&mut self, batch: &mut Batch) {
        if batch.work.commits_each() {
            return self.confirm(batch);
        }
        let mut needed: HashMap<&str, usize> = HashMap::new();
        for hand in &batch.hands {
            *needed.entry(&hand.page).or_default() += 1;
        }
        for (page, slots) in &mut batch.slots {
            let needed = needed.get(&**page).copied().unwrap_or_default();
            self.unspend(page, slots.len().saturating_sub(needed));
            slots.truncate(needed);
        }
    }

    /// The commit is confirmed: completions are done, leased jobs are checked.
    fn confirm(&mut self, batch: &mut Batch) {
        self.recording = 0;
        let (ended, hands) = (batch.completions.len(), std::mem::take(&mut batch.hands));
        batch.completions.clear();
        batch.pages.clear();
        batch.tokens.clear();
        let began = hands.iter().filter(|hand| hand.lost.is_none()).count();
        if ended + began > 0 {
            let took = batch.began.elapsed();
            self.events.emit(&Event::Committed { ended, began, took });
        }
        self.decide(batch, hands);
        self.give_back(batch);
    }

    /// Slots that were not needed, and what they would have used of a rate.
    fn give_back(&mut self, batch: &mut Batch) {
        for (page, slots) in batch.slots.drain() {
            self.unspend(&page, slots.len());
        }
    }

    /// Ends the cycle: commits, or keeps everything for the next cycle after an error.
    pub(super) async fn end(
        &mut self,
        mut batch: Batch,
        done: Result<()>,
        step: &mut Step,
    ) -> Result<()> {
        let error = match done {
            Ok(()) if batch.work.commits_each() => None,
            Ok(()) => {
                let work = std::mem::replace(&mut batch.work, Work::new(&self.pool));
                work.commit().await.err()
            }
            Err(error) => {
                let work = std::mem::replace(&mut batch.work, Work::new(&self.pool));
                if error.is_conflict() || error.is_refusal() {
                    work.rollback().await;
                }
                Some(error)
            }
        };
        let Some(error) = error else {
            if !batch.work.commits_each() {
                self.confirm(&mut batch);
            }
            step.claimed = std::mem::take(&mut self.claimed);
            return Ok(());
        };
        self.recording = 0;
        self.give_back(&mut batch);
        // What a statement has committed before another failed was not confirmed, either.
        let is_rolled_back =
            (error.is_conflict() || error.is_refusal()) && !batch.work.commits_each();
        if !is_rolled_back && !batch.pages.is_empty() {
            let pages: Vec<PageId> = batch.pages.drain().collect();
            let unconfirmed = batch.tokens.drain(..).map(|token| Unconfirmed {
                pages: pages.clone(),
                lease: Lease {
                    token,
                    ..batch.lease.clone()
                },
            });
            self.unconfirmed.extend(unconfirmed);
        }
        let completions = std::mem::take(&mut batch.completions);
        match batch.writes.take().filter(|_| error.is_refusal()) {
            Some(Writes::Lanes(pages)) => {
                self.pending.splice(0..0, completions);
                self.pages_refused(&pages, &error);
            }
            Some(Writes::Completions) => {
                self.refused(completions, &error, batch.lease.now).await;
            }
            Some(Writes::Timers) => {
                self.pending.splice(0..0, completions);
                self.timer_refused(&error, batch.lease.now).await?;
            }
            None => {
                self.pending.splice(0..0, completions);
                return Err(error);
            }
        }
        step.more = true;
        Ok(())
    }

    /// The database rejected one of these: retry in halves until it is alone, then set it aside.
    async fn refused(&mut self, mut completions: Vec<Completion>, error: &Error, now: Millis) {
        if completions.len() > 1 {
            self.bite = completions.len() / 2;
            self.pending.splice(0..0, completions);
            return;
        }
        self.bite = usize::MAX;
        if let Some(mut completion) = completions.pop() {
            let why = error.to_string();
            if std::mem::replace(&mut completion.held_back, HeldBack::Refused) != HeldBack::Refused
            {
                let job = completion.job;
                self.events.emit(&Event::Refused { job, why: &why });
            }
            let until = now + REFUSED;
            // Shows it to operators and keeps the lane until the retry. If this write fails as well, the
            // lease runs out.
            let lane_until = until + millis(self.settings.lease);
            let _ =
                complete::set_aside(&self.pool, &self.worker, &completion, lane_until, &why).await;
            self.held_back.push((completion, until));
        }
    }

    /// The database refuses to change the lanes of one of these pages: fewer are tried until it is alone, and it is left
    /// alone for a while.
    fn pages_refused(&mut self, pages: &[PageId], error: &Error) {
        if pages.len() > 1 {
            self.at_once = pages.len() / 2;
            return;
        }
        self.at_once = PAGES;
        let why = error.to_string();
        for page in pages {
            self.events.emit(&Event::PageRefused { page, why: &why });
            self.left_alone.insert(page.clone(), BootInstant::now());
        }
    }

    /// The database refuses to let one of some jobs join its lane: fewer are tried until it is alone, and it is put off.
    async fn timer_refused(&mut self, error: &Error, now: Millis) -> Result<()> {
        if self.timers > 1 {
            self.timers /= 2;
            return Ok(());
        }
        if let Some(job) = intake::put_off(&self.pool, now, now + REFUSED).await? {
            let why = error.to_string();
            self.events.emit(&Event::Refused { job, why: &why });
        }
        Ok(())
    }

    /// What was held back is tried again when its time has come.
    pub(super) fn try_again(&mut self, now: Millis) {
        let due = |(_, until): &mut (Completion, Millis)| *until <= now || *until > now + REFUSED;
        let due: Vec<_> = self.held_back.extract_if(.., due).collect();
        self.pending
            .extend(due.into_iter().map(|(completion, _)| completion));
    }

    /// When that will be.
    pub(super) fn again_in(&self, now: Millis) -> Option<Duration> {
        self.held_back
            .iter()
            .map(|(_, until)| span(until - now))
            .min()
    }
}

/// Leaves those that are marked, and returns the others.
fn split_off(completions: &mut Vec<Completion>, marked: &[bool]) -> Vec<Completion> {
    let mut marks = marked.iter();
    completions
        .extract_if(.., |_| !marks.next().copied().unwrap_or_default())
        .collect()
}
