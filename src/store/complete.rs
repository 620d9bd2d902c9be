//! Complete: attempts end, their jobs move on, and their lanes go on with their next heads.
//!
//! Only a lane that still has the token of its claim is written. A superseded worker records its attempt
//! through [`late`]; a late success still closes the job.

use std::collections::HashMap;
use std::sync::Arc;

use super::lanes::{HEAD, Lease, Plan, head};
use super::work::Work;
use super::{Bind, Pool, Result, Row, Tx};
use crate::attempt::{Completion, InHand};
use crate::clock::{Millis, millis};
use crate::job::{AttemptNo, Outcome, State};

/// What came of completions.
#[derive(Debug, Default)]
pub struct Completed {
    /// Indexes of the completions that were written.
    pub written: Vec<usize>,
    /// Some lanes are now waiting for a slot, a time or a mark.
    pub waits: bool,
    /// Lanes whose next jobs are in hand.
    pub hands: Vec<InHand>,
}

/// Writes completions, at most one a lane; `go` says which lanes may continue at once. What is not written
/// has lost its lane, or its rows are locked.
pub async fn complete(
    work: &mut Work,
    completions: &[Completion],
    go: &[bool],
    lease: &Lease,
) -> Result<Completed> {
    if !work.commits_each() {
        return complete_sqlite(work.tx().await?, completions, go, lease).await;
    }
    let rows = completions.iter().zip(go);
    let rows = rows.map(|(c, go)| {
        let [
            finished,
            outcome,
            status,
            error,
            response,
            rule,
            failed,
            singled_out,
        ] = ended(c);
        let (started, worker) = attempt(c);
        [
            (&c.lane).into(),
            c.token.into(),
            worker,
            c.job.into(),
            c.number.into(),
            started,
            finished,
            outcome,
            status,
            error,
            response,
            rule,
            c.state.map(State::as_str).into(),
            failed,
            c.due.into(),
            c.reason.as_ref().into(),
            is_ambiguous(c).into(),
            singled_out,
            rest_until(c).into(),
            (*go).into(),
        ]
    });
    let text = include_str!("postgres/complete.sql");
    let rows = work.batch(text, &lease.binds(), rows).await?;
    let (places, mut done) = (places(completions), Completed::default());
    for row in &rows {
        let Some(at) = places.get(&*row.str(0)?) else {
            continue;
        };
        done.written.push(*at);
        if row.flag(1)? {
            done.hands.extend(next(&completions[*at], row, 3, lease)?);
        }
        done.waits |= row.flag(2)?;
    }
    Ok(done)
}

/// The next job of the lane of a completion, in the columns of a row from `first` on.
fn next(of: &Completion, row: &Row, first: usize, lease: &Lease) -> Result<Option<InHand>> {
    Ok(head(row, first)?.map(|head| InHand {
        lane: of.lane.clone(),
        page: of.page.clone(),
        token: lease.token,
        head,
        lost: None,
    }))
}

async fn complete_sqlite(
    tx: &mut Tx,
    completions: &[Completion],
    go: &[bool],
    lease: &Lease,
) -> Result<Completed> {
    let rows = completions.iter().zip(go).enumerate();
    let rows = rows.map(|(at, (c, go))| {
        let (_, worker) = attempt(c);
        [
            (&c.lane).into(),
            at.into(),
            c.token.into(),
            worker,
            c.job.into(),
            c.state.map(State::as_str).into(),
            (*go && rest_until(c) <= lease.now).into(),
        ]
    });
    let text = include_str!("sqlite/complete.sql");
    let rows = tx.batch(text, &lease.binds(), rows).await?;
    let mut done = Completed::default();
    let mut lanes = Vec::with_capacity(rows.len());
    for row in &rows {
        let at = usize::try_from(row.int(0)?).unwrap_or(usize::MAX);
        let Some(c) = completions.get(at) else {
            continue;
        };
        let (becomes, moves) = (row.text_opt(1)?, row.int_opt(2)? == Some(1));
        let (goes_on, has_next) = (row.flag(3)?, row.int_opt(4)?.is_some());
        let rest = rest_until(c);
        let is_over = goes_on && !has_next && rest <= lease.now;
        let plan = match becomes.as_deref() {
            None => Plan {
                job: (c.number > AttemptNo::FIRST).then_some(c.job),
                ..Plan::wait(Some(c.due))
            },
            Some("queued") => Plan {
                job: Some(c.job),
                ..Plan::wait(Some(
                    row.int_opt(5)?.map_or(c.due, |at| at.min(c.due)).max(rest),
                ))
            },
            Some(_) if !goes_on => Plan::wait(None),
            Some(_) => match head(row, 6)? {
                Some(head) => Plan::of(&head, row.int_opt(6 + HEAD)?, lease),
                None => Plan::wait(Some(rest.max(lease.now))),
            },
        };
        done.waits |= !is_over && !plan.claims;
        if plan.claims {
            done.hands.extend(next(c, row, 6, lease)?);
        }
        done.written.push(at);
        let [
            finished,
            outcome,
            status,
            error,
            response,
            rule,
            failed,
            singled_out,
        ] = ended(c);
        let (started, worker) = attempt(c);
        lanes.push([
            (&c.lane).into(),
            worker,
            c.job.into(),
            c.number.into(),
            started,
            finished,
            outcome,
            status,
            error,
            response,
            rule,
            // A job moved by an operator meanwhile stays as it is.
            becomes.filter(|_| moves).into(),
            failed,
            c.due.into(),
            c.reason.as_ref().into(),
            is_ambiguous(c).into(),
            singled_out,
            rest.into(),
            is_over.into(),
            plan.due.into(),
            plan.claims.into(),
            plan.job.into(),
            plan.number.into(),
        ]);
    }
    let binds = [(&lease.worker).into(), lease.token.into(), lease.now.into()];
    let text = include_str!("sqlite/complete_write.sql");
    tx.batch(text, &binds, lanes.into_iter()).await?;
    Ok(done)
}

