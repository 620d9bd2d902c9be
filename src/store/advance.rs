//! Advancing: a job ends and the next of its line begins, at once.
//!
//! What `record`, `look` and `claim` do in a transaction of several round trips, for a lane whose next
//! job was read ahead ([`super::line::following`]). Nothing is believed of it: the statement asks
//! whether the lane is still its worker's and the job still the head of its line, and leaves what is
//! not for the long way.

use super::lanes::{self, Begin, Lease};
use super::line::{first_in_line, unknown_in_line};
use super::record::{self, Ended, end_attempts};
use super::{Pool, Result, Row, Tx};
use crate::job::AfterUnknown;

/// A job that ends, and the next one of its line.
#[derive(Debug, Clone)]
pub struct Advance {
    /// How the one in hand ended: for good, and without a rest for its lane.
    pub ended: Ended,
    /// The one that begins.
    pub next: Begin,
}

/// Who may advance, of lanes `l` joined to the rows `r`: whose next job would be found by a look, too.
macro_rules! still_next {
    () => {
        concat!(
            "join send_lanes l on {key: l.lane = r.lane} and l.token = r.token and l.leased_by = $1
    where r.next = ",
            first_in_line!(),
            "
        and ",
            unknown_in_line!("$2"),
            " is null
        and not exists (select 1 from send_pauses p where p.scope = 'lane:' || r.lane)
    order by {bytes: r.lane} {lock l}"
        )
    };
}

// Both jobs of a lane change in one UPDATE: the CHECKs of `send_jobs` are read anew for each, which takes
// as long as changing three rows. The one that ends comes first, whichever side is walked inside the
// other: it has left `sending` when the next comes there (`send_jobs_one_sending`).
const POSTGRES: &str = concat!(
    "-- advance: jobs end and the next of their lines begin
with mine as materialized (
    select r.* from {rows: lane text, token bigint, at bigint, next bigint, next_number bigint, job bigint, number bigint, finished bigint, outcome text, status bigint, error text, response text, rule text, state text, failed bigint, due bigint, reason text, ambiguous bool}
    ",
    still_next!(),
    "
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
        cancel_requested = false
    from (
        select mine.*, begins, case when begins then next else job end as id
        from mine cross join (values (false), (true)) as both_of (begins)
    ) as r
    where {key: send_jobs.id = r.id} and case when r.begins
        then send_jobs.state = 'queued' and send_jobs.attempts = r.next_number - 1
        else send_jobs.state = 'sending' and send_jobs.attempts = r.number end
    returning r.at, r.lane, r.next, r.next_number, r.begins
), began as (
    select * from moved where begins
), begun as (
    insert into send_attempts (job_id, number, started_at, worker)
    select next, next_number, {at: $3}, $1 from began
), leased as (
    update send_lanes set token = $4, due_at = $5, head = null
    from began where {key: send_lanes.lane = began.lane}
)
select at from began"
);

/// Advances on Postgres, in one statement that is a transaction of its own. Returns the places of those
/// whose next job began; the end of the others is still to be recorded, in part again.
pub async fn at_once(
    pool: &Pool,
    lanes: &[Advance],
    lease: &Lease,
    after: AfterUnknown,
) -> Result<Vec<usize>> {
    let row = |(at, Advance { ended, next }): (usize, &Advance)| {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m] = record::both(ended);
        let (token, number) = (ended.token.into(), next.number.into());
        let (lane, job) = ((&next.lane).into(), next.job.into());
        [
            lane,
            token,
            at.into(),
            job,
            number,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            m,
        ]
    };
    let binds = [
        (&lease.worker).into(),
        block(after).into(),
        lease.now.into(),
        lease.token.into(),
        lease.until.into(),
    ];
    let rows = pool
        .batch(POSTGRES, &binds, lanes.iter().enumerate().map(row))
        .await?;
    rows.iter().map(place).collect()
}

/// Differs from Postgres in that it only finds who may advance: SQLite cannot write in a `with`.
const SQLITE: &str = concat!(
    "-- advance: lanes whose next job is known
select r.at from {rows: lane text, token bigint, at bigint, next bigint}
    ",
    still_next!()
);

/// Advances on SQLite, within a transaction. Returns the places of those whose next job began.
pub async fn within(
    tx: &mut Tx,
    lanes: &[Advance],
    lease: &Lease,
    after: AfterUnknown,
) -> Result<Vec<usize>> {
    let row = |(at, Advance { ended, next }): (usize, &Advance)| {
        let (token, job) = (ended.token.into(), next.job.into());
        [(&next.lane).into(), token, at.into(), job]
    };
    let binds = [(&lease.worker).into(), block(after).into()];
    let rows = tx
        .batch(SQLITE, &binds, lanes.iter().enumerate().map(row))
        .await?;
    let places = rows.iter().map(place).collect::<Result<Vec<_>>>()?;
    let mine = || places.iter().filter_map(|at| lanes.get(*at));
    let ended: Vec<&Ended> = mine().map(|lane| &lane.ended).collect();
    let next: Vec<Begin> = mine().map(|lane| lane.next.clone()).collect();
    if !next.is_empty() {
        record::write(tx, &ended).await?;
        // Nobody else writes: none of them has moved since.
        lanes::claim(tx, &next, lease).await?;
    }
    Ok(places)
}

fn block(after: AfterUnknown) -> i64 {
    i64::from(after == AfterUnknown::Block)
}

fn place(row: &Row) -> Result<usize> {
    Ok(usize::try_from(row.int(0)?).unwrap_or(usize::MAX))
}
