//! Which pages have work and may send, and how much of each rate is left.
//!
//! The first part of a cycle: what the survey saw, less what is paused, has no secret, has no slot
//! or no rate left. It never touches lanes or jobs.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Ledger, Step, span};
use crate::breaker::{Breaker, Change, Settings as Circuit, breadth};
use crate::clock::{BootInstant, Millis, millis};
use crate::events::Event;
use crate::job::PageId;
use crate::scope::{Pause, Scope};
use crate::store::survey::{self, Question, Survey};
use crate::store::wake::Woken;
use crate::store::{Result, pauses, rates};

/// The most pages one cycle serves; pages are served round-robin.
pub(super) const PAGES: usize = 64;
/// Most lanes taken in hand to find the jobs of a probe.
const PROBED: usize = 64;
/// How long a drawn allowance may be used; older ones would add to the new allowance and exceed the rate.
const ALLOWED_FOR: Duration = Duration::from_secs(1);

/// How long a page is left alone whose lanes the database refuses to change.
const LEFT_ALONE: Duration = Duration::from_secs(60);
/// When a page that waits for all or for the endpoint is looked at again, in milliseconds.
const STOPPED: Millis = 5000;

/// Above this many, expired allowances are dropped.
const KNOWN_ALLOWANCES: usize = 1000;

/// Pages as one cycle sees them.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Those that may send.
    pub eligible: Arc<HashSet<PageId>>,
    /// Of those, the ones with due lanes and a slot to send with.
    pub due: Vec<PageId>,
    /// Of those, the ones with marks.
    pub marks: Vec<PageId>,
    pub timers_due: bool,
    /// Nothing is paused and nothing is due: until then only marks and completions bring work, so the survey
    /// may be reused.
    pub is_calm: bool,
}

/// Requests drawn from the rate of a page.
pub(super) struct Allowance {
    left: usize,
    drawn: BootInstant,
}

/// How long a probe grant is kept, since the first heads may turn out expired or invalid.
const PROBE_FOR: Duration = Duration::from_secs(1);

/// How many jobs each paused page may send as probes.
#[derive(Debug, Default)]
pub(super) struct Probes {
    pages: HashMap<PageId, Probe>,
}

#[derive(Debug)]
struct Probe {
    left: usize,
    granted: BootInstant,
    /// Granted in this cycle.
    is_new: bool,
}

impl Probes {
    fn grant(&mut self, page: PageId, jobs: usize) {
        let probe = Probe {
            left: jobs,
            granted: BootInstant::now(),
            is_new: true,
        };
        self.pages.insert(page, probe);
    }

    /// Begins a cycle: what was not used is kept for a moment, if it is still needed.
    fn keep(&mut self, is_paused: impl Fn(&PageId) -> bool) {
        self.pages.retain(|page, probe| {
            probe.is_new = false;
            probe.left > 0 && probe.granted.elapsed() < PROBE_FOR && is_paused(page)
        });
    }
}

/// How long a survey may be reused.
const FRESH: Duration = Duration::from_millis(20);
/// How long a page that had marks is asked for more without a survey.
const RECENT: Duration = Duration::from_secs(1);

/// What the last survey saw: while it is fresh, cycles that only write completions or take marks do without their own.
pub(super) struct View {
    eligible: Arc<HashSet<PageId>>,
    /// The database's clock, and this machine's after it: what is added since never runs ahead of the database's.
    now: Millis,
    at: BootInstant,
    next_in: Option<Duration>,
}

impl Ledger {
    /// What a survey has seen is kept, if nothing else than marks and ends can change it.
    pub(super) fn keep_view(
        &mut self,
        pages: &Pages,
        now: Millis,
        at: BootInstant,
        next_in: Option<Duration>,
    ) {
        self.view = pages.is_calm.then(|| View {
            eligible: Arc::clone(&pages.eligible),
            now,
            at,
            next_in,
        });
    }

