//! The sweeper: retention in small batches, and repair of missing lanes.
//!
//! Runs beside the ledger on a connection of its own, rarely and slowly: it must never be noticed.
//! What it heals is counted; the count must stay 0.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{BootInstant, Millis, millis};
use crate::events::{Event, Events};
use crate::store::file::{REST as UNCHANGED, Stamp};
use crate::store::heal::Healer;
use crate::store::prune::{self, Kind, Place};
use crate::store::{Pool, Result};
use crate::worker::{Stop, is_stopped, stopped};

/// How long finished jobs are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Delivered ones.
    pub delivered: Duration,
    /// Dead and cancelled ones.
    pub dead: Duration,
}

/// Jobs deleted in one transaction.
pub const BITE: i64 = 500;
/// The shortest time between two bites of retention.
const REST: Duration = Duration::from_millis(50);
/// How far retention may be behind without hurrying: what is delivered in a busy hour can wait for a quiet one.
const BEHIND: Millis = 3_600_000;
const EVERY: Duration = Duration::from_secs(30);
/// How long jobs that the database refused to give up are left alone.
const REFUSED_FOR: Duration = Duration::from_secs(3600);
/// A log of SQLite's that is this large is worth a word: a checkpoint comes at an eighth of it.
const LARGE_LOG: u64 = 256 << 20;

/// Sweeps until told to stop. `longest` is the longest wait any rule can set.
pub async fn sweep(
    pool: Pool,
    retention: Retention,
    longest: Duration,
    events: Arc<Events>,
    mut stop: Stop,
) {
    let mut large_log = LARGE_LOG;
    let mut sweeper = Sweeper {
        pool,
        retention,
        longest,
        events,
        healer: Healer::default(),
        passes: [Pass::default(); 2],
        renew: false,
    };
    // When nothing was found in SQLite's files, and how they were before.
    let mut clean: Option<(BootInstant, Stamp)> = None;
    while !is_stopped(&stop) {
        let now = sweeper.pool.file().map(|file| file.stamp());
        large_log = watch_log(&sweeper.pool, &sweeper.events, large_log);
        let began = BootInstant::now();
        let rests =
            |(at, then): &(BootInstant, Stamp)| at.elapsed() < UNCHANGED && now == Some(*then);
        let found = match clean.as_ref().is_some_and(rests) {
            true => Found::Nothing,
            false => {
                let found = sweeper.once().await;
                clean = now
                    .map(|now| (began, now))
                    .filter(|_| found == Found::Nothing);
                found
            }
        };
        let rest = match found {
            Found::Much => sweeper.pace().rest(began.elapsed()),
            _ => EVERY,
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = stopped(&mut stop) => {}
        }
    }
}

/// What a sweep had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// Nothing, and no job is waiting that could have been missed.
    Nothing,
    Some,
    /// More than it bites off at once.
    Much,
}

/// How much of the database's time retention takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// A twentieth, beside requests in flight.
    Yielding,
    /// A quarter.
    Quiet,
    /// Half: more jobs end than it gives up otherwise.
    Hurried,
}

impl Pace {
    /// How long to rest after a sweep that took so long.
    fn rest(self, took: Duration) -> Duration {
        let times = match self {
            Self::Yielding => 19,
            Self::Quiet => 3,
            Self::Hurried => 1,
        };
        (took * times).clamp(REST, EVERY)
    }
}

struct Sweeper {
    pool: Pool,
    retention: Retention,
    longest: Duration,
    events: Arc<Events>,
    healer: Healer,
    passes: [Pass; 2],
    /// A step failed: its connection may be the cause.
    renew: bool,
}

/// How far the retention of a kind has come.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    after: Place,
    /// How overdue the jobs being pruned are: the smallest value seen, and the current one.
    behind: Option<(Millis, Millis)>,
    /// Jobs that were refused are asked for again only after a while: there may be very many.
    refused: Option<BootInstant>,
}

impl Pass {
    /// Notes that it has come to jobs that should have been gone for so long; none: it has come to the end.
    fn note(&mut self, behind: Option<Millis>) {
        let least = |(least, _): (Millis, Millis)| least;
        self.behind = behind.map(|now| (self.behind.map_or(now, least).min(now), now));
    }

    /// True if it falls further behind. What was there when it began (a shorter retention, a worker that did
    /// not run) does not make it hurry.
    fn falls_behind(&self) -> bool {
        self.behind
            .is_some_and(|(least, now)| now > least.saturating_add(BEHIND))
    }
}

impl Sweeper {
    fn pace(&self) -> Pace {
        match self.events.in_flight() {
            _ if self.passes.iter().any(Pass::falls_behind) => Pace::Hurried,
            0 => Pace::Quiet,
            _ => Pace::Yielding,
        }
    }

