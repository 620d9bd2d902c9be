//! Lanes: which are due, and what becomes of them.
//!
//! A lane that is taken here is locked until the transaction ends, so nothing can be routed into
//! it between the look and the decision: intake waits for the lock, and a lane that was deleted
//! meanwhile is born again by it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Bind, Pool, Result, Row, Tx, one};
use crate::breaker::probe_order;
use crate::clock::Millis;
use crate::job::JobId;

/// A page with lanes, and when the first of them is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The page.
    pub page: String,
    /// When its first lane may be touched.
    pub due: Millis,
}

/// What a ledger looks at before each cycle.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The database's clock.
    pub now: Millis,
    /// Paused scopes (`all`, `endpoint`, `page:ID`), and when those that a worker paused are probed.
    pub pauses: HashMap<String, Option<Millis>>,
    /// Pages with lanes that somebody may touch at some time.
    pub lanes: Vec<Page>,
    /// Pages with marks.
    pub marks: Vec<String>,
    /// When the next `send_at` comes.
    pub timer: Option<Millis>,
    /// The breaker's, drawn before it was read.
    pub ticket: u64,
}

// Two skip scans, one probe a page however many lanes or marks it has; all in one round trip,
// because it is made before every cycle. No min(): planned while a table is empty, Postgres would read all
// of it for that.
const SURVEY: &str = "-- survey: the clock, pauses, and pages with work
with recursive l (page_id) as (
    select (select page_id from send_lanes where due_at is not null order by page_id limit 1)
    union all
    select (select n.page_id from send_lanes n where n.page_id > l.page_id and n.due_at is not null
        order by n.page_id limit 1)
    from l where l.page_id is not null
), m (page_id) as (
    select (select page_id from send_inbox order by page_id limit 1)
    union all
    select (select n.page_id from send_inbox n where n.page_id > m.page_id order by n.page_id limit 1)
    from m where m.page_id is not null
)
select 'now' as kind, '' as name, {now} as at
union all select 'pause', scope, probe_at from send_pauses
    where scope = 'all' or scope = 'endpoint' or scope like 'page:%'
union all select 'lanes', l.page_id,
    (select n.due_at from send_lanes n where n.page_id = l.page_id and n.due_at is not null order by n.due_at limit 1)
    from l where l.page_id is not null
union all select 'marks', m.page_id, null from m where m.page_id is not null
union all select 'timer', '', (select at from send_timers order by at limit 1)";

/// Reads the clock, the pauses, and which pages have work.
pub async fn survey(pool: &Pool) -> Result<Survey> {
    let mut survey = Survey::default();
    for row in pool.rows(SURVEY, &[]).await? {
        let (kind, name, at) = (row.str(0)?, row.text(1)?, row.int_opt(2)?);
        match kind.as_ref() {
            "now" => survey.now = at.unwrap_or_default(),
            "pause" => drop(survey.pauses.insert(name, at)),
            "marks" => survey.marks.push(name),
            "timer" => survey.timer = at,
            _ => survey.lanes.extend(at.map(|due| Page { page: name, due })),
        }
    }
    Ok(survey)
}

/// A lane this transaction has locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// The lane.
    pub lane: Arc<str>,
    /// Its page.
    pub page: Arc<str>,
    /// Its begun job, if it waits in the line.
    pub head: Option<JobId>,
    /// It was just born of the mark of one job: nobody else stands in its line but jobs whose marks are
    /// still to be taken.
    pub alone: bool,
}

const TAKE: &str = "-- take: due lanes of a page
select lane, head from send_lanes
where page_id = $1 and due_at <= $2
order by due_at limit 0 + $3 {skip locked}";
const TAKE_NEWEST: &str = "-- take: the newest due lanes of a page
select lane, head from send_lanes
where page_id = $1 and due_at <= $2
order by due_at desc limit 0 + $3 {skip locked}";

/// Locks up to `limit` due lanes of a page, oldest first. Lanes that another transaction holds are passed
/// over. For a probe, half of them are the newest: the oldest may all have failed before.
pub async fn take(
    tx: &mut Tx,
    page: &str,
    now: Millis,
    limit: usize,
    probe: bool,
) -> Result<Vec<Locked>> {
    if !probe {
        return take_by(tx, TAKE, page, now, limit).await;
    }
    let oldest = take_by(tx, TAKE, page, now, limit.div_ceil(2)).await?;
    let known: HashSet<Arc<str>> = oldest.iter().map(|l| Arc::clone(&l.lane)).collect();
    let mut newest = take_by(tx, TAKE_NEWEST, page, now, limit / 2).await?;
    newest.retain(|l| !known.contains(&l.lane));
    Ok(probe_order(newest, oldest, |lane| lane.head.is_some()))
}

