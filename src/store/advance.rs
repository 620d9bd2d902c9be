//! Advancing: a job ends and the next of its line begins, at once.
//!
//! What `record`, `look` and `claim` do in a transaction of several round trips, for a lane whose next
//! job was read ahead ([`super::line::following`]). Nothing is believed of it: the statement asks
//! whether the lane is still its worker's and the job still the head of its line, and leaves what is
//! not for the long way.

use std::collections::HashMap;

use super::bind::SQLITE_BATCH;
use super::lanes::{Begin, Lease};
use super::line::{first_in_line, head, head_columns, unknown_in_line};
use super::record::{self, Ended, end_attempts, ended_columns, move_jobs};
use super::{Pool, Result};
use crate::job::{AfterUnknown, Head, JobId};

/// A job that ends, and the next one of its line.
#[derive(Debug, Clone)]
pub struct Advance {
    /// How the one in hand ended: for good, and without a rest for its lane.
    pub ended: Ended,
    /// The one that begins.
    pub next: Begin,
}

/// Most lanes that advance at once: SQLite's must fit into one text.
pub const MOST: usize = SQLITE_BATCH;

/// Whether the next job of a row `r`, whose line begins with the first text, would be found by a look, too.
macro_rules! is_next {
    ($first:expr) => {
        concat!(
            $first,
            " = r.next
    and ",
            unknown_in_line!("$2"),
            " is null
    and not exists (select 1 from send_pauses p where p.scope = 'lane:' || r.lane)"
        )
    };
}

/// What a row of the batch has.
macro_rules! advance_columns {
    () => {
        concat!(
            "lane text, token bigint, next bigint, next_number bigint, ",
            ended_columns!()
        )
    };
}

