//! Which pages have work and may send, and how much of their rates is in hand.
//!
//! The first part of a cycle: what the survey saw, less what is paused, has no secret, has no slot
//! or no rate left. It refuses to touch lanes and jobs.

use std::collections::HashSet;
use std::time::Duration;

use super::{Ledger, PAGES, Step, span};
use crate::clock::{BootInstant, Millis};
use crate::events::Event;
use crate::store::lanes::{self, Survey};
use crate::store::{Result, rates};

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

impl Ledger {
    /// Reads which pages have work and may send, and draws from the rates of those that have one.
    pub(super) async fn pages(&mut self, survey: Survey, step: &mut Step) -> Result<Pages> {
        let mut pages = Pages::default();
        if self.draining {
            return Ok(pages);
        }
        let Survey {
            now,
            pauses,
            lanes: mut with_lanes,
            marks,
            timer,
        } = survey;
        pages.marks = marks;
        let stopped = pauses.contains("all") || pauses.contains("endpoint");
        for page in with_lanes.iter().map(|p| &p.page).chain(&pages.marks) {
            if stopped || pauses.contains(&format!("page:{page}")) || pages.eligible.contains(page)
            {
                continue;
            }
            if self.settings.secrets.has(page) {
                pages.eligible.insert(page.clone());
                self.silent.remove(page);
            } else if self.silent.insert(page.clone()) {
                self.events.emit(&Event::NoSecret { page });
            }
        }
        with_lanes.retain(|p| pages.eligible.contains(&p.page));
        pages.marks.retain(|p| pages.eligible.contains(p));
        self.oldest_due(&with_lanes, now);
        pages.timers_due = timer.is_some_and(|at| at <= now);
        let mut waits: Vec<Millis> = timer.map(|at| at - now).into_iter().collect();
        for lanes::Page { page, due } in with_lanes {
            if due > now {
                waits.push(due - now);
            } else if let Some(wait) = self.draw(&page).await? {
                waits.push(wait);
            } else if self.slots.share(&page) > 0 {
                pages.due.push(page);
            }
        }
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
        if self.allowance(page) > 0 || wanted == 0 {
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

    /// Requests that the rate of a page allows now.
    pub(super) fn allowance(&self, page: &str) -> usize {
        if self.rate(page).is_none() {
            return usize::MAX;
        }
        match self.allowances.get(page) {
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
        left > 0
    }
}
