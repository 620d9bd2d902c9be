//! Intake: marks become lanes.
//!
//! Producers append marks and share nothing else with workers. Marks are taken oldest first; lanes are
//! created in lane order, existing lanes are touched only if they are not locked, so two workers never
//! deadlock.

use std::collections::{HashMap, HashSet};

use super::lanes::{HEAD, Lease, Plan, head};
use super::work::Work;
use super::{Bind, Pool, Result, Tx};
use crate::attempt::InHand;
use crate::clock::Millis;
use crate::job::{JobId, Lane, PageId};

/// What is asked of one page.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The page.
    pub page: PageId,
    /// Most marks.
    pub marks: usize,
    /// Most lanes to put into hand.
    pub slots: usize,
    /// Its marks up to this one were taken before.
    pub after: i64,
}

/// What came of marks.
#[derive(Debug, Default)]
pub struct TakenIn {
    /// Lanes in hand.
    pub hands: Vec<InHand>,
    /// How many marks were taken of each page, and the last of them.
    pub marks: HashMap<PageId, (usize, i64)>,
    /// How many lanes are new.
    pub born: usize,
    /// How many existing lanes were woken.
    pub woken: usize,
}

impl TakenIn {
    fn count(&mut self, page: &PageId, marks: i64, last: i64) {
        let (count, newest) = self.marks.entry(page.clone()).or_default();
        *count += usize::try_from(marks).unwrap_or_default();
        *newest = last.max(*newest);
    }
}

/// Takes the oldest marks of pages, gives each lane that is new its row, with its head in hand where it may begin,
/// and touches the others. A lane locked by another transaction keeps its mark.
pub async fn intake(work: &mut Work, asks: &[Ask], lease: &Lease) -> Result<TakenIn> {
    if work.commits_each() {
        return intake_postgres(work, asks, lease).await;
    }
    intake_sqlite(work.tx().await?, asks, lease).await
}

async fn intake_postgres(work: &mut Work, asks: &[Ask], lease: &Lease) -> Result<TakenIn> {
    let pages: HashMap<&str, &PageId> = asks.iter().map(|ask| (&*ask.page, &ask.page)).collect();
    let row = |ask: &Ask| {
        let (marks, slots, after) = (ask.marks.into(), ask.slots.into(), ask.after.into());
        [(&ask.page).into(), marks, slots, after]
    };
    let text = include_str!("postgres/intake.sql");
    let rows = work
        .batch(text, &lease.binds(), asks.iter().map(row))
        .await?;
    let mut taken = TakenIn::default();
    let mut heads = HashMap::with_capacity(rows.len());
    for row in &rows {
        let is_lane = !row.is_null(0)?;
        if !is_lane && let Some(page) = row.str_opt(1)? {
            if let Some(page) = pages.get(&*page) {
                taken.count(page, row.int(3)?, row.int(4)?);
            }
        } else if !is_lane {
            taken.born = usize::try_from(row.int(4)?).unwrap_or_default();
            taken.woken = usize::try_from(row.int(5)?).unwrap_or_default();
        } else if !row.is_null(3)? {
            heads.insert(row.str(0)?, row);
        }
    }
    // The head is leased only if this statement inserted the lane.
    for born in &rows {
        if born.flag(2)?
            && let Some(row) = heads.get(&born.str(0)?)
            && let Some(head) = head(row, 3)?
            && let Some(page) = pages.get(&*row.str(1)?)
        {
            taken.hands.push(InHand {
                lane: row.lane(0)?,
                page: (*page).clone(),
                token: lease.token,
                head,
                lost: None,
            });
        }
    }
    Ok(taken)
}

