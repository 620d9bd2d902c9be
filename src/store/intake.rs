//! Intake: marks become lanes.
//!
//! Producers append marks and share nothing else with workers. Marks are taken oldest first; lanes are
//! created in lane order, and those that are there are touched only while nobody else has them in hand, so
//! two workers never wait for each other in a circle.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::lanes::{HEAD, Lease, Plan, head};
use super::work::Work;
use super::{Bind, Result, Row, Tx};
use crate::attempt::InHand;
use crate::clock::Millis;

/// What is asked of one page.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The page.
    pub page: Arc<str>,
    /// Most marks.
    pub marks: usize,
    /// Most lanes to put into hand.
    pub slots: usize,
}

/// What came of marks.
#[derive(Debug, Default)]
pub struct TakenIn {
    /// Lanes in hand.
    pub hands: Vec<InHand>,
    /// How many marks were taken.
    pub marks: usize,
    /// How many lanes are new.
    pub born: usize,
    /// How many lanes that were there are to be looked at.
    pub woken: usize,
}

/// Takes the oldest marks of pages, gives each lane that is new its row, with its head in hand where it may begin,
/// and touches the others. A lane that somebody else has in hand at this moment keeps its mark.
pub async fn intake(work: &mut Work, asks: &[Ask], lease: &Lease) -> Result<TakenIn> {
    if work.commits_each() {
        return intake_postgres(work, asks, lease).await;
    }
    let mut taken = TakenIn::default();
    for ask in asks {
        intake_sqlite(work.tx().await?, ask, lease, &mut taken).await?;
    }
    Ok(taken)
}

async fn intake_postgres(work: &mut Work, asks: &[Ask], lease: &Lease) -> Result<TakenIn> {
    let pages: HashMap<&str, &Arc<str>> = asks.iter().map(|ask| (&*ask.page, &ask.page)).collect();
    let row = |ask: &Ask| [(&ask.page).into(), ask.marks.into(), ask.slots.into()];
    let text = include_str!("postgres/intake.sql");
    let rows = work
        .batch(text, &lease.binds(), asks.iter().map(row))
        .await?;
    let mut taken = TakenIn::default();
    let mut heads = HashMap::with_capacity(rows.len());
    for row in &rows {
        if row.is_null(0)? {
            taken.marks = usize::try_from(row.int(3)?).unwrap_or_default();
            taken.born = usize::try_from(row.int(4)?).unwrap_or_default();
            taken.woken = usize::try_from(row.int(5)?).unwrap_or_default();
        } else if !row.is_null(3)? {
            heads.insert(row.str(0)?, row);
        }
    }
    // Its head is in hand only if the lane's row is this statement's.
    for born in &rows {
        if born.flag(2)?
            && let Some(row) = heads.get(&born.str(0)?)
            && let Some(head) = head(row, 3)?
            && let Some(page) = pages.get(&*row.str(1)?)
        {
            taken.hands.push(InHand {
                lane: row.str(0)?.into(),
                page: Arc::clone(page),
                token: lease.token,
                head,
                lost: None,
            });
        }
    }
    Ok(taken)
}

async fn intake_sqlite(tx: &mut Tx, ask: &Ask, lease: &Lease, taken: &mut TakenIn) -> Result<()> {
    let [a, b, c, d, e, f, g] = lease.binds();
    let binds = [
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        (&ask.page).into(),
        ask.marks.into(),
        ask.slots.into(),
    ];
    let rows = tx.rows(include_str!("sqlite/intake.sql"), &binds).await?;
    let (mut lanes, mut garbled, mut last) = (Vec::with_capacity(rows.len()), Vec::new(), 0);
    for row in &rows {
        taken.marks += usize::try_from(row.int(2)?).unwrap_or_default();
        last = last.max(row.int(3)?);
        let lane: Arc<str> = match row.utf8(0)? {
            Ok(lane) => lane.into(),
            Err(bytes) => {
                garbled.push(bytes.to_vec());
                continue;
            }
        };
        let (is_there, may, look) = (row.flag(4)?, row.flag(5)?, row.flag(1)?);
        let plan = match head(row, 6)? {
            // All that it was marked for has ended meanwhile.
            None if may => continue,
            None => Plan::wait(Some(lease.now)),
            Some(head) => {
                let plan = Plan::of(&head, row.int_opt(6 + HEAD)?, lease);
                if plan.claims {
                    taken.hands.push(InHand {
                        lane: Arc::clone(&lane),
                        page: Arc::clone(&ask.page),
                        token: lease.token,
                        head,
                        lost: None,
                    });
                }
                plan
            }
        };
        taken.born += usize::from(!is_there);
        taken.woken += usize::from(is_there && look);
        lanes.push([
            (&lane).into(),
            is_there.into(),
            look.into(),
            plan.due.into(),
            plan.claims.into(),
            plan.job.into(),
            plan.number.into(),
        ]);
    }
    let binds = [
        (&lease.worker).into(),
        lease.token.into(),
        lease.now.into(),
        (&ask.page).into(),
    ];
    tx.batch(
        include_str!("sqlite/intake_write.sql"),
        &binds,
        lanes.into_iter(),
    )
    .await?;
    if last > 0 {
        let binds = [(&ask.page).into(), last.into()];
        tx.run(include_str!("sqlite/taken.sql"), &binds).await?;
    }
    end_garbled(tx, garbled, lease.now).await
}

// Those that have joined their line are found by its index; the others leave a mark when they join.
const GARBLED: &str = "-- intake: jobs of a lane whose name is no UTF-8
update send_jobs set state = 'dead', reason = 'invalid: json.utf8: recipient or ordering_key: is not valid UTF-8', finished_at = {at: $2}
where lane = cast($1 as text) and state = 'queued' and (send_at is null or joined_at is not null)";

/// Ends the jobs of lanes that cannot be named.
async fn end_garbled(tx: &mut Tx, lanes: Vec<Vec<u8>>, now: Millis) -> Result<()> {
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
where {key: send_jobs.id = r.job} and joined_at is null returning id as job, page_id";

/// Jobs whose `send_at` has come.
pub struct Joined {
    /// How many timers were taken.
    pub taken: usize,
    /// The pages of those that have joined their lanes.
    pub pages: HashSet<Arc<str>>,
}

/// Lets jobs whose `send_at` has come join their lanes.
pub async fn timers(work: &mut Work, now: Millis, limit: i64) -> Result<Joined> {
    let tx = work.tx().await?;
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
    let page = |row: &Row| Ok(Arc::from(row.text("page_id")?));
    let pages = joined.iter().map(page).collect::<Result<_>>()?;
    work.end_step().await?;
    Ok(Joined {
        taken: due.len(),
        pages,
    })
}
