//! The ledger: one task that records, leases and takes in, in batches.
//!
//! A cycle reads the clock and the pages, then writes two transactions: the first records what
//! came back, lets those lanes go on and takes due ones; the second takes in new marks. Jobs whose
//! attempt is committed leave it as claims. A lane whose next job was read ahead skips most of that
//! (`advance`). It refuses to wait, to send and to judge; whoever calls it does ([`crate::worker`]).

mod advance;
mod pages;
mod settle;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postlane_message::validate::Limits;

use advance::{Ahead, View};
use pages::{Allowance, Pages, Probes, Turns};

use crate::breaker::Breaker;
use crate::clock::{BootInstant, Millis, millis};
use crate::deliver::{Claim, Secrets};
use crate::deliveries::Deliveries;
use crate::events::{Event, Events};
use crate::job::{AfterUnknown, State};
use crate::judge::Judgement;
use crate::pace::Slots;
use crate::retry::Policy;
use crate::store::lanes::{self, Lease, Locked, Survey};
use crate::store::record::{self, Ended};
use crate::store::{Error, Pool, Result, Tx, intake};

/// What a ledger needs to know.
#[derive(Clone)]
pub struct Settings {
    /// This process's name: unique, also after a restart.
    pub worker: String,
    /// Most requests in flight.
    pub concurrency: usize,
    /// How long a claim lasts.
    pub lease: Duration,
    /// The longest wait that any rule gives between two attempts.
    pub longest_wait: Duration,
    /// What comes after a lost attempt.
    pub policy: Policy,
    /// Whether an unknown job holds its line.
    pub after_unknown: AfterUnknown,
    /// Between the end of one request and the start of the next in a lane.
    pub min_gap: Duration,
    /// Bounds of messages.
    pub limits: Limits,
    /// True to send `delay` along and not wait for it (`api.delay = "api"`).
    pub delay_on_wire: bool,
    /// Requests a second over all workers, of pages that have a rate.
    pub rates: HashMap<String, f64>,
    /// The rate of each page without its own.
    pub default_rate: Option<f64>,
    /// Which pages have secrets.
    pub secrets: Arc<dyn Secrets>,
    /// What the senders' judgements ask to be paused.
    pub breaker: Arc<Mutex<Breaker>>,
    /// What the senders delivered lately.
    pub deliveries: Arc<Deliveries>,
}

/// What a cycle did.
#[derive(Debug, Default)]
pub struct Step {
    /// Jobs to send at once.
    pub claims: Vec<Claim>,
    /// There is more to do at once.
    pub more: bool,
    /// How long until the next lane or timer is due, as far as is known.
    pub next_in: Option<Duration>,
}

/// Most tokens that one cycle uses: for claims that were not sent, advancing, recording, and intake by
/// page.
const TOKENS_A_CYCLE: i64 = 67;
/// Most pages that one cycle takes lanes or marks of; the pages take turns.
const PAGES: usize = 64;
/// Most marks taken in one transaction.
const MARKS: usize = 20_000;

/// Asks for an attempt that has ended meanwhile.
pub type MoreEnded<'a> = &'a mut (dyn FnMut() -> Option<Ended> + Send);

/// The one writer of a process.
pub struct Ledger {
    pool: Pool,
    settings: Settings,
    events: Arc<Events>,
    slots: Slots,
    /// How many of them the metric shows as taken.
    shown: i64,
    /// The pages of slots that an open transaction has taken.
    unconfirmed: Vec<Arc<str>>,
    /// Outcomes that are not yet committed.
    pending: Vec<Ended>,
    /// How many more an open transaction has in hand.
    recording: usize,
    /// Claims whose attempts are committed.
    claims: Vec<Claim>,
    /// Who follows the jobs in flight, as far as it was read.
    ahead: Ahead,
    /// How the last cycle saw the pages.
    view: Option<View>,
    /// Claims of a transaction whose commit nobody confirmed: never sent.
    unsent: Vec<Claim>,
    /// Lease tokens drawn and not yet used.
    tokens: Range<i64>,
    /// Marks to take next time: more while few of them wake a lane.
    appetite: usize,
    /// Requests that the rate of a page still allows.
    allowances: HashMap<String, Allowance>,
    /// What may be sent to probe what is paused.
    probes: Probes,
    /// Which pages had the last turns, so that none is always last.
    turns: Turns,
    /// Lanes that an earlier policy had blocked have been woken.
    unblocked: bool,
    draining: bool,
}

