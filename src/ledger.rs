//! The ledger: the one task of a process that writes, in cycles.
//!
//! A cycle reads the clock and which pages have work (`admission`), then runs three statements (`batch`): lanes that are
//! due come into hand, what ended is completed and its lanes go on, marks become lanes. On Postgres each is a
//! transaction of its own, on SQLite they share one. Leased jobs are then checked (`decide`): each leaves as
//! a claim, or its end is written by the next cycle. The ledger never waits, sends or judges answers;
//! [`crate::worker`] does.

mod admission;
mod agenda;
mod batch;
mod decide;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postlane_message::validate::Limits;
use tokio::sync::mpsc;

use admission::{Allowance, Pages, Probes, View};
use agenda::Agenda;
use batch::Batch;

use crate::attempt::{Claim, Completion, HeldBack};
use crate::breaker::Breaker;
use crate::clock::{BootInstant, Millis, millis};
use crate::deliveries::Deliveries;
use crate::events::Events;
use crate::job::{AfterUnknown, PageId, Token};
use crate::pace::Slots;
use crate::retry::Policy;
use crate::secrets::Secrets;
use crate::store::lanes::{self, Lease, Unconfirmed};
use crate::store::survey::{Survey, survey};
use crate::store::wake::Woken;
use crate::store::{Pool, Result};

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
    /// What an unknown job does to its lane.
    pub after_unknown: AfterUnknown,
    /// Between the end of one request and the start of the next in a lane.
    pub min_gap: Duration,
    /// Bounds of messages.
    pub limits: Limits,
    /// True to send `delay` along and not wait for it (`api.delay = "api"`).
    pub delay_on_wire: bool,
    /// Requests a second over all workers, of pages that have a rate.
    pub rates: HashMap<PageId, f64>,
    /// The rate of each page without its own.
    pub default_rate: Option<f64>,
    /// Which pages have secrets.
    pub secrets: Arc<dyn Secrets>,
    /// What the senders' judgements ask to be paused.
    pub breaker: Arc<Mutex<Breaker>>,
    /// What the senders delivered lately.
    pub deliveries: Arc<Deliveries>,
}

/// What goes in and out of a ledger.
pub struct Doors {
    /// How attempts ended.
    pub completions: mpsc::UnboundedReceiver<Completion>,
    /// Takes each claim, to be sent at once.
    pub send: Box<dyn Fn(Claim) + Send + Sync>,
}

/// What a cycle did, and when the next one is needed.
#[derive(Debug, Default)]
pub struct Step {
    /// Claims that left.
    pub claimed: usize,
    /// There is more to do at once.
    pub more: bool,
    /// There were marks to take.
    pub found_marks: bool,
    /// Some lanes or marks are left, as far as is known.
    pub has_open: bool,
    /// How long until the next lane or timer is due, as far as is known.
    pub next_in: Option<Duration>,
    /// How long until held-back completions are retried.
    pub again_in: Option<Duration>,
}

/// The tokens one cycle can use: one for each statement, and one for each probed page.
const TOKENS_A_CYCLE: i64 = 3 + admission::PAGES as i64;

/// The one writer of a process.
pub struct Ledger {
    pool: Pool,
    settings: Settings,
    worker: Arc<str>,
    events: Arc<Events>,
    doors: Doors,
    slots: Slots,
    /// How many slots the in-flight gauge currently counts.
    shown: i64,
    /// Claims that left in this cycle.
    claimed: usize,
    /// What is to be written next.
    pending: Vec<Completion>,
    /// Completions to retry after this time: their rows were locked, or the database rejected them.
    held_back: Vec<(Completion, Millis)>,
    /// Limit on completions per statement; lowered while the database rejects one of them.
    bite: usize,
    /// Completions in the statement that is running.
    recording: usize,
    /// Claims whose commit was not confirmed; they were not sent.
    unconfirmed: Vec<Unconfirmed>,
    /// Lease tokens drawn and not yet used.
    tokens: Range<i64>,
    /// What the last survey saw.
    view: Option<View>,
    /// Pages that had marks recently, and when.
    recent: HashMap<PageId, BootInstant>,
    /// Moving average, per mille: completed lanes that continued with their next job at once.
    going_on: usize,
    /// The last intake left marks.
    is_behind: bool,
    /// How many marks to take next; doubled while most marks belong to existing lanes.
    appetite: usize,
    /// Pages to serve at once: fewer while the database refuses to change lanes of one of them.
    at_once: usize,
    /// Pages whose lanes it has refused to change, and when.
    left_alone: HashMap<PageId, BootInstant>,
    /// Timers to take next time: fewer while the database refuses one of their jobs.
    timers: i64,
    /// Requests that the rate of a page still allows.
    allowances: HashMap<PageId, Allowance>,
    /// What may be sent to probe what is paused.
    probes: Probes,
    /// Which pages have something to do, and when.
    agenda: Agenda,
    /// Everything is paused, or the endpoint.
    stopped: bool,
    /// Lanes that an earlier policy had blocked have been woken.
    unblocked: bool,
    draining: bool,
}

