//! Who stands in the line of a lane: its head, and who comes after the job in hand.

use std::sync::Arc;

use super::lanes::Locked;
use super::{Pool, Result, Row, Tx};
use crate::job::{AfterUnknown, Head, JobId, Line, State};

/// The lowest jobs of the lane `r` that have joined its line, as many as the text says.
macro_rules! first_in_line {
    ($limit:literal) => {
        concat!(
            "select q.id from send_jobs q where q.lane = r.lane and q.state = 'queued'
        and (q.send_at is null or q.joined_at is not null) order by q.lane, q.id limit ",
            $limit
        )
    };
}
pub(super) use first_in_line;

/// The job of the lane `r` that blocks its line, if the parameter is 1. In order of the lane, or the index
/// of what ended badly would have it, too.
macro_rules! unknown_in_line {
    ($block:literal) => {
        concat!(
            "(select u.id from send_jobs u where ",
            $block,
            " = 1 and {key: u.lane = r.lane} and u.state = 'unknown' order by u.lane, u.id limit 1)"
        )
    };
}
pub(super) use unknown_in_line;

/// What [`head`] reads of `send_jobs j`.
macro_rules! head_columns {
    () => {
        "j.id, j.state, j.attempts, j.failures, {ms: j.due_at} as due, {ms: j.expires_at} as expires,
    j.on_ambiguous, cast(j.recipient as text) as recipient, cast(j.message as text) as message, j.tag, j.delay,
    j.ambiguous_attempts"
    };
}
pub(super) use head_columns;

// The head is the job in hand; else the one that has begun; else, under block, an unknown one;
// else the lowest that has joined. Each is one probe of an index that holds nothing finished.
const LOOK: &str = concat!(
    "-- look: the heads of lanes
select r.at, exists (select 1 from send_pauses p where p.scope = 'lane:' || r.lane) as paused,
    ",
    head_columns!(),
    ",
    case when j.attempts > 0 then
        (select {ms: coalesce(a.finished_at, a.started_at)} from send_attempts a where a.job_id = j.id and a.number = j.attempts) end as started
from {rows: lane text, at bigint, head bigint}
left join send_jobs j on j.id {is (}coalesce(
    (select s.id from send_jobs s where s.lane = r.lane and s.state = 'sending'),
    (select h.id from send_jobs h where h.id = r.head and h.state = 'queued'),
    ",
    unknown_in_line!("$1"),
    ",
    (",
    first_in_line!("1"),
    ")){is )}"
);

/// Reads the head of each lane, in their order.
pub async fn look(tx: &mut Tx, lanes: &[Locked], after: AfterUnknown) -> Result<Vec<Line>> {
    let key = |(at, l): (usize, &Locked)| [(&l.lane).into(), at.into(), l.head.into()];
    let keys = lanes.iter().enumerate().map(key);
    let block = i64::from(after == AfterUnknown::Block);
    let mut lines = Vec::with_capacity(lanes.len());
    for row in tx.batch(LOOK, &[block.into()], keys).await? {
        let at = usize::try_from(row.int(0)?).ok();
        if let Some((locked_at, locked)) = at.and_then(|at| Some((at, lanes.get(at)?))) {
            let mut head = head(&row, 2)?;
            if let Some(head) = &mut head {
                head.started = row.int_opt(14)?;
            }
            let line = Line {
                lane: Arc::clone(&locked.lane),
                page: Arc::clone(&locked.page),
                alone: locked.alone,
                paused: row.flag(1)?,
                head,
            };
            lines.push((locked_at, line));
        }
    }
    // A join keeps no order, and a probe goes to the first.
    lines.sort_by_key(|(at, _)| *at);
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

const FOLLOWING: &str = concat!(
    "-- ahead: who follows the jobs in hand
select r.job, ",
    head_columns!(),
    "
from {rows: lane text, job bigint}
join send_jobs j on j.id {is (}(",
    first_in_line!("1"),
    "){is )}"
);

/// Reads who follows each of these jobs in hand; those whom nobody follows are left out.
pub async fn following(
    pool: &Pool,
    of: &[(Arc<str>, JobId)],
) -> Result<Vec<(JobId, Option<Head>)>> {
    let key = |(lane, job): &(Arc<str>, JobId)| [lane.into(), (*job).into()];
    let rows = pool.batch(FOLLOWING, &[], of.iter().map(key)).await?;
    rows.iter()
        .map(|row| Ok((row.int(0)?, head(row, 1)?)))
        .collect()
}

/// The job in the columns of a row from `first` on, read by their places.
pub(super) fn head(row: &Row, first: usize) -> Result<Option<Head>> {
    if row.is_null(first)? {
        return Ok(None);
    }
    Ok(Some(Head {
        job: row.int(first)?,
        state: row.str(first + 1)?.parse().unwrap_or(State::Queued),
        attempts: row.int(first + 2)?,
        failures: row.int(first + 3)?,
        due: row.int(first + 4)?,
        expires: row.int_opt(first + 5)?,
        on_ambiguous: row.str_opt(first + 6)?.and_then(|word| word.parse().ok()),
        recipient: row.bytes(first + 7)?,
        message: row.bytes(first + 8)?,
        tag: row.text_opt(first + 9)?,
        delay: row.int(first + 10)?,
        ambiguous: row.int(first + 11)?,
        started: None,
    }))
}
