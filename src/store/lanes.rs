//! Lanes: what is written to a leased lane, and how its head is read.
//!
//! Three statements put lanes into hand: [`super::intake`], [`super::take`], [`super::complete`]. Each locks
//! its chosen head without waiting and re-checks the locked row, so a job moved meanwhile does not start.

use std::sync::Arc;
use std::time::Duration;

use super::{Bind, Pool, Result, Row, Tx, one};
use crate::clock::{Millis, millis};
use crate::job::{AfterUnknown, AttemptNo, Head, JobId, OnAmbiguous, PageId, Token};

const TOKENS_POSTGRES: &str =
    "-- claim: tokens that never repeat\nselect nextval('send_tokens') as token";
/// Differs from Postgres in that SQLite has no sequences: a counter row, under the write lock.
const TOKENS_SQLITE: &str = "-- claim: tokens that never repeat\nupdate send_tokens set value = value + 1000 returning value as token";

/// How many tokens a draw takes: the sequence's increment.
pub const TOKENS: i64 = 1000;

/// Draws [`TOKENS`] tokens that no other draw has; returns the first of them.
pub async fn tokens(pool: &Pool) -> Result<i64> {
    let mut tx = pool.begin().await?;
    let text = match tx {
        Tx::Postgres(_) => TOKENS_POSTGRES,
        Tx::Sqlite(..) => TOKENS_SQLITE,
    };
    let first = one(tx.rows(text, &[]).await?)?.int("token")?;
    tx.commit().await?;
    Ok(first)
}

/// The lease a statement writes, and the settings its choice depends on.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The worker's name, unique to its process.
    pub worker: Arc<str>,
    /// The token of this statement.
    pub token: Token,
    /// The database's clock at the beginning of the cycle.
    pub now: Millis,
    /// When the lease ends.
    pub until: Millis,
    /// What an unknown job does to its lane.
    pub after_unknown: AfterUnknown,
    /// A delay goes out on the wire and is not waited for.
    pub delay_on_wire: bool,
    /// The longest wait that a rule gives between two attempts.
    pub longest_wait: Duration,
}

impl Lease {
    /// `$1` to `$7` of those statements.
    pub(super) fn binds(&self) -> [Bind; 7] {
        [
            (&self.worker).into(),
            self.token.into(),
            self.now.into(),
            self.until.into(),
            i64::from(self.after_unknown == AfterUnknown::Block).into(),
            i64::from(self.delay_on_wire).into(),
            millis(self.longest_wait).into(),
        ]
    }
}

/// What SQLite's statements write to a lane, depending on its head; Postgres decides it in the statement.
pub(super) struct Plan {
    /// When the lane is due again; none if it is blocked.
    pub due: Option<Millis>,
    /// Its head begins its next attempt.
    pub claims: bool,
    /// The head, if it begins or has begun.
    pub job: Option<JobId>,
    /// The number of the attempt that begins.
    pub number: Option<AttemptNo>,
}

impl Plan {
    /// For a head that may begin at `ready`: now or later; none if it is blocked.
    pub fn of(head: &Head, ready: Option<Millis>, lease: &Lease) -> Self {
        let claims = ready.is_some_and(|at| at <= lease.now);
        Self {
            due: if claims { Some(lease.until) } else { ready },
            claims,
            job: (claims || head.attempts > 0).then_some(head.job),
            number: claims.then_some(AttemptNo::after(head.attempts)),
        }
    }

    /// For a lane whose head is not looked at before `due`.
    pub fn wait(due: Option<Millis>) -> Self {
        Self {
            due,
            claims: false,
            job: None,
            number: None,
        }
    }
}

/// Reads a head from the columns starting at `first`; `None` if they are null.
pub(super) fn head(row: &Row, first: usize) -> Result<Option<Head>> {
    if row.is_null(first)? {
        return Ok(None);
    }
    Ok(Some(Head {
        job: row.job(first)?,
        attempts: row.int(first + 1)?,
        failures: row.int(first + 2)?,
        ambiguous: row.int(first + 3)?,
        expires: row.int_opt(first + 4)?,
        // A policy that nobody can read is the careful one.
        on_ambiguous: row
            .str_opt(first + 5)?
            .map(|word| word.parse().unwrap_or(OnAmbiguous::Hold)),
        recipient: row.bytes(first + 6)?,
        message: row.bytes(first + 7)?,
        tag: row.text_opt(first + 8)?,
        delay: row.int(first + 9)?,
        since: row.int_opt(first + 10)?,
    }))
}

/// How many columns [`head`] reads.
pub(super) const HEAD: usize = 11;

const UNBLOCK: &str = "-- unblock: lanes that waited for a mark look again
update send_lanes set due_at = case when rest_until > $1 then rest_until else $1 end where due_at is null";

/// Wakes every blocked lane: the policy by which it was blocked may have changed.
pub async fn unblock(pool: &Pool, now: Millis) -> Result<()> {
    let mut tx = pool.begin().await?;
    tx.run(UNBLOCK, &[now.into()]).await?;
    tx.commit().await
}

/// Claims whose commit was not confirmed.
#[derive(Debug, Clone)]
pub struct Unconfirmed {
    /// Of these pages.
    pub pages: Vec<PageId>,
    /// By this lease.
    pub lease: Lease,
}

/// Releases lanes of unsent claims, if the commit happened. Their session has ended, so it cannot happen later.
pub async fn release(pool: &Pool, claims: &Unconfirmed, now: Millis) -> Result<()> {
    let Unconfirmed { pages, lease } = claims;
    let binds = [
        (&lease.worker).into(),
        lease.token.into(),
        lease.now.into(),
        lease.until.into(),
        now.into(),
    ];
    let text = match pool {
        Pool::Postgres(_) => include_str!("postgres/release.sql"),
        Pool::Sqlite(..) => include_str!("sqlite/release.sql"),
    };
    let mut tx = pool.begin().await?;
    tx.change(text, &binds, pages.iter().map(|page| [page.into()]))
        .await?;
    tx.commit().await
}
