//! Which pages have something to do, and when: what surveys have seen of them.
//!
//! A few pages are looked at in each survey. Of more than that, a survey looks at those whose time has come, at those
//! of which this ledger has changed something, at those of new jobs, and walks on a little over all of them. What cannot
//! be sent (no secret, an operator's pause) is not kept here: such pages cost nothing but their part of the walk.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::time::Duration;

use crate::clock::{BootInstant, Millis, millis};
use crate::job::{JobId, PageId};
use crate::store::survey::{Question, Survey, WALK};

/// Most pages that a survey looks at because their time has come.
const ASKED: usize = 128;
/// How long a walk over all pages takes if nothing hurries it.
const ROUND: Duration = Duration::from_secs(15);
/// Jobs that were newest so long ago are no longer new: who inserted before them has committed, or is met on the walk.
const NEW_FOR: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// When each page wants to be looked at, on the database's clock.
    wakes: BTreeMap<PageId, Millis>,
    /// The same by time: who has waited longest comes first. Of one time each ledger has an order of its own, so that two
    /// do not always ask the same pages.
    order: BTreeSet<(Millis, u64, PageId)>,
    hasher: RandomState,
    /// Pages of which this ledger has changed something.
    touched: HashSet<PageId>,
    /// Pages that the last survey was asked to look at.
    asked: HashSet<PageId>,
    /// Pages that it found by their new jobs: nobody has waited for a turn of theirs.
    new: HashSet<PageId>,
    walk: Walk,
    /// The newest job of a survey a second ago, and of a later one.
    newest: Option<(JobId, JobId, BootInstant)>,
    /// The database's clock, and when it was read.
    clock: Option<(Millis, BootInstant)>,
}

/// Where the walk over all pages is.
#[derive(Debug, Default)]
struct Walk {
    from: PageId,
    /// The last one came from the beginning to the end.
    is_whole: bool,
    /// The last one has found something to do, and goes on at once.
    hurries: bool,
    last: Option<BootInstant>,
    /// Steps since the beginning, and of the round before.
    steps: u32,
    round: u32,
}

impl Walk {
    /// How long until its next step.
    fn next_in(&self) -> Duration {
        match self.last {
            // Not on the first round.
            Some(last) if !self.is_whole && !self.hurries && self.round > 0 => {
                (ROUND / self.round.max(self.steps)).saturating_sub(last.elapsed())
            }
            _ => Duration::ZERO,
        }
    }

    fn step(&mut self, to: Option<PageId>) {
        self.last = Some(BootInstant::now());
        self.steps += 1;
        self.is_whole = self.from.is_empty() && to.is_none();
        if to.is_none() {
            self.round = std::mem::take(&mut self.steps);
        }
        self.from = to.unwrap_or_default();
    }
}

impl Agenda {
    /// What the next survey looks at; `also` in any case.
    pub fn question(&mut self, also: impl Iterator<Item = PageId>) -> Question {
        let mut pages: HashSet<PageId> = also.collect();
        let walks = self.walk.next_in().is_zero();
        let mut newer_than = JobId::MAX;
        if !(self.walk.is_whole && walks) {
            pages.extend(self.touched.drain());
            pages.extend(self.due().take(ASKED).cloned());
            newer_than = self.newest.map_or(JobId::MAX, |(then, ..)| then);
        }
        self.touched.clear();
        self.asked.clone_from(&pages);
        Question {
            from: self.walk.from.clone(),
            walk: if walks { WALK } else { 0 },
            newer_than,
            pages: pages.into_iter().collect(),
        }
    }