impl Ledger {
    /// A ledger with every slot free.
    pub fn new(pool: Pool, settings: Settings, events: Arc<Events>, doors: Doors) -> Self {
        Self {
            slots: Slots::new(settings.concurrency),
            worker: settings.worker.as_str().into(),
            shown: 0,
            claimed: 0,
            pool,
            settings,
            events,
            doors,
            pending: Vec::new(),
            held_back: Vec::new(),
            bite: usize::MAX,
            recording: 0,
            unconfirmed: Vec::new(),
            tokens: 0..0,
            view: None,
            recent: HashMap::new(),
            going_on: 1000,
            is_behind: false,
            appetite: 0,
            timers: batch::TIMERS,
            at_once: admission::PAGES,
            left_alone: HashMap::new(),
            allowances: HashMap::new(),
            probes: Probes::default(),
            agenda: Agenda::default(),
            stopped: false,
            unblocked: false,
            draining: false,
        }
    }

    /// Waits for an attempt to end and takes its completion. Cancel-safe.
    pub async fn ended(&mut self) {
        if let Some(completion) = self.doors.completions.recv().await {
            self.note(completion);
        }
        self.collect();
    }

    /// Takes all completions that are ready; they are kept until written.
    fn collect(&mut self) {
        while let Ok(completion) = self.doors.completions.try_recv() {
            self.note(completion);
        }
    }

    fn note(&mut self, mut completion: Completion) {
        let answered = completion.is_answered();
        if completion.attempt.is_some() {
            completion.rest = completion.rest.max(self.settings.min_gap);
        }
        if let Some(slot) = completion.slot.take() {
            slot.ended(answered);
        }
        self.pending.push(completion);
    }

    /// From now on nothing is claimed; lanes are released as their attempts end.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// True if something has ended that is not written.
    pub fn has_ended(&self) -> bool {
        !self.pending.is_empty() || !self.doors.completions.is_empty()
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.slots.taken()
    }

    /// Completions that can be written but are not yet.
    pub fn unwritten(&self) -> usize {
        let held_back = self
            .held_back
            .iter()
            .filter(|(c, _)| c.held_back != HeldBack::Refused);
        self.pending.len() + held_back.count() + self.unconfirmed.len()
    }

    /// What could not be recorded if the process ended now, also in the middle of a cycle.
    pub fn unrecorded(&self) -> usize {
        self.pending.len() + self.held_back.len() + self.recording + self.in_flight()
    }

    /// Its own connection.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// After a cycle that failed: the next one gets a new connection.
    pub fn renew(&self) {
        self.pool.renew();
    }

    /// True if jobs are waiting for attempts to end: most lanes continue at once, or marks were left for lack of slots.
    pub fn is_pressed(&self) -> bool {
        self.going_on > 250 || self.is_behind
    }

    /// One cycle. After an error nothing is lost: what ended stays in hand for the next one.
    pub async fn cycle(&mut self, woken: Woken) -> Result<Step> {
        // Taken before the database's clock, so that our lease ends before the database's.
        let claimed = BootInstant::now();
        self.collect();
        if let Some((now, pages, next_in)) = self.seen_lately(woken) {
            let step = Step {
                has_open: true,
                next_in,
                ..Step::default()
            };
            let mut step = self.cycle_on(now, pages, claimed, step).await?;
            if woken == Woken::Marks && !step.found_marks {
                // The marks belong to a page that the cached survey does not know.
                self.view = None;
                step.more = true;
            }
            return Ok(step);
        }
        let survey = self.survey(None).await?;
        let seen = BootInstant::now();
        self.cycle_after(survey, claimed, seen).await
    }

    /// [`Ledger::cycle`] at a time given by the caller; how tests move the clock.
    pub async fn cycle_at(&mut self, now: Millis, claimed: BootInstant) -> Result<Step> {
        self.collect();
        let survey = self.survey(Some(now)).await?;
        self.cycle_after(survey, claimed, claimed).await
    }

