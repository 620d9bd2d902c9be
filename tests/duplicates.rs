//! How often one person may get one message. Stepped by hand.

mod support;

use std::sync::Arc;
use std::time::Duration;

use postlane::job::JobId;
use support::{Db, Steps};

/// A worker with twenty attempts for a job.
async fn worker(db: &Db, name: &str) -> Steps {
    let mut worker = Steps::new(db, name).await;
    let wire = Arc::get_mut(&mut worker.wire).expect("nobody else has it");
    wire.policy.max_attempts = 20;
    worker
}

/// Answers what is due: 504 to this job, and to others what is given.
async fn round(worker: &mut Steps, singled_out: JobId, others: u16) -> usize {
    worker.pass(Duration::from_secs(10));
    let claims = worker.claims().await;
    let sent = claims
        .iter()
        .filter(|claim| claim.job == singled_out)
        .count();
    let (own, rest): (Vec<_>, Vec<_>) = claims.into_iter().partition(|c| c.job == singled_out);
    rest.into_iter()
        .for_each(|claim| worker.answer(claim, others));
    own.into_iter().for_each(|claim| worker.answer(claim, 504));
    worker.claims().await;
    sent
}

fn stands(job: JobId) -> String {
    format!(
        "select state || ' ' || attempts || ' ' || ambiguous_attempts || ' ' || coalesce(reason, '') \
         from send_jobs where id = {job}"
    )
}

both! {
    a_message_that_is_singled_out_is_sent_five_times_and_then_unknown, |db| {
        let job = db.insert("a", "1").await;
        let mut worker = worker(&db, "w1").await;
        let mut sent = 0;
        for n in 0..12 {
            db.insert(&format!("other {n}"), "1").await;
            sent += round(&mut worker, job, 200).await;
        }
        assert_eq!(sent, 5);
        assert_eq!(db.text(&stands(job)).await, "unknown 5 5 5 attempts may each have arrived: HTTP 504");
    }

    an_outage_uses_up_nothing_of_it, |db| {
        let job = db.insert("a", "1").await;
        let mut worker = worker(&db, "w1").await;
        for n in 0..3 {
            db.insert(&format!("before {n}"), "1").await;
            round(&mut worker, job, 200).await;
        }
        assert_eq!(db.text(&stands(job)).await, "queued 3 3 HTTP 504");
        // Nobody is delivered, but for others of its own lane.
        for n in 0..3 {
            db.insert(&format!("down {n}"), "1").await;
            round(&mut worker, job, 504).await;
        }
        assert_eq!(db.text(&stands(job)).await, "queued 6 3 HTTP 504");
        // It is over: what was counted before counts on.
        db.insert("well", "1").await;
        round(&mut worker, job, 200).await;
        db.insert("well", "1").await;
        round(&mut worker, job, 200).await;
        assert_eq!(db.text(&stands(job)).await, "unknown 8 5 5 attempts may each have arrived: HTTP 504");
    }

    the_count_is_kept_across_workers_and_a_crash_counts_like_an_answer, |db| {
        let job = db.insert("a", "1").await;
        for n in 0..4 {
            let mut next = worker(&db, &format!("w{n}")).await;
            next.pass(Duration::from_secs(100) * n);
            db.insert(&format!("other {n}"), "1").await;
            assert_eq!(round(&mut next, job, 200).await, 1);
        }
        // The fifth is never answered: its worker is gone.
        let mut dead = worker(&db, "dead").await;
        dead.pass(Duration::from_secs(1000));
        assert_eq!(dead.claimed().await, [job]);
        let mut heir = worker(&db, "heir").await;
        heir.pass(Duration::from_secs(1000));
        db.insert("heard", "1").await;
        round(&mut heir, job, 200).await;
        heir.pass(Duration::from_secs(60));
        heir.claims().await;
        let found = db.text(&stands(job)).await;
        assert!(found.starts_with("unknown 5 5 5 attempts may each have arrived: its worker stopped"), "{found}");
    }

    a_job_that_an_operator_resends_has_its_five_again, |db| {
        let job = db.insert("a", "1").await;
        let mut worker = worker(&db, "w1").await;
        let mut unknown = 0;
        for n in 0..12 {
            db.insert(&format!("other {n}"), "1").await;
            round(&mut worker, job, 200).await;
            if db.state(job).await == "unknown" && unknown == 0 {
                unknown += 1;
                let operator = postlane::store::operate::Operator { who: "ann".to_owned(), why: None };
                let resend = postlane::store::operate::Verb::ResolveResend;
                let moved = postlane::store::operate::apply(&db.pool, resend, &[job], &operator).await;
                assert_eq!(moved.expect("resolved"), [job]);
            }
        }
        assert_eq!(db.text(&stands(job)).await, "unknown 10 5 5 attempts may each have arrived: HTTP 504");
    }
}
