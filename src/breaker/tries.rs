//! Which pages may try a job although something is paused.
//!
//! Pure. A page with a pause of its own is probed when that says so. While the endpoint is paused, of a page
//! without one nothing is known yet: it tries a job at once, and, as long as that is not answered, another
//! after each of its growing waits. All of that together is bounded, so that many pages do not press an
//! endpoint that is down.

use std::collections::HashMap;
use std::time::Duration;

use super::Breaker;
use super::standing::Trial;
use crate::clock::{BootInstant, Millis, millis};
use crate::job::PageId;
use crate::scope::{Pause, Scope};

/// Most jobs a second that a worker tries while the endpoint is paused.
const TRIES: u32 = 32;

/// What may be tried.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Pages without a pause of their own that send one job through the paused endpoint.
    pub trials: Vec<PageId>,
    /// Paused pages whose probe is due: the worker that takes the right in the database sends it.
    pub probes: Vec<PageId>,
    /// How long until there is more to try, in milliseconds.
    pub next_in: Option<Millis>,
}

impl Tries {
    fn wait(&mut self, wait: Millis) {
        self.next_in = Some(self.next_in.map_or(wait, |next| next.min(wait)));
    }
}

/// What may still be tried this second.
#[derive(Debug, Default)]
pub(super) struct Budget {
    left: u32,
    filled: Option<BootInstant>,
}

impl Budget {
    fn left(&mut self, now: BootInstant) -> usize {
        let Some(filled) = self.filled else {
            (self.left, self.filled) = (TRIES, Some(now));
            return TRIES as usize;
        };
        let grown = now.since(filled).as_millis() * u128::from(TRIES) / 1000;
        let grown = u32::try_from(grown).unwrap_or(u32::MAX);
        if self.left.saturating_add(grown) >= TRIES {
            (self.left, self.filled) = (TRIES, Some(now));
        } else if grown > 0 {
            self.left += grown;
            self.filled = Some(filled.later(Duration::from_secs(1) * grown / TRIES));
        }
        self.left as usize
    }

    fn spend(&mut self, tries: usize) {
        let tries = u32::try_from(tries).unwrap_or(u32::MAX);
        self.left = self.left.saturating_sub(tries);
    }
}

impl Breaker {
    /// Which of the pages `with_work` may try a job now, at most `room` of them. `pauses` are those of the
    /// database, `now` is its clock.
    pub fn tries<'p>(
        &mut self,
        at: BootInstant,
        now: Millis,
        pauses: &HashMap<Scope, Pause>,
        with_work: impl Iterator<Item = &'p PageId>,
        room: usize,
    ) -> Tries {
        let mut tries = Tries::default();
        let by_operator = |scope: &Scope| pauses.get(scope) == Some(&Pause::Operator);
        let is_operators = |pause: &Pause| *pause == Pause::Operator;
        if by_operator(&Scope::All)
            || by_operator(&Scope::Endpoint)
            || pauses.values().all(is_operators)
        {
            return tries;
        }
        let longest = millis(self.settings.max_probe);
        let endpoint = pauses.contains_key(&Scope::Endpoint);
        let (mut trials, mut probes) = (Vec::new(), Vec::new());
        for page in with_work {
            match pauses.get(&Scope::Page(page.clone())) {
                Some(Pause::Operator) => {}
                // One that is further away than any wait was written before the clock was set back.
                Some(Pause::Worker { probe_at })
                    if *probe_at > now && *probe_at <= now + longest =>
                {
                    tries.wait(probe_at - now);
                }
                Some(Pause::Worker { probe_at }) => probes.push((*probe_at, page)),
                None if endpoint => {
                    let standing = self.pages.get(page);
                    let trial = standing
                        .and_then(|s| s.trial)
                        .filter(|t| t.epoch == self.epoch);
                    match trial {
                        Some(trial) if trial.next > at => tries.wait(millis(trial.next.since(at))),
                        trial => {
                            let failed = standing.map_or(0, |s| s.failed.attempts);
                            trials.push((failed, trial.map(|t| t.next), page));
                        }
                    }
                }
                None => {}
            }
        }
        // Pages without failures first, then the longest waiting.
        trials.sort_unstable();
        probes.sort_unstable();
        let most = match endpoint {
            true => room.min(self.budget.left(at)),
            false => room,
        };
        if trials.len() + probes.len() > most && most < room {
            tries.wait(1000 / Millis::from(TRIES));
        }
        trials.truncate(most);
        probes.truncate(most - trials.len());
        if endpoint {
            self.budget.spend(trials.len() + probes.len());
        }
        for (_, _, page) in trials {
            self.try_page(at, page);
            tries.trials.push(page.clone());
        }
        tries.probes = probes.into_iter().map(|(_, page)| page.clone()).collect();
        tries
    }

    /// A page tries a job; the next one comes after a wait that doubles.
    fn try_page(&mut self, at: BootInstant, page: &PageId) {
        let (epoch, first, longest) = (self.epoch, self.settings.probe, self.settings.max_probe);
        let standing = self.standing(page);
        standing.seen = Some(at);
        let before = standing.trial.filter(|trial| trial.epoch == epoch);
        let wait = before.map_or(first, |trial| (trial.wait * 2).min(longest));
        let next = at.later(wait);
        standing.trial = Some(Trial { epoch, next, wait });
    }
}

/// The order in which a probe asks the lanes of a page, of which some are the newest (newest first) and some
/// the oldest (oldest first): untried lanes first; among tried ones, the longest waiting first.
pub fn probe_order<L>(newest: Vec<L>, oldest: Vec<L>, is_tried: impl Fn(&L) -> bool) -> Vec<L> {
    let (tried, mut order): (Vec<L>, Vec<L>) = newest.into_iter().partition(&is_tried);
    let (tried_before, untried): (Vec<L>, Vec<L>) = oldest.into_iter().partition(&is_tried);
    order.extend(untried);
    order.extend(tried_before);
    order.extend(tried.into_iter().rev());
    order
}

/// How many lanes the next probe asks: one, or, if recipients may be to blame, the factor by which the wait has grown.
pub fn breadth(people: bool, wait: Duration, first: Duration) -> usize {
    let grown = wait.as_millis() / first.as_millis().max(1);
    match people {
        true => usize::try_from(grown).unwrap_or(1).clamp(1, 64),
        false => 1,
    }
}
