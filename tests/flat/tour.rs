//! Jobs on every way through a ledger, so that every statement is run once.

use std::collections::BTreeSet;
use std::time::Duration;

use postlane::clock::Millis;
use postlane::job::{AfterUnknown, JobId, Token};
use postlane::store::Pool;
use postlane::store::heal::Healer;
use postlane::store::lanes::Lease;
use postlane::store::operate::{self, Operator, Verb};
use postlane::store::prune::{self, Kind, Place};
use postlane::store::take;
use postlane::store::work::Work;

use crate::backlog::insert;
use crate::calm;
use crate::seen::{Seen, heading};
use crate::support::{Db, Engine, Steps};

/// Where the statements stand that ledgers, sweepers and operators' verbs run on either engine.
const SOURCES: [&str; 5] = [
    include_str!("../../src/store/lanes.rs"),
    include_str!("../../src/store/intake.rs"),
    include_str!("../../src/store/complete.rs"),
    include_str!("../../src/store/prune.rs"),
    include_str!("../../src/store/operate.rs"),
];

/// Those of one engine.
const POSTGRES: [&str; 6] = [
    include_str!("../../src/store/postgres/survey.sql"),
    include_str!("../../src/store/postgres/timers.sql"),
    include_str!("../../src/store/postgres/intake.sql"),
    include_str!("../../src/store/postgres/take.sql"),
    include_str!("../../src/store/postgres/complete.sql"),
    include_str!("../../src/store/postgres/late.sql"),
];
const SQLITE: [&str; 11] = [
    include_str!("../../src/store/sqlite/survey.sql"),
    include_str!("../../src/store/sqlite/timers.sql"),
    include_str!("../../src/store/sqlite/timers_write.sql"),
    include_str!("../../src/store/sqlite/intake.sql"),
    include_str!("../../src/store/sqlite/intake_write.sql"),
    include_str!("../../src/store/sqlite/taken.sql"),
    include_str!("../../src/store/sqlite/take.sql"),
    include_str!("../../src/store/sqlite/take_write.sql"),
    include_str!("../../src/store/sqlite/complete.sql"),
    include_str!("../../src/store/sqlite/complete_write.sql"),
    include_str!("../../src/store/sqlite/late.sql"),
];

/// Statements that the tour does not run on an engine (or on none), and why.
const UNSEEN: [(Option<Engine>, &str, &str); 4] = [
    (
        None,
        "timers: the database refuses to let a job join its lane",
        "tests/stuck",
    ),
    (
        None,
        "prune: how many there are",
        "counts for a person who asks",
    ),
    (
        Some(Engine::Sqlite),
        "wake: workers that sleep",
        "Postgres's own",
    ),
    (
        Some(Engine::Postgres),
        "intake: jobs of a lane whose name is not UTF-8",
        "text is UTF-8",
    ),
];

/// Runs every statement of the ledger on `pool`, some for one row and some for a batch.
pub async fn tour(db: &Db, pool: &Pool) {
    let lease = Duration::from_secs(60);
    let mut other = calm("w2", 64);
    other.after_unknown = AfterUnknown::Continue;
    let mut second = Steps::on(pool.clone(), other).await;
    for jobs in [1, 40] {
        // Three of each: the first fails and is tried again, the others wait behind it.
        insert(db, "tour", 3 * jobs, jobs, &[]).await;
        let mut first = Steps::on(pool.clone(), calm("w1", 64)).await;
        for claim in first.claims().await {
            first.answer(claim, 503);
        }
        first.claims().await;
        first.pass(Duration::from_secs(5));
        assert_eq!(first.deliver_all().await.len(), 3 * jobs);

        // One alone in its lane, one expired, one that joins later.
        insert(db, "alone", jobs, jobs, &[]).await;
        first.now = pool.now().await.expect("now") + 500;
        let past = db.time(first.now - 1000);
        insert(db, "gone", jobs, jobs, &[("expires_at", &past)]).await;
        let soon = db.time(first.now + 1000);
        insert(db, "timed", jobs, jobs, &[("send_at", &soon)]).await;
        if db.engine == Engine::Sqlite {
            insert(
                db,
                "garbled",
                1,
                1,
                &[("ordering_key", "cast(x'ff' as text)")],
            )
            .await;
        }
        assert_eq!(first.deliver_all().await.len(), jobs);
        first.pass(Duration::from_secs(2));
        assert_eq!(first.deliver_all().await.len(), jobs);

        // A worker is lost, and comes back with a success.
        insert(db, &format!("lost{jobs}"), jobs, jobs, &[]).await;
        first.now = pool.now().await.expect("now") + 10;
        let late = first.claims().await;
        second.now = first.now;
        second.pass(lease);
        assert!(second.claims().await.is_empty());
        for claim in late {
            first.answer(claim, 200);
        }
        first.claims().await;
        let sent = format!(
            "select count(*) from send_jobs where lane like '1/id:lost{jobs}%' and state = 'delivered'"
        );
        assert_eq!(usize::try_from(db.int(&sent).await), Ok(jobs));
        second.pass(Duration::from_secs(5));
        assert!(second.claims().await.is_empty(), "their lanes end");
    }
}

