//! What may lie around while jobs are delivered, and must not be felt.

use std::time::Duration;

use crate::support::{Db, Engine, Steps, braces, further, throttled};
use crate::{Shape, calm};

/// Jobs of a lane whose head waits for its retry.
const DEEP: usize = 5_000;
/// Lanes that wait for an operator: half of them behind an unknown job, half paused.
const BLOCKED: usize = 5_000;
/// Jobs that are over.
const FINISHED: usize = 20_000;
/// Jobs that came later.
const QUEUED: usize = 20_000;
/// Jobs whose `send_at` is far away.
const SCHEDULED: usize = 20_000;
/// Pages that have work and cannot send.
const PAGES: usize = 5_000;

/// Something big that lies around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    Nothing,
    /// A lane whose head is in backoff.
    Deep,
    /// Lanes that are blocked.
    Blocked,
    /// History of the recipients that are sent to.
    Finished,
    /// More to send, behind what is sent now.
    Queued,
    /// More to send tomorrow.
    Scheduled,
    /// Marks of pages without a secret.
    Secretless,
    /// Marks of pages that an operator has paused.
    PausedPages,
    /// Pages whose lanes are due tomorrow.
    LaterPages,
}

impl Backlog {
    pub const ALL: [Self; 9] = [
        Self::Nothing,
        Self::Deep,
        Self::Blocked,
        Self::Finished,
        Self::Queued,
        Self::Scheduled,
        Self::Secretless,
        Self::PausedPages,
        Self::LaterPages,
    ];

    /// Many pages: a ledger walks over all of them once.
    pub fn is_wide(self) -> bool {
        matches!(
            self,
            Self::Secretless | Self::PausedPages | Self::LaterPages
        )
    }

    /// What came before the jobs that will be delivered.
    pub async fn before(self, db: &Db, shape: Shape) {
        // On the connection that the test reads by: what it counts is told with that one's.
        let mut builder = Steps::on(db.pool.clone(), calm("builder", BLOCKED)).await;
        match self {
            Self::Nothing | Self::Queued => {}
            Self::Deep => {
                insert(db, "deep", 1, 1, &[]).await;
                builder.now = db.pool.now().await.expect("now") + 10;
                let claim = builder.claims().await.remove(0);
                builder.answer_with(claim, &throttled(Duration::from_secs(3600)));
                insert(db, "deep", DEEP - 1, 1, &[]).await;
                drain(db, &mut builder).await;
                check(db, "send_lanes where job is not null and worker is null", 1).await;
            }
            Self::Blocked => {
                insert(
                    db,
                    "unknown",
                    BLOCKED / 2,
                    BLOCKED / 2,
                    &[("on_ambiguous", "'hold'")],
                )
                .await;
                insert(db, "paused", BLOCKED / 2, BLOCKED / 2, &[]).await;
                let pause = "insert into send_pauses (scope, who) \
                    select 'lane:' || lane, 'ann' from send_jobs where lane like '1/id:paused%'";
                db.sql(pause).await.expect("pauses");
                builder.now = db.pool.now().await.expect("now") + 10;
                for claim in builder.claims().await {
                    builder.answer(claim, 500);
                }
                drain(db, &mut builder).await;
                check(db, "send_lanes where due_at is null", BLOCKED).await;
                check(db, "send_jobs where state = 'unknown'", BLOCKED / 2).await;
            }
            Self::Finished => {
                let now = db.time(db.pool.now().await.expect("now"));
                let over = [("state", "'delivered'"), ("finished_at", now.as_str())];
                insert(db, "r", FINISHED, shape.recipients(), &over).await;
                clear(db, "send_inbox").await;
                let attempts = "insert into send_attempts \
                    (job_id, number, started_at, finished_at, outcome, rule, worker) \
                    select id, 1, created_at, finished_at, 'delivered', 'http.2xx', 'w0' \
                    from send_jobs where state = 'delivered'";
                db.sql(attempts).await.expect("attempts");
            }
            Self::Scheduled => {
                let tomorrow = db.time(db.pool.now().await.expect("now") + 86_400_000);
                let at = [("send_at", tomorrow.as_str())];
                insert(db, "r", SCHEDULED, shape.recipients(), &at).await;
                check(db, "send_timers", SCHEDULED).await;
            }
            Self::Secretless => insert_pages(db, 9).await,
            Self::PausedPages => {
                insert_pages(db, 8).await;
                let pause = "insert into send_pauses (scope, who) \
                    select 'page:' || page_id, 'ann' from send_jobs where page_id like '8%'";
                db.sql(pause).await.expect("pauses");
                check(db, "send_pauses where scope like 'page:8%'", PAGES).await;
            }
            Self::LaterPages => {
                insert_pages(db, 7).await;
                let tomorrow = db.pool.now().await.expect("now") + 86_400_000;
                let lanes = format!(
                    "insert into send_lanes (lane, page_id, due_at) \
                     select lane, page_id, {tomorrow} from send_inbox where page_id like '7%'"
                );
                db.sql(&lanes).await.expect("lanes");
                clear(db, "send_inbox").await;
            }
        }
    }

