//! Which pages have something to do, and when: what surveys have seen of them.
//!
//! A few pages are looked at in each survey. Of more than that, a survey looks at those whose time has come, at those
//! of which this ledger has changed something, at those of new jobs, and walks on a little over all of them. What cannot
//! be sent (no secret, an operator's pause) is not kept here: such pages cost nothing but their part of the walk.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::time::Duration;

use crate::clock::{BootInstant, Millis, millis};
use crate::job::{JobId, PageId};
use crate::store::survey::{From, Page, Question, Survey, WALK};

/// Most pages that a survey looks at because their time has come.
const ASKED: usize = 128;
/// How long a walk over all pages takes if nothing hurries it.
const ROUND: Duration = Duration::from_secs(15);
/// Walks that all take longer than this take at most a twentieth of the time: an old snapshot keeps what was
/// deleted from being forgotten.
const SLOW: Duration = Duration::from_millis(10);
/// By so many of them this is judged.
const STEPS: usize = 8;
/// What was newest so long ago is no longer new: who inserted before it has committed, or is met from the front.
const NEW_FOR: Duration = Duration::from_secs(1);
/// How often a page is looked at from the front.
const FRONT: Duration = Duration::from_secs(1);
/// Lanes become due no earlier than so long before they are written.
const LATE: Millis = 5000;
/// Trails after which old ones are forgotten.
const TRAILS: usize = 1000;

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
    /// Pages that were found by a new job and have not had a turn since.
    new: HashSet<PageId>,
    walk: Walk,
    /// The last survey has looked at all pages.
    saw_all: bool,
    /// The newest jobs.
    newest: Option<Newest>,
    /// There are new jobs at which the last survey has not looked.
    has_more_new: bool,
    /// Pages at which the last survey has looked from the front.
    front: HashSet<PageId>,
    /// Pages that were served lately, and from where to look at them.
    trails: HashMap<PageId, Trail>,
    /// The database's clock, and when it was read.
    clock: Option<(Millis, BootInstant)>,
}

/// The newest id of a second or two ago, and a later one.
#[derive(Debug, Clone, Copy)]
struct Newest {
    then: i64,
    later: i64,
    at: BootInstant,
}

impl Newest {
    fn new(id: i64, now: BootInstant) -> Self {
        Self {
            then: id,
            later: id,
            at: now,
        }
    }

    fn note(&mut self, id: i64, now: BootInstant) {
        if id < self.then.min(self.later) {
            // Ids have begun anew.
            *self = Self::new(id, now);
        } else if now.since(self.at) >= NEW_FOR {
            (self.then, self.later, self.at) = (self.later.max(self.then), id, now);
        }
    }
}

/// How far a page was looked at.
#[derive(Debug)]
struct Trail {
    marks: Newest,
    /// No lane was due before, when it was looked at from the front.
    due: Millis,
    front: Option<BootInstant>,
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
    /// What its last steps took.
    took: VecDeque<Duration>,
    /// Steps since the beginning, and of the round before.
    steps: u32,
    round: u32,
}

impl Walk {
    /// How long until its next step.
    fn next_in(&self) -> Duration {
        match self.last {
            Some(last) if self.is_slow() => (20 * self.least()).saturating_sub(last.elapsed()),
            // Not on the first round.
            Some(last) if !self.is_whole && !self.hurries && self.round > 0 => {
                (ROUND / self.round.max(self.steps)).saturating_sub(last.elapsed())
            }
            _ => Duration::ZERO,
        }
    }

    /// The least that one of the last steps took.
    fn least(&self) -> Duration {
        self.took.iter().min().copied().unwrap_or_default()
    }

    fn is_slow(&self) -> bool {
        self.is_whole && self.took.len() == STEPS && self.least() > SLOW
    }

