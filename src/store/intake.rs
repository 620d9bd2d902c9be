//! Intake: marks become lanes.
//!
//! Producers append marks and share nothing else with workers. Marks are taken page by page,
//! oldest first; lanes are born in lane order, and those that are there are touched only while nobody
//! else has them in hand, so two workers never wait for each other in a circle.

use std::sync::Arc;

use super::lanes::{Lease, Locked};
use super::{Bind, Result, Tx};
use crate::clock::Millis;

const MARKS_POSTGRES: &str = "-- intake: take marks
with gone as (
    delete from send_inbox where ctid = any (array(
        select ctid from send_inbox where page_id = $1 order by id limit $2 for update skip locked))
    returning lane, look
)
select lane, bool_or(look) as look, count(*) as marks from gone group by lane";

/// Differs from Postgres in that SQLite cannot group what it deletes: it is read first. Nobody
/// else writes meanwhile. (A bare parameter as the limit would make it prepare the statement anew each
/// time.)
const MARKS_SQLITE: &str = "-- intake: read marks
select lane, max(look) as look, count(*) as marks, max(id) as last
from (select id, lane, look from send_inbox where page_id = $1 order by id limit 0 + $2) group by lane";
/// Differs from Postgres in that it deletes what [`MARKS_SQLITE`] has read.
const TAKEN_SQLITE: &str = "-- intake: they are taken
delete from send_inbox where page_id = $1 and id <= $2";

/// What was marked in one lane.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// It must be looked at even while it waits.
    look: bool,
    /// It is one job's.
    single: bool,
}

/// Marks that were taken: each lane once.
#[derive(Debug, Default)]
pub struct Marks {
    /// How many marks there were.
    pub taken: usize,
    /// The lanes they name, each once and in order.
    pub lanes: Vec<(Arc<str>, Mark)>,
    /// Lanes whose names are no UTF-8 (SQLite takes any bytes as text).
    pub garbled: Vec<Vec<u8>>,
}

impl Marks {
    /// Where in `lanes` a lane stands.
    fn place(&self, lane: &str) -> Option<usize> {
        let found = self.lanes.binary_search_by(|(name, _)| (**name).cmp(lane));
        found.ok()
    }
}

/// Takes up to `limit` marks of a page.
pub async fn marks(tx: &mut Tx, page: &str, limit: usize) -> Result<Marks> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sqlite = matches!(tx, Tx::Sqlite(..));
    let text = if sqlite { MARKS_SQLITE } else { MARKS_POSTGRES };
    let rows = tx.rows(text, &[page.into(), limit.into()]).await?;
    let (mut marks, mut last) = (Marks::default(), 0);
    for row in &rows {
        let (look, taken) = (row.flag(1)?, row.int(2)?);
        let mark = Mark {
            look,
            single: taken == 1 && !look,
        };
        marks.taken += usize::try_from(taken).unwrap_or_default();
        match row.utf8(0)? {
            Ok(lane) => marks.lanes.push((lane.into(), mark)),
            Err(garbled) => marks.garbled.push(garbled.to_vec()),
        }
        if sqlite {
            last = last.max(row.int(3)?);
        }
    }
    marks.lanes.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    if last > 0 {
        tx.run(TAKEN_SQLITE, &[page.into(), last.into()]).await?;
    }
    Ok(marks)
}

// Waits for whoever has the same lane new or half deleted, in lane order, and for nobody else.
const BORN: &str = "-- intake: lanes are born
insert into send_lanes (lane, page_id, due_at, leased_by, token)
select r.lane, $1, case when r.born then cast($2 as bigint) else cast($3 as bigint) end,
    case when r.born then $4 end, $5
from {rows: lane text, born bool} where true order by {bytes: r.lane}
on conflict (lane) do nothing
returning lane";

// Waits for nobody. A new job behind a waiting head must not wake it, a mark of an operator or a timer
// must. The count tells whoever has the lane in hand that its job is not alone any more.
const TOUCHED: &str = "-- intake: lanes are touched
with free as materialized (
    select l.lane as free_lane, r.look from {rows: lane text, look bigint}
    join send_lanes l on {key: l.lane = r.lane} {skip locked l}
)
update send_lanes set touched = touched + 1,
    due_at = case when free.look > 0 and leased_by is null
        then case when rest_until > $1 then rest_until else $1 end
        else due_at end
from free where {key: lane = free_lane}
returning lane";

/// What marks have woken.
#[derive(Debug, Default)]
pub struct Woken {
    /// Lanes that were born leased, locked.
    pub leased: Vec<Locked>,
    /// How many lanes were born.
    pub born: usize,
}

/// Gives each marked lane its row; up to `slots` of those that are new are born leased. A lane that
/// another transaction has in hand keeps a mark.
pub async fn wake(
    tx: &mut Tx,
    page: &str,
    marks: &Marks,
    lease: &Lease,
    slots: usize,
) -> Result<Woken> {
    let row = |(at, (lane, _)): (usize, &(Arc<str>, Mark))| [lane.into(), (at < slots).into()];
    let rows = marks.lanes.iter().enumerate().map(row);
    let binds: [Bind; 5] = [
        page.into(),
        lease.until.into(),
        lease.now.into(),
        (&lease.worker).into(),
        lease.token.into(),
    ];
    let name: Arc<str> = page.into();
    let mut is_new = vec![false; marks.lanes.len()];
    let mut woken = Woken::default();
    for row in tx.batch(BORN, &binds, rows).await? {
        if let Some(at) = marks.place(&row.str(0)?) {
            is_new[at] = true;
            woken.born += 1;
            let (lane, mark) = &marks.lanes[at];
            if at < slots {
                woken.leased.push(Locked {
                    lane: Arc::clone(lane),
                    page: Arc::clone(&name),
                    head: None,
                    alone: mark.single,
                });
            }
        }
    }
    if is_new.contains(&false) {
        touch(tx, page, marks, is_new, lease.now).await?;
    }
    Ok(woken)
}