impl Ledger {
    /// A ledger with every slot free.
    pub fn new(pool: Pool, settings: Settings, events: Arc<Events>) -> Self {
        Self {
            slots: Slots::new(settings.concurrency),
            shown: 0,
            unconfirmed: Vec::new(),
            pool,
            settings,
            events,
            pending: Vec::new(),
            recording: 0,
            claims: Vec::new(),
            ahead: Ahead::default(),
            view: None,
            unsent: Vec::new(),
            tokens: 0..0,
            appetite: 0,
            allowances: HashMap::new(),
            probes: Probes::default(),
            turns: Turns::default(),
            unblocked: false,
            draining: false,
        }
    }

    /// Takes the end of an attempt; it is written by the next cycle, and kept until it is.
    pub fn report(&mut self, ended: Ended) {
        self.slots.ended(&ended.page, ended.status.is_some());
        self.pending.push(ended);
    }

    /// From now on nothing is claimed; lanes are released as their attempts end.
    pub fn drain(&mut self) {
        self.draining = true;
        self.view = None;
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.slots.taken()
    }

    /// Outcomes not yet written.
    pub fn unwritten(&self) -> usize {
        self.pending.len() + self.unsent.len()
    }

    /// What could not be recorded if it ended now, also in the middle of a cycle: outcomes, claims that
    /// nobody confirmed, and attempts without an outcome.
    pub fn unrecorded(&self) -> usize {
        let running = self.slots.taken().saturating_sub(self.unconfirmed.len());
        self.unwritten() + self.recording + running
    }

    /// Its own connection.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// After a cycle that failed: the next one gets a new connection.
    pub fn renew(&self) {
        self.pool.renew();
    }

    /// One cycle. After an error nothing is lost: outcomes stay in hand for the next one.
    ///
    /// `only_ended` says that nothing has happened since the last cycle but that attempts have ended:
    /// what that one saw may then be good enough for this one. `more_ended` is asked between its two
    /// halves for attempts that have ended meanwhile: their slots can be used at once, their outcomes
    /// are written by the next cycle.
    pub async fn cycle(&mut self, only_ended: bool, more_ended: MoreEnded<'_>) -> Result<Step> {
        // Before the database's clock is read, so our view of a lease ends before its own.
        let claimed = BootInstant::now();
        if only_ended && let Some(step) = self.advance_at_once(claimed).await? {
            return Ok(step);
        }
        let survey = self.survey().await?;
        let seen = BootInstant::now();
        self.cycle_on(survey, claimed, seen, more_ended).await
    }

    /// [`Ledger::cycle`] at a time given by the caller; how tests move the clock.
    pub async fn cycle_at(&mut self, now: Millis, claimed: BootInstant) -> Result<Step> {
        let survey = self.survey().await?;
        self.cycle_on(Survey { now, ..survey }, claimed, claimed, &mut || None)
            .await
    }

    async fn survey(&self) -> Result<Survey> {
        // Drawn before: what is written to the pauses meanwhile is newer than what is read.
        let ticket = self.breaker().ticket();
        let survey = lanes::survey(&self.pool).await?;
        Ok(Survey { ticket, ..survey })
    }

    async fn cycle_on(
        &mut self,
        survey: Survey,
        claimed: BootInstant,
        seen: BootInstant,
        more_ended: MoreEnded<'_>,
    ) -> Result<Step> {
        let mut step = Step::default();
        let now = survey.now;
        self.view = None;
        // Enough for every transaction of this cycle.
        if !self.has_tokens() {
            let first = lanes::tokens(&self.pool).await?;
            self.tokens = first..first + lanes::TOKENS;
        }
        if !self.unsent.is_empty() {
            self.close_unsent(now, claimed).await?;
            step.more = true;
        }
        let pages = self.pages(survey, &mut step).await?;
        if !std::mem::replace(&mut self.unblocked, true)
            && self.settings.after_unknown == AfterUnknown::Continue
        {
            lanes::unblock(&self.pool, now)
                .await
                .inspect_err(|_| self.unblocked = false)?;
        }
        let mut cycle = Cycle::new(now, claimed);
        match self.write(&mut cycle, &pages, &mut step, more_ended).await {
            Ok(()) => self.commit(&mut cycle).await?,
            Err(error) => {
                self.undo(cycle, error.is_conflict()).await;
                return Err(error);
            }
        }
        step.more |= !self.pending.is_empty();
        self.view = Some(View {
            pages,
            now,
            at: seen,
            next_in: step.next_in,
        });
        self.hand_out(&mut step);
        Ok(step)
    }

