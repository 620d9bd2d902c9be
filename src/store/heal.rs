//! Healing: checks in small batches what triggers and ledgers should keep true.
//!
//! A job has a lane or a mark, or a timer before its `send_at`; a lane without a due time has a cause for it;
//! no lane waits longer than a rule allows. Triggers do not fire for rows that replication applies, people
//! change tables by hand, clocks are set back: what is missing is restored and counted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::survey::{Question, survey};
use super::{Pool, Result, Row, Tx, intake};
use crate::clock::{Millis, millis};
use crate::job::{JobId, Lane, PageId};

// A job that waited for a minute without a lane and without a mark was missed. Pages with many marks are left
// out: their lanes are still to come. No `not exists`: that would be a join, and Postgres could read all
// lanes for each job.
const LANES: &str = "-- heal: jobs whose lanes are missing
select lane, page_id, missing from (
    select j.lane, j.page_id,
        j.due_at < {at: $2}
        and (select 1 from send_lanes l where l.lane = j.lane) is null
        and (select count(*) from (select 1 from send_inbox m where m.page_id = j.page_id limit 101) m) <= 100
        and (select 1 from send_inbox i where i.page_id = j.page_id and i.lane = j.lane limit 1) is null as missing
    from send_jobs j
    where j.state = 'queued' and (j.send_at is null or j.joined_at is not null) and j.lane > $1
    order by j.lane, j.id limit $3
) bite";

const TIMERS: &str = "-- heal: jobs whose timers are missing
select id, at, (select 1 from send_timers t where t.at = bite.at and t.job_id = bite.id) is null as missing from (
    select id, {ms: send_at} as at from send_jobs
    where state = 'queued' and send_at is not null and joined_at is null and (send_at, id) > ({at: $1}, $2)
    order by send_at, id limit $3
) bite";

const TIMER: &str = "-- heal: a timer
insert into send_timers (at, job_id) select r.at, r.job from {rows: at bigint, job bigint} where true
on conflict do nothing";

// The trigger that failed to write the timer did not set this either.
const DUE_POSTGRES: &str = "-- heal: a job with a timer is due at its time
update send_jobs set due_at = send_at + delay::double precision * interval '1 second' from {rows: job bigint}
where {key: send_jobs.id = r.job} and attempts = 0 and due_at < send_at";
/// Differs from Postgres in that times are numbers.
const DUE_SQLITE: &str = "-- heal: a job with a timer is due at its time
update send_jobs set due_at = send_at + delay * 1000 from {rows: job bigint}
where {key: send_jobs.id = r.job} and attempts = 0 and due_at < send_at";

// Ordered by lane, so that the planner does not choose the index of jobs that ended badly.
const BLOCKED: &str = "-- heal: blocked lanes that nothing blocks
select lane, page_id,
    (select 1 from send_jobs u where {key: u.lane = bite.lane} and u.state = 'unknown'
        order by u.lane, u.id limit 1) is null
    and (select 1 from send_pauses p where p.scope = 'lane:' || bite.lane) is null
    and (select count(*) from (select 1 from send_inbox m where m.page_id = bite.page_id limit 101) m) <= 100
    and (select 1 from send_inbox i where i.page_id = bite.page_id and i.lane = bite.lane limit 1) is null as missing
from (
    select lane, page_id from send_lanes where due_at is null and (page_id, lane) > ($1, $2)
    order by page_id, lane limit $3
) bite";

// Not leased, and due later than any rule allows: the clock was set back.
const LATE: &str = "-- heal: lanes that wait for longer than any rule says
select l.lane, l.page_id from {rows: page text} join send_lanes l on {key: l.page_id = r.page}
where l.due_at > $1 and l.worker is null
    and (select count(*) from (select 1 from send_inbox m where m.page_id = l.page_id limit 101) m) <= 100
    and (select 1 from send_inbox i where i.page_id = l.page_id and i.lane = l.lane limit 1) is null