    /// Takes note of a survey: of pages over which it has walked and that it has not seen, nothing is left.
    pub fn note(&mut self, question: &Question, survey: &Survey) {
        let now = BootInstant::now();
        self.clock = Some((survey.now, now));
        self.newest = match self.newest {
            Some((then, later, at)) if survey.newest >= later => match now.since(at) < NEW_FOR {
                true => Some((then, later, at)),
                false => Some((later, survey.newest, now)),
            },
            // The first survey, or ids that have begun anew.
            _ => Some((survey.newest, survey.newest, now)),
        };
        let (from, to) = (&question.from, survey.walked_to.as_ref());
        let is_walked =
            |page: &PageId| question.walk > 0 && page > from && to.is_none_or(|to| page <= to);
        let found = survey.pages.iter().map(|page| &page.page);
        let is_new = |page: &&PageId| {
            !is_walked(page) && !self.asked.contains(*page) && !self.wakes.contains_key(*page)
        };
        self.new = found.filter(is_new).cloned().collect();
        if question.walk > 0 {
            let seen: HashSet<&PageId> = survey.pages.iter().map(|page| &page.page).collect();
            let to = match &survey.walked_to {
                Some(page) => Included(page),
                None => Unbounded,
            };
            let walked = self
                .wakes
                .range::<PageId, _>((Excluded(&question.from), to));
            let gone = walked
                .map(|(page, _)| page)
                .filter(|page| !seen.contains(page));
            for page in gone.cloned().collect::<Vec<_>>() {
                self.set(&page, None);
            }
            self.walk.step(survey.walked_to.clone());
        }
        self.walk.hurries = false;
    }

    /// True if surveys look at all pages.
    pub fn is_whole(&self) -> bool {
        self.walk.is_whole
    }

    /// The walk goes on at once.
    pub fn hurry(&mut self) {
        self.walk.hurries = true;
    }

    /// When a page wants to be looked at, if at all; one that waits keeps its place.
    pub fn wants(&mut self, page: &PageId, at: Option<Millis>, now: Millis) {
        let waits = self.wakes.get(page).is_some_and(|wake| *wake <= now);
        if at.is_none_or(|at| at > now) || !waits {
            self.set(page, at.map(|at| at.max(now)));
        }
        if at.is_some_and(|at| at <= now) && !waits && !self.asked.contains(page) {
            self.walk.hurries = true;
        }
    }

    /// A page has had its turn, or cannot take it: if it still wants something, it is the last.
    pub fn set(&mut self, page: &PageId, at: Option<Millis>) {
        let before = match at {
            Some(at) => self.wakes.insert(page.clone(), at),
            None => self.wakes.remove(page),
        };
        let draw = self.hasher.hash_one(page);
        if let Some(before) = before {
            self.order.remove(&(before, draw, page.clone()));
        }
        if let Some(at) = at {
            self.order.insert((at, draw, page.clone()));
        }
    }

    /// True if the survey found the page by a new job.
    pub fn is_new(&self, page: &str) -> bool {
        self.new.contains(page)
    }

    /// Where a page stands among those that wait.
    pub fn place(&self, page: &PageId) -> (Millis, u64) {
        let since = self.wakes.get(page).copied().unwrap_or(Millis::MAX);
        (since, self.hasher.hash_one(page))
    }

    /// This ledger has changed something about a page: the next survey looks at it.
    pub fn touch(&mut self, page: &PageId) {
        self.touched.insert(page.clone());
    }

    /// Nothing is known to be left.
    pub fn is_empty(&self) -> bool {
        self.wakes.is_empty() && self.walk.is_whole
    }

    /// All of it may be otherwise by now, as far as it was put off.
    pub fn wake_all(&mut self, now: Millis) {
        let later = self.order.range((now, 0, PageId::default())..);
        for (.., page) in later.cloned().collect::<Vec<_>>() {
            self.set(&page, Some(now));
        }
    }

    /// True if a page has waited since before `now`.
    pub fn has_older(&self, now: Millis) -> bool {
        self.order.first().is_some_and(|(wake, ..)| *wake < now)
    }

    /// How long until it has something new to ask.
    pub fn next_in(&self, now: Millis) -> Option<Millis> {
        let next = self.order.range((now + 1, 0, PageId::default())..).next();
        let next = next.map(|(wake, ..)| wake - now);
        let walk = (!self.walk.is_whole).then(|| millis(self.walk.next_in()).max(1));
        next.into_iter().chain(walk).min()
    }

    /// Pages whose time has come, who has waited longest first.
    fn due(&self) -> impl Iterator<Item = &PageId> {
        let now = self
            .clock
            .map_or(0, |(then, at)| then + millis(at.elapsed()));
        let due = self.order.iter().take_while(move |(wake, ..)| *wake <= now);
        due.map(|(.., page)| page)
    }
}
