//! How much of the worker a page may take: its share of the slots, and its rate.
//!
//! Pure. A page takes a further slot only while it has fewer than [`GREED`] times the slots that
//! are free, so some are always left for a page that comes later: a page whose receiver hangs
//! never takes them all. (The rule is known from shared buffers of switches.) While another page has
//! work, too, it takes no more than half of them: what hangs gives nothing back until its time is up.

use std::collections::HashMap;

/// How many times the free slots a page may hold: with 256 slots a page by itself gets 241 of them,
/// two get 124 each.
pub const GREED: usize = 16;

/// Slots of this worker and who holds them.
#[derive(Debug, Clone)]
pub struct Slots {
    total: usize,
    taken: usize,
    /// The most that one page may hold.
    most: usize,
    by_page: HashMap<String, usize>,
}

impl Slots {
    /// `total` slots, all free.
    pub fn new(total: usize) -> Self {
        Self {
            total,
            taken: 0,
            most: total,
            by_page: HashMap::new(),
        }
    }

    /// Slots nobody holds.
    pub fn free(&self) -> usize {
        self.total - self.taken
    }

    /// Slots somebody holds.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Says which pages have work. If there are several, or others still hold slots, no page takes more
    /// than half of all.
    pub fn set_contenders<'p>(&mut self, mut pages: impl Iterator<Item = &'p str>) {
        let one = pages.next();
        let several = pages.any(|page| Some(page) != one);
        let others = self
            .by_page
            .keys()
            .any(|held| one.is_some_and(|page| page != &**held));
        let most = if several || others {
            self.total.div_ceil(2)
        } else {
            self.total
        };
        self.most = most;
    }

    /// True if the page may take one more.
    pub fn may_take(&self, page: &str) -> bool {
        let held = self.by_page.get(page).copied().unwrap_or_default();
        // The last slot is for a page that holds none.
        held < self.most && held < GREED * self.free() && (self.free() > 1 || held == 0)
    }

    /// How many more the page may take now.
    pub fn share(&self, page: &str) -> usize {
        let held = self.by_page.get(page).copied().unwrap_or_default();
        // The k-th further slot is allowed while held + k - 1 < GREED * (free - k + 1).
        let most = (GREED * (self.free() + 1) + 1).saturating_sub(held + 1) / (GREED + 1);
        let most = if most >= self.free() && held + self.free() > 1 {
            self.free().saturating_sub(1)
        } else {
            most.min(self.free())
        };
        most.min(self.most.saturating_sub(held))
    }

    /// Takes a slot for a page.
    pub fn take(&mut self, page: &str) {
        self.taken += 1;
        match self.by_page.get_mut(page) {
            Some(held) => *held += 1,
            None => drop(self.by_page.insert(page.to_owned(), 1)),
        }
    }

    /// Gives a slot of a page back.
    pub fn give_back(&mut self, page: &str) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(held) = self.by_page.get_mut(page) {
            *held -= 1;
            if *held == 0 {
                self.by_page.remove(page);
            }
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
    // What was not used in the last second is lost.
    let from = next_at.max(now - (SECOND - gap).max(0));
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
        let mut slots = Slots::new(256);
        while slots.may_take("a") {
            slots.take("a");
        }
        assert_eq!((slots.taken(), slots.free()), (241, 15));
        assert!(slots.may_take("b"));
        assert_eq!(slots.share("a"), 0);
    }

    #[test]
    fn a_page_takes_no_more_than_half_while_another_has_work() {
        for (with_work, held_by_b, most) in [
            (&["a"][..], 0, 241),
            (&["a", "b"], 0, 128),
            (&["b", "a", "b"], 0, 128),
            (&["a"], 1, 128),
        ] {
            let mut slots = Slots::new(256);
            (0..held_by_b).for_each(|_| slots.take("b"));
            slots.set_contenders(with_work.iter().copied());
            assert_eq!(slots.share("a"), most, "{with_work:?}");
            while slots.may_take("a") {
                slots.take("a");
            }
            assert_eq!(slots.taken() - held_by_b, most, "{with_work:?}");
        }
        let mut single = Slots::new(1);
        single.set_contenders(["a", "b"].into_iter());
        assert!(single.may_take("a"));
    }

    #[test]
    fn of_few_slots_one_page_leaves_one_as_well() {
        for total in 2..40 {
            let mut slots = Slots::new(total);
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
            let mut slots = Slots::new(total);
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
        let mut slots = Slots::new(1);
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
