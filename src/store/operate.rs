//! Operators' verbs: each moves jobs under a guard on their state, leaves a mark that makes their
//! lanes look again, and is audited. None changes a lane: only ledgers do.

use std::time::Duration;

use serde::Serialize;

use super::bind::SQLITE_BATCH;
use super::{Pool, Result, Tx, in_hand};
use crate::job::JobId;
use crate::scope::Scope;

/// The operator and the reason, for the audit table.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The user and host, or the admin client.
    pub who: String,
    /// Their words.
    pub why: Option<String>,
}

/// A move of jobs from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `queued` → `held`.
    Hold,
    /// `held` → `queued`, in its old place.
    Release,
    /// `queued`, `held`, `unknown` → `cancelled`; one in hand is marked and ends after its attempt.
    Cancel,
    /// `unknown` → `delivered`.
    ResolveDelivered,
    /// `unknown` → `dead`.
    ResolveDead,
    /// `unknown` → `queued`, in its place.
    ResolveResend,
}

impl Verb {
    /// The word in the audit table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Cancel => "cancel",
            Self::ResolveDelivered => "resolve --delivered",
            Self::ResolveDead => "resolve --dead",
            Self::ResolveResend => "resolve --resend",
        }
    }

    const fn sql(self) -> &'static str {
        match self {
            Self::Hold => HOLD,
            Self::Release => RELEASE,
            Self::Cancel => CANCEL,
            Self::ResolveDelivered => RESOLVE_DELIVERED,
            Self::ResolveDead => RESOLVE_DEAD,
            Self::ResolveResend => RESOLVE_RESEND,
        }
    }
}

// A ledger locks a job before it leases it, and a statement that began before does not see that: so a verb locks
// its jobs first, and asks in a second statement whether they are in hand.
const HOLD: &str = concat!(
    "-- hold
update send_jobs set state = 'held', held_at = {at: $1}, reason = 'held by an operator'
from {rows: job bigint} where {key: send_jobs.id = r.job} and state = 'queued' and not ",
    in_hand!(),
    " returning id as job"
);
// `is not false` hides the state from the planners: plain, it would fit the partial index of held or of
// unknown jobs, and they could read all of it for each row.
const RELEASE: &str = "-- release
update send_jobs set state = 'queued', held_at = null, reason = null
from {rows: job bigint} where {key: send_jobs.id = r.job} and (state = 'held') is not false returning id as job";
const CANCEL: &str = concat!(
    "-- cancel
update send_jobs set cancel_requested = j.in_hand,
    finished_at = case when not j.in_hand then {at: $1} end,
    reason = case when j.in_hand then reason else 'cancelled by an operator' end,
    state = case when j.in_hand then state else 'cancelled' end
from (
    select send_jobs.id as job, ",
    in_hand!(),
    " as in_hand from {rows: job bigint} join send_jobs on {key: send_jobs.id = r.job}
) as j
where {key: send_jobs.id = j.job} and state in ('queued', 'held', 'unknown') and not (cancel_requested and j.in_hand)
returning id as job"
);
const RESOLVE_DELIVERED: &str = "-- resolve: it arrived
update send_jobs set state = 'delivered', finished_at = {at: $1}, reason = 'resolved by an operator: delivered'
from {rows: job bigint} where {key: send_jobs.id = r.job} and (state = 'unknown') is not false returning id as job";
const RESOLVE_DEAD: &str = "-- resolve: it is over
update send_jobs set state = 'dead', finished_at = {at: $1}, reason = 'resolved by an operator: dead'
from {rows: job bigint} where {key: send_jobs.id = r.job} and (state = 'unknown') is not false returning id as job";
const RESOLVE_RESEND: &str = "-- resolve: send it again, in its place
update send_jobs set
    state = 'queued', due_at = {at: $1}, reason = 'resolved by an operator: resend', ambiguous_attempts = 0
from {rows: job bigint} where {key: send_jobs.id = r.job} and (state = 'unknown') is not false returning id as job";

/// Applies a verb to jobs. Returns those it moved: the others were in a state it does not take.
pub async fn apply(
    pool: &Pool,
    verb: Verb,
    jobs: &[JobId],
    operator: &Operator,
) -> Result<Vec<JobId>> {
    persist(|| apply_once(pool, verb, jobs, operator)).await
}