    /// Gives the step the claims that may be sent.
    fn hand_out(&mut self, step: &mut Step) {
        step.claims = self.take_claims();
        self.ahead.begun(&step.claims);
        let shown = i64::try_from(self.slots.taken()).unwrap_or(i64::MAX);
        let before = std::mem::replace(&mut self.shown, shown);
        self.events.add_in_flight(shown - before);
    }

    fn has_tokens(&self) -> bool {
        self.tokens.end - self.tokens.start > TOKENS_A_CYCLE
    }

    /// Claims whose attempts are committed. After a cycle that failed there may be some, too.
    pub fn take_claims(&mut self) -> Vec<Claim> {
        std::mem::take(&mut self.claims)
    }

    /// All that a cycle writes. On Postgres recording and intake are transactions of their own: in
    /// one, two workers could wait for each other's lanes. SQLite has one writer and saves a sync.
    async fn write(
        &mut self,
        cycle: &mut Cycle,
        pages: &Pages,
        step: &mut Step,
        more_ended: MoreEnded<'_>,
    ) -> Result<()> {
        let split = matches!(self.pool, Pool::Postgres(_));
        self.advance(cycle, pages).await?;
        if !self.pending.is_empty() || (!pages.due.is_empty() && self.slots.free() > 0) {
            self.open(cycle).await?;
            self.record_and_take(cycle, pages, step).await?;
            if split {
                self.commit(cycle).await?;
            }
        }
        if pages.timers_due {
            let now = cycle.now;
            step.more |= intake::timers(self.open(cycle).await?, now, 1000).await? > 0;
        }
        while let Some(ended) = more_ended() {
            self.report(ended);
        }
        for page in pages.marks.iter().take(PAGES) {
            self.open(cycle).await?;
            self.take_in(cycle, page, pages, step).await?;
            if split {
                self.commit(cycle).await?;
            }
        }
        Ok(())
    }

