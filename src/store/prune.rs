//! Retention and healing: what the sweeper runs, in small bites.

use std::time::Duration;

use super::{Pool, Result};
use crate::clock::{Millis, millis};
use crate::job::State;

const PRUNE: &str = "-- prune: finished jobs that retention gives up
with old as materialized (
    select id from send_jobs
    where state in ($1, $2) and finished_at < {at: $3}
    order by finished_at limit $4 {skip locked}
)
delete from send_jobs where id {in (}select id from old{)} returning id as job";

const PRUNE_ATTEMPTS: &str = "-- prune: their attempts
delete from send_attempts where job_id {in (}select r.job from {rows: job bigint}{)}";

/// Deletes up to `limit` jobs that finished in these states before `now - age`, with their
/// attempts. Returns how many.
pub async fn prune(
    pool: &Pool,
    states: [State; 2],
    age: Duration,
    now: Millis,
    limit: i64,
) -> Result<u64> {
    let before = now.saturating_sub(millis(age)).max(0);
    let mut tx = pool.begin().await?;
    let binds = [
        states[0].as_str().into(),
        states[1].as_str().into(),
        before.into(),
        limit.into(),
    ];
    let jobs = tx
        .rows(PRUNE, &binds)
        .await?
        .iter()
        .map(|row| Ok([row.int("job")?.into()]))
        .collect::<Result<Vec<_>>>()?;
    let pruned = u64::try_from(jobs.len()).unwrap_or_default();
    tx.batch(PRUNE_ATTEMPTS, &[], jobs.into_iter()).await?;
    tx.commit().await?;
    Ok(pruned)
}

const COUNT: &str = "-- prune: how many there are
select count(*) as jobs from send_jobs
where state in ($1, $2) and finished_at < {at: $3}";

/// How many jobs [`prune`] would delete.
pub async fn count(pool: &Pool, states: [State; 2], age: Duration, now: Millis) -> Result<i64> {
    let before = now.saturating_sub(millis(age)).max(0);
    let binds = [
        states[0].as_str().into(),
        states[1].as_str().into(),
        before.into(),
    ];
    Ok(super::one(pool.rows(COUNT, &binds).await?)?.int("jobs")?)
}

// A job that waited for a minute without a lane and without a mark was forgotten by somebody.
// Not asked while many marks wait: then lanes are missing for a good reason. No `not exists`: that would
// be a join, and Postgres could read all lanes for each job.
const ORPHANS: &str = "-- heal: jobs whose lanes are missing
select lane, page_id, missing from (
    select j.lane, j.page_id,
        (select 1 from send_lanes l where l.lane = j.lane) is null
        and (select 1 from send_inbox i where i.page_id = j.page_id and i.lane = j.lane limit 1) is null as missing
    from send_jobs j
    where j.state = 'queued' and (j.send_at is null or j.joined_at is not null) and j.lane > $1
        and j.due_at < {at: $2}
        and (select count(*) from (select 1 from send_inbox limit 101) m) <= 100
    order by j.lane, j.id limit $3
) bite";

const STUCK: &str = "-- heal: jobs in hand whose lanes are missing
select j.lane, j.page_id from send_jobs j
where j.state = 'sending' and (select 1 from send_lanes l where l.lane = j.lane) is null
    and (select 1 from send_inbox i where i.page_id = j.page_id and i.lane = j.lane limit 1) is null limit $1";

/// Looks at up to `bite` jobs behind `after` and marks lanes that are missing. Returns how many
/// were, and where to go on (empty: from the start).
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