/// Retries a verb that deadlocked with a ledger.
async fn persist<T, F: Future<Output = Result<T>>>(once: impl Fn() -> F) -> Result<T> {
    for wait in CONFLICT_WAITS {
        match once().await {
            Err(error) if error.is_conflict() => tokio::time::sleep(wait).await,
            done => return done,
        }
    }
    once().await
}

/// A verb that met a ledger in a deadlock is tried again after these.
const CONFLICT_WAITS: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

async fn apply_once(
    pool: &Pool,
    verb: Verb,
    jobs: &[JobId],
    operator: &Operator,
) -> Result<Vec<JobId>> {
    let now = pool.now().await?;
    let mut tx = pool.begin().await?;
    let jobs = jobs.iter().map(|job| [(*job).into()]);
    tx.batch(LOCK, &[], jobs.clone()).await?;
    let binds = match verb {
        Verb::Release => vec![],
        _ => vec![now.into()],
    };
    let rows = tx.batch(verb.sql(), &binds, jobs).await?;
    let mut moved = Vec::with_capacity(rows.len());
    for row in &rows {
        moved.push(row.job("job")?);
    }
    super::intake::look_again_for(&mut tx, &rows).await?;
    audit(
        &mut tx,
        operator,
        verb.as_str(),
        &ids(&moved, " "),
        moved.len(),
    )
    .await?;
    wake(&mut tx).await?;
    tx.commit().await?;
    moved.sort_unstable();
    Ok(moved)
}

const LOCK: &str = "-- operate: lock the jobs
select send_jobs.id from {rows: job bigint} join send_jobs on {key: send_jobs.id = r.job}
order by r.job {lock send_jobs}";

// A finished job is never reopened: the copy goes to the end of its lane, without attempts, delay, times or
// idempotency key, but with the user's own columns, which may be required.
/// The columns of `send_jobs` that are not the user's own.
pub const COLUMNS: [&str; 29] = [
    "id",
    "page_id",
    "recipient",
    "message",
    "tag",
    "delay",
    "send_at",
    "expires_at",
    "ordering_key",
    "idempotency_key",
    "on_ambiguous",
    "metadata",
    "lane",
    "state",
    "attempts",
    "failures",
    "possible_duplicate",
    "requeued_from",
    "due_at",
    "reason",
    "last_status",
    "last_rule",
    "created_at",
    "finished_at",
    "joined_at",
    "held_at",
    "ambiguous",
    "ambiguous_attempts",
    "cancel_requested",
];
const COLUMNS_POSTGRES: &str = "-- requeue: the columns that can be written
select attname::text as name from pg_attribute where attrelid = 'send_jobs'::regclass and attnum > 0
    and not attisdropped and attgenerated = '' and attidentity = '' order by attnum";
/// Differs from Postgres in where the columns are asked for.
const COLUMNS_SQLITE: &str = "-- requeue: the columns that can be written
select name from pragma_table_info('send_jobs') order by cid";

/// The user's own columns of `send_jobs`, quoted, each behind a comma.
async fn own_columns(tx: &mut Tx) -> Result<String> {
    let columns = match tx {
        Tx::Postgres(_) => COLUMNS_POSTGRES,
        Tx::Sqlite(..) => COLUMNS_SQLITE,
    };
    let mut own = String::new();
    for row in tx.rows(columns, &[]).await? {
        let name = row.text("name")?;
        // A brace or a dollar in it would be read as this program's own.
        if !COLUMNS.contains(&name.as_str()) && !name.contains(['{', '$']) {
            own = format!("{own}, \"{}\"", name.replace('"', "\"\""));
        }
    }
    Ok(own)
}

/// The text that requeues these jobs.
fn requeue_text(jobs: &[JobId], own: &str) -> String {
    let jobs = ids(jobs, ", ");
    format!(
        "-- requeue
insert into send_jobs (page_id, recipient, message, tag, ordering_key, on_ambiguous, metadata, requeued_from{own})
select page_id, recipient, message, tag, ordering_key, on_ambiguous, metadata, id{own} from send_jobs j
where j.id in ({jobs}) and j.state in ('dead', 'cancelled', 'delivered')
    and ($1 = 1 or not exists (select 1 from send_jobs q where q.requeued_from = j.id))
order by j.id
returning id, requeued_from"
    )
}

/// A job and the new row that repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Requeued {
    /// The new job.
    pub id: JobId,
    /// The one it repeats.
    pub requeued_from: JobId,
}