// Both jobs of a lane change in one UPDATE: the CHECKs of `send_jobs` are read anew for each, which takes
// as long as changing three rows. The one that ends comes first, whichever side is walked inside the
// other: it has left `sending` when the next comes there (`send_jobs_one_sending`).
const POSTGRES: &str = concat!(
    "-- advance: jobs end and the next of their lines begin
with mine as materialized (
    select r.*, line.ids[2] as following from {rows: ",
    advance_columns!(),
    "}
    join send_lanes l on {key: l.lane = r.lane} and l.token = r.token and l.leased_by = $1
    cross join lateral (select array(",
    first_in_line!("2"),
    ") as ids offset 0) as line
    where ",
    is_next!("line.ids[1]"),
    "
    order by {bytes: r.lane} {lock l}
), ended as (
",
    end_attempts!("mine as r"),
    "
), moved as (
    update send_jobs set
        state = case when r.begins then 'sending' else r.state end,
        attempts = attempts + r.begins::int,
        possible_duplicate = possible_duplicate or r.begins and send_jobs.ambiguous,
        finished_at = case when not r.begins then {at: r.finished} end,
        failures = failures + case when r.begins then 0 else r.failed end,
        due_at = case when r.begins then due_at else {at: r.due} end,
        reason = case when r.begins then send_jobs.reason else r.reason end,
        last_status = case when r.begins then last_status else coalesce(r.status, last_status) end,
        ambiguous = send_jobs.ambiguous or not r.begins and r.ambiguous,
        ambiguous_attempts = ambiguous_attempts + case when r.begins then 0 else r.singled_out end,
        cancel_requested = false
    from (
        select mine.*, begins, case when begins then next else job end as id
        from mine cross join (values (false), (true)) as both_of (begins)
    ) as r
    where {key: send_jobs.id = r.id} and case when r.begins
        then send_jobs.state = 'queued' and send_jobs.attempts = r.next_number - 1
        else send_jobs.state = 'sending' and send_jobs.attempts = r.number end
    returning r.lane, r.next, r.next_number, r.following, r.begins
), began as (
    select * from moved where begins
), begun as (
    insert into send_attempts (job_id, number, started_at, worker)
    select next, next_number, {at: $3}, $1 from began
), leased as (
    update send_lanes set token = $4, due_at = $5, head = null
    from began where {key: send_lanes.lane = began.lane}
)
select r.next, ",
    head_columns!(),
    "
from began as r left join send_jobs j on {key: j.id = r.following}"
);

/// Whether the lane of a row `r` is among those that advance: no other claim has had their token. (Of an
/// `exists` SQLite would make a join, and walk through the lanes.)
macro_rules! advances {
    () => {
        "(select l.token from send_lanes l where l.lane = r.lane and l.leased_by = $1) = $4"
    };
}

/// Differs from Postgres in that it is a transaction of several statements, since SQLite cannot write in
/// a `with`; the first picks the lanes. One text, or the threads would take turns at each.
const SQLITE: &str = concat!(
    "-- advance: lines go on, from begin to commit
{batch: ",
    advance_columns!(),
    "}begin immediate;
update send_lanes set token = $4, due_at = $5, head = null
from {rows: lane text, token bigint, next bigint, next_number bigint}
where send_lanes.lane = r.lane and send_lanes.token = r.token and leased_by = $1
    and (select n.attempts from send_jobs n where n.id = r.next) = r.next_number - 1
    and ",
    is_next!(concat!("(", first_in_line!("1"), ")")),
    ";
",
    end_attempts!(
        "{rows: job bigint, number bigint, finished bigint, outcome text, status bigint, error text, response text, rule text, lane text}"
    ),
    " and ",
    advances!(),
    ";
",
    move_jobs!(
        "{rows: job bigint, number bigint, finished bigint, status bigint, state text, failed bigint, due bigint, reason text, ambiguous bool, singled_out bigint, lane text}"
    ),
    " and ",
    advances!(),
    ";
update send_jobs set state = 'sending', attempts = attempts + 1, possible_duplicate = possible_duplicate or ambiguous
from {rows: next bigint, lane text}
where send_jobs.id = r.next and ",
    advances!(),
    ";
insert into send_attempts (job_id, number, started_at, worker)
select r.next, r.next_number, {at: $3}, $1
from {rows: next bigint, next_number bigint, lane text} where ",
    advances!(),
    ";
select r.next, ",
    head_columns!(),
    "
from {rows: next bigint, lane text} left join send_jobs j on j.id {is (}(",
    first_in_line!("1"),
    "){is )}
where ",
    advances!(),
    ";
commit"
);

/// Advances lanes, in one round trip that is a transaction of its own. Returns the places of those whose
/// next job began, and who follows it; the end of the others is still to be recorded, in part again.
pub async fn advance(
    pool: &Pool,
    lanes: &[Advance],
    lease: &Lease,
    after: AfterUnknown,
) -> Result<Vec<(usize, Option<Head>)>> {
    let row = |Advance { ended, next }: &Advance| {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = record::both(ended);
        let (lane, token) = ((&next.lane).into(), ended.token.into());
        let (job, number) = (next.job.into(), next.number.into());
        [
            lane, token, job, number, a, b, c, d, e, f, g, h, i, j, k, l, m, n,
        ]
    };
    let block = i64::from(after == AfterUnknown::Block);
    let binds = [
        (&lease.worker).into(),
        block.into(),
        lease.now.into(),
        lease.token.into(),
        lease.until.into(),
    ];
    let text = match pool {
        Pool::Postgres(_) => POSTGRES,
        Pool::Sqlite(..) => SQLITE,
    };
    let rows = pool.batch(text, &binds, lanes.iter().map(row)).await?;
    let places = lanes.iter().enumerate();
    let places: HashMap<JobId, usize> = places.map(|(at, lane)| (lane.next.job, at)).collect();
    let mut began = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(at) = places.get(&row.int(0)?) {
            began.push((*at, head(row, 1)?));
        }
    }
    Ok(began)
}
