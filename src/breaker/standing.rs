//! What was last seen of a page, and of the endpoint.

use super::window::Window;
use super::{FORGOTTEN, NAMED, PAGES, Settings};
use crate::clock::BootInstant;
use crate::job::PageId;
use std::time::Duration;

/// Failures in a row, and their recipients.
#[derive(Debug, Default)]
pub(super) struct Series {
    pub(super) attempts: usize,
    /// As many recipients as must be told apart.
    pub(super) lanes: Vec<u64>,
    last: Option<BootInstant>,
}

impl Series {
    /// One more; `most` recipients are told apart. True if it began anew.
    pub(super) fn count(&mut self, now: BootInstant, lane: u64, most: usize) -> bool {
        let anew = self.last.is_none_or(|last| now.since(last) > FORGOTTEN);
        if anew {
            self.clear();
        }
        self.last = Some(now);
        self.attempts = self.attempts.saturating_add(1);
        if self.lanes.len() < most && !self.lanes.contains(&lane) {
            self.lanes.push(lane);
        }
        anew
    }

    /// A job passed.
    pub(super) fn clear(&mut self) {
        self.attempts = 0;
        self.lanes.clear();
        self.last = None;
    }

    fn is_enough(&self, settings: &Settings) -> bool {
        self.attempts >= settings.attempts && self.lanes.len() >= settings.recipients
    }
}

/// True if no job has passed for as long as the circuit looks back.
fn nobody_passes(passed: Option<BootInstant>, now: BootInstant, window: Duration) -> bool {
    passed.is_none_or(|passed| now.since(passed) >= window)
}

/// A page.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) seen: Option<BootInstant>,
    /// It has answered well since it was last refused.
    pub(super) well: bool,
    passed: Option<BootInstant>,
    /// Refusals that ask for a pause, since the last success.
    pub(super) refused: Series,
    /// Failures since the last success.
    pub(super) failed: Series,
    /// Its attempts of the last seconds.
    pub(super) window: Window,
    /// By which rule it is paused, as far as is known.
    pub(super) rule: Option<String>,
    /// Its tries while the endpoint is paused.
    pub(super) trial: Option<Trial>,
}

/// When a page without a pause of its own may next try a job while the endpoint is paused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    /// During which of the endpoint's pauses.
    pub(super) epoch: u64,
    pub(super) next: BootInstant,
    pub(super) wait: Duration,
}

impl Standing {
    pub(super) fn passes(&mut self, now: BootInstant) {
        self.well = true;
        self.passed = Some(now);
        self.refused.clear();
        self.failed.clear();
        self.rule = None;
    }

    /// True if enough has failed in a row.
    pub(super) fn fails(&self, settings: &Settings, now: BootInstant) -> bool {
        self.failed.is_enough(settings) && nobody_passes(self.passed, now, settings.window)
    }

    /// Another worker or an operator has ended its pause.
    pub(super) fn begin_anew(&mut self) {
        self.refused.clear();
        self.failed.clear();
        self.window.clear();
        self.rule = None;
    }

    pub(super) fn is_fresh(&self, now: BootInstant) -> bool {
        self.seen.is_some_and(|seen| now.since(seen) < FORGOTTEN)
    }
}

/// All pages together, except failures of pages that are paused themselves.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    /// It has answered since a page last met a wrong URL.
    pub(super) well: bool,
    passed: Option<BootInstant>,
    failed: Series,
    /// Pages that failed since it passed.
    pub(super) pages: Vec<PageId>,
    /// Of them, those that were told that the URL is wrong.
    astray: Vec<PageId>,
    /// By which rule it is paused, as far as is known.
    pub(super) rule: Option<String>,
}

impl Endpoint {
    pub(super) fn passes(&mut self, now: BootInstant) {
        self.well = true;
        self.passed = Some(now);
        self.begin_anew();
    }

    pub(super) fn begin_anew(&mut self) {
        self.failed.clear();
        self.pages.clear();
        self.astray.clear();
        self.rule = None;
    }

    pub(super) fn fails(
        &mut self,
        settings: &Settings,
        now: BootInstant,
        page: &PageId,
        lane: u64,
        astray: bool,
    ) {
        if self.failed.count(now, lane, settings.recipients) {
            self.pages.clear();
            self.astray.clear();
        }
        let note = |pages: &mut Vec<PageId>, most| {
            if pages.len() < most && !pages.iter().any(|known| known == page) {
                pages.push(page.clone());
            }
        };
        note(&mut self.pages, NAMED);
        if astray {
            note(&mut self.astray, PAGES);
        }
    }

    /// True if several pages fail and none passes.
    pub(super) fn is_down(&self, settings: &Settings, now: BootInstant) -> bool {
        let fails = self.pages.len() >= PAGES && self.failed.is_enough(settings);
        self.astray.len() >= PAGES || fails && nobody_passes(self.passed, now, settings.window)
    }
}