/// Sends finished jobs again, as new rows. Those requeued before are skipped without `again`.
pub async fn requeue(
    pool: &Pool,
    jobs: &[JobId],
    again: bool,
    operator: &Operator,
) -> Result<Vec<Requeued>> {
    persist(|| requeue_once(pool, jobs, again, operator)).await
}

async fn requeue_once(
    pool: &Pool,
    jobs: &[JobId],
    again: bool,
    operator: &Operator,
) -> Result<Vec<Requeued>> {
    let mut tx = pool.begin().await?;
    // So that two operators make one copy.
    tx.batch(LOCK, &[], jobs.iter().map(|job| [(*job).into()]))
        .await?;
    let own = own_columns(&mut tx).await?;
    let mut rows = Vec::with_capacity(jobs.len());
    for jobs in jobs.chunks(SQLITE_BATCH) {
        let text = requeue_text(jobs, &own);
        rows.extend(tx.rows_of(text, &[again.into()]).await?);
    }
    let mut requeued = rows
        .iter()
        .map(|row| {
            Ok(Requeued {
                id: row.job("id")?,
                requeued_from: row.job("requeued_from")?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    requeued.sort_unstable_by_key(|r| r.id);
    let old: Vec<JobId> = requeued.iter().map(|r| r.requeued_from).collect();
    audit(&mut tx, operator, "requeue", &ids(&old, " "), old.len()).await?;
    wake(&mut tx).await?;
    tx.commit().await?;
    Ok(requeued)
}

const PAUSE: &str = "-- pause
insert into send_pauses (scope, who, why) values ($1, $2, $3)
on conflict (scope) do update set who = excluded.who, why = excluded.why, rule = null, pages = null,
    suspect = null, probe_at = null, wait_ms = 0
where send_pauses.probe_at is not null
returning scope";
const RESUME: &str = "-- resume\ndelete from send_pauses where scope = $1 returning scope";

/// Stops a scope from being sent; one that a worker paused is
/// not probed any more. False if an operator had paused it already.
pub async fn pause(pool: &Pool, scope: &Scope, operator: &Operator) -> Result<bool> {
    let mut tx = pool.begin().await?;
    let binds = [
        scope.into(),
        operator.who.as_str().into(),
        operator.why.clone().into(),
    ];
    let new = !tx.rows(PAUSE, &binds).await?.is_empty();
    audit(
        &mut tx,
        operator,
        "pause",
        &scope.to_string(),
        usize::from(new),
    )
    .await?;
    tx.commit().await?;
    Ok(new)
}

/// Lets a scope be sent again. False if it was not paused.
pub async fn resume(pool: &Pool, scope: &Scope, operator: &Operator) -> Result<bool> {
    let mut tx = pool.begin().await?;
    let was = !tx.rows(RESUME, &[scope.into()]).await?.is_empty();
    if was && let Scope::Lane(lane) = scope {
        super::intake::look_again(&mut tx, &lane.page(), lane).await?;
    }
    audit(
        &mut tx,
        operator,
        "resume",
        &scope.to_string(),
        usize::from(was),
    )
    .await?;
    wake(&mut tx).await?;
    tx.commit().await?;
    Ok(was)
}

const AUDIT: &str = "-- audit
insert into send_audit (who, verb, what, changed, why) values ($1, $2, $3, $4, $5)";

/// Writes who changed what, and why. Where nothing changed, nothing is written.
pub async fn audit(
    tx: &mut Tx,
    operator: &Operator,
    verb: &str,
    what: &str,
    changed: usize,
) -> Result<()> {
    if changed == 0 {
        return Ok(());
    }
    let changed = i64::try_from(changed).unwrap_or(i64::MAX);
    let binds = [
        operator.who.as_str().into(),
        verb.into(),
        what.into(),
        changed.into(),
        operator.why.clone().into(),
    ];
    tx.run(AUDIT, &binds).await?;
    Ok(())
}

fn ids(jobs: &[JobId], between: &str) -> String {
    jobs.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(between)
}

const NOTIFY: &str = "-- wake: workers that sleep\nselect pg_notify('postlane', '')";

/// Wakes workers that sleep. SQLite's see the write itself.
pub async fn wake(tx: &mut Tx) -> Result<()> {
    if matches!(tx, Tx::Postgres(_)) {
        tx.rows(NOTIFY, &[]).await?;
    }
    Ok(())
}
