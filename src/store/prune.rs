//! Retention: finished jobs are deleted with their attempts, in small bites, the oldest first.
//!
//! A row that the database refuses to delete (a foreign key of the user's own, a trigger) is skipped, so that
//! it does not block the others.

use std::time::Duration;

use super::{Error, Pool, Result, Tx};
use crate::clock::{Millis, millis};
use crate::job::JobId;

/// Jobs that are over, as retention tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Delivered.
    Delivered,
    /// Dead or cancelled.
    Ended,
}

impl Kind {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Ended => "dead",
        }
    }
}

// The states are literals: each kind has an index of its own, by the time it ended.
macro_rules! old {
    ($verb:literal, $states:literal, $rest:literal) => {
        concat!(
            $verb,
            "send_jobs where ",
            $states,
            " and finished_at < {at: $1}",
            $rest
        )
    };
}
macro_rules! find {
    ($states:literal) => {
        old!(
            "-- prune: finished jobs past their retention\nselect id, {ms: finished_at} as finished from ",
            $states,
            " and (finished_at, id) > ({at: $3}, $4) order by finished_at, id limit $2 {skip locked}"
        )
    };
}
macro_rules! count {
    ($states:literal) => {
        old!(
            "-- prune: how many there are\nselect count(*) as jobs from ",
            $states,
            ""
        )
    };
}
const FIND_DELIVERED: &str = find!("state = 'delivered'");
const FIND_ENDED: &str = find!("state in ('dead', 'cancelled')");
const COUNT_DELIVERED: &str = count!("state = 'delivered'");
const COUNT_ENDED: &str = count!("state in ('dead', 'cancelled')");

const PRUNE_JOBS: &str = "-- prune: the jobs
delete from send_jobs where id {in (}select r.job from {rows: job bigint}{in )}";
const PRUNE_ATTEMPTS: &str = "-- prune: their attempts
delete from send_attempts where job_id {in (}select r.job from {rows: job bigint}{in )}";

/// A cursor over finished jobs: finish time and id. The default is the start.
pub type Place = (Millis, JobId);

/// What came of a bite.
#[derive(Debug, Default)]
pub struct Bite {
    /// Jobs deleted.
    pub pruned: u64,
    /// Jobs that the database refused to give up, and why the last of them.
    pub refused: Option<(u64, Error)>,
    /// Where to go on; none if there are no more.
    pub next: Option<Place>,
    /// The last job that was looked at.
    pub last: Option<Place>,
}

/// Deletes up to `limit` jobs of a kind behind `after` that finished before `now - age`, with their attempts.
///
/// # Errors
/// The database is away or busy. What it refuses of single jobs is not an error: see [`Bite`].
pub async fn prune(
    pool: &Pool,
    kind: Kind,
    age: Duration,
    now: Millis,
    after: Place,
    limit: i64,
) -> Result<Bite> {
    let text = match kind {
        Kind::Delivered => FIND_DELIVERED,
        Kind::Ended => FIND_ENDED,
    };
    let binds = [
        before(age, now).into(),
        limit.into(),
        after.0.into(),
        after.1.into(),
    ];
    let mut tx = pool.begin().await?;
    let old = tx.rows(text, &binds).await?;
    let old = old
        .iter()
        .map(|row| Ok((row.int("finished")?, row.job("id")?)))
        .collect::<Result<Vec<Place>>>()?;
    let mut bite = Bite {
        last: old.last().copied(),
        next: old
            .last()
            .copied()
            .filter(|_| old.len() >= usize::try_from(limit).unwrap_or(1)),
        ..Bite::default()
    };
    match delete(tx, &old).await {
        Ok(()) => bite.pruned = u64::try_from(old.len()).unwrap_or_default(),
        Err(error) if !error.is_refusal() => return Err(error),
        // Some were rejected: delete one by one.
        Err(_) => {
            for one in &old {
                match delete(pool.begin().await?, &[*one]).await {
                    Ok(()) => bite.pruned += 1,
                    Err(error) if !error.is_refusal() => return Err(error),
                    Err(error) => {
                        let refused = bite.refused.as_ref().map_or(0, |(refused, _)| *refused);
                        bite.refused = Some((refused + 1, error));
                    }
                }
            }
        }
    }
    Ok(bite)
}

async fn delete(mut tx: Tx, jobs: &[Place]) -> Result<()> {
    let rows = || jobs.iter().map(|(_, job)| [(*job).into()]);
    let done = async {
        tx.batch(PRUNE_JOBS, &[], rows()).await?;
        tx.batch(PRUNE_ATTEMPTS, &[], rows()).await
    };
    match done.await {
        Ok(_) => tx.commit().await,
        Err(error) => {
            // Its connection is good for the next one.
            if error.is_refusal() {
                tx.rollback().await?;
            }
            Err(error)
        }
    }
}

/// How many jobs [`prune()`] would delete in all.
pub async fn count(pool: &Pool, kind: Kind, age: Duration, now: Millis) -> Result<i64> {
    let text = match kind {
        Kind::Delivered => COUNT_DELIVERED,
        Kind::Ended => COUNT_ENDED,
    };
    let rows = pool.rows(text, &[before(age, now).into()]).await?;
    Ok(super::one(rows)?.int("jobs")?)
}

fn before(age: Duration, now: Millis) -> Millis {
    now.saturating_sub(millis(age)).max(0)
}
