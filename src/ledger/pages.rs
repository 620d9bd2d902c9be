//! Which pages have work and may send, and how much of their rates is in hand.
//!
//! The first part of a cycle: what the survey saw, less what is paused, has no secret, has no slot
//! or no rate left. It refuses to touch lanes and jobs.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::{Ledger, PAGES, Step, span};
use crate::breaker::{Breaker, Change, ENDPOINT, Settings as Circuit, breadth, page_scope};
use crate::clock::{BootInstant, Millis, millis};
use crate::events::Event;
use crate::store::lanes::{self, Survey};
use crate::store::{Result, pauses, rates};

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
    pub eligible: HashSet<String>,
    /// Of those, the ones with due lanes and a slot to send with.
    pub due: Vec<String>,
    /// Of those, the ones with marks.
    pub marks: Vec<String>,
    pub timers_due: bool,
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

impl Ledger {
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
    pub(super) async fn pages(&mut self, mut survey: Survey, step: &mut Step) -> Result<Pages> {
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
            marks,
            timer,
            ..
        } = survey;
        pages.marks = marks;
        let stopped = pauses.contains_key("all") || pauses.contains_key(ENDPOINT);
        for page in with_lanes.iter().map(|p| &p.page).chain(&pages.marks) {
            let paused = || stopped || pauses.contains_key(&page_scope(page));
            if pages.eligible.contains(page) || !self.is_probed(page) && paused() {
                continue;
            }
            if self.settings.secrets.has(page) {
                pages.eligible.insert(page.clone());
            } else if self.breaker().lacks_secret(page) {
                self.events.emit(&Event::NoSecret { page });
            }
        }
        with_lanes.retain(|p| pages.eligible.contains(&p.page));
        pages.marks.retain(|p| pages.eligible.contains(p));
        self.oldest_due(&with_lanes, now);
        let due = with_lanes.iter().filter(|p| p.due <= now);
        let with_work = due.map(|p| &p.page).chain(&pages.marks);
        self.slots.set_contenders(with_work.map(|page| &**page));
        pages.timers_due = timer.is_some_and(|at| at <= now);
        waits.extend(timer.map(|at| at - now));
        let mut due = Vec::new();
        for lanes::Page { page, due: at } in with_lanes {
            match at > now {
                true => waits.push(at - now),
                false if self.slots.share(&page) > 0 => due.push(page),
                false => {}
            }
        }
        // Marks of a page without a slot can wait; lanes made of them would only lie there.
        pages.marks.retain(|page| self.slots.may_take(page));
        step.more |= pages.marks.len() > PAGES && self.slots.free() > 0;
        // The pages take turns, and what their rates allow is drawn for those whose turn it is: to draw for
        // thousands takes longer than what is drawn may be kept.
        if due.len() > PAGES {
            waits.push(1);
        }
        for page in self.turns.due.take(due) {
            match self.draw(&page).await? {
                Some(wait) => waits.push(wait),
                None => pages.due.push(page),
            }
        }
        pages.marks = self.turns.marks.take(pages.marks);
        for page in &pages.marks {
            self.draw(page).await?;
        }
        // A new probe goes to who has just come, not to who has failed before.
        let (marks, probes) = (&pages.marks, &self.probes.pages);
        pages.due.retain(|page| {
            let is_new = probes.get(page).is_some_and(|probe| probe.is_new);
            !is_new || !marks.contains(page)
        });
        step.next_in = waits.into_iter().min().map(span);
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

    /// How many lanes of a page to take in hand: for a probe some more than the one job that may go
    /// out, since the first heads may be expired, invalid or waiting.
    pub(super) fn reach(&self, page: &str) -> usize {
        match self.allowance(page) {
            0 => 0,
            _ if self.is_probed(page) => self.by_rate(page).min(PROBED),
            allowed => allowed,
        }
    }

    /// True if the page is paused, and sends only to see whether it is well.
    pub(super) fn is_probed(&self, page: &str) -> bool {
        self.probes.pages.contains_key(page)
    }

    /// True if any page is probed.
    pub(super) fn probes_any(&self) -> bool {
        !self.probes.pages.is_empty()
    }

    fn by_rate(&self, page: &str) -> usize {
        match self.allowances.get(page) {
            _ if self.rate(page).is_none() => usize::MAX,
            Some(allowance) if allowance.drawn.elapsed() < ALLOWED_FOR => allowance.left,
            _ => 0,
        }
    }

    /// Uses one of them.
    pub(super) fn spend(&mut self, page: &str) -> bool {
        let left = self.allowance(page);
        if let Some(allowance) = self.allowances.get_mut(page) {
            allowance.left = allowance.left.saturating_sub(1);
        }
        if let Some(probe) = self.probes.pages.get_mut(page) {
            probe.left = probe.left.saturating_sub(1);
        }
        left > 0
    }
}
