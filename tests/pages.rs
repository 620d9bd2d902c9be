//! Many pages: each costs what it sends, and none waits for the others. Stepped by hand, on both engines.

mod support;

use std::time::Duration;

use postlane::ledger::Settings;
use support::{Db, Engine, Steps, braces, settings};

/// More than a survey looks at.
const PAGES: usize = 1000;

/// A job for each of [`PAGES`] pages; `first` is the first digit of their ids. Pages that begin with 9 have no secret.
async fn insert(db: &Db, first: u32) {
    let numbers = match db.engine {
        Engine::Sqlite => format!(
            "with recursive i (n) as (select 0 union all select n + 1 from i where n < {PAGES} - 1) select n from i"
        ),
        Engine::Postgres => format!("select n from generate_series(0, {PAGES} - 1) as n"),
    };
    let json = match db.engine {
        Engine::Sqlite => "",
        Engine::Postgres => "::json",
    };
    let (recipient, message) = (
        braces(r#""id":"a""#),
        braces(r#""template_type":"text","text":"x""#),
    );
    let text = format!(
        "insert into send_jobs (page_id, recipient, message) \
         select cast({first}0000 + n as text), '{recipient}'{json}, '{message}'{json} from ({numbers}) as i"
    );
    db.sql(&text).await.expect("inserts");
}

/// Cycles until the walk has gone over all pages.
async fn walk(worker: &mut Steps) -> usize {
    let mut claims = 0;
    for _ in 0..PAGES / 100 + 2 {
        claims += worker.cycle().await.claims.len();
    }
    claims
}

both! {
    all_of_many_pages_are_served, |db| {
        insert(&db, 1).await;
        let mut worker = Steps::new(&db, "w1").await;
        let mut cycles = 0;
        while db.int("select count(*) from send_jobs where state = 'queued'").await > 0 {
            for claim in worker.cycle().await.claims {
                worker.answer(claim, 200);
            }
            cycles += 1;
            assert!(cycles < 100, "{cycles} cycles");
        }
        assert_eq!(db.int("select count(*) from send_attempts").await, 1000);
        assert_eq!(db.int("select count(*) from send_lanes").await, 0);
    }

    a_newcomer_is_served_at_once_beside_pages_that_cannot_send, |db| {
        insert(&db, 9).await;
        insert(&db, 8).await;
        let pause = "insert into send_pauses (scope, who) select 'page:' || page_id, 'ann' from send_jobs where page_id like '8%'";
        db.sql(pause).await.expect("pauses");
        let mut worker = Steps::new(&db, "w1").await;
        assert_eq!(walk(&mut worker).await, 0);
        let job = db.insert("a", "1").await;
        let claims = worker.cycle().await.claims;
        assert_eq!(claims.iter().map(|claim| claim.job).collect::<Vec<_>>(), [job]);
    }

    a_newcomer_does_not_wait_for_all_that_came_before, |db| {
        insert(&db, 1).await;
        let mut worker = Steps::new(&db, "w1").await;
        for _ in 0..4 {
            for claim in worker.cycle().await.claims {
                worker.answer(claim, 200);
            }
        }
        let job = db.insert_on("7", "a", "1", &[]).await;
        let mut cycles = 0;
        loop {
            let claims = worker.cycle().await.claims;
            let is_served = claims.iter().any(|claim| claim.job == job);
            claims.into_iter().for_each(|claim| worker.answer(claim, 200));
            if is_served {
                break;
            }
            cycles += 1;
            assert!(cycles < 4, "{cycles} cycles");
        }
        assert!(db.int("select count(*) from send_inbox").await > 300, "the others wait");
    }

    pages_go_on_at_once_when_the_pause_of_all_ends, |db| {
        insert(&db, 8).await;
        db.sql("insert into send_pauses (scope, who) values ('all', 'ann')").await.expect("pauses");
        let mut worker = Steps::new(&db, "w1").await;
        assert_eq!(walk(&mut worker).await, 0);
        db.sql("delete from send_pauses").await.expect("resumes");
        assert!(worker.cycle().await.claims.len() + worker.cycle().await.claims.len() > 0);
    }

    pages_with_a_rate_are_served_like_others, |db| {
        insert(&db, 1).await;
        let rated = Settings {
            default_rate: Some(10.0),
            ..settings("w1")
        };
        let mut worker = Steps::with(&db, rated).await;
        let mut cycles = 0;
        while db.int("select count(*) from send_jobs where state = 'queued'").await > 0 {
            for claim in worker.cycle().await.claims {
                worker.answer(claim, 200);
            }
            cycles += 1;
            assert!(cycles < 100, "{cycles} cycles");
        }
        // And the rate is kept: ten at once, and no more.
        for n in 0..30 {
            db.insert(&format!("r{n}"), "1").await;
        }
        let mut sent = 0;
        for _ in 0..10 {
            sent += worker.cycle().await.claims.len();
        }
        assert!((10..20).contains(&sent), "{sent} requests");
        worker.pass(Duration::from_secs(1));
    }
}
