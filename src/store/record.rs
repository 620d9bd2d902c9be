//! Recording: what attempts did to their jobs and lanes.
//!
//! The first statement locks the lanes that still belong to the reports, in one order; whoever
//! holds an older token has been fenced off and may write its own attempt row, and close its job
//! if the answer was a success that nothing newer contradicts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::lanes::Locked;
use super::{Bind, Result, Tx};
use crate::clock::Millis;
use crate::job::{JobId, Outcome, State};

/// How one attempt ended, in the form the tables take.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The lane it was sent for.
    pub lane: Arc<str>,
    /// The lane's page.
    pub page: Arc<str>,
    /// The token its claim was given.
    pub token: i64,
    /// The job.
    pub job: JobId,
    /// Which attempt of the job, from 1.
    pub number: i64,
    /// When it ended, on the database's clock.
    pub finished: Millis,
    /// How.
    pub outcome: Outcome,
    /// The answer's HTTP status.
    pub status: Option<u16>,
    /// What went wrong, without secrets.
    pub error: Option<Arc<str>>,
    /// The first 2 KiB of the answer.
    pub response: Option<Arc<str>>,
    /// The rule that judged it.
    pub rule: Arc<str>,
    /// The state its job goes to.
    pub state: State,
    /// 1 if it counts towards `max_attempts`.
    pub failed: i64,
    /// When the job may be tried again.
    pub due: Millis,
    /// Why the job is where it is.
    pub reason: Option<Arc<str>>,
    /// The attempt may have arrived.
    pub ambiguous: bool,
    /// 1 if it counts towards `max_ambiguous`.
    pub singled_out: i64,
    /// How long the lane rests after it.
    pub rest: Duration,
    /// Its lane was born of this job's mark alone.
    pub alone: bool,
}

const OVER_POSTGRES: &str = "-- record: lanes end with their only job
delete from send_lanes using {rows: lane text, token bigint}
where {key: send_lanes.lane = r.lane} and send_lanes.token = r.token and leased_by = $1 and touched = 0
returning send_lanes.lane";
/// Differs from Postgres in that SQLite cannot delete from a join.
const OVER_SQLITE: &str = "-- record: lanes end with their only job
delete from send_lanes where leased_by = $1 and touched = 0
    and (lane, token) in (select r.lane, r.token from {rows: lane text, token bigint})
returning lane";

/// Deletes the lanes of reports, named by their places, of jobs that were alone in them, if they are
/// still theirs and untouched: what has been inserted since has a mark that is still to be taken, and
/// the lane is born again of it. Returns the places of those that are gone.
pub async fn over(tx: &mut Tx, worker: &str, ended: &[Ended], of: &[usize]) -> Result<Vec<usize>> {
    let key = |at: &usize| [(&ended[*at].lane).into(), ended[*at].token.into()];
    let text = match tx {
        Tx::Postgres(_) => OVER_POSTGRES,
        Tx::Sqlite(..) => OVER_SQLITE,
    };
    let rows = tx.batch(text, &[worker.into()], of.iter().map(key)).await?;
    let places: HashMap<&str, usize> = of.iter().map(|at| (&*ended[*at].lane, *at)).collect();
    let mut gone = Vec::with_capacity(rows.len());
    for row in &rows {
        gone.extend(places.get(&*row.str(0)?));
    }
    Ok(gone)
}

const LOCK: &str = "-- record: lock the lanes that are still theirs
select r.at, l.head
from {rows: lane text, token bigint, at bigint}
join send_lanes l on {key: l.lane = r.lane} and l.token = r.token and l.leased_by = $1
order by {bytes: r.lane} {lock l}";

/// Locks the lanes of those of the worker's reports, named by their places, whose token is still the
/// newest; returns each with its place. The worker is asked for as well because SQLite hands out the
/// token of a transaction that was rolled back once more.
pub async fn lock(
    tx: &mut Tx,
    worker: &str,
    ended: &[Ended],
    of: &[usize],
) -> Result<Vec<(usize, Locked)>> {
    let key = |at: &usize| {
        [
            (&ended[*at].lane).into(),
            ended[*at].token.into(),
            (*at).into(),
        ]
    };
    let keys = of.iter().map(key);
    let mut lanes = Vec::with_capacity(of.len());
    for row in tx.batch(LOCK, &[worker.into()], keys).await? {
        let at = usize::try_from(row.int(0)?).unwrap_or(usize::MAX);
        if let Some(ended) = ended.get(at) {
            let lane = Locked {
                lane: Arc::clone(&ended.lane),
                page: Arc::clone(&ended.page),
                head: row.int_opt(1)?,
                alone: false,
            };
            lanes.push((at, lane));
        }
    }
    Ok(lanes)
}

// A late and definite answer replaces the guess of whoever took the lane over. Who is late names
// itself: if its claim was never committed, the attempt of that number is somebody else's.
macro_rules! end_attempts {
    ($rows:expr) => {
        concat!(
            "update send_attempts set
    finished_at = {at: r.finished}, outcome = r.outcome, http_status = r.status,
    error = r.error, response = r.response, rule = r.rule
from ",
            $rows,
            "
where {key: send_attempts.job_id = r.job} and send_attempts.number = r.number
  and (cast($1 as text) is null or send_attempts.worker = $1)
  and (send_attempts.outcome is null or (send_attempts.outcome = 'ambiguous' and r.outcome <> 'ambiguous'))"
        )
    };
}
pub(super) use end_attempts;