    async fn open<'c>(&mut self, cycle: &'c mut Cycle) -> Result<&'c mut Tx> {
        if cycle.tx.is_none() {
            cycle.began = BootInstant::now();
        }
        match &mut cycle.tx {
            Some(tx) => Ok(tx),
            none => Ok(none.insert(self.pool.begin().await?)),
        }
    }

    /// A transaction that failed: nothing of it happened, and its outcomes are still in hand. After a
    /// conflict the connection is as good as before; after anything else it goes with the transaction.
    async fn undo(&mut self, cycle: Cycle, is_conflict: bool) {
        self.recording = 0;
        for page in self.unconfirmed.drain(..) {
            self.slots.give_back(&page);
        }
        self.pending.splice(0..0, cycle.batch);
        if let Some(tx) = cycle.tx
            && is_conflict
        {
            // If it cannot be rolled back it is closed.
            let _ = tx.rollback().await;
        }
    }

    /// Commits, and lets the claims go. If nobody confirms the commit, they are not sent.
    async fn commit(&mut self, cycle: &mut Cycle) -> Result<()> {
        let Some(tx) = cycle.tx.take() else {
            return Ok(());
        };
        let committed = tx.commit().await;
        self.confirm(cycle, committed)
    }

    /// After a commit: lets the claims go, or keeps what nobody confirmed.
    fn confirm(&mut self, cycle: &mut Cycle, committed: Result<()>) -> Result<()> {
        self.unconfirmed.clear();
        self.recording = 0;
        let batch = std::mem::take(&mut cycle.batch);
        let mut claims = std::mem::take(&mut cycle.claims);
        if let Err(error) = committed {
            claims
                .iter()
                .for_each(|claim| self.slots.give_back(&claim.page));
            self.unsent.append(&mut claims);
            self.pending.splice(0..0, batch);
            return Err(error);
        }
        let (ended, began, took) = (batch.len(), claims.len(), cycle.began.elapsed());
        self.events.emit(&Event::Committed { ended, began, took });
        self.claims.append(&mut claims);
        Ok(())
    }

    /// Ends claims that may or may not be in the database: nothing was sent. They are written before
    /// anything else is recorded or claimed, or one of them could be taken for a later claim.
    async fn close_unsent(&mut self, now: Millis, claimed: BootInstant) -> Result<()> {
        let mut cycle = Cycle::new(now, claimed);
        cycle.batch = self.unsent.iter().map(unsent).collect();
        cycle.tx = Some(self.pool.begin().await?);
        cycle.token = self.token();
        let lanes = self.write_batch(&mut cycle).await?;
        // No page may send here: the lanes are released.
        self.settle(&mut cycle, lanes, &Pages::default(), false)
            .await?;
        if let Some(tx) = cycle.tx.take() {
            tx.commit().await?;
        }
        self.unsent.clear();
        Ok(())
    }

    async fn record_and_take(
        &mut self,
        cycle: &mut Cycle,
        pages: &Pages,
        step: &mut Step,
    ) -> Result<()> {
        let recorded = self.record(cycle).await?;
        cycle.token = self.token();
        // A lane whose lease has run out is due, also to the worker whose outcome was just recorded.
        let own: HashSet<&str> = recorded.iter().map(|l| &*l.lane).collect();
        let mut lanes = Vec::new();
        for page in pages.due.iter().take(PAGES) {
            let room = self.slots.free().saturating_sub(lanes.len());
            let limit = self.slots.share(page).min(self.reach(page)).min(room);
            if limit > 0 {
                let now = cycle.now;
                let probed = self.is_probed(page);
                let taken = lanes::take(cycle.tx()?, page, now, limit, probed).await?;
                lanes.extend(taken.into_iter().filter(|l| !own.contains(&*l.lane)));
            }
        }
        step.more |= !lanes.is_empty();
        // Lanes that waited come first; one that just had its turn goes on only if a slot is left.
        lanes.extend(recorded);
        self.settle(cycle, lanes, pages, false).await
    }

    /// Writes outcomes; returns the lanes that are still theirs, locked.
    async fn record(&mut self, cycle: &mut Cycle) -> Result<Vec<Locked>> {
        let rest;
        (cycle.batch, rest) = one_per_lane(std::mem::take(&mut self.pending));
        self.pending = rest;
        self.recording = cycle.batch.len();
        self.ahead.forget(&cycle.batch);
        self.write_batch(cycle).await
    }

    async fn write_batch(&mut self, cycle: &mut Cycle) -> Result<Vec<Locked>> {
        let worker = &self.settings.worker;
        let Cycle {
            tx: Some(tx),
            batch,
            ..
        } = cycle
        else {
            return Ok(Vec::new());
        };
        let (batch, min_gap) = (&*batch, self.settings.min_gap);
        let lone = |e: &Ended| e.alone && e.rest.max(min_gap).is_zero() && e.state.is_final();
        let (lone, others): (Vec<_>, Vec<_>) = (0..batch.len()).partition(|at| lone(&batch[*at]));
        let mut theirs = vec![false; batch.len()];
        for at in record::over(tx, worker, batch, &lone).await? {
            theirs[at] = true;
        }
        let left = lone.into_iter().filter(|at| !theirs[*at]);
        let others: Vec<usize> = others.into_iter().chain(left).collect();
        let mut locked = record::lock(tx, worker, batch, &others).await?;
        locked.iter().for_each(|(at, _)| theirs[*at] = true);
        let reports = |own: bool| -> Vec<&Ended> {
            let of = batch.iter().zip(&theirs).filter(|(_, is)| **is == own);
            of.map(|(ended, _)| ended).collect()
        };
        let (own, late) = (reports(true), reports(false));
        if !own.is_empty() {
            record::write(tx, &own).await?;
        }
        if !late.is_empty() {
            let late_successes = record::write_late(tx, worker, &late).await?;
            self.events.emit(&Event::Fenced {
                reports: late.len(),
                late_successes,
            });
        }
        for (at, lane) in &mut locked {
            let ended = &batch[*at];
            // A job that waits for its retry stays the head of its line.
            if ended.state == State::Queued {
                lane.head = Some(ended.job);
            }
            let rest = ended.rest.max(min_gap);
            if rest > Duration::ZERO {
                cycle
                    .rests
                    .insert(Arc::clone(&lane.lane), ended.finished + millis(rest));
            }
        }
        Ok(locked.into_iter().map(|(_, lane)| lane).collect())
    }

    async fn take_in(
        &mut self,
        cycle: &mut Cycle,
        page: &str,
        pages: &Pages,
        step: &mut Step,
    ) -> Result<()> {
        let slots = self.slots.share(page).min(self.reach(page));
        let limit = self.appetite.max(slots).clamp(64, MARKS);
        let marks = intake::marks(cycle.tx()?, page, limit).await?;
        if marks.taken == 0 {
            return Ok(());
        }
        // A token of its own: by it the lanes that are born now are told from those just claimed.
        cycle.token = self.token();
        let (lease, now) = (self.lease(cycle), cycle.now);
        let woken = intake::wake(cycle.tx()?, page, &marks, &lease, slots).await?;
        // Many marks and few new lanes: those of deep lanes are in front. Take bigger bites.
        let hungry = marks.taken == limit && woken.born < marks.taken / 2;
        self.appetite = if hungry { limit * 2 } else { 0 };
        intake::end_garbled(cycle.tx()?, marks.garbled, now).await?;
        self.settle(cycle, woken.leased, pages, true).await?;
        step.more |= self.slots.free() > 0;
        Ok(())
    }

    /// A token that nobody has had. Only equality counts: whoever's token stands in the lane's row
    /// is its newest owner.
    fn token(&mut self) -> i64 {
        self.tokens.next().unwrap_or_default()
    }

    fn lease(&self, cycle: &Cycle) -> Lease {
        Lease {
            worker: self.settings.worker.as_str().into(),
            token: cycle.token,
            now: cycle.now,
            until: cycle.now + millis(self.settings.lease),
        }
    }
}