    /// The clock and the pages from the cached survey, if it suffices for this wake-up, and how long it remains valid.
    pub(super) fn seen_lately(
        &mut self,
        woken: Woken,
    ) -> Option<(Millis, Pages, Option<Duration>)> {
        let passed = self.view.as_ref()?.at.elapsed();
        let is_stale = passed >= FRESH
            || self
                .view
                .as_ref()
                .is_some_and(|view| view.next_in.is_some_and(|next| next <= passed))
            || woken == Woken::Time
            || !self.unconfirmed.is_empty()
            || self.draining
            || self.breaker().has_changes();
        if is_stale {
            self.view = None;
        }
        let view = self.view.as_ref()?;
        let secrets = &self.settings.secrets;
        self.recent
            .retain(|page, at| at.elapsed() < RECENT && secrets.has(page));
        let mut marks = Vec::new();
        // The last intake left marks, and a completion has freed a slot.
        if woken != Woken::Ended || self.is_behind {
            marks.extend(self.recent.keys().take(PAGES).cloned());
        }
        let all = marks.len();
        marks.retain(|page| self.slots.may_take(page));
        if woken == Woken::Marks && all == 0 || marks.len() < all {
            return None;
        }
        let pages = Pages {
            eligible: Arc::clone(&view.eligible),
            marks,
            ..Pages::default()
        };
        let mut next_in = view.next_in.map(|next| next.saturating_sub(passed));
        if woken != Woken::Ended {
            // There may be marks of other pages, too.
            let stale_in = FRESH.saturating_sub(passed);
            next_in = Some(next_in.map_or(stale_in, |next| next.min(stale_in)));
        }
        Some((view.now + millis(passed), pages, next_in))
    }

    /// Writes the pauses that the senders' judgements ask for, and tells the senders what is paused.
    async fn write_pauses(&mut self, survey: &mut Survey, step: &mut Step) -> Result<()> {
        let secrets = &self.settings.secrets;
        let changed = secrets.take_changed();
        let mut changes = {
            let mut breaker = self.breaker();
            for page in &changed {
                breaker.secret_changed(page, |page| secrets.has_own(page));
            }
            VecDeque::from(breaker.changes())
        };
        while let Some(change) = changes.front() {
            match self.write_pause(change, survey).await {
                Ok(again) => step.more |= again,
                Err(error) => {
                    self.breaker().keep(changes.into());
                    return Err(error);
                }
            }
            self.breaker().written(change);
            changes.pop_front();
        }
        for page in changed {
            match &*page {
                "default" => self.agenda.hurry(),
                _ => self.agenda.touch(&page.into()),
            }
        }
        // An operator's pause of the endpoint is not ended by an answer and says nothing about a page; the
        // breaker treats it as `all`.
        let scopes = survey
            .pauses
            .iter()
            .map(|(scope, pause)| match (scope, pause) {
                (Scope::Endpoint, Pause::Operator) => &Scope::All,
                _ => scope,
            });
        let looked_at = survey.pages.iter().map(|page| &*page.page);
        let looked_at: HashSet<&str> = looked_at.collect();
        let is_whole = self.agenda.saw_all();
        self.breaker()
            .set_paused(BootInstant::now(), survey.ticket, scopes, |page| {
                is_whole || looked_at.contains(page)
            });
        Ok(())
    }

    /// True if the survey must be repeated.
    async fn write_pause(&self, change: &Change, survey: &mut Survey) -> Result<bool> {
        let (pool, now) = (&self.pool, survey.now);
        match change {
            Change::Open { scope, wait, .. } => {
                if pauses::open(pool, change, &self.settings.worker, now).await? {
                    self.tell_paused(change);
                    let probe_at = now + millis(*wait);
                    survey
                        .pauses
                        .insert(scope.clone(), Pause::Worker { probe_at });
                } else {
                    survey
                        .pauses
                        .entry(scope.clone())
                        .or_insert(Pause::Operator);
                }
            }
            Change::Renew { scope, rule, why } => pauses::renew(pool, scope, rule, why).await?,
            Change::Close { scope } => {
                if pauses::close(pool, scope, now).await? {
                    self.events.emit(&Event::Resumed { scope });
                }
                if let Some(Pause::Worker { .. }) = survey.pauses.get(scope) {
                    survey.pauses.remove(scope);
                }
                return Ok(*scope == Scope::Endpoint);
            }
        }
        Ok(false)
    }

