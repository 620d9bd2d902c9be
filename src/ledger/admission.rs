//! Which pages have work and may send, and how much of their rates is in hand.
//!
//! The first part of a cycle: what the survey saw, less what is paused, has no secret, has no slot
//! or no rate left. It refuses to touch lanes and jobs.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Ledger, Step, span};
use crate::breaker::{Breaker, Change, ENDPOINT, Settings as Circuit, breadth, page_scope};
use crate::clock::{BootInstant, Millis, millis};
use crate::events::Event;
use crate::store::lanes::{self, Survey};
use crate::store::wake::Woken;
use crate::store::{Result, pauses, rates};

/// Most pages that one cycle takes lanes or marks of; the pages take turns.
const PAGES: usize = 64;
/// Most lanes taken in hand to find the jobs of a probe.
const PROBED: usize = 64;
/// How long what a rate allowed may be kept: what piles up would go out beside what it allows then.
const ALLOWED_FOR: Duration = Duration::from_secs(1);

/// Allowances after which those that have run out are forgotten.
const KNOWN_ALLOWANCES: usize = 1000;

/// Pages as one cycle sees them.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Those that may send.
    pub eligible: Arc<HashSet<String>>,
    /// Of those, the ones with due lanes and a slot to send with.
    pub due: Vec<Arc<str>>,
    /// Of those, the ones with marks.
    pub marks: Vec<Arc<str>>,
    pub timers_due: bool,
    /// Nothing is paused, and no lane or timer is due: until the first is, only marks and ends can change that.
    pub is_calm: bool,
}

/// Requests drawn from the rate of a page.
pub(super) struct Allowance {
    left: usize,
    drawn: BootInstant,
}

/// Whose turn it is, of pages with due lanes and of pages with marks.
#[derive(Debug, Default)]
pub(super) struct Turns {
    due: RoundRobin,
    marks: RoundRobin,
}

/// The page that had the last turn.
#[derive(Debug, Default)]
struct RoundRobin(String);

impl RoundRobin {
    /// At most [`PAGES`] of them, from the one behind the last.
    fn take(&mut self, mut pages: Vec<String>) -> Vec<String> {
        pages.sort_unstable();
        let first = pages.partition_point(|page| *page <= self.0);
        pages.rotate_left(first);
        pages.truncate(PAGES);
        if let Some(last) = pages.last() {
            self.0.clone_from(last);
        }
        pages
    }
}

/// How long the right to try a job is kept: its page's first heads may be expired or invalid.
const PROBE_FOR: Duration = Duration::from_secs(1);

/// How many jobs may be sent of what is paused, to see whether it is well.
#[derive(Debug, Default)]
pub(super) struct Probes {
    pages: HashMap<String, Probe>,
}

#[derive(Debug)]
struct Probe {
    left: usize,
    granted: BootInstant,
    /// Granted in this cycle.
    is_new: bool,
}

impl Probes {
    fn grant(&mut self, page: String, jobs: usize) {
        let probe = Probe {
            left: jobs,
            granted: BootInstant::now(),
            is_new: true,
        };
        self.pages.insert(page, probe);
    }

    /// Begins a cycle: what was not used is kept for a moment, if it is still needed.
    fn keep(&mut self, is_paused: impl Fn(&str) -> bool) {
        self.pages.retain(|page, probe| {
            probe.is_new = false;
            probe.left > 0 && probe.granted.elapsed() < PROBE_FOR && is_paused(page)
        });
    }
}

/// How long what a survey saw is good for.
const FRESH: Duration = Duration::from_millis(20);
/// How long a page that had marks is asked for more without a survey.
const RECENT: Duration = Duration::from_secs(1);

/// What the last survey saw: while it is fresh, cycles that only write ends or take marks need none of their own.
pub(super) struct View {
    eligible: Arc<HashSet<String>>,
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

