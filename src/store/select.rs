//! Which jobs an operator means: ids or filters, as a `where` clause made of literals and `$n`.

use super::{Bind, Pool, Result, in_hand, shown_state};
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
    /// Came into the state it is in at or after this: it ended, was held, or its last attempt left it
    /// unknown. What waits has been waiting since it was enqueued.
    pub since: Option<Millis>,
    /// Came into the state it is in before this.
    pub until: Option<Millis>,
    /// Enqueued at or after this.
    pub enqueued_since: Option<Millis>,
    /// Enqueued before this.
    pub enqueued_until: Option<Millis>,
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
            && self.enqueued_since.is_none()
            && self.enqueued_until.is_none()
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
            clauses.push(states_clause(&self.states));
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
        if let Some(since) = self.enqueued_since {
            clauses.push(format!("created_at >= {{at: {}}}", put(since.into())));
        }
        if let Some(until) = self.enqueued_until {
            clauses.push(format!("created_at < {{at: {}}}", put(until.into())));
        }
        let since = self.since.map(|at| format!("{{at: {}}}", put(at.into())));
        let until = self.until.map(|at| format!("{{at: {}}}", put(at.into())));
        if since.is_some() || until.is_some() {
            clauses.push(self.came(since.as_deref(), until.as_deref()));
        }
        (clauses.join(" and "), binds)
    }

    /// True if a state's own clock is asked: then its index says which jobs are meant, and they are put
    /// into the order of ids afterwards. Otherwise the planner may prefer a walk over all ids.
    pub(super) fn is_by_clock(&self) -> bool {
        (self.since.is_some() || self.until.is_some()) && !self.states.is_empty()
    }

    /// The key of `send_jobs` as a listing compares and orders it.
    pub(super) fn id(&self) -> &'static str {
        match self.is_by_clock() {
            // A plus hides the column from the planners, as it does `order by`.
            true => "+id",
            false => "id",
        }
    }

    /// Came into its state within these times. Each group of states says the words of its index.
    fn came(&self, since: Option<&str>, until: Option<&str>) -> String {
        let within = |clock: &str| {
            let since = since.map(|at| format!(" and {clock} >= {at}"));
            let until = until.map(|at| format!(" and {clock} < {at}"));
            since.into_iter().chain(until).collect::<String>()
        };
        let groups = CLOCKS.iter().filter(|(states, ..)| {
            self.states.is_empty() || states.iter().any(|state| self.states.contains(state))
        });
        let groups = groups.map(|(_, words, clock)| format!("({words}{})", within(clock)));
        format!("({})", groups.collect::<Vec<_>>().join(" or "))
    }
}

/// The clocks of the states: (states, the words of their index, when a job came into them).
const CLOCKS: [(&[State], &str, &str); 5] = [
    (&[State::Delivered], "state = 'delivered'", "finished_at"),
    (
        &[State::Dead, State::Cancelled],
        "state in ('dead', 'cancelled')",
        "finished_at",
    ),
    (&[State::Held], "state = 'held'", "held_at"),
    (
        &[State::Unknown],
        "state = 'unknown'",
        "(select max(a.finished_at) from send_attempts a where a.job_id = send_jobs.id)",
    ),
    (
        &[State::Queued, State::Sending],
        "state = 'queued'",
        "created_at",
    ),
];

const STATE: &str = shown_state!();

/// The clause of one state.
pub(super) fn state_clause(state: State) -> String {
    // Words of our own as literals: partial indexes are found by them.
    match state {
        State::Sending => concat!("state = 'queued' and ", in_hand!()).to_owned(),
        State::Queued => concat!("state = 'queued' and not ", in_hand!()).to_owned(),
        state => format!("state = '{}'", state.as_str()),
    }
}

/// The clause of some states.
fn states_clause(states: &[State]) -> String {
    let is_by_lane = |state: &&State| matches!(state, State::Queued | State::Sending);
    let mut clauses: Vec<String> = match states.iter().filter(is_by_lane).count() {
        0 => Vec::new(),
        // Both.
        2.. if states.contains(&State::Queued) && states.contains(&State::Sending) => {
            vec!["state = 'queued'".to_owned()]
        }
        _ => states
            .iter()
            .filter(is_by_lane)
            .map(|state| state_clause(*state))
            .collect(),
    };
    let others: Vec<String> = states
        .iter()
        .filter(|state| !is_by_lane(state))
        .map(|state| format!("'{}'", state.as_str()))
        .collect();
    if !others.is_empty() {
        clauses.push(format!("state in ({})", others.join(", ")));
    }
    match clauses.len() {
        1 => clauses.remove(0),
        _ => format!("({})", clauses.join(" or ")),
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
    let id = selector.id();
    let text = format!(
        "-- select: the jobs an operator means\nselect id, {STATE} as state from send_jobs where {clause} and {id} > ${} order by {id} limit ${}",
        binds.len() - 1,
        binds.len()
    );
    let rows = pool.rows_of(text, &binds).await?;
    rows.iter()
        .map(|row| {
            let job = row.job("id")?;
            let state = super::state(row, || format!("job {job}"))?;
            Ok(Chosen { job, state })
        })
        .collect()
}

/// How many jobs a choice means, by state.
pub async fn count(pool: &Pool, selector: &Selector) -> Result<Vec<(State, i64)>> {
    let (clause, binds) = selector.clause();
    let text = format!(
        "-- select: how many\nselect {STATE} as state, count(*) as jobs from send_jobs where {clause} group by 1"
    );
    let rows = pool.rows_of(text, &binds).await?;
    rows.iter()
        .map(|row| {
            let jobs = row.int("jobs")?;
            Ok((super::state(row, || format!("{jobs} jobs"))?, jobs))
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
        .map(|row| Ok((row.job("old")?, row.job("new")?)))
        .collect()
}