/// What a cycle has written and not yet committed.
struct Cycle {
    tx: Option<Tx>,
    began: BootInstant,
    /// Outcomes it records.
    batch: Vec<Ended>,
    now: Millis,
    claimed: BootInstant,
    token: i64,
    claims: Vec<Claim>,
    /// Lanes that must rest before their next request.
    rests: HashMap<Arc<str>, Millis>,
}

impl Cycle {
    fn new(now: Millis, claimed: BootInstant) -> Self {
        Self {
            tx: None,
            began: claimed,
            batch: Vec::new(),
            now,
            claimed,
            token: 0,
            claims: Vec::new(),
            rests: HashMap::new(),
        }
    }

    /// The open transaction.
    fn tx(&mut self) -> Result<&mut Tx> {
        self.tx
            .as_mut()
            .ok_or(Error::Gone("the transaction was given up before"))
    }
}

/// A claim that was never sent, as an outcome.
fn unsent(claim: &Claim) -> Ended {
    let why = "the commit of its claim was not confirmed";
    let judgement = Judgement::not_sent("ledger.unconfirmed", why);
    let reason: Arc<str> = judgement.reason.into();
    Ended {
        lane: Arc::clone(&claim.lane),
        page: Arc::clone(&claim.page),
        token: claim.token,
        job: claim.job,
        number: claim.number,
        finished: claim.started,
        outcome: judgement.outcome,
        status: None,
        error: Some(Arc::clone(&reason)),
        response: None,
        rule: judgement.rule.into(),
        state: State::Queued,
        failed: 0,
        due: claim.started,
        reason: Some(reason),
        ambiguous: false,
        singled_out: 0,
        rest: Duration::ZERO,
        alone: false,
    }
}

/// Splits off what is a second outcome for a lane: a batch names each lane once.
fn one_per_lane(mut ended: Vec<Ended>) -> (Vec<Ended>, Vec<Ended>) {
    let mut seen = HashSet::with_capacity(ended.len());
    let second = ended.extract_if(.., |e| !seen.insert(Arc::clone(&e.lane)));
    let second = second.collect();
    (ended, second)
}

fn span(ms: Millis) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}
