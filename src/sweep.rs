//! The sweeper: retention in small bites, and the search for lanes that should be there.
//!
//! Runs beside the ledger on a connection of its own, rarely and slowly: it must never be noticed.
//! What it heals is counted; the count must stay 0.

use std::sync::Arc;
use std::time::Duration;

use crate::events::{Event, Events};
use crate::job::State;
use crate::store::{Pool, Result, prune};
use crate::worker::Stop;

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
    while !*stop.borrow() {
        // An error is the ledger's to report: the same database is its own.
        let swept = once(&pool, retention, &events, &mut after).await;
        if swept.is_err() {
            pool.renew().await;
        }
        let full = swept.unwrap_or(false);
        let rest = if full { REST } else { EVERY };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            _ = stop.changed() => {}
        }
    }
}

async fn once(
    pool: &Pool,
    retention: Retention,
    events: &Events,
    after: &mut String,
) -> Result<bool> {
    let now = pool.now().await?;
    let delivered = [State::Delivered, State::Delivered];
    let ended = [State::Dead, State::Cancelled];
    let jobs = prune::prune(pool, delivered, retention.delivered, now, BITE).await?
        + prune::prune(pool, ended, retention.dead, now, BITE).await?;
    if jobs > 0 {
        events.emit(&Event::Pruned { jobs });
    }
    let (lanes, last) = prune::heal(pool, after, now, BITE).await?;
    *after = last;
    if lanes > 0 {
        events.emit(&Event::Healed { lanes });
    }
    Ok(jobs >= BITE.unsigned_abs())
}
