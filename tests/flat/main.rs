//! The cost of a delivery does not grow with what is blocked, finished or queued behind.
//!
//! Not timed: statements are counted, rows that Postgres read are counted, and the plans of every
//! statement that a ledger ran are read.

#[path = "../support/mod.rs"]
mod support;

mod backlog;
mod plans;
mod seen;
mod tour;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use backlog::{Backlog, clear, drain, insert};
use postlane::attempt::Claim;
use postlane::breaker::Breaker;
use postlane::config::Config;
use postlane::ledger::Settings;
use postlane::store::Pool;
use postlane::store::survey::WALK;
use seen::Seen;
use support::{Db, Engine, Steps, settings};

/// Jobs that a ledger of the tests has in hand at once.
const BATCH: usize = 64;
/// Measured cycles; each records a batch and claims the next.
const CYCLES: usize = 4;

/// How the jobs that are delivered lie in their lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Each is alone in its lane: it is born of its mark and ends with it.
    Alone,
    /// As many lanes as can be in hand, with jobs waiting in each.
    Lines,
}

impl Shape {
    fn recipients(self) -> usize {
        match self {
            Self::Alone => BATCH * (CYCLES + 3),
            Self::Lines => BATCH,
        }
    }

    /// Slots of a ledger that has a batch in hand.
    fn slots(self) -> usize {
        match self {
            // Of these one page gets as many as a batch: the last ones are for other pages.
            Self::Alone => BATCH + 3,
            // Marks are taken only for a page that has a slot.
            Self::Lines => 2 * BATCH,
        }
    }

    /// Most statements of a cycle, which is a batch's deliveries and the next batch's claims: survey, complete,
    /// and intake where the next batch has marks. On SQLite one reads and one writes.
    fn statements(self, engine: Engine) -> usize {
        match (self, engine) {
            (Self::Alone, Engine::Postgres) => 3,
            (Self::Alone, Engine::Sqlite) => 6,
            (Self::Lines, Engine::Postgres) => 2,
            (Self::Lines, Engine::Sqlite) => 3,
        }
    }
}

/// Most rows that a delivery may read on Postgres: (table, alone, in a lane).
const ROWS: [(&str, i64, i64); 5] = [
    ("send_jobs", 6, 6),
    ("send_lanes", 4, 3),
    ("send_attempts", 1, 1),
    ("send_inbox", 2, 1),
    ("send_timers", 1, 1),
];
/// Most entries of a table's indexes that are read for it. It is one to eight; but what earlier cycles
/// left is read again while the server cannot know that nobody else sees it. To read the smallest
/// backlog once a cycle would be twice as much.
const ENTRIES: i64 = 40;

both! {
    a_delivery_costs_the_same_beside_every_backlog, |db| {
        flat(db.engine, Shape::Alone).await;
    }

    a_delivery_in_a_line_costs_the_same_beside_every_backlog, |db| {
        flat(db.engine, Shape::Lines).await;
    }

    no_statement_scans_what_is_blocked_or_finished, |db| {
        no_autovacuum(&db).await;
        let pool = db.connect().await;
        let ((), seen) = Seen::during(async {
            tour::tour(&db, &pool).await;
            tour::verbs(&db, &pool).await;
        }).await;
        tour::is_whole(db.engine, &seen);
        // A plan is made once and kept: what it is made of may be older than the rows it meets.
        // SQLite believes in a count of ten and scans; nobody but an operator ever counts there.
        let few = if db.engine == Engine::Sqlite { 200 } else { 3 };
        for jobs in [0, few] {
            for table in plans::TABLES.iter().chain(&["send_pauses"]) {
                clear(&db, table).await;
            }
            if jobs > 0 {
                insert(&db, "few", jobs, jobs, &[]).await;
            }
            db.sql("analyze").await.expect("analyses");
            plans::check(&db, &pool, &seen, &format!("{jobs} jobs, analysed")).await;
            for backlog in Backlog::ALL {
                backlog.before(&db, Shape::Alone).await;
            }
            for backlog in Backlog::ALL {
                backlog.behind(&db, Shape::Alone).await;
            }
            plans::check(&db, &pool, &seen, &format!("{jobs} jobs, analysed, then filled")).await;
        }
        db.sql("analyze").await.expect("analyses");
        plans::check(&db, &pool, &seen, "full, analysed").await;
    }
}

/// Nobody but a test looks at how much there is.
async fn no_autovacuum(db: &Db) {
    if db.engine == Engine::Postgres {
        for table in plans::TABLES {
            let text = format!("alter table {table} set (autovacuum_enabled = false)");
            db.sql(&text).await.expect("alters");
        }
    }
}

/// Delivers the same jobs beside each backlog and compares.
async fn flat(engine: Engine, shape: Shape) {
    let mut first: Option<Seen> = None;
    for backlog in Backlog::ALL {
        let db = Db::fresh(engine).await.expect("there was one before");
        let (seen, reads) = deliver(&db, shape, backlog).await;
        let most = shape.statements(engine) * CYCLES;
        assert!(
            seen.0.len() <= most,
            "{shape:?} beside {backlog:?}: {} statements for {} deliveries, at most {most}: {:#?}",
            seen.0.len(),
            BATCH * CYCLES,
            seen.counts()
        );
        let first = first.get_or_insert_with(|| Seen(seen.0.clone()));
        assert_eq!(
            seen.counts(),
            first.counts(),
            "{shape:?} beside {backlog:?}"
        );
        if engine == Engine::Postgres {
            few_reads(shape, backlog, &reads);
        }
    }
}