limit 0 + $2";

/// Cursors: where the next batch starts.
#[derive(Debug, Default)]
pub struct Healer {
    lane: Lane,
    timer: (Millis, JobId),
    blocked: (PageId, Lane),
    /// The page up to which late lanes were looked for.
    late: PageId,
}

impl Healer {
    /// True before the first bite, and when the last one has reached the end of everything.
    pub fn is_at_start(&self) -> bool {
        self.lane.is_empty()
            && self.timer == (0, JobId::default())
            && self.blocked.1.is_empty()
            && self.late.is_empty()
    }

    /// Looks at up to `bite` jobs and lanes of each kind, and puts there what is missing. Returns how many were
    /// mended. `longest` is the longest wait any rule can set.
    pub async fn heal(
        &mut self,
        pool: &Pool,
        now: Millis,
        longest: Duration,
        bite: i64,
    ) -> Result<usize> {
        let survey = survey(pool, &Question::walk(&self.late)).await?;
        let waiting = survey.pages.iter().filter(|page| page.due.is_some());
        let pages: Vec<_> = waiting.map(|page| [(&page.page).into()]).collect();
        let mut tx = pool.begin().await?;
        let mut lanes = BTreeMap::new();
        let binds = [(&self.lane).into(), (now - 60_000).into(), bite.into()];
        let lane = missing(&tx.rows(LANES, &binds).await?, &mut lanes)?.1;
        let (page, blocked) = &self.blocked;
        let binds = [page.into(), blocked.into(), bite.into()];
        let blocked = missing(&tx.rows(BLOCKED, &binds).await?, &mut lanes)?;
        // What was written a moment ago may be ahead of `now`.
        let late = now.saturating_add(millis(longest)).saturating_add(60_000);
        let binds = [late.into(), bite.into()];
        for row in &tx.batch(LATE, &binds, pages.into_iter()).await? {
            lanes.insert(row.lane("lane")?, row.page("page_id")?);
        }
        for (lane, page) in &lanes {
            intake::look_again(&mut tx, page, lane).await?;
        }
        let (timers, timer) = timers(&mut tx, self.timer, bite).await?;
        tx.commit().await?;
        (self.lane, self.blocked, self.timer) = (lane, blocked, timer);
        self.late = survey.walked_to.unwrap_or_default();
        Ok(lanes.len() + timers)
    }
}

/// Adds the lanes that are missing to those found. Returns page and lane of the last that was looked at; empty ones
/// if there are no more.
fn missing(rows: &[Row], lanes: &mut BTreeMap<Lane, PageId>) -> Result<(PageId, Lane)> {
    let mut last = Default::default();
    for row in rows {
        last = (row.page("page_id")?, row.lane("lane")?);
        if row.flag("missing")? {
            lanes.insert(last.1.clone(), last.0.clone());
        }
    }
    Ok(last)
}

/// Returns how many timers were missing, and time and job of the last that was looked at; zeros if there are no more.
async fn timers(
    tx: &mut Tx,
    (at, job): (Millis, JobId),
    bite: i64,
) -> Result<(usize, (Millis, JobId))> {
    let (mut missing, mut last) = (Vec::new(), Default::default());
    let binds = [at.into(), job.into(), bite.into()];
    for row in &tx.rows(TIMERS, &binds).await? {
        last = (row.int("at")?, row.job("id")?);
        if row.flag("missing")? {
            missing.push(last);
        }
    }
    let timers = missing
        .iter()
        .map(|(at, job)| [(*at).into(), (*job).into()]);
    tx.batch(TIMER, &[], timers).await?;
    let jobs = missing.iter().map(|(_, job)| [(*job).into()]);
    let due = match tx {
        Tx::Postgres(_) => DUE_POSTGRES,
        Tx::Sqlite(..) => DUE_SQLITE,
    };
    tx.batch(due, &[], jobs).await?;
    Ok((missing.len(), last))
}
