//! The shared budget of a page's rate: drawn in chunks, in a transaction of its own.

use super::{Pool, Result, one};
use crate::clock::Millis;
use crate::pace;

const SEED: &str = "-- rate: a page's first draw
insert into send_rates (page_id, next_at) values ($1, 0) on conflict (page_id) do nothing";

const READ_POSTGRES: &str = "-- rate: lock the budget
select next_at, floor(extract(epoch from clock_timestamp()) * 1000000::numeric)::bigint as now
from send_rates where page_id = $1 for update";
/// Differs from Postgres in the clock's spelling and that the write lock is held already.
const READ_SQLITE: &str = "-- rate: read the budget
select next_at, cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000 as now
from send_rates where page_id = $1";

const WRITE: &str = "-- rate: spend it
update send_rates set next_at = $2 where page_id = $1";

/// What was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Requests that may be sent.
    pub granted: usize,
    /// How long until there is more, at least a millisecond.
    pub wait: Millis,
}

/// Draws up to `wanted` requests from the budget of a page.
pub async fn draw(pool: &Pool, page: &str, rate: f64, wanted: usize) -> Result<Drawn> {
    let mut tx = pool.begin().await?;
    tx.run(SEED, &[page.into()]).await?;
    let read = if matches!(pool, Pool::Postgres(_)) {
        READ_POSTGRES
    } else {
        READ_SQLITE
    };
    let row = one(tx.rows(read, &[page.into()]).await?)?;
    let now = row.int("now")?;
    let before = row.int("next_at")?;
    let (granted, next_at) = pace::allowance(rate, before, now, wanted);
    if next_at != before {
        tx.run(WRITE, &[page.into(), next_at.into()]).await?;
    }
    tx.commit().await?;
    Ok(Drawn {
        granted,
        wait: ((next_at - now) / 1000).max(1),
    })
}
