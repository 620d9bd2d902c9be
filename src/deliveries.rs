//! Whether others were delivered lately.
//!
//! An attempt that may have arrived is held against its job only if the receiver took something of another lane
//! meanwhile: otherwise the receiver is down, and no job is to blame. The last deliveries of two lanes are
//! enough to know that of any lane, so they are all that is kept. One memory for a process: what other
//! workers deliver is not known here, nor what was before a start; then an attempt is not held against its
//! job, and `retry.max_attempts` is its bound.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::BootInstant;
use crate::job::Lane;

/// The last deliveries of two different lanes.
#[derive(Debug, Default)]
pub struct Deliveries {
    hasher: RandomState,
    /// The latest one, and the latest one of another lane.
    last: Mutex<[Option<(u64, BootInstant)>; 2]>,
}

impl Deliveries {
    /// Something of this lane was delivered just now.
    pub fn saw(&self, lane: &Lane) {
        let (lane, now) = (self.hasher.hash_one(lane), BootInstant::now());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last[0].is_some_and(|(latest, _)| latest != lane) {
            last[1] = last[0];
        }
        last[0] = Some((lane, now));
    }

    /// Makes what was seen so much older; how a test lets time pass.
    pub fn age(&self, span: Duration) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, at) in last.iter_mut().flatten() {
            *at = at.back(span);
        }
    }

    /// True if something of another lane was delivered within this time.
    pub fn of_others(&self, lane: &Lane, within: Duration) -> bool {
        let lane = self.hasher.hash_one(lane);
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others = last.iter().flatten().filter(|(other, _)| *other != lane);
        others.any(|(_, at)| at.elapsed() <= within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_told_of_the_others_and_never_of_itself() {
        let (deliveries, hour) = (Deliveries::default(), Duration::from_secs(3600));
        let [a, b, c] = ["a", "b", "c"].map(Lane::from);
        assert!(!deliveries.of_others(&a, hour));
        for _ in 0..3 {
            deliveries.saw(&a);
        }
        assert!(!deliveries.of_others(&a, hour));
        assert!(deliveries.of_others(&b, hour));
        deliveries.saw(&b);
        deliveries.saw(&b);
        assert!(deliveries.of_others(&a, hour) && deliveries.of_others(&b, hour));
        assert!(!deliveries.of_others(&c, Duration::ZERO));
    }
}
