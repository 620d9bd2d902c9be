//! One bad row is one job's trouble: what somebody holds locked, what the database refuses, and what was there before
//! keep one lane back, and no other. Stepped by hand.

mod support;

use std::time::Duration;

use postlane::attempt::Claim;
use postlane::job::JobId;
use sqlx::Connection as _;
use support::{Db, Engine, Steps, braces};

const LANES: usize = 20;

/// As many lanes with two jobs each, whose first are in hand.
async fn in_hand(db: &Db) -> (Steps, Vec<Claim>) {
    for text in ["1", "2"] {
        for lane in 0..LANES {
            db.insert(&format!("r{lane:02}"), text).await;
        }
    }
    let mut worker = Steps::new(db, "w1").await;
    let claims = worker.claims().await;
    assert_eq!(claims.len(), LANES);
    (worker, claims)
}

async fn delivered(db: &Db) -> i64 {
    db.int("select count(*) from send_jobs where state = 'delivered'")
        .await
}

/// A row-level trigger that refuses to let this job leave its state.
async fn refuse(db: &Db, job: JobId) {
    refuse_if(db, &format!("old.id = {job} and new.state <> old.state")).await;
}

/// A row-level trigger that refuses such an UPDATE of a job.
async fn refuse_if(db: &Db, condition: &str) {
    let texts: &[String] = &match db.engine {
        Engine::Sqlite => vec![format!(
            "create trigger refuses before update on send_jobs when {condition}
             begin select raise(abort, 'the books are closed'); end"
        )],
        Engine::Postgres => vec![
            "create function refuses() returns trigger language plpgsql as \
             $$ begin raise exception 'the books are closed'; end $$"
                .to_owned(),
            format!(
                "create trigger refuses before update on send_jobs for each row
                 when ({condition}) execute function refuses()"
            ),
        ],
    };
    for text in texts {
        db.sql(text).await.expect("makes a trigger");
    }
}

async fn relent(db: &Db) {
    let text = match db.engine {
        Engine::Sqlite => "drop trigger refuses",
        Engine::Postgres => "drop trigger refuses on send_jobs",
    };
    db.sql(text).await.expect("drops it");
}

