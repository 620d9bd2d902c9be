//! The next job of a lane begins as the one before it ends: what has changed until then counts. Stepped by hand.

mod support;

use std::time::Duration;

use postlane::attempt::Claim;
use postlane::job::{AttemptNo, JobId};
use postlane::store::operate::{self, Operator, Verb};
use support::{Db, Steps, settings};

/// A lane whose first job is in hand.
async fn in_hand(db: &Db, worker: &mut Steps) -> ([JobId; 3], Claim) {
    let mut jobs = [JobId::default(); 3];
    for (job, text) in jobs.iter_mut().zip(["1", "2", "3"]) {
        *job = insert(db, worker, "a", text).await;
    }
    let mut claims = worker.claims().await;
    let claim = claims.pop().expect("the first is claimed");
    assert!(claims.is_empty() && claim.job == jobs[0]);
    (jobs, claim)
}

/// A lane whose second job is held and whose third is in hand, followed by the fourth.
async fn third_in_hand(db: &Db, worker: &mut Steps) -> (JobId, JobId, Claim) {
    let ([_, second, third], claim) = in_hand(db, worker).await;
    let fourth = insert(db, worker, "a", "4").await;
    apply(db, Verb::Hold, second).await;
    worker.answer(claim, 200);
    let claim = worker.claims().await.remove(0);
    assert_eq!(claim.job, third, "it goes on without the one that is held");
    (second, fourth, claim)
}

/// Inserts a job that is due to the worker's clock.
async fn insert(db: &Db, worker: &mut Steps, recipient: &str, text: &str) -> JobId {
    let job = db.insert(recipient, text).await;
    worker.now = worker.now.max(db.pool.now().await.expect("now") + 10);
    job
}

async fn apply(db: &Db, verb: Verb, job: JobId) {
    let changed = operate::apply(&db.pool, verb, &[job], &operator()).await;
    changed.expect("changes");
}

fn operator() -> Operator {
    Operator {
        who: "test".to_owned(),
        why: None,
    }
}

