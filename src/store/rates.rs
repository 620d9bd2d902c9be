//! The shared budget of a page's rate: drawn in chunks, in a transaction of its own.

use std::collections::{BTreeMap, HashSet};

use super::{Dialect, Pool, Result};
use crate::clock::Millis;
use crate::job::PageId;
use crate::pace;

const SEED: &str = "-- rate: pages' first draws
insert into send_rates (page_id, next_at) select r.page, 0 from {rows: page text} where true
on conflict (page_id) do nothing";

const READ_POSTGRES: &str = "-- rate: lock the budgets
select page_id, next_at, floor(extract(epoch from clock_timestamp()) * 1000000::numeric)::bigint as now
from send_rates where page_id = any (array(select r.page from {rows: page text})) order by page_id for update skip locked";
/// Differs from Postgres in the clock's spelling and that the write lock is held already.
const READ_SQLITE: &str = "-- rate: read the budgets
select page_id, next_at, cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000 as now
from send_rates where page_id in (select r.page from {rows: page text})";

const WRITE: &str = "-- rate: spend them
update send_rates set next_at = r.next_at from {rows: page text, next_at bigint} where {key: send_rates.page_id = r.page}";

/// What was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Requests that may be sent.
    pub granted: usize,
    /// How long until there is more, at least a millisecond.
    pub wait: Millis,
}

/// Draws from the budgets of pages up to as many requests as each wants, by its rate.
pub async fn draw(
    pool: &Pool,
    pages: &BTreeMap<PageId, (f64, usize)>,
) -> Result<Vec<(PageId, Drawn)>> {
    let names = || pages.keys().map(|page| [page.into()]);
    let mut tx = pool.begin().await?;
    tx.change(SEED, &[], names()).await?;
    let read = match pool.dialect() {
        Dialect::Postgres => READ_POSTGRES,
        Dialect::Sqlite => READ_SQLITE,
    };
    let (mut drawn, mut spent) = (Vec::new(), Vec::new());
    for row in tx.batch(read, &[], names()).await? {
        let (page, before, now) = (row.str(0)?, row.int(1)?, row.int(2)?);
        let Some((page, (rate, wanted))) = pages.get_key_value(&*page) else {
            continue;
        };
        let (granted, next_at) = pace::allowance(*rate, before, now, *wanted);
        if next_at != before {
            spent.push([page.into(), next_at.into()]);
        }
        let wait = ((next_at - now) / 1000).max(1);
        drawn.push((page.clone(), Drawn { granted, wait }));
    }
    tx.change(WRITE, &[], spent.into_iter()).await?;
    // Somebody holds the others locked: they are asked again in a moment, and no page waits for them.
    let had: HashSet<PageId> = drawn.iter().map(|(page, _)| page.clone()).collect();
    let locked = pages.keys().filter(|page| !had.contains(*page));
    let (granted, wait) = (0, 100);
    drawn.extend(locked.map(|page| (page.clone(), Drawn { granted, wait })));
    tx.commit().await?;
    Ok(drawn)
}