both! {
    an_outcome_that_the_database_refuses_keeps_its_own_lane_back_and_no_other, |db| {
        let (mut worker, claims) = in_hand(&db).await;
        let bad = claims[7].job;
        refuse(&db, bad).await;
        for claim in claims {
            worker.answer(claim, 200);
        }
        let next = worker.claims().await;
        assert_eq!(next.len(), LANES - 1, "all other lanes go on");
        assert_eq!(delivered(&db).await, LANES as i64 - 1);
        assert_eq!(db.state(bad).await, "sending");
        assert_eq!(db.int("select count(*) from send_lanes where stuck like '%the books are closed%'").await, 1);
        for claim in next {
            worker.answer(claim, 200);
        }
        assert!(worker.claims().await.is_empty());
        assert_eq!(delivered(&db).await, 2 * (LANES as i64 - 1));
        // Nobody takes it for lost meanwhile, and it is tried again in vain.
        worker.pass(Duration::from_secs(61));
        assert!(worker.claims().await.is_empty());
        assert_eq!(db.state(bad).await, "sending");
        relent(&db).await;
        worker.pass(Duration::from_secs(61));
        let last = worker.claims().await;
        assert_eq!(last.len(), 1, "the lane goes on");
        assert_eq!(db.state(bad).await, "delivered");
        assert_eq!(db.int("select count(*) from send_lanes where stuck is not null").await, 0);
        for claim in last {
            worker.answer(claim, 200);
        }
        worker.claims().await;
        assert_eq!(delivered(&db).await, 2 * LANES as i64);
        assert_eq!(db.int("select count(*) from send_attempts").await, 2 * LANES as i64);
        assert_eq!(worker.ledger.unwritten(), 0);
    }

    a_worker_that_is_gone_leaves_a_refused_outcome_to_the_next, |db| {
        let (mut worker, claims) = in_hand(&db).await;
        let bad = claims[0].job;
        refuse(&db, bad).await;
        for claim in claims {
            worker.answer(claim, 200);
        }
        worker.claims().await;
        let now = worker.now;
        drop(worker);
        relent(&db).await;
        let mut next = Steps::new(&db, "w2").await;
        next.now = now;
        next.pass(Duration::from_secs(200));
        next.deliver_all().await;
        next.pass(Duration::from_secs(5));
        next.deliver_all().await;
        assert_eq!(delivered(&db).await, 2 * LANES as i64);
        assert_eq!(db.int(&format!("select count(*) from send_jobs where id = {bad} and possible_duplicate")).await, 1);
    }

    a_late_success_that_the_database_refuses_keeps_nobody, |db| {
        let (mut stalled, claims) = in_hand(&db).await;
        let bad = claims[3].job;
        let mut other = Steps::new(&db, "w2").await;
        other.now = stalled.now;
        other.pass(Duration::from_secs(60));
        assert!(other.claims().await.is_empty(), "all are lost, and back off");
        refuse(&db, bad).await;
        stalled.now = other.now;
        for claim in claims {
            stalled.answer(claim, 200);
        }
        stalled.claims().await;
        assert_eq!(delivered(&db).await, LANES as i64 - 1, "the others are closed");
        assert_eq!(db.state(bad).await, "queued");
        relent(&db).await;
        stalled.pass(Duration::from_secs(61));
        stalled.claims().await;
        assert_eq!(db.state(bad).await, "delivered");
    }

    a_job_that_the_database_does_not_let_join_its_lane_keeps_nobody, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let at = db.time(worker.now + 1000);
        let mut timed = Vec::new();
        for lane in 0..LANES {
            timed.push(db.insert_with(&format!("t{lane:02}"), "1", &[("send_at", &at)]).await);
        }
        let bad = timed.remove(7);
        refuse_if(&db, &format!("old.id = {bad}")).await;
        worker.pass(Duration::from_secs(2));
        let plain = db.insert("a", "1").await;
        let claimed = worker.deliver_all().await;
        assert!(claimed.contains(&plain));
        assert_eq!(claimed.len(), LANES, "all others join their lanes");
        relent(&db).await;
        worker.pass(Duration::from_secs(30));
        assert!(worker.deliver_all().await.is_empty(), "it is put off");
        worker.pass(Duration::from_secs(31));
        assert_eq!(worker.deliver_all().await, [bad]);
    }

    a_page_whose_lanes_the_database_refuses_keeps_no_other, |db| {
        let texts: &[&str] = match db.engine {
            Engine::Sqlite => &["create trigger mine before insert on send_lanes when new.lane = '2/id:bad'
                begin select raise(abort, 'not this one'); end"],
            Engine::Postgres => &[
                "create function mine() returns trigger language plpgsql as $$ begin raise exception 'not this one'; end $$",
                "create trigger mine before insert on send_lanes for each row when (new.lane = '2/id:bad') execute function mine()",
            ],
        };
        for text in texts {
            db.run(text, &[]).await;
        }
        db.insert_on("2", "bad", "1", &[]).await;
        for page in 10..30 {
            db.insert_on(&page.to_string(), "a", "1", &[]).await;
        }
        let mut worker = Steps::new(&db, "w1").await;
        for _ in 0..20 {
            for claim in worker.cycle().await.claims {
                worker.answer(claim, 200);
            }
        }
        assert_eq!(delivered(&db).await, 20);
        assert_eq!(worker.ledger.unwritten(), 0);
    }

    an_answer_says_nothing_of_a_job_of_another_lane_that_has_its_id, |db| {
        db.insert("a", "1").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = worker.claims().await.remove(0);
        // As after TRUNCATE send_jobs RESTART IDENTITY.
        let again = format!("update send_jobs set recipient = '{}'", braces(r#""id":"b""#));
        db.sql(&again).await.expect("moves it");
        worker.answer(claim, 200);
        worker.cycle().await;
        assert_eq!(db.text("select state from send_jobs").await, "queued", "it was never sent");
        assert_eq!(db.int("select count(*) from send_attempts").await, 0);
    }

    a_lane_does_not_send_a_job_of_another_lane, |db| {
        db.insert("a", "1").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = worker.claims().await.remove(0);
        worker.answer(claim, 503);
        worker.claims().await;
        let again = format!("update send_jobs set recipient = '{}'", braces(r#""id":"b""#));
        db.sql(&again).await.expect("moves it");
        let second = db.insert("b", "2").await;
        worker.pass(Duration::from_secs(5));
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 1, "one of the lane b: {claims:?}");
        assert_eq!(&*claims[0].lane, "1/id:b");
        assert_ne!(claims[0].job, second);
    }

    attempts_of_an_id_that_was_given_out_before_are_stepped_over, |db| {
        // As after TRUNCATE send_jobs RESTART IDENTITY.
        let old = "insert into send_attempts (job_id, number, started_at, finished_at, outcome, worker)
            select id, 1, created_at, created_at, 'refused', 'w0' from send_jobs";
        let (mut worker, claims) = in_hand(&db).await;
        db.run(old, &[]).await;
        for claim in claims {
            worker.answer(claim, 200);
        }
        worker.claims().await;
        worker.deliver_all().await;
        assert_eq!(delivered(&db).await, LANES as i64);
        assert_eq!(db.int("select count(*) from send_attempts where outcome = 'refused'").await, 2 * LANES as i64);
    }
}

async fn holder(db: &Db, rows: &str) -> sqlx::PgConnection {
    let mut session = sqlx::PgConnection::connect(&db.url)
        .await
        .expect("connects");
    let text = format!("begin; select from {rows} for update");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text))
        .execute(&mut session)
        .await
        .expect("locks");
    session
}

async fn lets_go(mut session: sqlx::PgConnection) {
    sqlx::raw_sql("rollback")
        .execute(&mut session)
        .await
        .expect("lets go");
}

#[tokio::test]
async fn rows_that_somebody_holds_locked_keep_their_own_lane_back_and_no_other() {
    for table in ["send_jobs", "send_lanes"] {
        let Some(db) = support::postgres().await else {
            return;
        };
        let (mut worker, claims) = in_hand(&db).await;
        let job = claims[7].job;
        let rows = match table {
            "send_jobs" => format!("send_jobs where id = {job}"),
            _ => format!("send_lanes where job = {job}"),
        };
        let session = holder(&db, &rows).await;
        for claim in claims {
            worker.answer(claim, 200);
        }
        let began = postlane::clock::BootInstant::now();
        let next = worker.claims().await;
        assert_eq!(next.len(), LANES - 1, "{table}: all other lanes go on");
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{table}: nobody waits"
        );
        assert_eq!(delivered(&db).await, LANES as i64 - 1, "{table}");
        worker.pass(Duration::from_millis(300));
        assert!(worker.claims().await.is_empty(), "{table}");
        lets_go(session).await;
        worker.pass(Duration::from_millis(300));
        let last = worker.claims().await;
        assert_eq!(last.len(), 1, "{table}: the lane goes on");
        assert_eq!(db.state(job).await, "delivered", "{table}");
        let attempts = format!("select count(*) from send_attempts where job_id = {job}");
        assert_eq!(db.int(&attempts).await, 1, "{table}");
    }
}