    fn tell_paused(&self, change: &Change) {
        if let Change::Open {
            scope,
            rule,
            why,
            pages,
            wait,
            ..
        } = change
        {
            self.events.emit(&Event::Paused {
                scope,
                rule,
                why,
                pages,
                probe_in: *wait,
            });
        }
    }

    /// Grants probe jobs to paused pages. Returns how long until
    /// there is more to try.
    async fn probe(&mut self, survey: &Survey) -> Result<Option<Millis>> {
        let pauses = &survey.pauses;
        let endpoint = pauses.contains_key(&Scope::Endpoint);
        self.probes
            .keep(|page| endpoint || pauses.contains_key(&Scope::Page(page.clone())));
        let free = self.slots.free().min(PAGES);
        if pauses.is_empty() || free == 0 {
            return Ok(None);
        }
        let now = survey.now;
        let has_work =
            |page: &&survey::Page| page.has_marks || page.due.is_some_and(|due| due <= now);
        let (secrets, probes) = (&self.settings.secrets, &self.probes.pages);
        let with_work = survey.pages.iter().filter(has_work).map(|page| &page.page);
        let with_work = with_work.filter(|page| secrets.has(page) && !probes.contains_key(*page));
        let at = BootInstant::now();
        let (tries, first, longest) = {
            let mut breaker = self.breaker();
            let tries = breaker.tries(at, now, pauses, with_work, free);
            let Circuit {
                probe, max_probe, ..
            } = breaker.settings();
            (tries, *probe, *max_probe)
        };
        for page in tries.trials {
            self.probes.grant(page, 1);
        }
        for page in tries.probes {
            let scope = Scope::Page(page.clone());
            if let Some(right) = pauses::probe(&self.pool, &scope, now, longest).await? {
                let jobs = breadth(right.people, right.wait, first);
                self.probes.grant(page, jobs);
            }
        }
        Ok(tries.next_in)
    }

    pub(super) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.settings
            .breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next survey looks at.
    pub(super) fn question(&mut self) -> Question {
        self.recent.retain(|_, at| at.elapsed() < RECENT);
        if self.recent.len() > PAGES {
            self.recent.clear();
        }
        let pending = self.pending.iter().map(|completion| &completion.page);
        let also = self
            .recent
            .keys()
            .chain(pending)
            .chain(self.probes.pages.keys());
        self.agenda.question(also.cloned())
    }