    fn step(&mut self, to: Option<PageId>, took: Duration) {
        self.took.push_front(took);
        self.took.truncate(STEPS);
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
            pages.extend(self.new.iter().take(ASKED).cloned());
            pages.extend(self.due().take(ASKED).cloned());
            newer_than = self.newest.map_or(JobId::MAX, |newest| JobId(newest.then));
        }
        self.touched.clear();
        let from = |page: &PageId| (page.clone(), self.next_from(page));
        let from = pages.iter().map(from).collect();
        self.asked = pages;
        Question {
            from: self.walk.from.clone(),
            walk: if walks { WALK } else { 0 },
            newer_than,
            pages: from,
        }
    }

    /// From where to take lanes and marks of a page: from where the last survey has looked.
    pub fn from(&self, page: &str) -> From {
        match self.front.contains(page) {
            true => From::default(),
            false => self.next_from(page),
        }
    }

    /// From where the next survey looks at a page.
    fn next_from(&self, page: &str) -> From {
        match self.trails.get(page) {
            Some(trail) if trail.front.is_some_and(|front| front.elapsed() < FRONT) => From {
                mark: trail.marks.then,
                due: trail.due,
            },
            _ => From::default(),
        }
    }

    /// Marks of a page were taken, up to this one.
    pub fn took(&mut self, page: &PageId, mark: i64) {
        let now = BootInstant::now();
        if self.trails.len() > TRAILS {
            self.trails
                .retain(|_, trail| now.since(trail.marks.at) < 2 * NEW_FOR);
        }
        let new = || Trail {
            // The first marks may be newer than others that are not committed yet.
            marks: Newest::new(0, now),
            due: 0,
            front: None,
        };
        let trail = self.trails.entry(page.clone()).or_insert_with(new);
        trail.marks.note(mark, now);
    }

    /// Takes note of a survey, and of how long it took: of pages over which it has walked and that it has not seen,
    /// nothing is left.
    pub fn note(&mut self, question: &Question, survey: &Survey, took: Duration) {
        let now = BootInstant::now();
        self.clock = Some((survey.now, now));
        let newest = self.newest.get_or_insert(Newest::new(survey.newest.0, now));
        newest.note(survey.newest.0, now);
        if let Some(JobId(last)) = survey.more_behind {
            // The next survey goes on there, and comes soon.
            newest.then = last;
        }
        self.has_more_new = survey.more_behind.is_some();
        let asked: HashMap<&PageId, From> = question
            .pages
            .iter()
            .map(|(page, from)| (page, *from))
            .collect();
        let is_walked = |page: &PageId| {
            let to = survey.walked_to.as_ref();
            question.walk > 0 && *page > question.from && to.is_none_or(|to| page <= to)
        };
        self.front.clear();
        for Page { page, due, .. } in &survey.pages {
            let from = asked.get(page).copied().unwrap_or_default();
            if from != From::default() && !is_walked(page) {
                continue;
            }
            self.front.insert(page.clone());
            if let Some(trail) = self.trails.get_mut(page) {
                trail.front = Some(now);
                trail.due = due.unwrap_or(Millis::MAX).min(survey.now - LATE);
            }
        }
        self.saw_all = question.walk > 0 && question.from.is_empty() && survey.walked_to.is_none();
        let is_new = |page: &&Page| {
            let name = &page.page;
            page.is_new && !self.asked.contains(name) && !self.wakes.contains_key(name)
        };
        let new = survey.pages.iter().filter(is_new);
        self.new.extend(new.map(|page| page.page.clone()));
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
            self.walk.step(survey.walked_to.clone(), took);
        }
        self.walk.hurries = false;
    }

    /// True if the last survey has looked at all pages.
    pub fn saw_all(&self) -> bool {
        self.saw_all
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
            None => {
                self.new.remove(page);
                self.wakes.remove(page)
            }
        };
        let draw = self.hasher.hash_one(page);
        if let Some(before) = before {
            self.order.remove(&(before, draw, page.clone()));
        }
        if let Some(at) = at {
            self.order.insert((at, draw, page.clone()));
        }
    }

    /// True if the page was found by a new job, and has not had a turn since.
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
        let paced = !self.walk.is_whole || self.walk.is_slow();
        let walk = paced.then(|| millis(self.walk.next_in()).max(1));
        let new = self.has_more_new.then_some(1);
        next.into_iter().chain(walk).chain(new).min()
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