/// Delivers [`CYCLES`] batches beside a backlog: what was run, and what Postgres read for it.
async fn deliver(db: &Db, shape: Shape, backlog: Backlog) -> (Seen, Reads) {
    let recipients = shape.recipients();
    no_autovacuum(db).await;
    backlog.before(db, shape).await;
    insert(db, "r", BATCH * (CYCLES + 3), recipients, &[]).await;
    let pool = db.connect().await;
    let mut worker = Steps::on(pool.clone(), calm("w1", shape.slots())).await;
    let mut claims = worker.cycle().await.claims;
    assert_eq!(claims.len(), BATCH);
    if shape == Shape::Lines {
        drain(db, &mut worker).await;
    }
    if backlog.is_wide() {
        for _ in 0..60 {
            assert!(worker.cycle().await.claims.is_empty(), "all are in hand");
        }
    }
    // The first of a lane were each created alone.
    claims = batch(&mut worker, claims).await;
    backlog.behind(db, shape).await;
    // What was read ahead before that is a second old by now.
    claims = batch(&mut worker, claims).await;
    let delivered =
        "select count(*) from send_attempts where outcome = 'delivered' and worker = 'w1'";
    let first = db.int(delivered).await;
    let before = reads(db, &pool).await;
    let work = async {
        for _ in 0..CYCLES {
            claims = batch(&mut worker, std::mem::take(&mut claims)).await;
        }
    };
    let ((), seen) = Seen::during(work).await;
    let after = reads(db, &pool).await;
    let delivered = db.int(delivered).await - first;
    assert_eq!(usize::try_from(delivered), Ok(BATCH * CYCLES));
    let since = |(name, n): (&String, &i64)| (name.clone(), n - before[name]);
    (seen, after.iter().map(since).collect())
}

/// Settings of a ledger whose circuit stays closed, whatever the answers are.
fn calm(worker: &str, concurrency: usize) -> Settings {
    let mut circuit = Config::default().circuit;
    circuit.attempts = 1_000_000;
    Settings {
        concurrency,
        breaker: Arc::new(Mutex::new(Breaker::new(circuit))),
        ..settings(worker)
    }
}

/// Records a batch and claims the next.
async fn batch(worker: &mut Steps, claims: Vec<Claim>) -> Vec<Claim> {
    for claim in claims {
        worker.answer(claim, 200);
    }
    let step = worker.cycle().await;
    assert_eq!(step.claims.len(), BATCH);
    step.claims
}

/// What Postgres has read so far, by table and kind.
type Reads = BTreeMap<String, i64>;

async fn reads(db: &Db, pool: &Pool) -> Reads {
    if db.engine == Engine::Sqlite {
        return Reads::new();
    }
    // A session hands over what it has counted before it answers the second.
    for text in ["select pg_stat_force_next_flush()", "select 1"] {
        pool.rows_of(text.to_owned(), &[]).await.expect(text);
        db.sql(text).await.expect(text);
    }
    let text = "select relname || ' scanned' as name, seq_tup_read as n from pg_stat_user_tables
        union all select relname || ' scans', seq_scan from pg_stat_user_tables
        union all select relname || ' rows', idx_tup_fetch from pg_stat_user_tables
        union all select relname || ' entries', sum(idx_tup_read)::bigint from pg_stat_user_indexes group by relname";
    let rows = db.sql(text).await.expect("statistics");
    let read = |row: &postlane::store::Row| {
        (
            row.text("name").expect("name"),
            row.int_opt("n").expect("n").unwrap_or(0),
        )
    };
    rows.iter().map(read).collect()
}

fn few_reads(shape: Shape, backlog: Backlog, reads: &Reads) {
    let which = format!("{shape:?} beside {backlog:?}");
    // A step of the walk over all pages, which a cycle may take, reads some rows of each page.
    let walked = match backlog.is_wide() {
        true => 4 * i64::try_from(WALK * CYCLES).expect("few"),
        false => 0,
    };
    let deliveries = i64::try_from(BATCH * CYCLES).expect("few");
    for (table, alone, line) in ROWS {
        let rows = match shape {
            Shape::Alone => alone,
            Shape::Lines => line,
        };
        let limits = [
            ("scans", 0),
            ("scanned", 0),
            ("rows", rows * deliveries + walked),
            ("entries", ENTRIES * deliveries),
        ];
        for (kind, most) in limits {
            let read = reads[&format!("{table} {kind}")];
            assert!(
                read <= most,
                "{which}: {read} {kind} of {table} for {deliveries} deliveries, at most {most}"
            );
        }
    }
    assert!(
        reads["send_jobs rows"] >= deliveries,
        "{which}: nothing was counted"
    );
}