#[tokio::test]
async fn an_update_that_a_trigger_suppresses_keeps_its_lane_back() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let (mut worker, claims) = in_hand(&db).await;
    let bad = claims[7].job;
    for text in [
        "create function keeps() returns trigger language plpgsql as $$ begin return null; end $$"
            .to_owned(),
        format!(
            "create trigger keeps before update on send_jobs for each row when (old.id = {bad}) execute function keeps()"
        ),
    ] {
        db.run(&text, &[]).await;
    }
    for claim in claims {
        worker.answer(claim, 200);
    }
    let next = worker.claims().await;
    assert_eq!(next.len(), LANES - 1, "all other lanes go on");
    assert_eq!(delivered(&db).await, LANES as i64 - 1);
    let stuck = "select count(*) from send_lanes where stuck like '%trigger%'";
    assert_eq!(db.int(stuck).await, 1);
    assert!(
        next.iter().all(|claim| claim.job != bad),
        "it is not sent again"
    );
}

#[tokio::test]
async fn a_scheduled_job_that_somebody_holds_locked_keeps_nobody() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let mut worker = Steps::new(&db, "w1").await;
    let at = db.time(worker.now + 1000);
    let locked = db.insert_with("a", "1", &[("send_at", &at)]).await;
    let other = db.insert_with("b", "1", &[("send_at", &at)]).await;
    let session = holder(&db, &format!("send_jobs where id = {locked}")).await;
    worker.pass(Duration::from_secs(2));
    let plain = db.insert("c", "1").await;
    let began = postlane::clock::BootInstant::now();
    let mut claimed = worker.deliver_all().await;
    claimed.sort_unstable();
    assert_eq!(claimed, [other, plain]);
    assert!(began.elapsed() < Duration::from_secs(2), "nobody waits");
    lets_go(session).await;
    worker.pass(Duration::from_millis(100));
    assert_eq!(worker.deliver_all().await, [locked]);
}

#[tokio::test]
async fn a_head_that_somebody_holds_locked_is_not_passed_over_and_keeps_no_other_lane() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let locked = db.insert("a", "1").await;
    db.insert("a", "2").await;
    let session = holder(&db, &format!("send_jobs where id = {locked}")).await;
    let other = db.insert("b", "1").await;
    let mut worker = Steps::new(&db, "w1").await;
    assert_eq!(worker.claimed().await, [other]);
    for _ in 0..3 {
        worker.pass(Duration::from_millis(100));
        assert!(
            worker.claims().await.is_empty(),
            "the second does not go before it"
        );
    }
    lets_go(session).await;
    worker.pass(Duration::from_millis(100));
    assert_eq!(worker.claimed().await, [locked]);
}

#[tokio::test]
async fn an_answer_that_comes_late_waits_for_a_row_that_somebody_holds_locked() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let job = db.insert("a", "1").await;
    let mut stalled = Steps::new(&db, "w1").await;
    let claim = stalled.claims().await.remove(0);
    let mut other = Steps::new(&db, "w2").await;
    other.now = stalled.now;
    other.pass(Duration::from_secs(60));
    assert!(other.claims().await.is_empty(), "it is lost, and backs off");
    let session = holder(&db, &format!("send_jobs where id = {job}")).await;
    stalled.now = other.now;
    stalled.answer(claim, 200);
    assert!(stalled.claims().await.is_empty());
    assert_eq!(db.state(job).await, "queued");
    lets_go(session).await;
    stalled.pass(Duration::from_millis(300));
    stalled.claims().await;
    assert_eq!(db.state(job).await, "delivered");
}
