//! Take: leases due lanes. Their backoff or delay is over, they waited for a slot, or the lease of
//! their worker has run out: then its attempt is lost, and stays in the lane's row until it is recorded.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::lanes::{HEAD, Lease, Plan, head};
use super::work::Work;
use super::{Bind, Result, Row, Tx};
use crate::attempt::{InHand, Lost};
use crate::breaker::probe_order;
use crate::clock::Millis;
use crate::job::PageId;

/// Which of the due lanes of a page.
#[derive(Debug, Clone, Copy)]
enum From {
    Oldest,
    Newest,
}

static POSTGRES: LazyLock<[String; 2]> =
    LazyLock::new(|| both_ends(include_str!("postgres/take.sql")));
static SQLITE: LazyLock<[String; 2]> = LazyLock::new(|| both_ends(include_str!("sqlite/take.sql")));

/// The text, and the same from the other end of the order.
fn both_ends(oldest: &str) -> [String; 2] {
    let newest = oldest.replace("order by due_at limit", "order by due_at desc limit");
    assert_ne!(oldest, newest, "it takes them in the order of due_at");
    [oldest.to_owned(), newest]
}

/// What is asked of one page.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The page.
    pub page: PageId,
    /// Most lanes.
    pub lanes: usize,
    /// None of its lanes was due before, when that was looked at last.
    pub since: Millis,
}

impl Ask {
    fn row(&self) -> [Bind; 3] {
        [(&self.page).into(), self.lanes.into(), self.since.into()]
    }
}

/// Takes up to so many due lanes of each page, the oldest first; locked lanes are skipped.
pub async fn take(work: &mut Work, asks: &[Ask], lease: &Lease) -> Result<Vec<InHand>> {
    take_from(work, asks, lease, From::Oldest).await
}

/// Takes due lanes of a page for a probe: half of them are the newest, since the oldest may all have failed before.
/// Those that were not tried come first.
pub async fn take_to_probe(
    work: &mut Work,
    page: &PageId,
    limit: usize,
    lease: &Lease,
) -> Result<Vec<InHand>> {
    let of = |lanes| {
        let (page, since) = (page.clone(), 0);
        [Ask { page, lanes, since }]
    };
    let oldest = take_from(work, &of(limit.div_ceil(2)), lease, From::Oldest).await?;
    let newest = match limit / 2 {
        0 => Vec::new(),
        limit => take_from(work, &of(limit), lease, From::Newest).await?,
    };
    Ok(probe_order(newest, oldest, |lane| lane.head.attempts > 0))
}

async fn take_from(
    work: &mut Work,
    asks: &[Ask],
    lease: &Lease,
    from: From,
) -> Result<Vec<InHand>> {
    if work.commits_each() {
        return take_postgres(work, asks, lease, from).await;
    }
    take_sqlite(work.tx().await?, asks, lease, from).await
}

async fn take_postgres(
    work: &mut Work,
    asks: &[Ask],
    lease: &Lease,
    from: From,
) -> Result<Vec<InHand>> {
    let names: HashMap<&str, &PageId> = asks.iter().map(|ask| (&*ask.page, &ask.page)).collect();
    let asked = asks.iter().map(Ask::row);
    let rows = work
        .batch(&POSTGRES[from as usize], &lease.binds(), asked)
        .await?;
    let mut hands = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(head) = head(row, 2)?
            && let Some(page) = names.get(&*row.str(1)?)
        {
            hands.push(InHand {
                lane: row.lane(0)?,
                page: (*page).clone(),
                token: lease.token,
                head,
                lost: lost(row, 2 + HEAD)?,
            });
        }
    }
    Ok(hands)
}

/// The attempt in the columns of a row from `first` on.
fn lost(row: &Row, first: usize) -> Result<Option<Lost>> {
    if row.is_null(first)? {
        return Ok(None);
    }
    Ok(Some(Lost {
        number: row.number(first)?,
        started: row.int(first + 1)?,
        worker: row.str(first + 2)?.into(),
    }))
}

async fn take_sqlite(tx: &mut Tx, asks: &[Ask], lease: &Lease, from: From) -> Result<Vec<InHand>> {
    let names: HashMap<&str, &PageId> = asks.iter().map(|ask| (&*ask.page, &ask.page)).collect();
    let [a, b, c, d, e, f, g] = lease.binds();
    let most = asks.iter().map(|ask| ask.lanes).max().unwrap_or_default();
    let binds = [a, b, c, d, e, f, g, most.into()];
    let asked = asks.iter().map(Ask::row);
    let rows = tx.batch(&SQLITE[from as usize], &binds, asked).await?;
    let mut hands = Vec::with_capacity(rows.len());
    let mut lanes = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(page) = names.get(&*row.str(1)?) else {
            continue;
        };
        let lane = row.lane(0)?;
        let is_lost = row.flag(5)?;
        let head = head(row, 6)?;
        let plan = match &head {
            _ if is_lost => Plan::wait(Some(lease.until)),
            None => Plan::wait(None),
            Some(head) => Plan::of(head, row.int_opt(6 + HEAD)?, lease),
        };
        let is_over = head.is_none();
        let is_taken = is_lost || plan.claims;
        if let Some(head) = head.filter(|_| is_taken) {
            let lost = match is_lost {
                true => Some(Lost {
                    number: row.number(3)?,
                    started: row.int(4)?,
                    worker: row.str(2)?.into(),
                }),
                false => None,
            };
            hands.push(InHand {
                lane: lane.clone(),
                page: (*page).clone(),
                token: lease.token,
                head,
                lost,
            });
        }
        lanes.push([
            (&lane).into(),
            is_over.into(),
            is_lost.into(),
            plan.due.into(),
            plan.claims.into(),
            plan.job.into(),
            plan.number.into(),
        ]);
    }
    let binds = [(&lease.worker).into(), lease.token.into(), lease.now.into()];
    tx.batch(
        include_str!("sqlite/take_write.sql"),
        &binds,
        lanes.into_iter(),
    )
    .await?;
    Ok(hands)
}
