//! What people look at: jobs, their attempts, how many there are, what is paused.

use serde::Serialize;
use serde_json::value::RawValue;

use super::look::{Waiting, waiting};
use super::select::Selector;
use super::{Bind, Pool, Result, Row, one, shown_state};
use crate::clock::Millis;
use crate::job::{AttemptNo, JobId};
use crate::scope::Scope;

/// A row of `send_jobs` as it is shown: every column under its own name, times as unix ms.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// The job.
    pub id: JobId,
    /// Its page.
    pub page_id: String,
    /// The recipient's JSON.
    pub recipient: String,
    /// The message's JSON.
    pub message: String,
    /// The message tag.
    pub tag: Option<String>,
    /// Seconds.
    pub delay: i64,
    /// When it joins its lane.
    pub send_at: Option<Millis>,
    /// When it may no longer be sent.
    pub expires_at: Option<Millis>,
    /// The producer's own lane.
    pub ordering_key: Option<String>,
    /// The producer's key.
    pub idempotency_key: Option<String>,
    /// `retry` or `hold`.
    pub on_ambiguous: Option<String>,
    /// The producer's own JSON.
    pub metadata: Option<String>,
    /// Its lane.
    pub lane: String,
    /// Where it is in its life.
    pub state: String,
    /// Attempts so far.
    pub attempts: i64,
    /// Those that count.
    pub failures: i64,
    /// It was sent again after an ambiguous attempt.
    pub possible_duplicate: bool,
    /// The job it repeats.
    pub requeued_from: Option<JobId>,
    /// The earliest next attempt.
    pub due_at: Millis,
    /// Why it is where it is.
    pub reason: Option<String>,
    /// HTTP status of the last answer.
    pub last_status: Option<i64>,
    /// The rule that judged the last attempt.
    pub last_rule: Option<String>,
    /// When it was enqueued.
    pub created_at: Millis,
    /// When it ended.
    pub finished_at: Option<Millis>,
    /// Its `send_at` keeps it out of its lane.
    pub is_scheduled: bool,
}

const JOB_COLUMNS: &str = concat!(
    "id, page_id, cast(recipient as text) as recipient, cast(message as text) as message, tag, delay,
    {ms: send_at} as send_at, {ms: expires_at} as expires_at, ordering_key, idempotency_key, on_ambiguous,
    cast(metadata as text) as metadata, lane, ",
    shown_state!(),
    " as state, attempts, failures, possible_duplicate, requeued_from,
    {ms: due_at} as due_at, reason, last_status, last_rule, {ms: created_at} as created_at, {ms: finished_at} as finished_at,
    (state = 'queued' and send_at is not null and joined_at is null) as is_scheduled"
);

fn job(row: &Row) -> Result<Job> {
    Ok(Job {
        id: row.job("id")?,
        page_id: row.text("page_id")?,
        recipient: row.text("recipient")?,
        message: row.text("message")?,
        tag: row.text_opt("tag")?,
        delay: row.int("delay")?,
        send_at: row.int_opt("send_at")?,
        expires_at: row.int_opt("expires_at")?,
        ordering_key: row.text_opt("ordering_key")?,
        idempotency_key: row.text_opt("idempotency_key")?,
        on_ambiguous: row.text_opt("on_ambiguous")?,
        metadata: row.text_opt("metadata")?,
        lane: row.text_opt("lane")?.unwrap_or_default(),
        state: row.text("state")?,
        attempts: row.int("attempts")?,
        failures: row.int("failures")?,
        possible_duplicate: row.flag("possible_duplicate")?,
        requeued_from: row.job_opt("requeued_from")?,
        due_at: row.int("due_at")?,
        reason: row.text_opt("reason")?,
        last_status: row.int_opt("last_status")?,
        last_rule: row.text_opt("last_rule")?,
        created_at: row.int("created_at")?,
        finished_at: row.int_opt("finished_at")?,
        is_scheduled: row.flag("is_scheduled")?,
    })
}

/// Jobs of a choice, newest first.
pub async fn list(
    pool: &Pool,
    selector: &Selector,
    before: Option<JobId>,
    limit: i64,
) -> Result<Vec<Job>> {
    let (clause, mut binds) = selector.clause();
    binds.push(before.unwrap_or(JobId::MAX).into());
    binds.push(limit.into());
    let (before, limit, id) = (binds.len() - 1, binds.len(), selector.id());
    let text = format!(
        "-- list\nselect {JOB_COLUMNS} from send_jobs where {clause} and {id} < ${before} order by {id} desc limit ${limit}"
    );
    pool.rows_of(text, &binds).await?.iter().map(job).collect()
}

/// One job.
pub async fn find(pool: &Pool, id: JobId) -> Result<Option<Job>> {
    let text = format!("-- show\nselect {JOB_COLUMNS} from send_jobs where id = $1");
    pool.rows_of(text, &[id.into()])
        .await?
        .first()
        .map(job)
        .transpose()
}

