//! Which pages have work and may send, and how much of their rates is in hand.
//!
//! The first part of a cycle: what the survey saw, less what is paused, has no secret, has no slot
//! or no rate left. It refuses to touch lanes and jobs.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::{Ledger, PAGES, Step, span};
use crate::breaker::{Breaker, Change, ENDPOINT, page_scope};
use crate::clock::{BootInstant, Millis, millis};
use crate::events::Event;
use crate::store::lanes::{self, Survey};
use crate::store::{Result, pauses, rates};

/// Most lanes taken in hand to find one job for a probe.
const PROBED: usize = 64;
/// How long what a rate allowed may be kept: what piles up would go out beside what it allows then.
const ALLOWED_FOR: Duration = Duration::from_secs(1);

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

/// How many jobs this cycle may send of what is paused: one each.
#[derive(Debug, Default)]
pub(super) struct Probes {
    pages: HashMap<String, usize>,
    endpoint: Option<usize>,
}

impl Ledger {
    /// Writes the pauses that the senders' judgements ask for, and tells the senders what is paused.
    async fn write_pauses(&mut self, survey: &mut Survey) -> Result<()> {
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
            if let Err(error) = self.write_pause(change, survey).await {
                self.breaker().keep(changes.into());
                return Err(error);
            }
            changes.pop_front();
        }
        self.breaker().set_paused(survey.pauses.keys());
        Ok(())
    }

    async fn write_pause(&self, change: &Change, survey: &mut Survey) -> Result<()> {
        match change {
            Change::Open { scope, why, wait } => {
                let (worker, now) = (&self.settings.worker, survey.now);
                if pauses::open(&self.pool, scope, worker, why, now, *wait).await? {
                    let (scope, why, probe_in) = (scope.as_str(), why.as_str(), *wait);
                    self.events.emit(&Event::Paused {
                        scope,
                        why,
                        probe_in,
                    });
                    survey
                        .pauses
                        .insert(scope.to_owned(), Some(now + millis(*wait)));
                } else {
                    survey.pauses.entry(scope.clone()).or_insert(None);
                }
            }
            Change::Close { scope } => {
                if pauses::close(&self.pool, scope).await? {
                    self.events.emit(&Event::Resumed { scope });
                }
                if survey.pauses.get(scope).is_some_and(Option::is_some) {
                    survey.pauses.remove(scope);
                }
            }
        }
        Ok(())
    }

    /// Takes the right to probe what is due to be probed: it leaves the pauses of this cycle, with an
    /// allowance of one job. Returns how long until the next probes.
    async fn probe(&mut self, survey: &mut Survey) -> Result<Vec<Millis>> {
        self.probes = Probes::default();
        let (now, mut waits) = (survey.now, Vec::new());
        let none = survey.pauses.values().all(Option::is_none);
        if none || survey.pauses.contains_key("all") || self.slots.free() == 0 {
            return Ok(waits);
        }
        let endpoint = survey.pauses.get(ENDPOINT).copied();
        match endpoint {
            Some(None) => return Ok(waits),
            Some(Some(at)) if at > now => return Ok(vec![at - now]),
            _ => {}
        }
        let due = survey
            .lanes
            .iter()
            .filter(|p| p.due <= now)
            .map(|p| &p.page);
        let with_work: BTreeSet<&String> = due.chain(&survey.marks).collect();
        let (mut open, mut probed) = (false, Vec::new());
        for page in with_work
            .into_iter()
            .filter(|page| self.settings.secrets.has(page))
        {
            match survey.pauses.get(&page_scope(page)) {
                None => open = true,
                Some(None) => {}
                Some(Some(at)) if *at > now => waits.push(*at - now),
                Some(_) => probed.push(page.clone()),
            }
        }
        let longest = self.breaker().settings().max_probe;
        if endpoint.is_some() {
            // Through an endpoint that is paused goes one job, of a page that is not if there is one.
            probed.truncate(usize::from(!open));
            let any = open || !probed.is_empty();
            if !any || !pauses::probe(&self.pool, ENDPOINT, now, longest).await? {
                return Ok(waits);
            }
            self.probes.endpoint = Some(1);
            survey.pauses.remove(ENDPOINT);
        }
        for page in probed.into_iter().take(self.slots.free().min(PAGES)) {
            let scope = page_scope(&page);
            if pauses::probe(&self.pool, &scope, now, longest).await? {
                self.probes.pages.insert(page, 1);
                survey.pauses.remove(&scope);
            }
        }
        Ok(waits)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.settings
            .breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads which pages have work and may send, and draws from the rates of those that have one.
    pub(super) async fn pages(&mut self, mut survey: Survey, step: &mut Step) -> Result<Pages> {
        let mut pages = Pages::default();
        self.write_pauses(&mut survey).await?;
        if self.draining {
            return Ok(pages);
        }
        let mut waits = self.probe(&mut survey).await?;
        let Survey {
            now,
            pauses,
            lanes: mut with_lanes,
            marks,
            timer,
        } = survey;
        pages.marks = marks;
        let stopped = pauses.contains_key("all") || pauses.contains_key(ENDPOINT);
        for page in with_lanes.iter().map(|p| &p.page).chain(&pages.marks) {
            if stopped || pauses.contains_key(&page_scope(page)) || pages.eligible.contains(page) {
                continue;
            }
            if self.settings.secrets.has(page) {
                pages.eligible.insert(page.clone());
            } else if self.breaker().lacks_secret(page) {
                self.events.emit(&Event::NoSecret { page });
            }
        }
        self.breaker().set_several(pages.eligible.len() > 1);
        with_lanes.retain(|p| pages.eligible.contains(&p.page));
        pages.marks.retain(|p| pages.eligible.contains(p));
        self.oldest_due(&with_lanes, now);
        let due = with_lanes.iter().filter(|p| p.due <= now);
        let with_work = due.map(|p| &p.page).chain(&pages.marks);
        self.slots.set_contenders(with_work.map(|page| &**page));
        pages.timers_due = timer.is_some_and(|at| at <= now);
        waits.extend(timer.map(|at| at - now));
        for lanes::Page { page, due } in with_lanes {
            if due > now {
                waits.push(due - now);
            } else if let Some(wait) = self.draw(&page).await? {
                waits.push(wait);
            } else if self.slots.share(&page) > 0 {
                pages.due.push(page);
            }
        }
        // Marks of a page without a slot can wait; lanes made of them would only lie there.
        pages.marks.retain(|page| self.slots.may_take(page));
        for page in &pages.marks {
            self.draw(page).await?;
        }
        self.first = self.first.wrapping_add(1);
        for turns in [&mut pages.due, &mut pages.marks] {
            let first = self.first % turns.len().max(1);
            turns.rotate_left(first);
        }
        step.more |= pages.marks.len() > PAGES && self.slots.free() > 0;
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
        self.allowances.insert(page.to_owned(), allowance);
        Ok((drawn.granted == 0).then_some(drawn.wait))
    }

    /// Requests that the rate of a page, and what is being probed, allow now.
    pub(super) fn allowance(&self, page: &str) -> usize {
        let by_probe = self.probes.pages.get(page).copied();
        let by_endpoint = self.probes.endpoint;
        self.by_rate(page)
            .min(by_probe.unwrap_or(usize::MAX))
            .min(by_endpoint.unwrap_or(usize::MAX))
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

    /// True if this cycle sends one job of the page to see whether it is well.
    pub(super) fn is_probed(&self, page: &str) -> bool {
        self.probes.endpoint.is_some() || self.probes.pages.contains_key(page)
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
        for left in self
            .probes
            .pages
            .get_mut(page)
            .into_iter()
            .chain(&mut self.probes.endpoint)
        {
            *left = left.saturating_sub(1);
        }
        left > 0
    }
}