fn rest_until(c: &Completion) -> Millis {
    match c.rest.is_zero() {
        true => 0,
        false => c.finished + millis(c.rest),
    }
}

fn is_ambiguous(c: &Completion) -> bool {
    let attempt = c.attempt.as_ref();
    attempt.is_some_and(|attempt| attempt.outcome == Outcome::Ambiguous)
}

/// Beginning and worker of an attempt.
fn attempt(c: &Completion) -> (Bind, Bind) {
    let attempt = c.attempt.as_ref();
    (
        attempt.map(|a| a.started).into(),
        attempt.and_then(|a| a.worker.as_ref()).into(),
    )
}

/// How it ended.
fn ended(c: &Completion) -> [Bind; 8] {
    let attempt = c.attempt.as_ref();
    [
        c.finished.into(),
        attempt.map(|a| a.outcome.as_str()).into(),
        attempt.and_then(|a| a.status).map(i64::from).into(),
        attempt.and_then(|a| a.error.as_ref()).into(),
        attempt.and_then(|a| a.response.as_ref()).into(),
        attempt.map(|a| &a.rule).into(),
        i64::from(attempt.is_some_and(|a| a.failed)).into(),
        i64::from(attempt.is_some_and(|a| a.singled_out)).into(),
    ]
}

/// What came of late completions.
#[derive(Debug, Default)]
pub struct Late {
    /// Of each, whether it is written. Those that are not still have their lanes, and their rows are locked.
    pub written: Vec<bool>,
    /// How many of them closed their jobs.
    pub closed: usize,
}

/// Writes the attempts of completions whose lanes belong to another worker by now. Completions without an
/// attempt have nothing to record.
pub async fn late(work: &mut Work, worker: &Arc<str>, completions: &[Completion]) -> Result<Late> {
    let mut late = Late {
        written: vec![!work.commits_each(); completions.len()],
        closed: 0,
    };
    let rows = completions.iter().map(|c| {
        let [finished, outcome, status, error, response, rule, ..] = ended(c);
        let (started, worker) = attempt(c);
        [
            (&c.lane).into(),
            c.token.into(),
            worker,
            c.job.into(),
            c.number.into(),
            started,
            finished,
            outcome,
            status,
            error,
            response,
            rule,
        ]
    });
    if !work.commits_each() {
        let text = include_str!("sqlite/late.sql");
        late.closed = work.batch(text, &[worker.into()], rows).await?.len();
        return Ok(late);
    }
    let places: HashMap<&str, usize> = places(completions);
    let text = include_str!("postgres/late.sql");
    for row in work.batch(text, &[worker.into()], rows).await? {
        if let Some(at) = places.get(&*row.str(0)?) {
            late.written[*at] = true;
        }
        late.closed += usize::from(row.flag(1)?);
    }
    Ok(late)
}

/// Where the completion of each lane stands.
fn places(completions: &[Completion]) -> HashMap<&str, usize> {
    let places = completions.iter().enumerate();
    places.map(|(at, c)| (&*c.lane, at)).collect()
}

/// Writes into the lane's row why its outcome cannot be recorded, and keeps the lane until `until`.
pub async fn set_aside(
    pool: &Pool,
    worker: &Arc<str>,
    completion: &Completion,
    until: Millis,
    why: &str,
) -> Result<()> {
    let text = match pool {
        Pool::Postgres(_) => include_str!("postgres/stuck.sql"),
        Pool::Sqlite(..) => include_str!("sqlite/stuck.sql"),
    };
    let lane = [
        (&completion.lane).into(),
        completion.token.into(),
        why.into(),
    ];
    // A lost attempt is another worker's.
    let of = completion.attempt.as_ref().and_then(|a| a.worker.as_ref());
    let mut tx = pool.begin().await?;
    tx.change(
        text,
        &[of.unwrap_or(worker).into(), until.into()],
        [lane].into_iter(),
    )
    .await?;
    tx.commit().await
}
