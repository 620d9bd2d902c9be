//! How much of the worker a page may take: its share of the slots, and its rate.
//!
//! No I/O and no clock. ([`Slots`] is shared: it locks, and a slot gives itself back when dropped.) A page
//! takes a further slot only while it has fewer than [`GREED`] times the slots that are free, or more than
//! sixteen are: so some are always left for a page that comes later. (A dynamic threshold, Choudhury and
//! Hahne 1998, with α = 16.)
//!
//! While another page has work, too, a page takes only as many slots as its answers have earned: its quota
//! begins small, grows by one for each answer, and halves when an answer does not come (AIMD). What hangs
//! gives nothing back until its time is up, and earns nothing meanwhile. And it takes no more than half of
//! all, or than the others have not earned.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::job::PageId;

/// How many times the free slots a page may hold: with 256 slots a page alone gets 241 of them.
pub const GREED: usize = 16;
/// Free slots to keep for pages that come later.
const RESERVE: usize = 16;
/// A page's first quota is one slot in this many.
const FIRST: usize = 16;

/// Slots of this worker; each that is taken gives itself back.
#[derive(Debug, Clone)]
pub struct Slots {
    shares: Arc<Mutex<Shares>>,
}

impl Slots {
    /// `total` slots, all free.
    pub fn new(total: usize) -> Self {
        Self {
            shares: Arc::new(Mutex::new(Shares::new(total))),
        }
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Free slots.
    pub fn free(&self) -> usize {
        self.shares().free()
    }

    /// Slots in use.
    pub fn taken(&self) -> usize {
        self.shares().taken
    }

    /// Says which pages have work. Those that have none and hold no slot are forgotten.
    pub fn set_contenders<'p>(&self, with_work: impl Iterator<Item = &'p str>) {
        self.shares().set_contenders(with_work);
    }

    /// True if the page may take one more.
    pub fn may_take(&self, page: &str) -> bool {
        self.shares().may_take(page)
    }

    /// How many more the page may take now.
    pub fn share(&self, page: &str) -> usize {
        self.shares().share(page)
    }

    /// Takes a slot for a page, if it may have one.
    pub fn take(&self, page: &PageId) -> Option<Slot> {
        let mut shares = self.shares();
        shares.may_take(page).then(|| {
            shares.take(page);
            Slot {
                page: page.clone(),
                shares: Arc::clone(&self.shares),
                answered: None,
            }
        })
    }
}

/// A slot of a page; given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    page: PageId,
    shares: Arc<Mutex<Shares>>,
    answered: Option<bool>,
}

impl Slot {
    /// Gives it back: its request has ended, with an answer or without.
    pub fn ended(mut self, answered: bool) {
        self.answered = Some(answered);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        match self.answered {
            Some(answered) => shares.ended(&self.page, answered),
            None => shares.give_back(&self.page),
        }
    }
}

/// How many slots each page holds.
#[derive(Debug)]
struct Shares {
    total: usize,
    taken: usize,
    /// Several pages have work, or hold slots.
    contended: bool,
    /// What all of them have earned.
    earned: usize,
    pages: HashMap<String, Page>,
}

#[derive(Debug, Clone, Copy)]
struct Page {
    held: usize,
    /// How many it may hold while others have work: what its answers have earned.
    earned: usize,
}

impl Shares {
    /// `total` slots, all free.
    fn new(total: usize) -> Self {
        Self {
            total,
            taken: 0,
            contended: false,
            earned: 0,
            pages: HashMap::new(),
        }
    }

    /// Free slots.
    fn free(&self) -> usize {
        self.total - self.taken
    }

