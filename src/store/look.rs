//! What the admin server looks at while a worker works beside it: few columns, few rows, and
//! never more than a window of `send_jobs`.
//!
//! Twin of [`super::read`], which answers a person who waits and may read everything once.

use super::select::state_clause;
use super::{Bind, Pool, Result, Row, one, shown_state};
use crate::clock::Millis;
use crate::job::{JobId, State};

/// How many ids one filtered page looks through at most.
pub const WINDOW: i64 = 100_000;

/// One row of a listing: no message, no recipient other than in the lane's name.
#[derive(Debug, Clone)]
pub struct Line {
    /// The job.
    pub id: JobId,
    /// Its page.
    pub page_id: String,
    /// Its lane.
    pub lane: String,
    /// Where it is in its life.
    pub state: String,
    /// Attempts so far.
    pub attempts: i64,
    /// HTTP status of the last answer.
    pub last_status: Option<i64>,
    /// Why it is where it is.
    pub reason: Option<String>,
    /// When it was enqueued.
    pub created_at: Millis,
    /// When it ended.
    pub finished_at: Option<Millis>,
}

/// A part of a listing, newest first.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    /// The jobs.
    pub jobs: Vec<Line>,
    /// Where the next older part begins (`before`); none if there is nothing older.
    pub older: Option<JobId>,
}

const LINE_COLUMNS: &str = concat!(
    "id, page_id, lane, ",
    shown_state!(),
    " as state, attempts, last_status, reason,
    {ms: created_at} as created_at, {ms: finished_at} as finished_at"
);

fn line(row: &Row) -> Result<Line> {
    Ok(Line {
        id: row.job("id")?,
        page_id: row.text("page_id")?,
        lane: row.text_opt("lane")?.unwrap_or_default(),
        state: row.text("state")?,
        attempts: row.int("attempts")?,
        last_status: row.int_opt("last_status")?,
        reason: row.text_opt("reason")?,
        created_at: row.int("created_at")?,
        finished_at: row.int_opt("finished_at")?,
    })
}

/// The jobs that ended badly, newest first.
pub async fn ended_badly(pool: &Pool, limit: i64) -> Result<Vec<Line>> {
    let text = format!(
        "-- look: what ended badly\nselect {LINE_COLUMNS} from send_jobs where state in ('dead', 'unknown') order by id desc limit $1"
    );
    let rows = pool.rows_of(text, &[limit.into()]).await?;
    rows.iter().map(line).collect()
}

const NEWEST: &str = "-- look: the newest job\nselect max(id) as newest from send_jobs";
const OLDEST: &str = "-- look: the oldest job\nselect min(id) as oldest from send_jobs";

/// Jobs below `before`, newest first, of a state and a page if given. With a filter only
/// [`WINDOW`] ids are looked through; `older` says where to go on.
pub async fn lines(
    pool: &Pool,
    state: Option<State>,
    page: Option<&str>,
    before: Option<JobId>,
    limit: i64,
) -> Result<Lines> {
    let newest = one(pool.rows(NEWEST, &[]).await?)?.int_opt("newest")?;
    let oldest = one(pool.rows(OLDEST, &[]).await?)?.int_opt("oldest")?;
    let (Some(newest), Some(oldest)) = (newest, oldest) else {
        return Ok(Lines::default());
    };
    let before = before.map_or(i64::MAX, |job| job.0);
    let before = before.min(newest.saturating_add(1));
    let from = before.saturating_sub(WINDOW).max(oldest);
    let mut binds: Vec<Bind> = vec![before.into(), from.into(), limit.into()];
    let mut clause = String::new();
    if let Some(state) = state {
        clause.push_str(&format!(" and {}", state_clause(state)));
    }
    if let Some(page) = page {
        clause.push_str(" and page_id = $4");
        binds.push(page.into());
    }
    let text = format!(
        "-- look: jobs\nselect {LINE_COLUMNS} from send_jobs where id < $1 and id >= $2{clause} order by id desc limit $3"
    );
    let rows = pool.rows_of(text, &binds).await?;
    let jobs = rows.iter().map(line).collect::<Result<Vec<_>>>()?;
    let full = i64::try_from(jobs.len()).is_ok_and(|jobs| jobs >= limit);
    let next = match jobs.last() {
        Some(last) if full => last.id.0,
        _ => from,
    };
    Ok(Lines {
        jobs,
        older: (next > oldest).then_some(JobId(next)),
    })
}

/// How much waits.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Lanes with undelivered work.
    pub lanes: i64,
    /// Of them, those that are leased.
    pub leased: i64,
    /// Marks not yet taken in.
    pub inbox: i64,
    /// Jobs waiting for their `send_at`.
    pub scheduled: i64,
    /// How long the lane that waits longest has been due, in milliseconds; 0 if none is.
    pub oldest_due_ms: i64,
    /// Scopes that are paused.
    pub pauses: i64,
}

const WAITING: &str = "-- look: how much waits
select count(*) as lanes, count(worker) as leased,
    {now} - min(case when worker is null then due_at end) as oldest_due,
    (select count(*) from send_inbox) as inbox,
    (select count(*) from send_timers) as scheduled,
    (select count(*) from send_pauses) as pauses from send_lanes";

/// How much waits. Reads the small tables once, never `send_jobs`.
pub async fn waiting(pool: &Pool) -> Result<Waiting> {
    let row = one(pool.rows(WAITING, &[]).await?)?;
    Ok(Waiting {
        lanes: row.int("lanes")?,
        leased: row.int("leased")?,
        inbox: row.int("inbox")?,
        scheduled: row.int("scheduled")?,
        oldest_due_ms: row.int_opt("oldest_due")?.unwrap_or(0).max(0),
        pauses: row.int("pauses")?,
    })
}