/// Runs what operators and the sweeper run, for one job and for a batch.
pub async fn verbs(db: &Db, pool: &Pool) {
    let operator = Operator {
        who: "ann".to_owned(),
        why: None,
    };
    for jobs in [1, 40] {
        insert(
            db,
            "asked",
            3 * jobs,
            3 * jobs,
            &[("on_ambiguous", "'hold'")],
        )
        .await;
        let mut worker = Steps::on(pool.clone(), calm("w3", 200)).await;
        for claim in worker.claims().await {
            worker.answer(claim, 500);
        }
        worker.claims().await;
        let unknown = db
            .sql("select id from send_jobs where state = 'unknown'")
            .await
            .expect("jobs");
        let unknown: Vec<JobId> = unknown
            .iter()
            .map(|row| row.job("id").expect("id"))
            .collect();
        let [arrived, over, again] = [0, 1, 2].map(|part| &unknown[part * jobs..][..jobs]);
        for (verb, of) in [
            (Verb::ResolveDelivered, arrived),
            (Verb::ResolveDead, over),
            (Verb::ResolveResend, again),
            (Verb::Hold, again),
            (Verb::Release, again),
            (Verb::Cancel, again),
        ] {
            let moved = operate::apply(pool, verb, of, &operator)
                .await
                .expect("moves");
            assert_eq!(moved.len(), jobs, "{verb:?}");
        }
        let copies = operate::requeue(pool, over, true, &operator)
            .await
            .expect("requeues");
        assert_eq!(copies.len(), jobs);
        probed(pool, worker.now).await;
        operate::pause(pool, &crate::support::scope("lane:1/id:asked0"), &operator)
            .await
            .expect("pauses");
        operate::resume(pool, &crate::support::scope("lane:1/id:asked0"), &operator)
            .await
            .expect("resumes");
        let later = worker.now + 60_000;
        let longest = Duration::from_secs(3600);
        let healed = Healer::default().heal(pool, later, longest, 500).await;
        healed.expect("heals");
        for (kind, least) in [(Kind::Ended, 2 * jobs), (Kind::Delivered, 1)] {
            let pruned = prune::prune(pool, kind, Duration::ZERO, later, Place::default(), 500)
                .await
                .expect("prunes")
                .pruned;
            assert!(usize::try_from(pruned).expect("few") >= least, "{kind:?}");
        }
        // What waits still must not be in the way of the next.
        worker.deliver_all().await;
    }
}

/// Puts lanes into hand as for a probe of their page.
async fn probed(pool: &Pool, now: Millis) {
    let lease = Lease {
        worker: "w4".into(),
        token: Token::default(),
        now,
        until: now,
        after_unknown: AfterUnknown::Block,
        delay_on_wire: false,
        longest_wait: Duration::from_secs(3600),
    };
    let mut work = Work::new(pool);
    take::take_to_probe(&mut work, &"1".into(), 8, &lease)
        .await
        .expect("takes");
    work.rollback().await;
}

/// Every statement was run, or there is a reason.
pub fn is_whole(engine: Engine, seen: &Seen) {
    let ran: BTreeSet<&str> = seen.0.iter().map(|text| heading(text)).collect();
    let of_engine: &[&str] = match engine {
        Engine::Postgres => &POSTGRES,
        Engine::Sqlite => &SQLITE,
    };
    let of_either = SOURCES.iter().flat_map(|source| {
        let texts = source.split("\"-- ").skip(1);
        texts.filter_map(|text| text.split(['\n', '\\']).next())
    });
    let names = of_either.chain(of_engine.iter().map(|text| heading(text)));
    let excused = |name: &str| {
        let mut unseen = UNSEEN.iter();
        unseen.any(|(on, unseen, _)| on.is_none_or(|on| on == engine) && *unseen == name)
    };
    let (mut missed, mut idle) = (Vec::new(), Vec::new());
    for name in names {
        match (ran.contains(name), excused(name)) {
            (false, false) => missed.push(name),
            (true, true) => idle.push(name),
            _ => {}
        }
    }
    assert!(missed.is_empty(), "not run: {missed:#?}");
    assert!(idle.is_empty(), "excused, but run: {idle:#?}");
}