    /// Says which pages have work. Those that have none and hold no slot are forgotten.
    fn set_contenders<'p>(&mut self, with_work: impl Iterator<Item = &'p str>) {
        let with_work: HashSet<&str> = with_work.collect();
        self.pages
            .retain(|page, Page { held, .. }| *held > 0 || with_work.contains(&**page));
        let strangers = with_work
            .iter()
            .filter(|page| !self.pages.contains_key(**page));
        let strangers = strangers.count();
        self.contended = self.pages.len() + strangers > 1;
        let known = self.pages.values().map(|page| page.earned).sum::<usize>();
        self.earned = known + strangers * self.stranger().earned;
    }

    fn page(&self, page: &str) -> Page {
        self.pages.get(page).copied().unwrap_or(self.stranger())
    }

    /// A page not seen before.
    fn stranger(&self) -> Page {
        Page {
            held: 0,
            earned: (self.total / FIRST).max(1),
        }
    }

    /// True if the page may take one more.
    fn may_take(&self, page: &str) -> bool {
        self.may_hold(self.page(page), self.free())
    }

    fn may_hold(&self, Page { held, earned }: Page, free: usize) -> bool {
        let others = self.earned.saturating_sub(earned);
        let most = self
            .total
            .div_ceil(2)
            .max(self.total.saturating_sub(others));
        let is_fair = !self.contended || held < earned.min(most);
        // The last slot is for a page that holds none.
        let leaves_some = free > RESERVE || held < GREED * free && (free > 1 || held == 0);
        is_fair && leaves_some
    }

    /// How many more the page may take now.
    fn share(&self, page: &str) -> usize {
        let Page { held, earned } = self.page(page);
        let may_take = |more: &usize| {
            let held = held + more;
            self.may_hold(Page { held, earned }, self.free() - more)
        };
        (0..self.free()).take_while(may_take).count()
    }

    /// Takes a slot for a page.
    fn take(&mut self, page: &str) {
        self.taken += 1;
        match self.pages.get_mut(page) {
            Some(page) => page.held += 1,
            None => {
                let Page { earned, .. } = self.stranger();
                let taken = Page { held: 1, earned };
                self.pages.insert(page.to_owned(), taken);
            }
        }
    }

    /// Gives back a slot of a page that was not used after all.
    fn give_back(&mut self, page: &str) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(page) = self.pages.get_mut(page) {
            page.held = page.held.saturating_sub(1);
        }
    }

    /// Gives back a slot of a page whose request has ended, with an answer or without.
    fn ended(&mut self, page: &str, answered: bool) {
        self.give_back(page);
        let (total, least) = (self.total, self.stranger().earned);
        if let Some(Page { earned, .. }) = self.pages.get_mut(page) {
            *earned = match answered {
                true => (*earned + 1).min(total),
                false => (*earned / 2).max(least),
            };
        }
    }
}