async fn take_by(
    tx: &mut Tx,
    text: &'static str,
    page: &str,
    now: Millis,
    limit: usize,
) -> Result<Vec<Locked>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let binds = [page.into(), now.into(), limit.into()];
    let page: Arc<str> = page.into();
    let lane = |row: &Row| {
        Ok(Locked {
            lane: row.str(0)?.into(),
            page: Arc::clone(&page),
            head: row.int_opt(1)?,
            alone: false,
        })
    };
    tx.rows(text, &binds).await?.iter().map(lane).collect()
}

const TOKENS_POSTGRES: &str =
    "-- claim: tokens that never repeat\nselect nextval('send_tokens') as token";
/// Differs from Postgres in that SQLite has no sequences: a counter row, under the write lock.
const TOKENS_SQLITE: &str = "-- claim: tokens that never repeat\nupdate send_tokens set value = value + 1000 returning value as token";

/// How many tokens a draw takes: the sequence's increment.
pub const TOKENS: i64 = 1000;

/// Draws [`TOKENS`] tokens that no other draw has; returns the first of them.
pub async fn tokens(pool: &Pool) -> Result<i64> {
    let mut tx = pool.begin().await?;
    let text = match tx {
        Tx::Postgres(_) => TOKENS_POSTGRES,
        Tx::Sqlite(..) => TOKENS_SQLITE,
    };
    let first = one(tx.rows(text, &[]).await?)?.int("token")?;
    tx.commit().await?;
    Ok(first)
}

/// A job that begins its next attempt.
#[derive(Debug, Clone)]
pub struct Begin {
    /// Its lane.
    pub lane: Arc<str>,
    /// The job.
    pub job: JobId,
    /// The number of the attempt that begins.
    pub number: i64,
    /// Its lane was born leased in this transaction: nothing is to be written there.
    pub born: bool,
}

const CLAIM_JOBS: &str = "-- claim: the heads begin an attempt
update send_jobs set state = 'sending', attempts = attempts + 1, possible_duplicate = possible_duplicate or ambiguous
from {rows: job bigint, number bigint}
where {key: send_jobs.id = r.job} and send_jobs.state = 'queued' and send_jobs.attempts = r.number - 1";

// `is not false`: as where the jobs move on ([`super::record`]).
const BEGAN: &str = "-- claim: which of them began
select j.id from {rows: job bigint, number bigint}
join send_jobs j on {key: j.id = r.job} and (j.state = 'sending') is not false and j.attempts = r.number";

const CLAIM_ATTEMPTS: &str = "-- claim: the attempt, before its first byte
insert into send_attempts (job_id, number, started_at, worker)
select r.job, r.number, {at: $1}, $2 from {rows: job bigint, number bigint}";

const CLAIM_LANES: &str = "-- claim: lease the lanes
update send_lanes set leased_by = $1, token = $2, due_at = $3, head = null
from {rows: lane text} where {key: send_lanes.lane = r.lane}";

/// Differs from SQLite in that all three are one statement: SQLite cannot write in a `with`.
const CLAIM_POSTGRES: &str = "-- claim: the heads begin an attempt
with began as (
    update send_jobs set state = 'sending', attempts = attempts + 1, possible_duplicate = possible_duplicate or ambiguous
    from {rows: job bigint, number bigint, lane text, born bool}
    where {key: send_jobs.id = r.job} and send_jobs.state = 'queued' and send_jobs.attempts = r.number - 1
    returning r.job, r.number, r.lane, r.born
), begun as (
    insert into send_attempts (job_id, number, started_at, worker)
    select job, number, {at: $1}, $2 from began
), leased as (
    update send_lanes set leased_by = $2, token = $3, due_at = $4, head = null
    from began where {key: send_lanes.lane = began.lane} and not began.born
)
select job from began";

/// Who leases, and how.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The worker's name, unique to its process.
    pub worker: Arc<str>,
    /// The token of this transaction.
    pub token: i64,
    /// The database's clock when the transaction began.
    pub now: Millis,
    /// When the lease ends.
    pub until: Millis,
}

