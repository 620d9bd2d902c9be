//! The attempts of the last seconds, by which the circuit of the endpoint opens.
//!
//! Counted in parts, each forgotten as a whole. Pages and recipients are told apart by their hashes.

use std::collections::{HashSet, VecDeque};

use super::Settings;
use crate::clock::BootInstant;

/// Parts of the window.
const PARTS: u32 = 10;

/// An attempt as the window sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) page: u64,
    pub(super) lane: u64,
    pub(super) failed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Window {
    parts: VecDeque<Part>,
}

#[derive(Debug)]
struct Part {
    began: BootInstant,
    attempts: usize,
    failed: usize,
    /// As many recipients as must be told apart.
    lanes: Vec<u64>,
    /// Up to two pages of those that failed, and of the others.
    failing: Vec<u64>,
    passing: Vec<u64>,
}

impl Window {
    /// Takes in an attempt, and forgets what is too old.
    pub(super) fn count(&mut self, settings: &Settings, now: BootInstant, attempt: Attempt) {
        let old = |part: &Part| now.since(part.began) >= settings.window;
        while self.parts.front().is_some_and(old) {
            self.parts.pop_front();
        }
        let full = |part: &Part| now.since(part.began) >= settings.window / PARTS;
        if self.parts.back().is_none_or(full) {
            self.parts.push_back(Part::new(now));
        }
        if let Some(part) = self.parts.back_mut() {
            part.count(settings, attempt);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
    }

    /// True if most attempts failed, and those were enough.
    pub(super) fn trips(&self, settings: &Settings) -> bool {
        let attempts: usize = self.parts.iter().map(|p| p.attempts).sum();
        let failed: usize = self.parts.iter().map(|p| p.failed).sum();
        let lanes = self.parts.iter().flat_map(|p| p.lanes.iter().copied());
        let lanes: HashSet<u64> = lanes.collect();
        #[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
        let failing = failed as f64 >= settings.failing * attempts as f64;
        attempts >= settings.attempts && lanes.len() >= settings.recipients && failing
    }

    /// True if all that failed are this page's.
    pub(super) fn fails_only(&self, page: u64) -> bool {
        let mut failing = self.parts.iter().flat_map(|part| &part.failing);
        failing.all(|other| *other == page)
    }

    /// True if other pages pass.
    pub(super) fn passes_others(&self, page: u64) -> bool {
        let mut passing = self.parts.iter().flat_map(|part| &part.passing);
        passing.any(|other| *other != page)
    }
}

impl Part {
    fn new(began: BootInstant) -> Self {
        Self {
            began,
            attempts: 0,
            failed: 0,
            lanes: Vec::new(),
            failing: Vec::new(),
            passing: Vec::new(),
        }
    }

    fn count(&mut self, settings: &Settings, attempt: Attempt) {
        self.attempts += 1;
        self.failed += usize::from(attempt.failed);
        if self.lanes.len() < settings.recipients && !self.lanes.contains(&attempt.lane) {
            self.lanes.push(attempt.lane);
        }
        let pages = match attempt.failed {
            true => &mut self.failing,
            false => &mut self.passing,
        };
        if pages.len() < 2 && !pages.contains(&attempt.page) {
            pages.push(attempt.page);
        }
    }
}