/// How many requests of `wanted` a rate allows now, and when it allows the next one after them.
///
/// `next_at` is when the next request is allowed, in microseconds; up to one second's worth may be
/// saved up. Used inside a transaction, so that all workers together keep the rate.
pub fn allowance(rate: f64, next_at: i64, now: i64, wanted: usize) -> (usize, i64) {
    const SECOND: i64 = 1_000_000;
    let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturating; a rate of 1e-7 is bounded by the configuration"
    )]
    let gap = ((1e6 / rate) as i64).max(1);
    // At most one second's worth is saved up. A time more than one gap ahead was written before the clock was set back.
    let from = next_at.min(now + gap).max(now - (SECOND - gap).max(0));
    let allowed = if from > now {
        0
    } else {
        (now - from) / gap + 1
    };
    let granted = allowed.min(wanted).max(0);
    (
        usize::try_from(granted).unwrap_or_default(),
        from + granted * gap,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_leaves_slots_for_the_next_and_two_share_alike() {
        let mut slots = Shares::new(256);
        while slots.may_take("a") {
            slots.take("a");
        }
        assert_eq!((slots.taken, slots.free()), (241, 15));
        assert!(slots.may_take("b"));
        assert_eq!(slots.share("a"), 0);
    }

    /// Takes as many as may be taken; returns how many the page then holds.
    fn fill(slots: &mut Shares, page: &str) -> usize {
        assert_eq!(slots.share(page) > 0, slots.may_take(page));
        while slots.may_take(page) {
            slots.take(page);
        }
        slots.page(page).held
    }

    #[test]
    fn a_page_takes_what_it_has_earned_and_leaves_what_others_have() {
        for (with_work, held_by_b, most) in [
            (&["a"][..], 0, [241, 241]),
            (&["a", "b"], 0, [16, 240]),
            (&["b", "a", "b"], 0, [16, 240]),
            (&["a"], 1, [16, 240]),
        ] {
            let mut slots = Shares::new(256);
            (0..held_by_b).for_each(|_| slots.take("b"));
            slots.set_contenders(with_work.iter().copied());
            assert_eq!(fill(&mut slots, "a"), most[0], "{with_work:?}");
            for _ in 0..300 {
                slots.ended("a", true);
                slots.take("a");
            }
            slots.set_contenders(with_work.iter().copied());
            assert_eq!(fill(&mut slots, "a"), most[1], "{with_work:?}");
        }
        let mut slots = Shares::new(256);
        for _ in 0..300 {
            slots.take("b");
            slots.ended("b", true);
            slots.take("a");
            slots.ended("a", true);
            slots.set_contenders(["a", "b"].into_iter());
        }
        assert_eq!(fill(&mut slots, "a"), 128, "both have earned all");
        let mut single = Shares::new(1);
        single.set_contenders(["a", "b"].into_iter());
        assert!(single.may_take("a"));
    }

    #[test]
    fn a_page_that_does_not_answer_loses_half_of_what_it_had_earned() {
        let mut slots = Shares::new(256);
        slots.set_contenders(["a", "b"].into_iter());
        for _ in 0..112 {
            slots.take("a");
            slots.ended("a", true);
        }
        assert_eq!(fill(&mut slots, "a"), 128);
        for (unanswered, most) in [(1, 64), (1, 32), (5, 16)] {
            (0..unanswered).for_each(|_| slots.ended("a", false));
            (0..slots.page("a").held).for_each(|_| slots.give_back("a"));
            assert_eq!(fill(&mut slots, "a"), most);
        }
    }

    #[test]
    fn who_has_no_work_and_no_slot_is_forgotten() {
        let mut slots = Shares::new(256);
        for page in ["a", "b", "c"] {
            slots.take(page);
        }
        slots.ended("b", true);
        slots.ended("c", true);
        slots.set_contenders(["c"].into_iter());
        let mut known: Vec<&str> = slots.pages.keys().map(|page| &**page).collect();
        known.sort_unstable();
        assert_eq!((known, slots.contended), (vec!["a", "c"], true));
        slots.give_back("a");
        slots.set_contenders(["c"].into_iter());
        assert!(!slots.contended);
    }

    #[test]
    fn of_many_slots_one_page_leaves_no_more_than_the_reserve() {
        let mut slots = Shares::new(2000);
        assert_eq!(fill(&mut slots, "a"), 1984);
    }

    #[test]
    fn of_few_slots_one_page_leaves_one_as_well() {
        for total in 2..40 {
            let mut slots = Shares::new(total);
            while slots.may_take("a") {
                slots.take("a");
            }
            assert!(slots.free() > 0 && slots.may_take("b"), "{total} slots");
        }
    }

    #[test]
    fn a_share_is_what_taking_one_by_one_would_reach() {
        for (total, held) in [
            (1, 0),
            (1, 1),
            (2, 0),
            (2, 1),
            (3, 0),
            (16, 0),
            (16, 3),
            (17, 0),
            (18, 0),
            (256, 0),
            (256, 100),
            (100, 94),
        ] {
            let mut slots = Shares::new(total);
            (0..held).for_each(|_| slots.take("a"));
            let share = slots.share("a");
            let mut taken = 0;
            while slots.may_take("a") {
                slots.take("a");
                taken += 1;
            }
            assert_eq!(share, taken, "{total} slots, {held} held");
        }
    }

    #[test]
    fn a_single_slot_can_be_used_and_is_given_back() {
        let mut slots = Shares::new(1);
        assert!(slots.may_take("a"));
        slots.take("a");
        assert!(!slots.may_take("a") && !slots.may_take("b"));
        slots.give_back("a");
        assert!(slots.may_take("b"));
    }

    #[test]
    fn a_rate_grants_at_most_its_second_and_then_its_pace() {
        let (now, second) = (10_000_000_000, 1_000_000);
        let (burst, next) = allowance(300.0, 0, now, 1000);
        assert_eq!(burst, 300);
        assert_eq!(allowance(300.0, next, now, 10).0, 0);
        let (later, _) = allowance(300.0, next, now + second / 10, 1000);
        assert!((29..=31).contains(&later), "{later}");
        assert_eq!(
            allowance(0.5, 0, now, 5).0,
            1,
            "half a request a second: one, none saved up"
        );
    }

    #[test]
    fn a_clock_that_was_set_back_stops_a_page_for_one_request_at_most() {
        let (now, hour) = (10_000_000_000, 3_600_000_000);
        let (granted, next) = allowance(10.0, now + hour, now, 5);
        assert_eq!((granted, next), (0, now + 100_000));
        assert_eq!(allowance(10.0, now + hour, now + 100_000, 5).0, 0);
        assert_eq!(allowance(10.0, next, now + 100_000, 5).0, 1);
    }

    #[test]
    fn a_slow_rate_still_grants() {
        let mut next = 0;
        let mut granted = 0;
        for tick in 0..100 {
            let (n, at) = allowance(0.5, next, 10_000_000_000 + tick * 100_000, 5);
            next = at;
            granted += n;
        }
        assert_eq!(granted, 5, "ten seconds at one in two seconds");
    }
}