both! {
    the_next_goes_out_as_the_one_before_it_ends, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let ([first, second, third], claim) = in_hand(&db, &mut worker).await;
        worker.answer(claim, 200);
        let claim = worker.claims().await.remove(0);
        assert_eq!((claim.job, claim.number), (second, AttemptNo(1)));
        assert_eq!(db.state(first).await, "delivered");
        assert_eq!(db.state(second).await, "sending");
        let open = "select count(*) from send_lanes where worker = 'w1'";
        assert_eq!(db.int(open).await, 1);
        let leased = format!("select count(*) from send_lanes where worker = 'w1' and token = {}", claim.token);
        assert_eq!(db.int(&leased).await, 1);
        // It ends badly, and for good: the lane continues.
        worker.answer(claim, 400);
        let claim = worker.claims().await.remove(0);
        assert_eq!(claim.job, third);
        assert_eq!(db.text(&format!("select state || last_status from send_jobs where id = {second}")).await, "dead400");
        worker.answer(claim, 200);
        assert!(worker.claims().await.is_empty());
        assert_eq!(db.int("select count(*) from send_lanes").await, 0);
    }

    a_retry_goes_before_who_follows, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let ([first, second, third], claim) = in_hand(&db, &mut worker).await;
        worker.answer(claim, 503);
        assert!(worker.claims().await.is_empty());
        worker.pass(Duration::from_secs(1));
        assert_eq!(worker.deliver_all().await, [first, second, third]);
    }

    who_was_taken_out_of_the_line_is_not_sent, |db| {
        for verb in [Verb::Cancel, Verb::Hold] {
            let mut worker = Steps::new(&db, &format!("w{verb:?}")).await;
            let ([_, second, third], claim) = in_hand(&db, &mut worker).await;
            apply(&db, verb, second).await;
            worker.answer(claim, 200);
            assert_eq!(worker.deliver_all().await, [third], "{verb:?}");
            let attempts = format!("select count(*) from send_attempts where job_id = {second}");
            assert_eq!(db.int(&attempts).await, 0, "{verb:?}");
        }
    }

    who_returns_to_an_earlier_place_goes_first, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let (second, fourth, claim) = third_in_hand(&db, &mut worker).await;
        apply(&db, Verb::Release, second).await;
        worker.answer(claim, 200);
        assert_eq!(worker.deliver_all().await, [second, fourth]);
    }

    who_joins_while_the_last_is_in_hand_is_found, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let only = insert(&db, &mut worker, "a", "1").await;
        let claim = worker.claims().await.remove(0);
        assert_eq!(claim.job, only);
        let second = insert(&db, &mut worker, "a", "2").await;
        let third = insert(&db, &mut worker, "a", "3").await;
        worker.answer(claim, 200);
        assert_eq!(worker.deliver_all().await, [second, third]);
    }

    a_pause_keeps_who_follows_back, |db| {
        for scope in ["all", "endpoint", "page:1", "lane:1/id:a"] {
            let mut worker = Steps::new(&db, &format!("w{scope}")).await;
            let ([first, second, third], claim) = in_hand(&db, &mut worker).await;
            assert!(operate::pause(&db.pool, &support::scope(scope), &operator()).await.expect("pauses"));
            worker.answer(claim, 200);
            assert!(worker.claims().await.is_empty(), "{scope}");
            assert_eq!(db.state(first).await, "delivered");
            assert_eq!(db.state(second).await, "queued");
            assert!(operate::resume(&db.pool, &support::scope(scope), &operator()).await.expect("resumes"));
            assert_eq!(worker.deliver_all().await, [second, third], "{scope}");
        }
    }

    an_unknown_job_keeps_who_follows_back_until_it_is_resolved, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let (second, fourth, claim) = third_in_hand(&db, &mut worker).await;
        // As if it had returned to its place meanwhile, and been sent by another.
        db.sql(&format!("update send_jobs set state = 'unknown' where id = {second}")).await.expect("changes");
        worker.answer(claim, 200);
        assert!(worker.claims().await.is_empty());
        assert_eq!(db.state(fourth).await, "queued");
        apply(&db, Verb::ResolveDelivered, second).await;
        assert_eq!(worker.deliver_all().await, [fourth]);
    }

    a_lane_that_one_has_taken_again_does_not_advance_by_an_old_answer, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let ([first, second, third], old) = in_hand(&db, &mut worker).await;
        worker.pass(Duration::from_secs(60));
        assert!(worker.claims().await.is_empty(), "the attempt is lost, and tried again later");
        worker.pass(Duration::from_secs(5));
        let again = worker.claims().await.remove(0);
        assert_eq!((again.job, again.number), (first, AttemptNo(2)));
        worker.answer(old, 200);
        assert!(worker.claims().await.is_empty());
        assert_eq!(db.state(second).await, "queued");
        worker.answer(again, 200);
        assert_eq!(worker.deliver_all().await, [second, third]);
    }

    a_lane_rests_before_who_follows, |db| {
        let mut settings = settings("w1");
        settings.min_gap = Duration::from_secs(2);
        let mut worker = Steps::with(&db, settings).await;
        let ([_, second, third], claim) = in_hand(&db, &mut worker).await;
        worker.answer(claim, 200);
        assert!(worker.claims().await.is_empty());
        worker.pass(Duration::from_secs(2));
        let claim = worker.claims().await.remove(0);
        assert_eq!(claim.job, second);
        worker.answer(claim, 200);
        assert!(worker.claims().await.is_empty());
        worker.pass(Duration::from_secs(2));
        assert_eq!(worker.claimed().await, [third]);
    }

    who_has_waited_too_long_or_must_wait_is_not_sent, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let first = insert(&db, &mut worker, "a", "1").await;
        let now = worker.now;
        let expiring = db.insert_with("a", "2", &[("expires_at", &db.time(now + 5_000))]).await;
        let broken = insert(&db, &mut worker, "a", &"x".repeat(641)).await;
        let delayed = db.insert_with("a", "4", &[("delay", "9")]).await;
        let claim = worker.claims().await.remove(0);
        assert_eq!(claim.job, first);
        worker.pass(Duration::from_secs(5));
        worker.answer(claim, 200);
        assert!(worker.claims().await.is_empty());
        assert_eq!(db.text(&format!("select state || reason from send_jobs where id = {expiring}")).await, "deadexpired");
        assert_eq!(db.state(broken).await, "dead");
        worker.pass(Duration::from_secs(5));
        assert_eq!(worker.deliver_all().await, [delayed]);
    }

    a_lane_that_somebody_else_has_taken_does_not_advance, |db| {
        let mut stalled = Steps::new(&db, "w1").await;
        let ([first, second, third], claim) = in_hand(&db, &mut stalled).await;
        let mut other = Steps::new(&db, "w2").await;
        other.now = stalled.now;
        other.pass(Duration::from_secs(60));
        assert!(other.claims().await.is_empty(), "the attempt is lost, and tried again later");
        other.pass(Duration::from_secs(5));
        let again = other.claims().await.remove(0);
        assert_eq!((again.job, again.number), (first, AttemptNo(2)));
        stalled.answer(claim, 200);
        assert!(stalled.claims().await.is_empty());
        assert_eq!(db.state(second).await, "queued");
        other.answer(again, 200);
        assert_eq!(other.deliver_all().await, [second, third]);
    }

    a_worker_that_stops_begins_nothing, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        let ([first, second, _], claim) = in_hand(&db, &mut worker).await;
        worker.ledger.drain();
        worker.answer(claim, 200);
        assert!(worker.claims().await.is_empty());
        assert_eq!(db.state(first).await, "delivered");
        assert_eq!(db.state(second).await, "queued");
        assert_eq!(db.int("select count(*) from send_lanes where worker is not null").await, 0);
    }

    lanes_that_wait_for_a_slot_come_before_who_follows, |db| {
        let mut settings = settings("w1");
        settings.concurrency = 1;
        let mut worker = Steps::with(&db, settings).await;
        let ([_, second, third], claim) = in_hand(&db, &mut worker).await;
        let other = insert(&db, &mut worker, "b", "1").await;
        // Its mark becomes a lane once there is a slot.
        worker.answer(claim, 200);
        assert_eq!(worker.deliver_all().await, [second, other, third]);
    }
}
