//! What one answer for everybody, or for many people, does to a page. Stepped by hand.

mod support;

use std::time::Duration;

use postlane::judge::Answer;
use support::{Steps, status_answer};

fn said(status: u16, body: &str) -> Answer {
    let Answer::Status {
        retry_after, cut, ..
    } = status_answer(status)
    else {
        unreachable!("a status")
    };
    Answer::Status {
        status,
        content_type: Some("application/json".to_owned()),
        retry_after,
        body: body.as_bytes().to_vec(),
        cut,
    }
}

/// Answers all that is due, round by round, and lets time pass.
async fn rounds(worker: &mut Steps, rounds: usize, answer: &Answer) -> usize {
    let mut sent = 0;
    for _ in 0..rounds {
        for claim in worker.claims().await {
            sent += 1;
            worker.answer_with(claim, answer);
        }
        worker.pass(Duration::from_secs(40));
    }
    sent
}

const DEAD: &str = "select count(*) from send_jobs where state = 'dead'";
const PAUSES: &str = "select count(*) from send_pauses";

both! {
    an_unpaid_bill_kills_nobody_and_is_probed, |db| {
        for person in 0..60 {
            db.insert(&format!("p{person}"), "x").await;
        }
        let mut worker = Steps::new(&db, "w1").await;
        worker.pass(Duration::from_secs(1));
        let sent = rounds(&mut worker, 10, &status_answer(402)).await;
        assert!(sent < 100, "it is paused: {sent}");
        assert_eq!(db.int(DEAD).await, 0);
        assert_eq!(db.text("select scope from send_pauses").await, "page:1");
        rounds(&mut worker, 10, &status_answer(200)).await;
        assert_eq!(db.int("select count(*) from send_jobs where state = 'delivered'").await, 60);
    }

    a_refusal_that_everybody_gets_does_not_kill_the_queue, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        for group in 0..10 {
            for person in 0..10 {
                db.insert(&format!("p{group}.{person}"), "x").await;
            }
            worker.pass(Duration::from_secs(1));
            rounds(&mut worker, 1, &status_answer(400)).await;
        }
        rounds(&mut worker, 10, &status_answer(400)).await;
        let dead = db.int(DEAD).await;
        assert!((1..20).contains(&dead), "{dead} of 100 are dead");
        assert_eq!(db.text("select scope from send_pauses").await, "page:1");
        rounds(&mut worker, 10, &status_answer(200)).await;
        let delivered = db.int("select count(*) from send_jobs where state = 'delivered'").await;
        assert_eq!(delivered, 100 - db.int(DEAD).await);
    }

    people_who_cannot_be_reached_never_pause_their_page, |db| {
        let gone = r#"{"error":{"code":200,"message":"(#200) This person isn't receiving messages from you right now."}}"#;
        for person in 0..60 {
            db.insert(&format!("gone{person}"), "x").await;
        }
        let mut worker = Steps::new(&db, "w1").await;
        worker.pass(Duration::from_secs(1));
        assert_eq!(rounds(&mut worker, 2, &said(400, gone)).await, 60);
        assert_eq!(db.int(DEAD).await, 60);
        assert_eq!(db.int(PAUSES).await, 0);
        let well = db.insert("well", "x").await;
        worker.pass(Duration::from_secs(1));
        assert_eq!(worker.deliver_all().await, [well]);
    }
}