    /// What comes behind them: marks of other recipients, or jobs in the same lanes whose marks are
    /// taken already.
    pub async fn behind(self, db: &Db, shape: Shape) {
        if self != Self::Queued {
            return;
        }
        match shape {
            Shape::Alone => insert(db, "later", QUEUED, QUEUED, &[]).await,
            Shape::Lines => {
                insert(db, "r", QUEUED, shape.recipients(), &[]).await;
                clear(db, "send_inbox").await;
            }
        }
    }
}

/// Jobs of page 1 in turns for `recipients` recipients, with further columns as SQL literals.
pub async fn insert(db: &Db, prefix: &str, jobs: usize, recipients: usize, more: &[(&str, &str)]) {
    insert_for(db, "'1'", prefix, jobs, recipients, more).await;
}

/// The same for a page, an expression.
async fn insert_for(
    db: &Db,
    page: &str,
    prefix: &str,
    jobs: usize,
    recipients: usize,
    more: &[(&str, &str)],
) {
    let (numbers, json) = match db.engine {
        Engine::Sqlite => (
            format!(
                "with recursive i (n) as (select 0 union all select n + 1 from i where n < {jobs} - 1) select n from i"
            ),
            "",
        ),
        Engine::Postgres => (
            format!("select n from generate_series(0, {jobs} - 1) as n"),
            "::json",
        ),
    };
    let recipient = braces(&format!("\"id\":\"{prefix}' || (n % {recipients}) || '\""));
    let message = braces(r#""template_type":"text","text":"x""#);
    let (columns, values) = further(more);
    let text = format!(
        "insert into send_jobs (page_id, recipient, message{columns}) \
         select {page}, ('{recipient}'){json}, ('{message}'){json}{values} from ({numbers}) as i"
    );
    db.sql(&text).await.expect("inserts");
}

/// A job for each of [`PAGES`] pages, whose ids begin with this number.
async fn insert_pages(db: &Db, first: u32) {
    insert_for(
        db,
        &format!("cast({first}00000 + n as text)"),
        "page",
        PAGES,
        PAGES,
        &[],
    )
    .await;
}

/// Empties a table and leaves nothing dead behind.
pub async fn clear(db: &Db, table: &str) {
    let verb = match db.engine {
        Engine::Sqlite => "delete from",
        Engine::Postgres => "truncate",
    };
    db.sql(&format!("{verb} {table}")).await.expect("clears");
}

/// Cycles until every mark is taken and every outcome written.
pub async fn drain(db: &Db, worker: &mut Steps) {
    for _ in 0..200 {
        let step = worker.cycle().await;
        assert!(step.claims.is_empty(), "nothing of a backlog may be sent");
        if worker.ledger.unwritten() == 0
            && db
                .int("select count(*) from send_inbox where page_id = '1'")
                .await
                == 0
        {
            return;
        }
    }
    panic!("marks are left");
}

/// A backlog that is none would prove nothing.
async fn check(db: &Db, what: &str, wanted: usize) {
    let count = db.int(&format!("select count(*) from {what}")).await;
    assert_eq!(usize::try_from(count), Ok(wanted), "{what}");
}
