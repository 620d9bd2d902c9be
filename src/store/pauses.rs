//! Pauses that workers set: opened, probed and closed by them, seen by all.
//!
//! Operators' pauses ([`super::operate`]) have no `probe_at`: nothing here touches them.

use super::{Bind, Pool, Result};
use crate::breaker::Change;
use crate::clock::{Millis, millis};
use crate::scope::Scope;
use std::time::Duration;

const OPEN: &str = "-- pause: a worker stops a scope
insert into send_pauses (scope, who, why, rule, pages, suspect, probe_at, wait_ms)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (scope) do nothing";

/// Pauses what [`Change::Open`] names, until a probe at `now` and its wait. False if it was paused already:
/// a pause that a worker set then says what this one would.
pub async fn open(pool: &Pool, change: &Change, worker: &str, now: Millis) -> Result<bool> {
    let Change::Open {
        scope,
        rule,
        why,
        pages,
        suspect,
        wait,
    } = change
    else {
        return Ok(false);
    };
    let wait = millis(*wait);
    let pages = (!pages.is_empty()).then(|| pages.join(" "));
    let binds = [
        scope.into(),
        worker.into(),
        why.as_str().into(),
        rule.as_str().into(),
        pages.into(),
        suspect.as_str().into(),
        (now + wait).into(),
        wait.into(),
    ];
    let opened = one_change(pool, OPEN, &binds).await?;
    if !opened {
        renew(pool, scope, rule, why).await?;
    }
    Ok(opened)
}

const RENEW: &str = "-- pause: it goes on for another reason
update send_pauses set rule = $2, why = $3 where scope = $1 and probe_at is not null
    and (rule is null or rule <> $2)";

/// Says why a scope that a worker paused is still not well; since when stays.
pub async fn renew(pool: &Pool, scope: &Scope, rule: &str, why: &str) -> Result<()> {
    one_change(pool, RENEW, &[scope.into(), rule.into(), why.into()]).await?;
    Ok(())
}

const PROBE: &str = "-- pause: the right to send a job to see whether it is well
update send_pauses set probe_at = $2 + case when wait_ms < $3 then wait_ms else $3 end,
    wait_ms = case when wait_ms * 2 < $3 then wait_ms * 2 else $3 end
where scope {in (}select scope from send_pauses
    where scope = $1 and (probe_at <= $2 or probe_at > $2 + $3) {skip locked}{in )}
returning wait_ms, suspect";

/// The right to probe what is paused.
#[derive(Debug, Clone, Copy)]
pub struct Right {
    /// People may be to blame, and not their page.
    pub people: bool,
    /// The wait after the next probe.
    pub wait: Duration,
}

/// Takes the right to probe a paused scope; no worker gets it again before the next wait, which is twice as
/// long, up to `longest`. None if another worker was faster.
pub async fn probe(
    pool: &Pool,
    scope: &Scope,
    now: Millis,
    longest: Duration,
) -> Result<Option<Right>> {
    let binds = [scope.into(), now.into(), millis(longest).into()];
    let mut tx = pool.begin().await?;
    let rows = tx.rows(PROBE, &binds).await?;
    tx.commit().await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let wait = u64::try_from(row.int("wait_ms")?).unwrap_or_default();
    Ok(Some(Right {
        people: row.text_opt("suspect")?.as_deref() == Some("people"),
        wait: Duration::from_millis(wait),
    }))
}

const CLOSE: &str = "-- pause: a scope is well again
delete from send_pauses where scope = $1 and probe_at is not null";
const PROBE_ALL: &str = "-- pause: the endpoint goes on, and pages paused with it are probed
update send_pauses set probe_at = $1 where suspect = 'endpoint' and probe_at > $1";

/// Ends the pause that a worker set. False if there is none. With the endpoint's, the pages that failed
/// with it are due to be probed.
pub async fn close(pool: &Pool, scope: &Scope, now: Millis) -> Result<bool> {
    let mut tx = pool.begin().await?;
    let closed = tx.run(CLOSE, &[scope.into()]).await? > 0;
    if closed && *scope == Scope::Endpoint {
        tx.run(PROBE_ALL, &[now.into()]).await?;
    }
    tx.commit().await?;
    Ok(closed)
}

async fn one_change(pool: &Pool, template: &'static str, binds: &[Bind]) -> Result<bool> {
    let mut tx = pool.begin().await?;
    let changed = tx.run(template, binds).await?;
    tx.commit().await?;
    Ok(changed > 0)
}