/// A row of `send_attempts`, or the attempt that runs.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// From 1.
    pub number: AttemptNo,
    /// When it was claimed.
    pub started_at: Millis,
    /// When it ended.
    pub finished_at: Option<Millis>,
    /// How.
    pub outcome: Option<String>,
    /// The answer's status.
    pub http_status: Option<i64>,
    /// What went wrong.
    pub error: Option<String>,
    /// The first 2 KiB of the answer.
    pub response: Option<String>,
    /// Which rule judged it.
    pub rule: Option<String>,
    /// Who made it.
    pub worker: String,
}

const ATTEMPTS: &str = "-- show: attempts
select number, {ms: started_at} as started_at, {ms: finished_at} as finished_at, outcome, http_status, error,
    response, rule, worker from send_attempts where job_id = $1 order by number desc limit $2";
const RUNNING: &str = "-- show: the attempt that runs
select l.number, l.started_at, null as finished_at, null as outcome, null as http_status, null as error,
    null as response, null as rule, l.worker
from send_jobs j join send_lanes l on l.lane = j.lane where j.id = $1 and l.job = j.id and l.worker is not null";

/// The last attempts of a job, in order, the one that runs behind them. A throttled job can have thousands.
pub async fn attempts(pool: &Pool, id: JobId, limit: i64) -> Result<Vec<Attempt>> {
    let attempt = |row: &Row| {
        Ok(Attempt {
            number: row.number("number")?,
            started_at: row.int("started_at")?,
            finished_at: row.int_opt("finished_at")?,
            outcome: row.text_opt("outcome")?,
            http_status: row.int_opt("http_status")?,
            error: row.text_opt("error")?,
            response: row.text_opt("response")?,
            rule: row.text_opt("rule")?,
            worker: row.text("worker")?,
        })
    };
    let ended = pool.rows(ATTEMPTS, &[id.into(), limit.into()]).await?;
    let running = pool.rows(RUNNING, &[id.into()]).await?;
    ended.iter().rev().chain(&running).map(attempt).collect()
}

/// What a waiting job waits for.
#[derive(Debug, Clone, Default)]
pub struct Ahead {
    /// How many jobs are ahead of it in its lane.
    pub jobs: i64,
    /// The first of them, its state and its reason.
    pub head: Option<(JobId, String, Option<String>)>,
    /// Pauses that stop it.
    pub pauses: Vec<Pause>,
    /// The worker that has its lane in hand.
    pub worker: Option<String>,
    /// Why what ended in its lane could not be recorded.
    pub stuck: Option<String>,
}

const AHEAD: &str = "-- show: what is ahead of it in the lane
select count(*) as jobs, min(id) as head from send_jobs
where lane = $1 and id <> $2 and ((state = 'queued' and id < $2 and (send_at is null or joined_at is not null))
    or state = 'unknown')";
const PAUSED: &str = "-- show: what is paused
select scope, {ms: since} as since, who, why, rule, pages, probe_at from send_pauses
where scope in ('all', 'endpoint', $1, $2) order by scope";
const LANE: &str =
    "-- show: the lane's worker\nselect worker, stuck from send_lanes where lane = $1";

/// What a job waits for.
pub async fn ahead(pool: &Pool, job: &Job) -> Result<Ahead> {
    let row = one(pool
        .rows(AHEAD, &[job.lane.as_str().into(), job.id.into()])
        .await?)?;
    let mut ahead = Ahead {
        jobs: row.int("jobs")?,
        ..Ahead::default()
    };
    if let Some(head) = row.job_opt("head")?
        && let Some(head) = find(pool, head).await?
    {
        ahead.head = Some((head.id, head.state, head.reason));
    }
    let scopes: [Bind; 2] = [
        (&Scope::Page(job.page_id.as_str().into())).into(),
        (&Scope::Lane(job.lane.as_str().into())).into(),
    ];
    let rows = pool.rows(PAUSED, &scopes).await?;
    ahead.pauses = counted(pool, &rows).await?;
    if let Some(row) = pool.rows(LANE, &[job.lane.as_str().into()]).await?.first() {
        ahead.worker = row.text_opt("worker")?;
        ahead.stuck = row.text_opt("stuck")?;
    }
    Ok(ahead)
}

/// How many jobs there are, and what waits.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Jobs by page and state.
    pub jobs: Vec<Count>,
    /// What waits.
    pub waiting: Waiting,
    /// What is paused.
    pub pauses: Vec<Pause>,
}

/// Jobs of one page in one state.
#[derive(Debug, Clone, Serialize)]
pub struct Count {
    /// The page.
    pub page_id: String,
    /// The state.
    pub state: String,
    /// How many.
    pub jobs: i64,
}

/// A scope that must not be sent.
#[derive(Debug, Clone)]
pub struct Pause {
    /// What is paused.
    pub scope: Scope,
    /// Since when (unix ms).
    pub since: Millis,
    /// Who paused it.
    pub who: String,
    /// Why.
    pub why: Option<String>,
    /// The rule that judged the last answer, if a worker paused it.
    pub rule: Option<String>,
    /// The first pages that failed, if a worker paused the endpoint.
    pub pages: Vec<String>,
    /// When a job is sent to see whether it is well (unix ms); none if an operator paused it.
    pub probe_at: Option<Millis>,
    /// How many jobs wait for it, counted up to [`COUNTED`] + 1; those before their `send_at` do not. None
    /// if it was not counted.
    pub waiting: Option<i64>,
}

