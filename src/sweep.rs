//! The sweeper: retention in small bites, and the search for lanes that should be there.
//!
//! Runs beside the ledger on a connection of its own, rarely and slowly: it must never be noticed.
//! What it heals is counted; the count must stay 0.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::BootInstant;
use crate::events::{Event, Events};
use crate::store::prune::{self, Kind};
use crate::store::watch::{self, Stamp};
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
const REST: Duration = Duration::from_millis(50);
const EVERY: Duration = Duration::from_secs(30);

/// Sweeps until told to stop.
pub async fn sweep(pool: Pool, retention: Retention, events: Arc<Events>, mut stop: Stop) {
    let mut after = String::new();
    // When nothing was found in SQLite's files, and how they were before.
    let mut clean: Option<(BootInstant, Stamp)> = None;
    while !is_stopped(&stop) {
        let now = pool.path().map(Stamp::of);
        let rests =
            |(at, then): &(BootInstant, Stamp)| at.elapsed() < watch::REST && now == Some(*then);
        let found = match clean.as_ref().is_some_and(rests) {
            true => Found::Nothing,
            false => {
                let began = BootInstant::now();
                let found = once(&pool, retention, &events, &mut after).await;
                // An error is the ledger's to report: the same database is its own.
                if found.is_err() {
                    pool.renew();
                }
                let found = found.unwrap_or(Found::Some);
                clean = now
                    .map(|now| (began, now))
                    .filter(|_| found == Found::Nothing);
                found
            }
        };
        let rest = if found == Found::Much { REST } else { EVERY };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = stopped(&mut stop) => {}
        }
    }
}

/// What a sweep had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Nothing, and no job waits that could turn out to be forgotten.
    Nothing,
    Some,
    /// More than it bites off at once.
    Much,
}

async fn once(
    pool: &Pool,
    retention: Retention,
    events: &Events,
    after: &mut String,
) -> Result<Found> {
    let now = pool.now().await?;
    let jobs = prune::prune(pool, Kind::Delivered, retention.delivered, now, BITE).await?
        + prune::prune(pool, Kind::Ended, retention.dead, now, BITE).await?;
    if jobs > 0 {
        events.emit(&Event::Pruned { jobs });
    }
    let all = after.is_empty();
    let (lanes, last) = prune::heal(pool, after, now, BITE).await?;
    *after = last;
    if lanes > 0 {
        events.emit(&Event::Healed { lanes });
    }
    let nothing = jobs == 0 && lanes == 0 && all && after.is_empty();
    Ok(match jobs >= BITE.unsigned_abs() {
        true => Found::Much,
        false if nothing => Found::Nothing,
        false => Found::Some,
    })
}
