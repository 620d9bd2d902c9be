//! Retention and healing: what the sweeper runs, in small bites.

use std::time::Duration;

use super::{Pool, Result};
use crate::clock::{Millis, millis};

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
macro_rules! prune {
    ($states:literal) => {
        old!(
            "-- prune: finished jobs that retention gives up
with old as materialized (select id from ",
            $states,
            " order by finished_at limit $2 {skip locked})
delete from send_jobs where id {in (}select id from old{in )} returning id as job"
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
const PRUNE_DELIVERED: &str = prune!("state = 'delivered'");
const PRUNE_ENDED: &str = prune!("state in ('dead', 'cancelled')");
const COUNT_DELIVERED: &str = count!("state = 'delivered'");
const COUNT_ENDED: &str = count!("state in ('dead', 'cancelled')");

const PRUNE_ATTEMPTS: &str = "-- prune: their attempts
delete from send_attempts where job_id {in (}select r.job from {rows: job bigint}{in )}";

/// Deletes up to `limit` jobs of a kind that finished before `now - age`, with their attempts. Returns
/// how many.
pub async fn prune(pool: &Pool, kind: Kind, age: Duration, now: Millis, limit: i64) -> Result<u64> {
    let text = match kind {
        Kind::Delivered => PRUNE_DELIVERED,
        Kind::Ended => PRUNE_ENDED,
    };
    let mut tx = pool.begin().await?;
    let jobs = tx
        .rows(text, &[before(age, now).into(), limit.into()])
        .await?
        .iter()
        .map(|row| Ok([row.int("job")?.into()]))
        .collect::<Result<Vec<_>>>()?;
    let pruned = u64::try_from(jobs.len()).unwrap_or_default();
    tx.batch(PRUNE_ATTEMPTS, &[], jobs.into_iter()).await?;
    tx.commit().await?;
    Ok(pruned)
}

/// How many jobs [`prune()`] would delete.
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

// A job that waited for a minute without a lane and without a mark was forgotten by somebody.
// Not asked while many marks wait: then lanes are missing for a good reason. No `not exists`: that would
// be a join, and Postgres could read all lanes for each job.
const ORPHANS: &str = "-- heal: jobs whose lanes are missing
select lane, page_id, missing from (
    select j.lane, j.page_id,
        j.due_at < {at: $2}
        and (select 1 from send_lanes l where l.lane = j.lane) is null
        and (select 1 from send_inbox i where i.page_id = j.page_id and i.lane = j.lane limit 1) is null as missing
    from send_jobs j
    where j.state = 'queued' and (j.send_at is null or j.joined_at is not null) and j.lane > $1
        and (select count(*) from (select 1 from send_inbox limit 101) m) <= 100
    order by j.lane, j.id limit $3
) bite";

const STUCK: &str = "-- heal: jobs in hand whose lanes are missing
select j.lane, j.page_id from send_jobs j
where j.state = 'sending' and (select 1 from send_lanes l where l.lane = j.lane) is null
    and (select 1 from send_inbox i where i.page_id = j.page_id and i.lane = j.lane limit 1) is null limit $1";

/// Looks at up to `bite` jobs behind `after` and marks lanes that are missing. Returns how many
/// were, and where to go on (empty: from the start; nothing waits behind `after`).
pub async fn heal(pool: &Pool, after: &str, now: Millis, bite: i64) -> Result<(usize, String)> {
    let mut tx = pool.begin().await?;
    let rows = tx
        .rows(ORPHANS, &[after.into(), (now - 60_000).into(), bite.into()])
        .await?;
    let mut lanes = std::collections::BTreeMap::new();
    let mut last = String::new();
    for row in &rows {
        last = row.text("lane")?;
        if row.flag("missing")? {
            lanes.insert(last.clone(), row.text("page_id")?);
        }
    }
    for row in &tx.rows(STUCK, &[bite.into()]).await? {
        lanes.insert(row.text("lane")?, row.text("page_id")?);
    }
    for (lane, page) in &lanes {
        super::intake::look_again(&mut tx, page, lane).await?;
    }
    tx.commit().await?;
    Ok((lanes.len(), last))
}