    /// The clock and the pages without a survey, if the last one is good enough for what has woken the ledger; and how
    /// long until it no longer is.
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
        // Where the last intake left some, an end has made room for more.
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
        // An operator's pause of the endpoint is none that an answer ends, or that says anything of a page.
        let scopes = survey.pauses.iter().map(|(scope, at)| match at {
            None if scope == ENDPOINT => "all",
            _ => scope,
        });
        self.breaker()
            .set_paused(BootInstant::now(), survey.ticket, scopes);
        Ok(())
    }

    /// True if more has changed than the survey can be told.
    async fn write_pause(&self, change: &Change, survey: &mut Survey) -> Result<bool> {
        let (pool, now) = (&self.pool, survey.now);
        match change {
            Change::Open { scope, wait, .. } => {
                if pauses::open(pool, change, &self.settings.worker, now).await? {
                    self.tell_paused(change);
                    let probe_at = Some(now + millis(*wait));
                    survey.pauses.insert(scope.clone(), probe_at);
                } else {
                    survey.pauses.entry(scope.clone()).or_insert(None);
                }
            }
            Change::Renew { scope, rule, why } => pauses::renew(pool, scope, rule, why).await?,
            Change::Close { scope } => {
                if pauses::close(pool, scope, now).await? {
                    self.events.emit(&Event::Resumed { scope });
                }
                if survey.pauses.get(scope).is_some_and(Option::is_some) {
                    survey.pauses.remove(scope);
                }
                return Ok(scope == ENDPOINT);
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

    /// Grants a job or more to pages that may try although something is paused. Returns how long until
    /// there is more to try.
    async fn probe(&mut self, survey: &Survey) -> Result<Option<Millis>> {
        let pauses = &survey.pauses;
        let endpoint = pauses.contains_key(ENDPOINT);
        self.probes
            .keep(|page| endpoint || pauses.contains_key(&page_scope(page)));
        let free = self.slots.free().min(PAGES);
        if pauses.is_empty() || free == 0 {
            return Ok(None);
        }
        let now = survey.now;
        let due = survey.lanes.iter().filter(|p| p.due <= now);
        let with_work: BTreeSet<&str> = due
            .map(|p| &p.page)
            .chain(&survey.marks)
            .map(|p| &**p)
            .collect();
        let (secrets, probes) = (&self.settings.secrets, &self.probes.pages);
        let with_work = with_work
            .into_iter()
            .filter(|page| secrets.has(page) && !probes.contains_key(*page));
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
            let scope = page_scope(&page);
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

    /// Reads which pages have work and may send, and draws from the rates of those that have one.
    pub(super) async fn admit(&mut self, mut survey: Survey, step: &mut Step) -> Result<Pages> {
        let mut pages = Pages::default();
        self.write_pauses(&mut survey, step).await?;
        if self.draining {
            return Ok(pages);
        }
        let mut waits: Vec<Millis> = self.probe(&survey).await?.into_iter().collect();
        let Survey {
            now,
            pauses,
            lanes: mut with_lanes,
            mut marks,
            timer,
            ..
        } = survey;
        let mut eligible = HashSet::new();
        let stopped = pauses.contains_key("all") || pauses.contains_key(ENDPOINT);
        for page in with_lanes.iter().map(|p| &p.page).chain(&marks) {
            let paused = || stopped || pauses.contains_key(&page_scope(page));
            if eligible.contains(page) || !self.is_probed(page) && paused() {
                continue;
            }
            if self.settings.secrets.has(page) {
                eligible.insert(page.clone());
            } else if self.breaker().lacks_secret(page) {
                self.events.emit(&Event::NoSecret { page });
            }
        }
        pages.eligible = Arc::new(eligible);
        // Of a page that is paused, too: it is probed once one of its lanes is due.
        waits.extend(
            with_lanes
                .iter()
                .filter(|p| p.due > now)
                .map(|p| p.due - now),
        );
        with_lanes.retain(|p| pages.eligible.contains(&p.page));
        marks.retain(|p| pages.eligible.contains(p));
        self.oldest_due(&with_lanes, now);
        let due = with_lanes.iter().filter(|p| p.due <= now);
        let with_work = due.map(|p| &p.page).chain(&marks);
        self.slots.set_contenders(with_work.map(|page| &**page));
        pages.timers_due = timer.is_some_and(|at| at <= now);
        waits.extend(timer.map(|at| at - now));
        let is_due = with_lanes.iter().any(|page| page.due <= now);
        let mut due = Vec::new();
        for lanes::Page { page, due: at } in with_lanes {
            if at <= now && self.slots.share(&page) > 0 {
                due.push(page);
            }
        }
        // Marks of a page without a slot can wait; lanes made of them would only lie there.
        let with_marks = marks.len();
        marks.retain(|page| self.slots.may_take(page));
        let all_marks = marks.len() == with_marks && with_marks <= PAGES;
        pages.is_calm = pauses.is_empty() && !is_due && !pages.timers_due && all_marks;
        step.more |= marks.len() > PAGES && self.slots.free() > 0;
        // The pages take turns, and what their rates allow is drawn for those whose turn it is: to draw for
        // thousands takes longer than what is drawn may be kept.
        if due.len() > PAGES {
            waits.push(1);
        }
        for page in self.turns.due.take(due) {
            match self.draw(&page).await? {
                Some(wait) => waits.push(wait),
                None => pages.due.push(page.into()),
            }
        }
        for page in self.turns.marks.take(marks) {
            self.draw(&page).await?;
            pages.marks.push(page.into());
        }
        // A new probe goes to who has just come, not to who has failed before.
        let (marks, probes) = (&pages.marks, &self.probes.pages);
        pages.due.retain(|page| {
            let is_new = probes.get(&**page).is_some_and(|probe| probe.is_new);
            !is_new || !marks.contains(page)
        });
        let next = waits.into_iter().min().map(span);
        step.next_in = step.next_in.into_iter().chain(next).min();
        Ok(pages)
    }

    pub(super) fn oldest_due(&self, with_lanes: &[lanes::Page], now: Millis) {
        let oldest = with_lanes
            .iter()
            .map(|p| now - p.due)
            .max()
            .unwrap_or_default();
        self.events.set_oldest_due(span(oldest));
    }

    pub(super) fn rate(&self, page: &str) -> Option<f64> {
        self.settings
            .rates
            .get(page)
            .copied()
            .or(self.settings.default_rate)
    }

    /// Makes sure that a page with a rate has some of it in hand; else says how long until it has.
    pub(super) async fn draw(&mut self, page: &str) -> Result<Option<Millis>> {
        let Some(rate) = self.rate(page) else {
            return Ok(None);
        };
        let wanted = self.slots.share(page);
        if self.by_rate(page) > 0 || wanted == 0 {
            return Ok(None);
        }
        let drawn = rates::draw(&self.pool, page, rate, wanted).await?;
        let allowance = Allowance {
            left: drawn.granted,
            drawn: BootInstant::now(),
        };
        if self.allowances.len() > KNOWN_ALLOWANCES {
            self.allowances
                .retain(|_, allowance| allowance.drawn.elapsed() < ALLOWED_FOR);
        }
        self.allowances.insert(page.to_owned(), allowance);
        Ok((drawn.granted == 0).then_some(drawn.wait))
    }

    /// Requests that the rate of a page, and what is being probed, allow now.
    pub(super) fn allowance(&self, page: &str) -> usize {
        let by_probe = self.probes.pages.get(page).map(|probe| probe.left);
        self.by_rate(page).min(by_probe.unwrap_or(usize::MAX))
    }

    /// How many lanes of a page that is probed to put into hand for so many slots: some more, since the first
    /// heads may be expired or invalid.
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