// `is not false` hides the state from the planners: plain, it would fit the partial index of jobs in hand,
// and they could read all of it for each row; as a parameter it would make SQLite prepare the
// statement anew each time. An operator's cancel, marked while the attempt ran, wins over waiting but
// not over an answer.
macro_rules! move_jobs {
    ($rows:expr) => {
        concat!(
            "update send_jobs set
    state = case when cancel_requested and r.state in ('queued', 'unknown') then 'cancelled' else r.state end,
    finished_at = case when r.state in ('delivered', 'dead') or cancel_requested then {at: r.finished} end,
    failures = failures + r.failed,
    due_at = {at: r.due},
    reason = case
        when cancel_requested and r.state in ('queued', 'unknown') then 'cancelled by an operator while it was being sent'
        else r.reason end,
    last_status = coalesce(r.status, last_status),
    ambiguous = send_jobs.ambiguous or r.ambiguous,
    ambiguous_attempts = ambiguous_attempts + r.singled_out,
    cancel_requested = false
from ",
            $rows,
            "
where {key: send_jobs.id = r.job} and (send_jobs.state = 'sending') is not false and send_jobs.attempts = r.number"
        )
    };
}
pub(super) use move_jobs;

const ATTEMPTS: &str = concat!(
    "-- record: end the attempts\n",
    end_attempts!(
        "{rows: job bigint, number bigint, finished bigint, outcome text, status bigint, error text, response text, rule text}"
    )
);
const JOBS: &str = concat!(
    "-- record: move the jobs on\n",
    move_jobs!(
        "{rows: job bigint, number bigint, finished bigint, status bigint, state text, failed bigint, due bigint, reason text, ambiguous bool, singled_out bigint}"
    )
);

/// What [`both`] binds.
macro_rules! ended_columns {
    () => {
        "job bigint, number bigint, finished bigint, outcome text, status bigint, error text, response text, rule text, state text, failed bigint, due bigint, reason text, ambiguous bool, singled_out bigint"
    };
}
pub(super) use ended_columns;

/// Differs from SQLite in that both are one statement: SQLite cannot write in a `with`.
const BOTH_POSTGRES: &str = concat!(
    "-- record: end the attempts and move the jobs on\nwith ended as (",
    end_attempts!(concat!("{rows: ", ended_columns!(), "}")),
    ")\n",
    move_jobs!(concat!("{rows: ", ended_columns!(), "}"))
);

/// Writes the end of attempts whose lanes are locked.
pub async fn write(tx: &mut Tx, ended: &[&Ended]) -> Result<()> {
    if let Tx::Postgres(_) = tx {
        let rows = ended.iter().map(|e| both(e));
        tx.change(BOTH_POSTGRES, &[None::<&str>.into()], rows)
            .await?;
        return Ok(());
    }
    write_attempts(tx, None, ended).await?;
    let job = |e: &&Ended| {
        let [state, failed, due, reason, ambiguous, singled_out] = job(e);
        let status = e.status.map(i64::from).into();
        let (number, finished) = (e.number.into(), e.finished.into());
        [
            e.job.into(),
            number,
            finished,
            status,
            state,
            failed,
            due,
            reason,
            ambiguous,
            singled_out,
        ]
    };
    tx.change(JOBS, &[], ended.iter().map(job)).await?;
    Ok(())
}

async fn write_attempts(tx: &mut Tx, worker: Option<&str>, ended: &[&Ended]) -> Result<()> {
    let rows = ended.iter().map(|e| attempt(e));
    tx.change(ATTEMPTS, &[worker.into()], rows).await?;
    Ok(())
}

/// What the row of an attempt takes.
fn attempt(e: &Ended) -> [Bind; 8] {
    [
        e.job.into(),
        e.number.into(),
        e.finished.into(),
        e.outcome.as_str().into(),
        e.status.map(i64::from).into(),
        e.error.as_ref().into(),
        e.response.as_ref().into(),
        (&e.rule).into(),
    ]
}

/// What the row of its job takes besides.
fn job(e: &Ended) -> [Bind; 6] {
    [
        e.state.as_str().into(),
        e.failed.into(),
        e.due.into(),
        e.reason.as_ref().into(),
        e.ambiguous.into(),
        e.singled_out.into(),
    ]
}

/// What both take: the values of `ended_columns`.
pub(super) fn both(ended: &Ended) -> [Bind; 14] {
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n]) = (attempt(ended), job(ended));
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
}

const LATE: &str = "-- record: a late success closes its job
update send_jobs set
    state = 'delivered', finished_at = {at: r.finished}, reason = null,
    last_status = coalesce(r.status, last_status), cancel_requested = false
from {rows: job bigint, number bigint, finished bigint, status bigint}
where {key: send_jobs.id = r.job} and send_jobs.attempts = r.number
  and send_jobs.state in ('queued', 'sending', 'unknown', 'held')
returning id as job";

/// Writes the end of attempts that were superseded: their own rows, and late successes.
pub async fn write_late(tx: &mut Tx, worker: &str, ended: &[&Ended]) -> Result<usize> {
    write_attempts(tx, Some(worker), ended).await?;
    let row = |e: &&&Ended| {
        [
            e.job.into(),
            e.number.into(),
            e.finished.into(),
            e.status.map(i64::from).into(),
        ]
    };
    let late: Vec<_> = ended
        .iter()
        .filter(|e| e.outcome == Outcome::Delivered)
        .map(|e| row(&e))
        .collect();
    let closed = tx.batch(LATE, &[], late.into_iter()).await?;
    super::intake::look_again_for(tx, &closed).await?;
    Ok(closed.len())
}
