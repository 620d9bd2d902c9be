//! Which jobs an operator means: ids or filters, as a `where` clause made of literals and `$n`.

use super::{Bind, Pool, Result};
use crate::clock::Millis;
use crate::job::{JobId, State};

/// A choice of jobs; every part that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// These ids.
    pub ids: Vec<JobId>,
    /// In one of these states.
    pub states: Vec<State>,
    /// Of this page.
    pub page: Option<String>,
    /// Of this lane.
    pub lane: Option<String>,
    /// Whose reason contains this.
    pub reason: Option<String>,
    /// Enqueued at or after this.
    pub since: Option<Millis>,
    /// Enqueued before this.
    pub until: Option<Millis>,
}

impl Selector {
    /// True if nothing is chosen: every job is meant.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
            && self.states.is_empty()
            && self.page.is_none()
            && self.lane.is_none()
            && self.reason.is_none()
            && self.since.is_none()
            && self.until.is_none()
    }

    /// The clause behind `where`, always something, and its binds, numbered from `$1`.
    pub(super) fn clause(&self) -> (String, Vec<Bind>) {
        let mut clauses = vec!["true".to_owned()];
        let mut binds: Vec<Bind> = Vec::new();
        let mut put = |bind: Bind| {
            binds.push(bind);
            format!("${}", binds.len())
        };
        if !self.ids.is_empty() {
            let ids: Vec<String> = self.ids.iter().map(|id| put((*id).into())).collect();
            clauses.push(format!("id in ({})", ids.join(", ")));
        }
        if !self.states.is_empty() {
            // Words of our own as literals: partial indexes are found by them.
            let states: Vec<String> = self
                .states
                .iter()
                .map(|s| format!("'{}'", s.as_str()))
                .collect();
            clauses.push(format!("state in ({})", states.join(", ")));
        }
        if let Some(page) = &self.page {
            clauses.push(format!("page_id = {}", put(page.as_str().into())));
        }
        if let Some(lane) = &self.lane {
            clauses.push(format!("lane = {}", put(lane.as_str().into())));
        }
        if let Some(reason) = &self.reason {
            let escaped = reason
                .replace('\\', "\\\\")
                .replace('%', "\\%")
                .replace('_', "\\_");
            clauses.push(format!(
                "reason like {} escape '\\'",
                put(format!("%{escaped}%").into())
            ));
        }
        if let Some(since) = self.since {
            clauses.push(format!("created_at >= {{at: {}}}", put(since.into())));
        }
        if let Some(until) = self.until {
            clauses.push(format!("created_at < {{at: {}}}", put(until.into())));
        }
        (clauses.join(" and "), binds)
    }
}

/// A job that was chosen, and its state then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The job.
    pub job: JobId,
    /// Its state when it was read.
    pub state: State,
}

/// The next jobs of a choice behind `after`, in the order of ids.
pub async fn choose(
    pool: &Pool,
    selector: &Selector,
    after: JobId,
    limit: i64,
) -> Result<Vec<Chosen>> {
    let (clause, mut binds) = selector.clause();
    binds.push(after.into());
    binds.push(limit.into());
    let text = format!(
        "-- select: the jobs an operator means\nselect id, state from send_jobs where {clause} and id > ${} order by id limit ${}",
        binds.len() - 1,
        binds.len()
    );
    let rows = pool.rows_of(text, &binds).await?;
    rows.iter()
        .map(|row| {
            Ok(Chosen {
                job: row.int("id")?,
                state: row.text("state")?.parse().unwrap_or(State::Queued),
            })
        })
        .collect()
}

/// How many jobs a choice means, by state.
pub async fn count(pool: &Pool, selector: &Selector) -> Result<Vec<(State, i64)>> {
    let (clause, binds) = selector.clause();
    let text = format!(
        "-- select: how many\nselect state, count(*) as jobs from send_jobs where {clause} group by state"
    );
    let rows = pool.rows_of(text, &binds).await?;
    rows.iter()
        .map(|row| {
            Ok((
                row.text("state")?.parse().unwrap_or(State::Queued),
                row.int("jobs")?,
            ))
        })
        .collect()
}

/// Those of `jobs` that were requeued already, each with its newest copy.
pub async fn requeued(pool: &Pool, jobs: &[JobId]) -> Result<Vec<(JobId, JobId)>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<String> = (1..=jobs.len()).map(|n| format!("${n}")).collect();
    let text = format!(
        "-- select: which were requeued already, and as what
        select requeued_from as old, max(id) as new from send_jobs
        where requeued_from in ({}) group by requeued_from order by requeued_from",
        numbers.join(", ")
    );
    let binds: Vec<Bind> = jobs.iter().map(|job| (*job).into()).collect();
    let rows = pool.rows_of(text, &binds).await?;
    rows.iter()
        .map(|row| Ok((row.int("old")?, row.int("new")?)))
        .collect()
}