impl Pause {
    /// Why, by which rule, which pages failed and how many jobs wait, in one line of the receiver's words.
    pub fn evidence(&self) -> String {
        let mut words: Vec<String> = self.why.iter().cloned().collect();
        words.extend(self.rule.iter().map(|rule| format!("rule {rule}")));
        if !self.pages.is_empty() {
            words.push(format!("pages {} failed first", self.pages.join(", ")));
        }
        match self.waiting {
            None | Some(0) => {}
            Some(1) => words.push("1 job waits".to_owned()),
            Some(jobs) if jobs > COUNTED => words.push(format!("over {COUNTED} jobs wait")),
            Some(jobs) => words.push(format!("{jobs} jobs wait")),
        }
        words.join("; ")
    }

    /// What is tried next, if a worker paused it and the time of that says it (`at`).
    pub fn next(&self, at: impl FnOnce(Millis) -> String) -> Option<String> {
        let next = self.probe_at?;
        Some(match self.scope == Scope::Endpoint {
            true => "each page that is not paused itself tries one job at once".to_owned(),
            false => format!("one job is tried {}", at(next)),
        })
    }
}

/// The most jobs that are counted for a pause.
pub const COUNTED: i64 = 10_000;
/// The most pauses that are counted for, the rest are not counted.
const COUNTED_PAUSES: usize = 100;

const COUNTS: &str = concat!(
    "-- stats: jobs by page and state
select page_id, ",
    shown_state!(),
    " as state, count(*) as jobs from send_jobs group by 1, 2 order by 1, 2"
);
const PAUSES: &str = "-- stats: what is paused
select scope, {ms: since} as since, who, why, rule, pages, probe_at from send_pauses order by scope";

/// Counts everything. Reads the whole of `send_jobs` once.
pub async fn stats(pool: &Pool) -> Result<Stats> {
    let jobs = pool.rows(COUNTS, &[]).await?;
    let jobs = jobs
        .iter()
        .map(|row| {
            Ok(Count {
                page_id: row.text("page_id")?,
                state: row.text("state")?,
                jobs: row.int("jobs")?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Stats {
        jobs,
        waiting: waiting(pool).await?,
        pauses: pauses(pool).await?,
    })
}

/// What is paused.
pub async fn pauses(pool: &Pool) -> Result<Vec<Pause>> {
    let rows = pool.rows(PAUSES, &[]).await?;
    counted(pool, &rows).await
}

// Nothing of a page but its lanes begins with its name and a slash, and 0 comes after the slash.
const WAITING_OF_PAGE: &str = "-- stats: jobs that wait for a page
select count(*) as jobs from (select 1 from send_jobs
    where lane >= $1 || '/' and lane < $1 || '0'
    and state = 'queued' and (send_at is null or joined_at is not null) limit 0 + $2) as waiting";
const WAITING_OF_LANE: &str = "-- stats: jobs that wait for a lane
select count(*) as jobs from (select 1 from send_jobs where lane = $1
    and state = 'queued' and (send_at is null or joined_at is not null) limit 0 + $2) as waiting";
const WAITING_OF_ALL: &str = "-- stats: jobs that wait for everything
select count(*) as jobs from (select 1 from send_jobs
    where state = 'queued' and (send_at is null or joined_at is not null) limit 0 + $1) as waiting";

async fn counted(pool: &Pool, rows: &[Row]) -> Result<Vec<Pause>> {
    let mut pauses = rows.iter().map(pause).collect::<Result<Vec<_>>>()?;
    let most: Bind = (COUNTED + 1).into();
    for pause in pauses.iter_mut().take(COUNTED_PAUSES) {
        let (text, binds) = match &pause.scope {
            Scope::Page(page) => (WAITING_OF_PAGE, vec![page.into(), most.clone()]),
            Scope::Lane(lane) => (WAITING_OF_LANE, vec![lane.into(), most.clone()]),
            Scope::All | Scope::Endpoint => (WAITING_OF_ALL, vec![most.clone()]),
        };
        pause.waiting = Some(one(pool.rows(text, &binds).await?)?.int("jobs")?);
    }
    Ok(pauses)
}

fn pause(row: &Row) -> Result<Pause> {
    Ok(Pause {
        scope: row.scope("scope")?,
        since: row.int("since")?,
        who: row.text("who")?,
        why: row.text_opt("why")?,
        rule: row.text_opt("rule")?,
        pages: row
            .text_opt("pages")?
            .map(|pages| pages.split(' ').map(str::to_owned).collect())
            .unwrap_or_default(),
        probe_at: row.int_opt("probe_at")?,
        waiting: None,
    })
}

/// JSON text as it stands, or as a string if it is not JSON.
pub fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned())
        .or_else(|_| serde_json::value::to_raw_value(text))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}