/// Touches the marked lanes that were there before, and leaves a mark for those that somebody else has
/// in hand.
async fn touch(
    tx: &mut Tx,
    page: &str,
    marks: &Marks,
    mut done: Vec<bool>,
    now: Millis,
) -> Result<()> {
    let left = |done: &[bool]| -> Vec<(Arc<str>, Mark)> {
        let left = marks.lanes.iter().zip(done).filter(|(_, done)| !**done);
        left.map(|(lane, _)| lane.clone()).collect()
    };
    let row = |(lane, mark): &(Arc<str>, Mark)| [lane.into(), mark.look.into()];
    for row in tx
        .batch(TOUCHED, &[now.into()], left(&done).iter().map(row))
        .await?
    {
        if let Some(at) = marks.place(&row.str(0)?) {
            done[at] = true;
        }
    }
    // What stood for several marks must not be taken for one job's.
    let kept = |(lane, mark): &(Arc<str>, Mark)| [lane.into(), (!mark.single).into()];
    tx.change(KEPT, &[page.into()], left(&done).iter().map(kept))
        .await?;
    Ok(())
}

const KEPT: &str = "-- intake: marks of lanes that somebody else has in hand
insert into send_inbox (page_id, lane, look) select $1, r.lane, r.look from {rows: lane text, look bool}";

// Those that have joined their line are found by its index; the others leave a mark when they join.
const GARBLED: &str = "-- intake: jobs of a lane whose name is no UTF-8
update send_jobs set state = 'dead', reason = 'invalid: json.utf8: recipient or ordering_key: is not valid UTF-8', finished_at = {at: $2}
where lane = cast($1 as text) and state = 'queued' and (send_at is null or joined_at is not null)";

/// Ends the jobs of lanes that cannot be named.
pub async fn end_garbled(tx: &mut Tx, lanes: Vec<Vec<u8>>, now: Millis) -> Result<()> {
    for lane in lanes {
        tx.run(GARBLED, &[Bind::Bytes(lane), now.into()]).await?;
    }
    Ok(())
}

const LOOK_AGAIN: &str = "-- mark: look at a lane again
insert into send_inbox (page_id, lane, look) values ($1, $2, true)";

/// Leaves a mark that makes the lane look again, whatever it waits for.
pub async fn look_again(tx: &mut Tx, page: &str, lane: &str) -> Result<()> {
    tx.run(LOOK_AGAIN, &[page.into(), lane.into()]).await?;
    Ok(())
}

// From the job, not by name: a lane's name that is no UTF-8 must stay what it is.
const LOOK_AGAIN_FOR: &str = "-- mark: look again at the lanes of jobs
insert into send_inbox (page_id, lane, look)
select j.page_id, j.lane, true from {rows: job bigint} join send_jobs j on {key: j.id = r.job}";

/// Leaves a mark for the lane of each `job` of these rows.
pub async fn look_again_for(tx: &mut Tx, rows: &[super::Row]) -> Result<()> {
    let job = |row: &super::Row| Ok([row.int("job")?.into()]);
    let jobs = rows.iter().map(job).collect::<Result<Vec<_>>>()?;
    tx.change(LOOK_AGAIN_FOR, &[], jobs.into_iter()).await?;
    Ok(())
}

const TIMERS_POSTGRES: &str = "-- timers: jobs whose send_at has come
delete from send_timers where ctid = any (array(
    select ctid from send_timers where at <= $1 order by at limit $2 for update skip locked))
returning job_id as job";
/// Differs from Postgres in that rows are named by their key, and nobody else takes any.
const TIMERS_SQLITE: &str = "-- timers: jobs whose send_at has come
delete from send_timers where (at, job_id) in (
    select at, job_id from send_timers where at <= $1 order by at limit 0 + $2)
returning job_id as job";

const JOIN: &str = "-- timers: they join their lines
update send_jobs set joined_at = {at: $1} from {rows: job bigint}
where {key: send_jobs.id = r.job} and joined_at is null returning id as job";

/// Lets jobs whose `send_at` has come join their lines. Returns how many timers were taken.
pub async fn timers(tx: &mut Tx, now: Millis, limit: i64) -> Result<usize> {
    let text = match tx {
        Tx::Postgres(_) => TIMERS_POSTGRES,
        Tx::Sqlite(..) => TIMERS_SQLITE,
    };
    let due = tx.rows(text, &[now.into(), limit.into()]).await?;
    let jobs = due
        .iter()
        .map(|row| Ok([row.int("job")?.into()]))
        .collect::<Result<Vec<_>>>()?;
    let joined = tx.batch(JOIN, &[now.into()], jobs.into_iter()).await?;
    look_again_for(tx, &joined).await?;
    Ok(due.len())
}