    /// Heals first, so that failing retention does not prevent it.
    async fn once(&mut self) -> Found {
        if std::mem::take(&mut self.renew) {
            self.pool.renew();
        }
        let now = self.pool.now().await;
        let Some(now) = self.tell("clock", now) else {
            return Found::Some;
        };
        let healed = self.heal(now).await;
        let mut found = self.tell("heal", healed).unwrap_or(Found::Some);
        let kinds = [
            (Kind::Delivered, self.retention.delivered),
            (Kind::Ended, self.retention.dead),
        ];
        for (at, (kind, age)) in kinds.into_iter().enumerate() {
            let pruned = self.prune(at, kind, age, now).await;
            found = found.max(self.tell(kind.as_str(), pruned).unwrap_or(Found::Some));
        }
        found
    }

    async fn heal(&mut self, now: Millis) -> Result<Found> {
        let all = self.healer.is_at_start();
        let mended = self
            .healer
            .heal(&self.pool, now, self.longest, BITE)
            .await?;
        if mended > 0 {
            self.events.emit(&Event::Healed { lanes: mended });
        }
        let nothing = mended == 0 && all && self.healer.is_at_start();
        Ok(if nothing { Found::Nothing } else { Found::Some })
    }

    async fn prune(&mut self, at: usize, kind: Kind, age: Duration, now: Millis) -> Result<Found> {
        let pass = &mut self.passes[at];
        if pass.refused.is_some_and(|at| at.elapsed() > REFUSED_FOR) {
            *pass = Pass::default();
        }
        let bite = prune::prune(&self.pool, kind, age, now, pass.after, BITE).await?;
        if bite.pruned > 0 {
            self.events.emit(&Event::Pruned { jobs: bite.pruned });
        }
        if let Some((jobs, error)) = &bite.refused {
            pass.refused.get_or_insert_with(BootInstant::now);
            let (jobs, error) = (*jobs, &*error.to_string());
            self.events.emit(&Event::PruneRefused { jobs, error });
        }
        let limit = now.saturating_sub(millis(age));
        pass.note(
            bite.next
                .map(|(finished, _)| limit.saturating_sub(finished)),
        );
        match (bite.next, pass.refused) {
            (Some(next), _) => pass.after = next,
            // Rejected jobs are skipped until they are retried.
            (None, Some(_)) => pass.after = bite.last.unwrap_or(pass.after),
            (None, None) => pass.after = Place::default(),
        }
        Ok(match bite.next {
            Some(_) => Found::Much,
            None if bite.pruned > 0 => Found::Some,
            None => Found::Nothing,
        })
    }

    /// Says what failed; the next step has another chance with another connection.
    fn tell<T>(&mut self, step: &'static str, done: Result<T>) -> Option<T> {
        match done {
            Ok(done) => {
                self.events.emit(&Event::Swept { step });
                Some(done)
            }
            Err(error) => {
                let error = &*error.to_string();
                self.events.emit(&Event::SweepFailed { step, error });
                self.renew = true;
                None
            }
        }
    }
}

/// Says once, and again at each doubling, that SQLite's log is larger than `limit`; returns the next limit.
fn watch_log(pool: &Pool, events: &Events, limit: u64) -> u64 {
    let Some(file) = pool.file() else {
        return limit;
    };
    let bytes = file.log_size();
    events.set_log_size(bytes);
    match bytes {
        _ if bytes >= limit => {
            events.emit(&Event::LogGrows { bytes });
            bytes.saturating_mul(2)
        }
        _ if bytes < LARGE_LOG / 2 => LARGE_LOG,
        _ => limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_takes_its_share_and_no_more() {
        let took = Duration::from_millis(40);
        assert_eq!(Pace::Yielding.rest(took), Duration::from_millis(760));
        assert_eq!(Pace::Quiet.rest(took), Duration::from_millis(120));
        assert_eq!(Pace::Hurried.rest(took), REST);
        assert_eq!(Pace::Yielding.rest(Duration::from_secs(9)), EVERY);
    }

    #[test]
    fn retention_hurries_when_it_falls_behind_and_not_for_what_was_there() {
        let mut pass = Pass::default();
        for (behind, hurries) in [
            (Some(24 * BEHIND), false),
            (Some(12 * BEHIND), false),
            (Some(13 * BEHIND), false),
            (Some(13 * BEHIND + 1), true),
            (Some(BEHIND), false),
            (Some(2 * BEHIND + 1), true),
            (None, false),
            (Some(3 * BEHIND), false),
        ] {
            pass.note(behind);
            assert_eq!(pass.falls_behind(), hurries, "{behind:?}");
        }
    }
}