    /// Which pages may send, of those that were looked at, and draws from the rates of those that have one.
    pub(super) async fn admit(&mut self, mut survey: Survey, step: &mut Step) -> Result<Pages> {
        let mut pages = Pages::default();
        self.write_pauses(&mut survey, step).await?;
        if self.draining {
            return Ok(pages);
        }
        let tries_in = self.probe(&survey).await?;
        let now = survey.now;
        let stopped =
            survey.pauses.contains_key(&Scope::All) || survey.pauses.contains_key(&Scope::Endpoint);
        if !stopped && std::mem::replace(&mut self.stopped, stopped) {
            self.agenda.wake_all(now);
        }
        self.stopped = stopped;
        let mut eligible = HashSet::new();
        for page in &survey.pages {
            let wants = self.wants(page, &survey);
            if wants.is_some() && (self.is_probed(&page.page) || !self.is_paused(page, &survey)) {
                eligible.insert(page.page.clone());
            }
            self.agenda.wants(&page.page, wants, now);
        }
        survey.pages.retain(|page| eligible.contains(&page.page));
        pages.eligible = Arc::new(eligible);
        let is_due = |page: &&survey::Page| page.due.is_some_and(|due| due <= now);
        let with_work = survey
            .pages
            .iter()
            .filter(|page| page.has_marks || is_due(page));
        self.slots.set_contenders(with_work.map(|page| &*page.page));
        self.oldest_due(&survey.pages, now);
        pages.timers_due = survey.timer.is_some_and(|at| at <= now);
        let due: Vec<_> = survey.pages.iter().filter(is_due).collect();
        let marks: Vec<_> = survey.pages.iter().filter(|page| page.has_marks).collect();
        pages.is_calm = !stopped
            && self.probes.pages.is_empty()
            && due.is_empty()
            && !pages.timers_due
            && self
                .recent
                .keys()
                .all(|page| !survey.pauses.contains_key(&Scope::Page(page.clone())));
        let with_marks = marks.len();
        pages.due = self.choose(due, now);
        // Marks of a page without a slot are left; their lanes could not start anyway.
        pages.marks = self.choose(marks, now);
        pages.is_calm &= pages.marks.len() == with_marks;
        let drawn = self.draw(&pages).await?;
        pages.due.retain(|page| !drawn.contains_key(page));
        // A new probe takes a new job from the marks, not a lane that failed before.
        let (marks, probes) = (&pages.marks, &self.probes.pages);
        pages.due.retain(|page| {
            let is_new = probes.get(page).is_some_and(|probe| probe.is_new);
            !is_new || !marks.contains(page)
        });
        for page in pages.due.iter().chain(&pages.marks) {
            self.agenda.set(page, None);
            self.agenda.touch(page);
        }
        for (page, wait) in drawn {
            self.agenda.set(&page, Some(now + wait));
        }
        let left = self.agenda.has_older(now) && self.slots.free() > 0 && !stopped;
        pages.is_calm &= !left;
        let timer = survey.timer.map(|at| at - now);
        let waits = [tries_in, timer, left.then_some(1), self.agenda.next_in(now)];
        let next = waits.into_iter().flatten().min().map(span);
        step.next_in = step.next_in.into_iter().chain(next).min();
        Ok(pages)
    }

    /// When a page wants to be looked at again; none if it has no work, or if nothing that a ledger knows of ends what
    /// it waits for.
    fn wants(&self, page: &survey::Page, survey: &Survey) -> Option<Millis> {
        let name = &page.page;
        let at = match page.has_marks {
            true => survey.now,
            false => page.due?,
        };
        match survey.pauses.get(&Scope::Page(name.clone())) {
            _ if self.is_probed(name) => Some(at),
            Some(Pause::Operator) => None,
            Some(Pause::Worker { probe_at }) => {
                let longest = millis(self.breaker().settings().max_probe);
                let is_ahead = *probe_at > survey.now + longest;
                Some(if is_ahead { at } else { at.max(*probe_at) })
            }
            None if !self.settings.secrets.has(name) => {
                if !self.stopped && self.breaker().lacks_secret(name) {
                    self.events.emit(&Event::NoSecret { page: name });
                }
                None
            }
            None if self.stopped => Some(at.max(survey.now + STOPPED)),
            None => Some(at),
        }
    }

    fn is_paused(&self, page: &survey::Page, survey: &Survey) -> bool {
        self.stopped || survey.pauses.contains_key(&Scope::Page(page.page.clone()))
    }

