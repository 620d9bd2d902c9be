//! How long jobs have been waiting, by cause: the basis for alerts.
//!
//! Reads lanes, marks and open jobs by their indexes, each up to a bound, and never what is finished.
//! The oldest of a lane is its first job: no later job can overtake it.

use std::collections::BTreeMap;

use super::{Pool, Result};
use crate::clock::Millis;
use crate::job::State;
use crate::scope::Scope;

/// Why jobs wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// For nothing but a worker: it is their turn.
    Ready,
    /// Their lane, their page, the endpoint or everything is paused.
    Paused,
    /// The receiver asked for less, and named or left open until when.
    Throttled,
    /// After a failure, or for the delay of the lane's first job.
    Backoff,
    /// It is unknown whether the job arrived, and its lane waits for a decision.
    Unknown,
    /// Their page has no secret.
    NoSecret,
    /// An operator holds them.
    Held,
    /// Their `send_at` has passed and they have not joined their lanes.
    Scheduled,
}

impl Cause {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Paused,
        Self::Throttled,
        Self::Backoff,
        Self::Unknown,
        Self::NoSecret,
        Self::Held,
        Self::Scheduled,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::Throttled => "throttled",
            Self::Backoff => "backoff",
            Self::Unknown => "unknown",
            Self::NoSecret => "no_secret",
            Self::Held => "held",
            Self::Scheduled => "scheduled",
        }
    }
}

impl Cause {
    /// The word in a sentence: `paused 7m`.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Ready => "ready to go",
            Self::Throttled => "asked to wait",
            Self::Backoff => "in backoff or delay",
            Self::NoSecret => "without a secret",
            Self::Scheduled => "past their send_at",
            other => other.as_str(),
        }
    }
}

/// The most lanes, marks' pages and jobs of one kind that are looked at.
pub const MOST: i64 = 50_000;

/// What waits.
#[derive(Debug, Clone, Default)]
pub struct Waits {
    /// For how long the oldest of each cause has been waiting, since it was enqueued or its `send_at`
    /// came, in milliseconds. None for a cause that holds up nothing.
    pub oldest: BTreeMap<Cause, Millis>,
    /// Open jobs by state, and those that are dead, each counted up to [`MOST`]: `scheduled` ones are
    /// `queued` ones before their `send_at`.
    pub jobs: Vec<(&'static str, i64)>,
}

impl Waits {
    /// How many jobs are in a state.
    pub fn jobs(&self, state: &str) -> i64 {
        let mut jobs = self.jobs.iter();
        jobs.find(|(name, _)| *name == state).map_or(0, |(_, n)| *n)
    }

