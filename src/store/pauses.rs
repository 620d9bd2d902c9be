//! Pauses that workers set: opened, probed and closed by them, seen by all.
//!
//! Operators' pauses ([`super::operate`]) have no `probe_at`: nothing here touches them.

use super::{Pool, Result};
use crate::clock::{Millis, millis};
use std::time::Duration;

const OPEN: &str = "-- pause: a worker stops a scope
insert into send_pauses (scope, who, why, probe_at, wait_ms) values ($1, $2, $3, $4, $5)
on conflict (scope) do nothing";

/// Pauses a scope until a probe at `now + wait`. False if it was paused already.
pub async fn open(
    pool: &Pool,
    scope: &str,
    worker: &str,
    why: &str,
    now: Millis,
    wait: Duration,
) -> Result<bool> {
    let wait = millis(wait);
    let binds = [
        scope.into(),
        worker.into(),
        why.into(),
        (now + wait).into(),
        wait.into(),
    ];
    one_change(pool, OPEN, &binds).await
}

const PROBE: &str = "-- pause: the right to send one job to see whether it is well
update send_pauses set probe_at = $2 + case when wait_ms < $3 then wait_ms else $3 end,
    wait_ms = case when wait_ms * 2 < $3 then wait_ms * 2 else $3 end
where scope = $1 and probe_at <= $2";

/// Takes the right to send one job in a paused scope; none has it again before the next wait, which
/// is twice as long, up to `longest`. False if another worker was faster.
pub async fn probe(pool: &Pool, scope: &str, now: Millis, longest: Duration) -> Result<bool> {
    one_change(
        pool,
        PROBE,
        &[scope.into(), now.into(), millis(longest).into()],
    )
    .await
}

const CLOSE: &str = "-- pause: a scope is well again
delete from send_pauses where scope = $1 and probe_at is not null";

/// Ends the pause that a worker set. False if there is none.
pub async fn close(pool: &Pool, scope: &str) -> Result<bool> {
    one_change(pool, CLOSE, &[scope.into()]).await
}

async fn one_change(pool: &Pool, template: &'static str, binds: &[super::Bind]) -> Result<bool> {
    let mut tx = pool.begin().await?;
    let changed = tx.run(template, binds).await?;
    tx.commit().await?;
    Ok(changed > 0)
}