async fn intake_sqlite(tx: &mut Tx, asks: &[Ask], lease: &Lease) -> Result<TakenIn> {
    let mut taken = TakenIn::default();
    let pages: HashMap<&str, &PageId> = asks.iter().map(|ask| (&*ask.page, &ask.page)).collect();
    let [a, b, c, d, e, f, g] = lease.binds();
    let most = asks.iter().map(|ask| ask.marks).max().unwrap_or_default();
    let binds = [a, b, c, d, e, f, g, most.into()];
    let asked = asks
        .iter()
        .map(|ask| [(&ask.page).into(), ask.slots.into(), ask.after.into()]);
    let text = include_str!("sqlite/intake.sql");
    let rows = tx.batch(text, &binds, asked).await?;
    let (mut lanes, mut garbled) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        let Some(page) = pages.get(&*row.str(1)?) else {
            continue;
        };
        taken.count(page, row.int(3)?, row.int(4)?);
        let lane: Lane = match row.utf8(0)? {
            Ok(lane) => lane.into(),
            Err(bytes) => {
                garbled.push(bytes.to_vec());
                continue;
            }
        };
        let (look, is_there, may) = (row.flag(2)?, row.flag(5)?, row.flag(6)?);
        let plan = match head(row, 7)? {
            // Every job it was marked for has ended.
            None if may => continue,
            None => Plan::wait(Some(lease.now)),
            Some(head) => {
                let plan = Plan::of(&head, row.int_opt(7 + HEAD)?, lease);
                if plan.claims {
                    taken.hands.push(InHand {
                        lane: lane.clone(),
                        page: (*page).clone(),
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
            (*page).into(),
            is_there.into(),
            look.into(),
            plan.due.into(),
            plan.claims.into(),
            plan.job.into(),
            plan.number.into(),
        ]);
    }
    let binds = [(&lease.worker).into(), lease.token.into(), lease.now.into()];
    let text = include_str!("sqlite/intake_write.sql");
    tx.batch(text, &binds, lanes.into_iter()).await?;
    let took = asks.iter().filter_map(|ask| {
        let (_, last) = taken.marks.get(&ask.page)?;
        Some([(&ask.page).into(), ask.after.into(), (*last).into()])
    });
    let took: Vec<_> = took.collect();
    let text = include_str!("sqlite/taken.sql");
    tx.batch(text, &[], took.into_iter()).await?;
    end_garbled(tx, garbled, lease.now).await?;
    Ok(taken)
}

// Only jobs that have joined the lane; the others leave a mark when they join.
const GARBLED: &str = "-- intake: jobs of a lane whose name is not UTF-8
update send_jobs set state = 'dead', reason = 'invalid: json.utf8: recipient or ordering_key: is not valid UTF-8', finished_at = {at: $2}
where lane = cast($1 as text) and state = 'queued' and (send_at is null or joined_at is not null)";

/// Ends the jobs of lanes whose names are not UTF-8.
async fn end_garbled(tx: &mut Tx, lanes: Vec<Vec<u8>>, now: Millis) -> Result<()> {
    for lane in lanes {
        tx.run(GARBLED, &[Bind::Bytes(lane), now.into()]).await?;
    }
    Ok(())
}

const LOOK_AGAIN: &str = "-- mark: look at a lane again
insert into send_inbox (page_id, lane, look) values ($1, $2, true)";

/// Leaves a mark that wakes the lane, whatever it waits for.
pub async fn look_again(tx: &mut Tx, page: &PageId, lane: &Lane) -> Result<()> {
    tx.run(LOOK_AGAIN, &[page.into(), lane.into()]).await?;
    Ok(())
}

// From the job, not by name: a lane's name that is not UTF-8 must stay what it is.
const LOOK_AGAIN_FOR: &str = "-- mark: look again at the lanes of jobs
insert into send_inbox (page_id, lane, look)
select j.page_id, j.lane, true from {rows: job bigint} join send_jobs j on {key: j.id = r.job}";

/// Leaves a mark for the lane of each `job` of these rows.
pub async fn look_again_for(tx: &mut Tx, rows: &[super::Row]) -> Result<()> {
    let job = |row: &super::Row| Ok([row.job("job")?.into()]);
    let jobs = rows.iter().map(job).collect::<Result<Vec<_>>>()?;
    tx.change(LOOK_AGAIN_FOR, &[], jobs.into_iter()).await?;
    Ok(())
}

/// Jobs whose `send_at` has come.
#[derive(Debug, Default)]
pub struct Joined {
    /// How many timers were taken.
    pub taken: usize,
    /// The pages of those that have joined their lanes.
    pub pages: HashSet<PageId>,
}

/// Lets jobs whose `send_at` has come join their lanes.
pub async fn timers(work: &mut Work, now: Millis, limit: i64) -> Result<Joined> {
    let binds = [now.into(), limit.into()];
    let mut joined = Joined::default();
    if work.commits_each() {
        let text = include_str!("postgres/timers.sql");
        for row in work.rows(text, &binds).await? {
            match row.str_opt(0)? {
                Some(page) => drop(joined.pages.insert(page.into())),
                None => joined.taken += 1,
            }
        }
        return Ok(joined);
    }
    let tx = work.tx().await?;
    let due = tx.rows(include_str!("sqlite/timers.sql"), &binds).await?;
    joined.taken = due.len();
    let jobs = due
        .iter()
        .map(|row| Ok([row.job("job")?.into()]))
        .collect::<Result<Vec<_>>>()?;
    let text = include_str!("sqlite/timers_write.sql");
    let rows = tx.batch(text, &[now.into()], jobs.into_iter()).await?;
    look_again_for(tx, &rows).await?;
    for row in &rows {
        joined.pages.insert(row.page("page_id")?);
    }
    Ok(joined)
}

const PUT_OFF: &str = "-- timers: the database refuses to let a job join its lane
update send_timers set at = $2 where (at, job_id) = (select at, job_id from send_timers where at <= $1 order by at limit 1)
returning job_id as job";

/// Puts the first timer that is due off until then. Returns its job.
pub async fn put_off(pool: &Pool, now: Millis, until: Millis) -> Result<Option<JobId>> {
    let mut tx = pool.begin().await?;
    let rows = tx.rows(PUT_OFF, &[now.into(), until.into()]).await?;
    tx.commit().await?;
    Ok(rows.first().map(|row| row.job("job")).transpose()?)
}