    /// The pages whose turn it is: at most [`PAGES`] that may take a slot, who has waited longest first; but half of the
    /// turns are for pages that have just got their first job, so that a newcomer does not wait for thousands. Who may take
    /// none waits behind the others.
    fn choose(&mut self, mut pages: Vec<&survey::Page>, now: Millis) -> Vec<PageId> {
        pages.sort_by_cached_key(|page| self.agenda.place(&page.page));
        let (new, old): (Vec<_>, Vec<_>) = pages
            .into_iter()
            .partition(|page| self.agenda.is_new(&page.page));
        let mut chosen = Vec::new();
        self.left_alone.retain(|_, at| at.elapsed() < LEFT_ALONE);
        for (pages, most) in [(new, self.at_once.div_ceil(2)), (old, self.at_once)] {
            for survey::Page { page, .. } in pages {
                if self.left_alone.contains_key(page) {
                    self.agenda.set(page, Some(now + millis(LEFT_ALONE)));
                } else if !self.slots.may_take(page) {
                    self.agenda.set(page, Some(now));
                } else if chosen.len() < most {
                    chosen.push(page.clone());
                }
            }
        }
        chosen
    }

    fn oldest_due(&self, pages: &[survey::Page], now: Millis) {
        let due = pages.iter().filter_map(|page| page.due);
        let oldest = due.map(|due| now - due).max().unwrap_or_default();
        self.events.set_oldest_due(span(oldest));
    }

    pub(super) fn rate(&self, page: &str) -> Option<f64> {
        self.settings
            .rates
            .get(page)
            .copied()
            .or(self.settings.default_rate)
    }

    /// Makes sure that pages with a rate have some of it in hand. Returns those that have none, and how long until they
    /// have.
    async fn draw(&mut self, pages: &Pages) -> Result<HashMap<PageId, Millis>> {
        let mut asked = BTreeMap::new();
        for page in pages.due.iter().chain(&pages.marks) {
            if let Some(rate) = self.rate(page)
                && self.by_rate(page) == 0
            {
                asked.insert(page.clone(), (rate, self.slots.share(page)));
            }
        }
        let mut empty = HashMap::new();
        if asked.is_empty() {
            return Ok(empty);
        }
        if self.allowances.len() + asked.len() > KNOWN_ALLOWANCES {
            self.allowances
                .retain(|_, allowance| allowance.drawn.elapsed() < ALLOWED_FOR);
        }
        for (page, drawn) in rates::draw(&self.pool, &asked).await? {
            let allowance = Allowance {
                left: drawn.granted,
                drawn: BootInstant::now(),
            };
            self.allowances.insert(page.clone(), allowance);
            if drawn.granted == 0 {
                empty.insert(page, drawn.wait);
            }
        }
        Ok(empty)
    }

    /// Requests that the rate of a page, and what is being probed, allow now.
    pub(super) fn allowance(&self, page: &str) -> usize {
        let by_probe = self.probes.pages.get(page).map(|probe| probe.left);
        self.by_rate(page).min(by_probe.unwrap_or(usize::MAX))
    }

    /// How many lanes of a probed page to lease for so many slots; more than slots, since some heads may be
    /// expired or invalid.
    pub(super) fn reach(&self, page: &str, slots: usize) -> usize {
        self.by_rate(page).saturating_add(slots).min(PROBED)
    }

    /// True if the page is paused, and sends only to see whether it is well.
    pub(super) fn is_probed(&self, page: &str) -> bool {
        self.probes.pages.contains_key(page)
    }

    fn by_rate(&self, page: &str) -> usize {
        match self.allowances.get(page) {
            _ if self.rate(page).is_none() => usize::MAX,
            Some(allowance) if allowance.drawn.elapsed() < ALLOWED_FOR => allowance.left,
            _ => 0,
        }
    }

    /// Uses one of them.
    pub(super) fn spend(&mut self, page: &str) {
        if let Some(allowance) = self.allowances.get_mut(page) {
            allowance.left = allowance.left.saturating_sub(1);
        }
        if let Some(probe) = self.probes.pages.get_mut(page) {
            probe.left = probe.left.saturating_sub(1);
        }
    }

    /// Gives back what was not used after all.
    pub(super) fn unspend(&mut self, page: &str, requests: usize) {
        if let Some(allowance) = self.allowances.get_mut(page) {
            allowance.left += requests;
        }
        if let Some(probe) = self.probes.pages.get_mut(page) {
            probe.left += requests;
        }
    }
}
