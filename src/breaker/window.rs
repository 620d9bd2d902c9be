//! The attempts of a page in the last seconds, by which it pauses if most of them fail.
//!
//! Counted in parts, each forgotten as a whole. Recipients are told apart by their hashes.

use std::collections::{HashSet, VecDeque};

use super::Settings;
use crate::clock::BootInstant;

/// Parts of the window.
const PARTS: u32 = 10;

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
}

impl Window {
    /// Takes in an attempt, and forgets what is too old.
    pub(super) fn count(&mut self, settings: &Settings, now: BootInstant, lane: u64, failed: bool) {
        let old = |part: &Part| now.since(part.began) >= settings.window;
        while self.parts.front().is_some_and(old) {
            self.parts.pop_front();
        }
        let full = |part: &Part| now.since(part.began) >= settings.window / PARTS;
        if self.parts.back().is_none_or(full) {
            self.parts.push_back(Part {
                began: now,
                attempts: 0,
                failed: 0,
                lanes: Vec::new(),
            });
        }
        if let Some(part) = self.parts.back_mut() {
            part.attempts += 1;
            part.failed += usize::from(failed);
            if part.lanes.len() < settings.recipients && !part.lanes.contains(&lane) {
                part.lanes.push(lane);
            }
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
        #[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
        let failing = failed as f64 >= settings.failing * attempts as f64;
        if attempts < settings.attempts || !failing {
            return false;
        }
        let lanes = self.parts.iter().flat_map(|p| p.lanes.iter().copied());
        lanes.collect::<HashSet<u64>>().len() >= settings.recipients
    }
}