    fn add(&mut self, cause: Cause, waited: Millis) {
        let oldest = self.oldest.entry(cause).or_default();
        *oldest = (*oldest).max(waited);
    }
}

// The head of each lane that is not leased, and the first mark of each page: marks of pages that may not send
// stay in the inbox.
const LANES: &str = "-- waits: the head of each lane
with recursive m (page_id) as (
    select (select page_id from send_inbox order by page_id limit 1)
    union all
    select (select n.page_id from send_inbox n where n.page_id > m.page_id order by n.page_id limit 1)
    from m where m.page_id is not null
), l (page_id, lane, due_at) as (
    select * from (select page_id, lane, coalesce(due_at, 0) from send_lanes where worker is null limit 0 + $1) as lanes
    union all
    select * from (select m.page_id, (select i.lane from send_inbox i where i.page_id = m.page_id order by i.id limit 1), 0
        from m where m.page_id is not null limit 0 + $1) as marks
), h (page_id, lane, due_at, id) as (
    select l.page_id, l.lane, l.due_at, (select min(q.id) from send_jobs q where q.lane = l.lane
        and q.state = 'queued' and (q.send_at is null or q.joined_at is not null)) from l
)
select h.page_id, case
        when exists (select 1 from send_pauses p where p.scope = 'lane:' || h.lane) then 'paused'
        when exists (select 1 from send_jobs u where u.lane = h.lane and u.state = 'unknown') and h.due_at = 0 then 'unknown'
        when h.due_at <= {now} then 'ready'
        when j.last_status = 429 then 'throttled'
        else 'backoff' end as cause,
    {now} - min({ms: coalesce(j.send_at, j.created_at)}) as waited
from h join send_jobs j on j.id = h.id group by 1, 2";

const OPEN: &str = "-- waits: jobs that are open or ended badly
select 'queued' as state, count(*) as jobs, null as waited from (select 1 from send_jobs
    where state = 'queued' and (send_at is null or joined_at is not null) limit 0 + $1) as q
union all select 'scheduled', count(*), {now} - min(at) from (select at from send_timers order by at limit 0 + $1) as t
union all select 'sending', count(*), null from (select 1 from send_lanes where worker is not null limit 0 + $1) as s
union all select 'unknown', count(*), {now} - min(since) from (select {ms: created_at} as since from send_jobs
    where state = 'unknown' limit 0 + $1) as u
union all select 'held', count(*), {now} - min(since) from (select {ms: created_at} as since from send_jobs
    where state = 'held' limit 0 + $1) as h
union all select 'dead', count(*), null from (select 1 from send_jobs
    where state in ('dead', 'unknown') and state = 'dead' limit 0 + $1) as d";

const PAUSES: &str = "-- waits: what is paused\nselect scope from send_pauses";

/// What waits, and why; `has_secret` says whether a page can sign.
///
/// # Errors
/// The database cannot be read.
pub async fn waits(pool: &Pool, has_secret: impl Fn(&str) -> bool) -> Result<Waits> {
    let mut paused = std::collections::BTreeSet::new();
    for row in pool.rows(PAUSES, &[]).await? {
        paused.insert(row.scope("scope")?);
    }
    let stopped = paused.contains(&Scope::All) || paused.contains(&Scope::Endpoint);
    let mut waits = Waits::default();
    for row in pool.rows(OPEN, &[MOST.into()]).await? {
        let (state, jobs) = (row.text("state")?, row.int("jobs")?);
        let (state, cause) = match state.as_str() {
            "scheduled" => ("scheduled", Some(Cause::Scheduled)),
            "held" => (State::Held.as_str(), Some(Cause::Held)),
            "unknown" => (State::Unknown.as_str(), Some(Cause::Unknown)),
            "sending" => (State::Sending.as_str(), None),
            "dead" => (State::Dead.as_str(), None),
            _ => (State::Queued.as_str(), None),
        };
        waits.jobs.push((state, jobs));
        // A time in the future is not a wait.
        let waited = row.int_opt("waited")?.filter(|waited| *waited >= 0);
        if let (Some(cause), Some(waited)) = (cause, waited) {
            waits.add(cause, waited);
        }
    }
    for row in pool.rows(LANES, &[MOST.into()]).await? {
        let page = row.page("page_id")?;
        let waited = row.int_opt("waited")?.unwrap_or(0).max(0);
        let cause = match row.text("cause")?.as_str() {
            _ if stopped || paused.contains(&Scope::Page(page.clone())) => Cause::Paused,
            "paused" => Cause::Paused,
            _ if !has_secret(&page) => Cause::NoSecret,
            "unknown" => Cause::Unknown,
            "throttled" => Cause::Throttled,
            "backoff" => Cause::Backoff,
            _ => Cause::Ready,
        };
        waits.add(cause, waited);
    }
    Ok(waits)
}

/// How it goes, in one line, for the top of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// False if an operator must act.
    pub is_well: bool,
    /// What is wrong, the worst first, or that nothing is.
    pub line: String,
}

/// Judges what waits. `worker` is whether one is seen, if that can be told.
///
/// # Errors
/// The database cannot be read.
pub async fn verdict(pool: &Pool, waits: &Waits, worker: Option<bool>) -> Result<Verdict> {
    let mut wrong = Vec::new();
    let (mut pages, mut lanes) = (0, 0);
    let mut total = None;
    for row in pool.rows(PAUSES, &[]).await? {
        match row.scope("scope")? {
            Scope::All => total = Some("everything is paused"),
            Scope::Endpoint => total = total.or(Some("the endpoint is paused")),
            Scope::Page(_) => pages += 1,
            Scope::Lane(_) => lanes += 1,
        }
    }
    let some = |n: i64, one: &str, many: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n if n >= MOST => Some(format!("{MOST} or more {many}")),
        n => Some(format!("{n} {many}")),
    };
    if worker == Some(false) {
        wrong.push("no worker is seen on this database".to_owned());
    }
    wrong.extend(total.map(str::to_owned));
    wrong.extend(some(pages, "page is paused", "pages are paused"));
    wrong.extend(some(lanes, "lane is paused", "lanes are paused"));
    wrong.extend(some(
        waits.jobs("unknown"),
        "job may have arrived and waits for a decision",
        "jobs may have arrived and wait for a decision",
    ));
    if waits.oldest.contains_key(&Cause::NoSecret) {
        wrong.push("jobs wait for the secret of their page".to_owned());
    }
    Ok(Verdict {
        is_well: wrong.is_empty(),
        line: match wrong.is_empty() {
            true if waits.jobs("queued") == 0 => "nothing waits to be sent".to_owned(),
            true => "jobs go out".to_owned(),
            false => wrong.join("; "),
        },
    })
}