    async fn survey(&mut self, now: Option<Millis>) -> Result<Survey> {
        // Drawn first: a pause written after this is newer than the survey.
        let ticket = self.breaker().ticket();
        let question = self.question();
        let began = BootInstant::now();
        let seen = survey(&self.pool, &question).await?;
        let survey = Survey {
            ticket,
            now: now.unwrap_or(seen.now),
            ..seen
        };
        // A test's clock says nothing of what a look takes.
        let took = now.map_or(began.elapsed(), |_| Duration::ZERO);
        self.agenda.note(&question, &survey, took);
        Ok(survey)
    }

    async fn cycle_after(
        &mut self,
        survey: Survey,
        claimed: BootInstant,
        seen: BootInstant,
    ) -> Result<Step> {
        let (now, mut step) = (survey.now, Step::default());
        step.has_open = survey.pages.iter().any(|page| page.has_work());
        self.view = None;
        step.more |= self.release_unconfirmed(now).await?;
        let pages = self.admit(survey, &mut step).await?;
        step.has_open |= !self.agenda.is_empty();
        self.unblock(now).await?;
        self.keep_view(&pages, now, seen, step.next_in);
        self.cycle_on(now, pages, claimed, step).await
    }

    async fn cycle_on(
        &mut self,
        now: Millis,
        pages: Pages,
        claimed: BootInstant,
        mut step: Step,
    ) -> Result<Step> {
        let lease = self.lease(now).await?;
        self.collect();
        self.try_again(now);
        let mut batch = Batch::new(&self.pool, lease, claimed);
        let done = self.write(&mut batch, &pages, &mut step).await;
        self.end(batch, done, &mut step).await?;
        step.more |= !self.pending.is_empty();
        step.again_in = self.again_in(now);
        let shown = i64::try_from(self.slots.taken()).unwrap_or(i64::MAX);
        self.events.add_in_flight(shown - self.shown);
        self.shown = shown;
        Ok(step)
    }

    /// Everything a cycle writes. Due lanes come before lanes that have just been served.
    async fn write(&mut self, batch: &mut Batch, pages: &Pages, step: &mut Step) -> Result<()> {
        let now = batch.lease.now;
        let lease = millis(self.settings.lease);
        let is_overdue = |c: &Completion| {
            let attempt = c.attempt.as_ref();
            attempt.is_some_and(|a| a.worker.is_none() && a.started + lease <= now)
        };
        if self.pending.iter().any(is_overdue) {
            // Their leases have run out: `take` would treat them as lost.
            self.complete(batch, &Pages::default(), step).await?;
            step.more = true;
            self.take(batch, pages, step).await?;
        } else {
            self.take(batch, pages, step).await?;
            self.complete(batch, pages, step).await?;
        }
        if pages.timers_due {
            self.join_lanes(batch, step).await?;
        }
        self.take_in(batch, pages, step).await
    }

    /// A token never used before: the one in a lane's row identifies its latest owner.
    fn token(&mut self) -> Token {
        assert!(
            !self.tokens.is_empty(),
            "a cycle begins with enough of them"
        );
        let token = self.tokens.start;
        self.tokens.start += 1;
        Token(token)
    }

    /// What this cycle's claims say.
    async fn lease(&mut self, now: Millis) -> Result<Lease> {
        if self.tokens.end - self.tokens.start < TOKENS_A_CYCLE {
            let first = lanes::tokens(&self.pool).await?;
            self.tokens = first..first + lanes::TOKENS;
        }
        Ok(Lease {
            worker: Arc::clone(&self.worker),
            token: Token::default(),
            now,
            until: now + millis(self.settings.lease),
            after_unknown: self.settings.after_unknown,
            delay_on_wire: self.settings.delay_on_wire,
            longest_wait: self.settings.longest_wait,
        })
    }

    /// Releases lanes that an unconfirmed commit may have leased, before anything new is leased. True if
    /// there were any.
    async fn release_unconfirmed(&mut self, now: Millis) -> Result<bool> {
        let any = !self.unconfirmed.is_empty();
        while let Some(claims) = self.unconfirmed.first() {
            lanes::release(&self.pool, claims, now).await?;
            claims.pages.iter().for_each(|page| self.agenda.touch(page));
            self.unconfirmed.remove(0);
        }
        Ok(any)
    }

    /// Wakes blocked lanes once, if nothing blocks them by the policy of this process.
    async fn unblock(&mut self, now: Millis) -> Result<()> {
        if !self.unblocked && self.settings.after_unknown == AfterUnknown::Continue {
            lanes::unblock(&self.pool, now).await?;
        }
        self.unblocked = true;
        Ok(())
    }
}

fn span(ms: Millis) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}