/// Writes attempt rows and leases, and returns the jobs that did not begin: what an operator moved
/// between the look and this is left alone.
pub async fn claim(tx: &mut Tx, begin: &[Begin], lease: &Lease) -> Result<HashSet<JobId>> {
    let worker = Bind::from(&lease.worker);
    let mut moved = HashSet::new();
    if let Tx::Postgres(_) = tx {
        let row = |b: &Begin| {
            [
                b.job.into(),
                b.number.into(),
                (&b.lane).into(),
                b.born.into(),
            ]
        };
        let binds = [
            lease.now.into(),
            worker,
            lease.token.into(),
            lease.until.into(),
        ];
        let rows = tx
            .batch(CLAIM_POSTGRES, &binds, begin.iter().map(row))
            .await?;
        if rows.len() < begin.len() {
            moved.extend(begin.iter().map(|b| b.job));
            for row in rows {
                moved.remove(&row.int(0)?);
            }
        }
        return Ok(moved);
    }
    let job = |b: &Begin| [b.job.into(), b.number.into()];
    let jobs = begin.iter().map(job);
    let changed = tx.change(CLAIM_JOBS, &[], jobs.clone()).await?;
    if changed < u64::try_from(begin.len()).unwrap_or(u64::MAX) {
        moved.extend(begin.iter().map(|b| b.job));
        for row in tx.batch(BEGAN, &[], jobs).await? {
            moved.remove(&row.int("id")?);
        }
    }
    let begin = || begin.iter().filter(|b| !moved.contains(&b.job));
    let jobs: Vec<_> = begin().map(job).collect();
    tx.change(
        CLAIM_ATTEMPTS,
        &[lease.now.into(), worker.clone()],
        jobs.into_iter(),
    )
    .await?;
    let lane = |b: &Begin| [(&b.lane).into()];
    let lanes: Vec<_> = begin().filter(|b| !b.born).map(lane).collect();
    let binds = [worker, lease.token.into(), lease.until.into()];
    tx.change(CLAIM_LANES, &binds, lanes.into_iter()).await?;
    Ok(moved)
}

/// A lane that waits: until a time, or (none) until a mark.
#[derive(Debug, Clone)]
pub struct Park {
    /// The lane.
    pub lane: Arc<str>,
    /// When anybody may next touch it.
    pub due: Option<Millis>,
    /// Its job that has begun and waits.
    pub head: Option<JobId>,
    /// Not before this, whatever is marked; 0 if it need not rest.
    pub rest_until: Millis,
}

const PARK: &str = "-- park: release lanes until they are due
update send_lanes set due_at = r.due, head = r.head, rest_until = r.rest_until, leased_by = null, token = $1
from {rows: lane text, due bigint, head bigint, rest_until bigint} where {key: send_lanes.lane = r.lane}";

/// Releases lanes that must wait.
pub async fn park(tx: &mut Tx, lanes: &[Park], token: i64) -> Result<()> {
    let row = |p: &Park| {
        [
            (&p.lane).into(),
            p.due.into(),
            p.head.into(),
            p.rest_until.into(),
        ]
    };
    tx.change(PARK, &[token.into()], lanes.iter().map(row))
        .await?;
    Ok(())
}

const EMPTY: &str = "-- empty: lanes without a line end
delete from send_lanes where lane {in (}select r.lane from {rows: lane text}{in )}";

/// Deletes lanes whose line is empty. They are locked: what is routed meanwhile waits.
pub async fn delete(tx: &mut Tx, lanes: &[Arc<str>]) -> Result<()> {
    tx.change(EMPTY, &[], lanes.iter().map(|lane| [lane.into()]))
        .await?;
    Ok(())
}

const UNBLOCK: &str = "-- unblock: lanes that waited for a mark look again
update send_lanes set due_at = case when rest_until > $1 then rest_until else $1 end where due_at is null";

/// Wakes every blocked lane: the policy by which it was blocked may have changed.
pub async fn unblock(pool: &Pool, now: Millis) -> Result<()> {
    let mut tx = pool.begin().await?;
    tx.run(UNBLOCK, &[now.into()]).await?;
    tx.commit().await
}

/// A job that ends without an attempt.
#[derive(Debug, Clone)]
pub struct End {
    /// The job.
    pub job: JobId,
    /// Why.
    pub reason: String,
}

const END: &str = "-- end: jobs that must not be sent
update send_jobs set state = 'dead', reason = r.reason,
    finished_at = case when created_at > {at: $1} then created_at else {at: $1} end
from {rows: job bigint, reason text} where {key: send_jobs.id = r.job} and send_jobs.state = 'queued'";

/// Ends expired and invalid jobs.
pub async fn end(tx: &mut Tx, jobs: &[End], now: Millis) -> Result<()> {
    let row = |e: &End| [e.job.into(), e.reason.as_str().into()];
    tx.change(END, &[now.into()], jobs.iter().map(row)).await?;
    Ok(())
}
