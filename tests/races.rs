//! Several workers, producers and operators on one database, in the worst order.
#![expect(clippy::print_stderr, reason = "says how many conflicts there were")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postlane::attempt::Claim;
use postlane::deliver::report;
use postlane::job::{AttemptNo, JobId};
use postlane::judge::Answer;
use postlane::store::operate::{self, Operator, Verb};
use postlane::store::{Pool, Use};
use sqlx::Connection as _;
use support::chance::Chance;
use support::proxy::{Cut, Proxy};
use support::{Db, Engine, Steps, settings};

fn operator() -> Operator {
    Operator {
        who: "test".to_owned(),
        why: None,
    }
}

async fn verb(db: &Db, verb: Verb, job: JobId) -> bool {
    let moved = operate::apply(&db.pool, verb, &[job], &operator())
        .await
        .expect("applies");
    moved == [job]
}

fn one(mut claims: Vec<Claim>) -> Claim {
    assert_eq!(claims.len(), 1, "{claims:?}");
    claims.remove(0)
}

fn lost() -> Answer {
    Answer::lost("reset")
}

const LEASE: Duration = Duration::from_secs(46);

async fn outcome(db: &Db, job: JobId, number: i64) -> String {
    db.text(&format!(
        "select coalesce((select outcome from send_attempts where job_id = {job} and number = {number}),
            (select 'none' from send_lanes where job = {job} and number = {number} and worker is not null), 'missing')"
    ))
    .await
}

/// A connection whose next commit fails once the flag is up (SQLite).
async fn failing_commits(db: &Db, fail: &Arc<AtomicBool>) -> Pool {
    let pool = db.connect().await;
    let Pool::Sqlite(sqlite, _) = &pool else {
        panic!("SQLite only")
    };
    let mut connection = sqlite.acquire().await.expect("connects");
    let mut handle = connection.lock_handle().await.expect("handle");
    let fail = Arc::clone(fail);
    handle.set_commit_hook(move || !fail.swap(false, Ordering::SeqCst));
    drop(handle);
    drop(connection);
    pool
}

both! {
    a_job_inserted_while_the_only_job_of_its_lane_is_in_flight_is_found, |db| {
        // Its mark is taken before the first job's end is recorded, in the same cycle, or after.
        for when in ["before", "with", "after"] {
            let (mut worker, mut other) = (Steps::new(&db, "w1").await, Steps::new(&db, "w2").await);
            for worker in [&mut worker, &mut other] {
                worker.pass(Duration::from_secs(5));
            }
            let first = db.insert(when, "1").await;
            let claim = one(worker.claims().await);
            assert_eq!(claim.job, first);
            let second = if when == "after" { None } else { Some(db.insert(when, "2").await) };
            if when == "before" {
                assert!(other.claims().await.is_empty(), "the lane is leased");
            }
            worker.answer(claim, 200);
            let mut claims = worker.claims().await;
            let second = match second {
                Some(second) => second,
                None => {
                    assert_eq!(db.int("select count(*) from send_lanes").await, 0);
                    db.insert(when, "2").await
                }
            };
            claims.extend(worker.claims().await);
            let claim = one(claims);
            assert_eq!((claim.job, db.state(first).await.as_str()), (second, "delivered"));
            worker.answer(claim, 200);
            assert!(worker.claims().await.is_empty());
            assert_eq!(db.int("select count(*) from send_lanes").await, 0);
        }
    }

    a_worker_whose_lease_ran_out_and_nobody_superseded_still_records, |db| {
        let first = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = one(worker.claims().await);
        worker.pass(LEASE);
        worker.answer(claim, 200);
        let claim = one(worker.claims().await);
        assert_eq!((claim.job, claim.number), (second, AttemptNo(1)));
        assert_eq!(db.state(first).await, "delivered");
        assert_eq!(outcome(&db, first, 1).await, "delivered");
        worker.answer(claim, 200);
        worker.claims().await;
        assert_eq!(db.int("select count(*) from send_lanes").await, 0);
    }

    a_worker_whose_leases_all_ran_out_while_the_database_was_away_goes_on, |db| {
        for lane in 0..40 {
            for n in 0..3 {
                db.insert(&format!("r{lane}"), &n.to_string()).await;
            }
        }
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 40);
        worker.pass(LEASE * 3);
        for claim in claims {
            worker.answer(claim, 200);
        }
        assert_eq!(worker.deliver_all().await.len(), 80);
        assert_eq!(db.int("select count(*) from send_attempts where outcome = 'delivered'").await, 120);
    }

    a_retry_recorded_after_its_lease_stays_the_head_of_its_line, |db| {
        let now = db.pool.now().await.expect("now");
        let lower = db.insert_with("a", "1", &[("send_at", &db.time(now + 20_000))]).await;
        let begun = db.insert("a", "2").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = one(worker.claims().await);
        assert_eq!(claim.job, begun);
        worker.pass(LEASE);
        worker.answer(claim, 503);
        assert!(worker.claims().await.is_empty());
        worker.pass(Duration::from_secs(3));
        assert_eq!(worker.deliver_all().await, [begun, lower]);
    }

    a_lost_attempt_is_ambiguous_and_is_repeated_as_a_possible_duplicate, |db| {
        let job = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let mut gone = Steps::new(&db, "w1").await;
        one(gone.claims().await);
        drop(gone);
        let mut worker = Steps::new(&db, "w2").await;
        worker.pass(Duration::from_secs(44));
        assert!(worker.claims().await.is_empty(), "the lease still runs");
        worker.pass(Duration::from_secs(2));
        assert!(worker.claims().await.is_empty(), "it backs off first");
        assert_eq!(outcome(&db, job, 1).await, "ambiguous");
        worker.pass(Duration::from_secs(1));
        let claim = one(worker.claims().await);
        assert_eq!((claim.job, claim.number), (job, AttemptNo(2)));
        worker.answer(claim, 200);
        assert_eq!(worker.deliver_all().await, [second]);
        assert_eq!(db.int("select count(*) from send_jobs where possible_duplicate").await, 1);
    }

    a_lost_attempt_under_hold_is_unknown_and_blocks, |db| {
        let job = db.insert_with("a", "1", &[("on_ambiguous", "'hold'")]).await;
        db.insert("a", "2").await;
        let mut gone = Steps::new(&db, "w1").await;
        one(gone.claims().await);
        drop(gone);
        let mut worker = Steps::new(&db, "w2").await;
        worker.pass(LEASE * 100);
        assert!(worker.claims().await.is_empty());
        assert_eq!(db.state(job).await, "unknown");
        db.insert("a", "3").await;
        worker.pass(LEASE * 100);
        assert!(worker.claims().await.is_empty());
    }

    an_attempt_lost_as_the_last_one_ends_its_job_and_the_line_goes_on, |db| {
        let job = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let mut worker = Steps::new(&db, "w0").await;
        for n in 0..5 {
            let now = worker.now;
            worker = Steps::new(&db, &format!("w{n}")).await;
            worker.now = now;
            let claim = one(worker.claims().await);
            assert_eq!(claim.job, job);
            worker.pass(LEASE);
            let now = worker.now;
            worker = Steps::new(&db, &format!("x{n}")).await;
            worker.now = now;
            let next = worker.claims().await;
            if n == 4 {
                assert_eq!(one(next).job, second);
            } else {
                assert!(next.is_empty());
            }
            worker.pass(Duration::from_secs(5));
        }
        assert_eq!(db.state(job).await, "dead");
        assert_eq!(db.int("select count(*) from send_attempts where outcome = 'ambiguous'").await, 5);
    }

    a_late_report_touches_its_own_attempt_and_only_a_success_closes_the_job, |db| {
        // (policy, late answer, what the job is then, what its attempt is then)
        let cases = [
            ("retry", 200, "delivered", "delivered"),
            ("retry", 400, "queued", "refused"),
            ("retry", 503, "queued", "retryable"),
            ("retry", 500, "queued", "ambiguous"),
            ("hold", 200, "delivered", "delivered"),
            ("hold", 400, "unknown", "refused"),
            ("hold", 500, "unknown", "ambiguous"),
        ];
        for (n, (policy, answer, state, attempt)) in cases.into_iter().enumerate() {
            let recipient = format!("r{n}");
            let job = db.insert_with(&recipient, "1", &[("on_ambiguous", &format!("'{policy}'"))]).await;
            let second = db.insert(&recipient, "2").await;
            let mut stalled = Steps::new(&db, &format!("w{n}")).await;
            let claim = stalled.claims().await.into_iter().find(|c| c.job == job).expect("claimed");
            let mut worker = Steps::new(&db, &format!("x{n}")).await;
            worker.pass(LEASE);
            worker.claims().await;
            assert_eq!(outcome(&db, job, 1).await, "ambiguous");
            stalled.now = worker.now;
            stalled.answer(claim, answer);
            stalled.ledger.drain();
            stalled.cycle().await;
            assert_eq!((db.state(job).await.as_str(), outcome(&db, job, 1).await.as_str()), (state, attempt), "{policy} {answer}");
            let next = worker.claims().await;
            if answer == 200 {
                assert!(next.iter().any(|c| c.job == second), "the lane continues after {policy} {answer}");
            } else {
                assert!(!next.iter().any(|c| c.job == second), "the lane waits after {policy} {answer}");
            }
            db.run("delete from send_lanes", &[]).await;
            db.run("delete from send_jobs", &[]).await;
        }
    }

    a_stalled_worker_does_nothing_to_a_lane_that_was_born_again, |db| {
        for (n, answer) in [200, 500, 400, 503].into_iter().enumerate() {
            let recipient = format!("r{n}");
            let old = db.insert(&recipient, "1").await;
            let mut stalled = Steps::new(&db, &format!("s{n}")).await;
            let claim = one(stalled.claims().await);
            let mut second = Steps::new(&db, &format!("t{n}")).await;
            second.pass(LEASE);
            second.claims().await;
            second.pass(Duration::from_secs(1));
            let again = one(second.claims().await);
            second.answer(again, 200);
            second.claims().await;
            assert_eq!(db.int("select count(*) from send_lanes").await, 0);
            let new = db.insert(&recipient, "2").await;
            let mut third = Steps::new(&db, &format!("u{n}")).await;
            third.now = second.now;
            let running = one(third.claims().await);
            assert_eq!(running.job, new);
            let before = db.text(&format!("select state || attempts || failures from send_jobs where id = {old}")).await;
            stalled.now = second.now;
            stalled.answer(claim, answer);
            assert!(stalled.claims().await.is_empty(), "it takes nothing of what is not its own");
            assert_eq!(db.state(new).await, "sending");
            assert_eq!(outcome(&db, new, 1).await, "none");
            assert_eq!(db.text(&format!("select state || attempts || failures from send_jobs where id = {old}")).await, before);
            third.answer(running, 200);
            third.claims().await;
            assert_eq!(db.state(new).await, "delivered");
        }
    }

    a_late_success_never_reopens_and_never_closes_what_is_being_sent_again, |db| {
        let job = db.insert("a", "1").await;
        let mut stalled = Steps::new(&db, "w1").await;
        let claim = one(stalled.claims().await);
        let mut worker = Steps::new(&db, "w2").await;
        worker.pass(LEASE);
        worker.claims().await;
        worker.pass(Duration::from_secs(1));
        let again = one(worker.claims().await);
        stalled.now = worker.now;
        stalled.answer(claim, 200);
        stalled.claims().await;
        assert_eq!(db.state(job).await, "sending", "its second attempt is on the wire");
        assert_eq!(outcome(&db, job, 1).await, "delivered");
        worker.answer(again, 400);
        worker.claims().await;
        assert_eq!(outcome(&db, job, 2).await, "refused");
        assert_eq!(db.state(job).await, "dead");
    }

    a_late_success_after_the_job_ended_changes_no_state, |db| {
        let job = db.insert_with("a", "1", &[("on_ambiguous", "'hold'")]).await;
        let mut stalled = Steps::new(&db, "w1").await;
        let claim = one(stalled.claims().await);
        let mut worker = Steps::new(&db, "w2").await;
        worker.pass(LEASE);
        worker.claims().await;
        assert!(verb(&db, Verb::Cancel, job).await);
        stalled.now = worker.now;
        stalled.answer(claim, 200);
        stalled.claims().await;
        assert_eq!(db.state(job).await, "cancelled");
        assert_eq!(outcome(&db, job, 1).await, "delivered");
    }

    a_cancel_of_a_job_that_is_given_back_ends_it, |db| {
        let mut jobs = Vec::new();
        for recipient in ["a", "b", "c"] {
            jobs.push(db.insert(recipient, "1").await);
        }
        let mut worker = Steps::new(&db, "w1").await;
        for claim in worker.claims().await {
            worker.answer(claim, 503);
        }
        worker.claims().await;
        // The page is probed: all of its lanes come into hand, one job is sent, and the others go back.
        db.run("insert into send_pauses (scope, who, probe_at, wait_ms) values ('page:1', 'w0', 0, 60000)", &[]).await;
        worker.pass(Duration::from_secs(5));
        let probe = one(worker.cycle().await.claims);
        jobs.retain(|job| *job != probe.job);
        for job in &jobs {
            // On Postgres they have gone back in the same cycle.
            let wanted = if db.engine == Engine::Sqlite { "sending" } else { "queued" };
            assert_eq!(db.state(*job).await, wanted);
            assert!(verb(&db, Verb::Cancel, *job).await);
        }
        worker.cycle().await;
        for job in &jobs {
            assert_eq!(db.state(*job).await, "cancelled");
        }
    }

    cancelling_what_is_being_sent_ends_it_after_its_attempt, |db| {
        for (n, (answer, state)) in [(200, "delivered"), (503, "cancelled"), (500, "cancelled"), (400, "dead"), (429, "cancelled")].into_iter().enumerate() {
            let recipient = format!("r{n}");
            let job = db.insert(&recipient, "1").await;
            let second = db.insert(&recipient, "2").await;
            let mut worker = Steps::new(&db, &format!("w{n}")).await;
            let claim = one(worker.claims().await);
            assert!(verb(&db, Verb::Cancel, job).await);
            assert_eq!(db.state(job).await, "sending");
            assert!(!verb(&db, Verb::Cancel, job).await, "marked once");
            assert!(!verb(&db, Verb::Hold, job).await, "what is being sent cannot be held");
            assert!(worker.claims().await.is_empty());
            worker.answer(claim, answer);
            assert_eq!(worker.deliver_all().await, [second]);
            assert_eq!(db.state(job).await, state, "{answer}");
        }
    }

    cancelling_what_is_being_sent_by_a_lost_worker_ends_it_too, |db| {
        let job = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let mut gone = Steps::new(&db, "w1").await;
        one(gone.claims().await);
        assert!(verb(&db, Verb::Cancel, job).await);
        let mut worker = Steps::new(&db, "w2").await;
        worker.pass(LEASE);
        assert_eq!(worker.deliver_all().await, [second]);
        assert_eq!(db.state(job).await, "cancelled");
    }

    a_held_job_lets_the_line_go_on_and_returns_to_its_old_place, |db| {
        let first = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let third = db.insert("a", "3").await;
        let mut worker = Steps::new(&db, "w1").await;
        assert!(verb(&db, Verb::Hold, first).await);
        let claim = one(worker.claims().await);
        assert_eq!(claim.job, second);
        assert!(verb(&db, Verb::Release, first).await);
        assert!(worker.claims().await.is_empty(), "another one of the lane has begun");
        worker.answer(claim, 503);
        assert!(worker.claims().await.is_empty());
        assert!(verb(&db, Verb::Hold, first).await);
        assert!(verb(&db, Verb::Release, first).await);
        assert!(worker.claims().await.is_empty(), "it has begun and stays the head");
        worker.pass(Duration::from_secs(1));
        assert_eq!(worker.deliver_all().await, [second, first, third]);
    }

    holding_the_head_in_its_backoff_wakes_the_line, |db| {
        let first = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = one(worker.claims().await);
        worker.answer_with(claim, &Answer::Status { status: 429, content_type: None, retry_after: Some(LEASE * 10), body: vec![], cut: None });
        assert!(worker.claims().await.is_empty());
        assert!(verb(&db, Verb::Hold, first).await);
        let claim = one(worker.claims().await);
        assert_eq!(claim.job, second);
        worker.answer(claim, 200);
        worker.claims().await;
        assert!(verb(&db, Verb::Release, first).await);
        assert!(worker.claims().await.is_empty(), "it still backs off");
        worker.pass(LEASE * 10);
        assert_eq!(worker.deliver_all().await, [first]);
    }

    resolving_an_unknown_job_lets_the_line_go_on, |db| {
        for (n, decision) in [Verb::ResolveDelivered, Verb::ResolveDead, Verb::ResolveResend, Verb::Cancel].into_iter().enumerate() {
            let recipient = format!("r{n}");
            let job = db.insert_with(&recipient, "1", &[("on_ambiguous", "'hold'")]).await;
            let second = db.insert(&recipient, "2").await;
            let mut worker = Steps::new(&db, &format!("w{n}")).await;
            let claim = one(worker.claims().await);
            worker.answer_with(claim, &lost());
            assert!(worker.claims().await.is_empty());
            assert_eq!(db.state(job).await, "unknown");
            assert!(!verb(&db, Verb::Hold, job).await);
            assert!(verb(&db, decision, job).await);
            assert!(!verb(&db, decision, job).await, "once");
            // The operators' clock is the database's, and the worker's a moment ahead.
            worker.pass(Duration::from_secs(5));
            let expected = if decision == Verb::ResolveResend { vec![job, second] } else { vec![second] };
            assert_eq!(worker.deliver_all().await, expected, "{decision:?}");
        }
    }

    a_job_to_resend_goes_before_a_lower_one_that_joined_meanwhile_and_under_hold_is_unknown_again, |db| {
        let now = db.pool.now().await.expect("now");
        let lower = db.insert_with("a", "0", &[("send_at", &db.time(now + 5_000))]).await;
        let job = db.insert_with("a", "1", &[("on_ambiguous", "'hold'")]).await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = one(worker.claims().await);
        assert_eq!(claim.job, job);
        worker.answer_with(claim, &lost());
        worker.claims().await;
        worker.pass(Duration::from_secs(10));
        assert!(worker.claims().await.is_empty(), "the lane is blocked, also for lower ids");
        assert!(verb(&db, Verb::ResolveResend, job).await);
        let claim = one(worker.claims().await);
        assert_eq!(claim.job, job);
        worker.answer_with(claim, &lost());
        assert!(worker.claims().await.is_empty());
        assert_eq!(db.state(job).await, "unknown");
        assert!(verb(&db, Verb::ResolveDead, job).await);
        assert_eq!(worker.deliver_all().await, [lower]);
    }

    pauses_stop_what_they_name_and_nothing_else, |db| {
        let here = db.insert("a", "1").await;
        let other = db.insert("b", "1").await;
        db.run("insert into send_jobs (page_id, recipient, message) select '2', recipient, message from send_jobs where id = $1", &[here.into()]).await;
        let page2 = db.int("select max(id) from send_jobs").await;
        let mut worker = Steps::new(&db, "w1").await;
        let by = operator();
        assert!(operate::pause(&db.pool, &support::scope("all"), &by).await.expect("pauses"));
        assert!(worker.claims().await.is_empty());
        assert!(operate::pause(&db.pool, &support::scope("page:1"), &by).await.expect("pauses"));
        assert!(operate::pause(&db.pool, &support::scope("lane:1/id:a"), &by).await.expect("pauses"));
        assert!(!operate::pause(&db.pool, &support::scope("page:1"), &by).await.expect("pauses"), "paused already");
        assert!(operate::resume(&db.pool, &support::scope("all"), &by).await.expect("resumes"));
        assert_eq!(worker.deliver_all().await, [JobId(page2)]);
        assert!(operate::resume(&db.pool, &support::scope("page:1"), &by).await.expect("resumes"));
        assert_eq!(worker.deliver_all().await, [other]);
        worker.pass(LEASE * 1000);
        let next = db.insert("a", "2").await;
        assert!(worker.claims().await.is_empty());
        assert!(operate::resume(&db.pool, &support::scope("lane:1/id:a"), &by).await.expect("resumes"));
        assert_eq!(worker.deliver_all().await, [here, next]);
    }

    a_verb_that_changes_nothing_leaves_no_trace_in_the_audit_table, |db| {
        let queued = db.insert("a", "1").await;
        assert!(!verb(&db, Verb::Release, queued).await);
        assert!(!verb(&db, Verb::ResolveDead, queued).await);
        let none = operate::requeue(&db.pool, &[queued], false, &operator()).await.expect("requeues");
        assert_eq!(none, []);
        assert!(!operate::resume(&db.pool, &support::scope("lane:1/id:a"), &operator()).await.expect("resumes"));
        assert_eq!(db.int("select count(*) from send_audit").await, 0);
        assert!(operate::pause(&db.pool, &support::scope("all"), &operator()).await.expect("pauses"));
        assert!(!operate::pause(&db.pool, &support::scope("all"), &operator()).await.expect("pauses"));
        assert!(verb(&db, Verb::Hold, queued).await);
        assert!(!verb(&db, Verb::Hold, queued).await);
        assert_eq!(db.text("select min(verb || changed) || max(verb || changed) || count(*) from send_audit").await, "hold1pause12");
    }

    a_pause_while_a_job_is_sent_lets_it_end_and_keeps_the_next_back, |db| {
        for scope in ["all", "page:1", "lane:1/id:a"] {
            let first = db.insert("a", "1").await;
            let second = db.insert("a", "2").await;
            let mut worker = Steps::new(&db, &format!("w{scope}")).await;
            let claim = one(worker.claims().await);
            assert_eq!(claim.job, first);
            assert!(operate::pause(&db.pool, &support::scope(scope), &operator()).await.expect("pauses"));
            worker.answer(claim, 200);
            assert!(worker.claims().await.is_empty(), "{scope}");
            assert_eq!(db.state(first).await, "delivered");
            assert!(operate::resume(&db.pool, &support::scope(scope), &operator()).await.expect("resumes"));
            assert_eq!(worker.deliver_all().await, [second], "{scope}");
        }
    }

    a_minimum_gap_rests_a_lane_whose_line_is_empty_too, |db| {
        db.insert("a", "1").await;
        let mut settings = settings("w1");
        settings.min_gap = Duration::from_secs(2);
        let mut worker = Steps::with(&db, settings).await;
        let claim = one(worker.claims().await);
        worker.answer(claim, 200);
        assert!(worker.claims().await.is_empty());
        let second = db.insert("a", "2").await;
        worker.pass(Duration::from_millis(1999));
        assert!(worker.claims().await.is_empty(), "the gap has not passed");
        worker.pass(Duration::from_millis(1));
        assert_eq!(worker.deliver_all().await, [second]);
        worker.pass(Duration::from_secs(2));
        worker.claims().await;
        assert_eq!(db.int("select count(*) from send_lanes").await, 0);
    }

    a_page_with_hanging_lanes_leaves_slots_for_another, |db| {
        for lane in 0..2000 {
            db.insert(&format!("r{lane}"), "x").await;
        }
        let mut worker = Steps::new(&db, "w1").await;
        let hanging = worker.claims().await;
        assert!(hanging.len() < 64 && hanging.len() >= 48, "{}", hanging.len());
        db.run("insert into send_jobs (page_id, recipient, message) select '2', recipient, message from send_jobs order by id limit 20", &[]).await;
        worker.now = db.pool.now().await.expect("now") + 10;
        let other = worker.claims().await;
        assert!(!other.is_empty() && other.iter().all(|c| &*c.page == "2"), "{other:?}");
        let mut sent = 0;
        let mut claims = other;
        while !claims.is_empty() {
            for claim in claims {
                sent += 1;
                worker.answer(claim, 200);
            }
            claims = worker.claims().await;
        }
        assert_eq!(sent, 20, "while the first page hangs");
    }

    two_workers_never_exceed_the_rate_of_a_page_and_cost_others_nothing, |db| {
        for lane in 0..400 {
            db.insert(&format!("r{lane}"), "x").await;
        }
        let limited = |name: &str| {
            let mut settings = settings(name);
            settings.rates.insert("1".into(), 50.0);
            settings
        };
        let mut workers = [Steps::with(&db, limited("w1")).await, Steps::with(&db, limited("w2")).await];
        let began = postlane::clock::BootInstant::now();
        let mut sent: usize = 0;
        while sent < 120 {
            for worker in &mut workers {
                worker.now = db.pool.now().await.expect("now") + 10;
                let step = worker.cycle().await;
                sent += step.claims.len();
                for claim in step.claims {
                    worker.answer(claim, 200);
                }
            }
            // One second's worth may have been saved up.
            let most = 50.0 + 50.0 * began.elapsed().as_secs_f64() + 1.0;
            assert!(f64::from(u32::try_from(sent).expect("small")) <= most, "{sent} of {most}");
        }
        db.run("insert into send_jobs (page_id, recipient, message) select '2', recipient, message from send_jobs order by id limit 60", &[]).await;
        let mut other = 0;
        // A page that is new beside another has few slots first, and more with each answer.
        for _ in 0..5 {
            for worker in &mut workers {
                worker.now = db.pool.now().await.expect("now") + 10;
                for claim in worker.claims().await {
                    other += usize::from(&*claim.page == "2");
                    worker.answer(claim, 200);
                }
            }
        }
        assert_eq!(other, 60);
    }

    what_a_rate_allowed_long_ago_is_not_added_to_what_it_allows_now, |db| {
        let limited = |name: &str| {
            let mut settings = settings(name);
            settings.rates.insert("1".into(), 20.0);
            settings
        };
        let mut workers = [Steps::with(&db, limited("w1")).await, Steps::with(&db, limited("w2")).await, Steps::with(&db, limited("w3")).await];
        for (n, worker) in workers.iter_mut().enumerate() {
            db.insert(&format!("early{n}"), "x").await;
            worker.now = db.pool.now().await.expect("now") + 10;
            for claim in worker.claims().await {
                worker.answer(claim, 200);
            }
            // The budget is full again before the next one draws from it.
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        for lane in 0..150 {
            db.insert(&format!("r{lane}"), "x").await;
        }
        let mut burst = 0;
        let began = postlane::clock::BootInstant::now();
        for worker in &mut workers {
            worker.now = db.pool.now().await.expect("now") + 10;
            burst += worker.claims().await.len();
        }
        let most = 20.0 + 20.0 * began.elapsed().as_secs_f64() + 1.0;
        assert!(f64::from(u32::try_from(burst).expect("small")) <= most, "{burst} of {most}");
    }

    two_workers_in_random_order_lose_nothing_and_keep_every_line, |db| {
        many_workers(&db, 2, 1500).await;
    }
}

/// What every unconfirmed commit must come to: nothing was sent, and both jobs go out once.
async fn recovers(db: &Db, worker: &mut Steps, first: JobId, second: JobId) {
    assert!(worker.take_claims().is_empty(), "nothing of it is sent");
    assert_eq!(worker.deliver_all().await, [first, second]);
    assert_eq!(worker.ledger.unwritten(), 0);
    let delivered = "select count(*) from send_attempts where outcome = 'delivered'";
    assert_eq!(db.int(delivered).await, 2);
    let others = "select count(*) from send_attempts where outcome <> 'delivered'";
    assert_eq!(db.int(others).await, 0);
    assert_eq!(
        db.int("select count(*) from send_jobs where failures > 0 or possible_duplicate")
            .await,
        0
    );
}

async fn proxied(db: &Db) -> (Proxy, Steps) {
    let proxy = Proxy::before(&db.url).await;
    let pool = Pool::open(&proxy.url, Use::Write, false)
        .await
        .expect("opens");
    let worker = Steps::on(pool, settings("w1")).await;
    (proxy, worker)
}

async fn fails(worker: &mut Steps) {
    let now = postlane::clock::BootInstant::now();
    worker
        .cycle_at(worker.now, now)
        .await
        .expect_err("the commit is not confirmed");
}

#[tokio::test]
async fn a_claim_whose_commit_nobody_confirmed_is_not_sent_and_closed() {
    for cut in [Cut::AfterCommit, Cut::BeforeCommit] {
        let Some(db) = support::postgres().await else {
            return;
        };
        let first = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let (proxy, mut worker) = proxied(&db).await;
        // The first commit is that of the tokens.
        proxy.cut(cut, 1);
        fails(&mut worker).await;
        let sending = i64::from(cut == Cut::AfterCommit);
        assert_eq!(
            db.int("select count(*) from send_lanes where worker is not null")
                .await,
            sending
        );
        recovers(&db, &mut worker, first, second).await;
    }
}

#[tokio::test]
async fn an_outcome_and_the_claim_behind_it_survive_a_commit_that_nobody_confirmed() {
    for cut in [Cut::AfterCommit, Cut::BeforeCommit] {
        let Some(db) = support::postgres().await else {
            return;
        };
        let zero = db.insert("a", "0").await;
        let first = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let (proxy, mut worker) = proxied(&db).await;
        let claim = one(worker.claims().await);
        worker.answer(claim, 200);
        proxy.cut(cut, 0);
        fails(&mut worker).await;
        assert!(worker.take_claims().is_empty(), "nothing of it is sent");
        assert_eq!(worker.deliver_all().await, [first, second]);
        assert_eq!(db.state(zero).await, "delivered");
        assert_eq!(
            db.int("select count(*) from send_attempts where outcome = 'delivered'")
                .await,
            3
        );
        assert_eq!(
            db.int("select count(*) from send_attempts where outcome <> 'delivered'")
                .await,
            0
        );
        assert_eq!(
            db.int("select count(*) from send_lanes where worker is not null")
                .await,
            0
        );
    }
}

#[tokio::test]
async fn a_claim_that_was_rolled_back_does_not_end_the_attempt_of_another_worker() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let job = db.insert("a", "1").await;
    let (proxy, mut worker) = proxied(&db).await;
    proxy.cut(Cut::BeforeCommit, 0);
    fails(&mut worker).await;
    let mut other = Steps::new(&db, "w2").await;
    let claim = one(other.claims().await);
    assert!(worker.claims().await.is_empty());
    assert_eq!(
        outcome(&db, job, 1).await,
        "none",
        "its attempt is on the wire"
    );
    assert_eq!(db.state(job).await, "sending");
    other.answer(claim, 200);
    other.claims().await;
    assert_eq!(outcome(&db, job, 1).await, "delivered");
}

#[tokio::test]
async fn a_commit_that_the_disk_refused_is_not_sent_and_its_token_harms_nobody() {
    let db = Db::fresh(Engine::Sqlite).await.expect("sqlite is built in");
    let first = db.insert("a", "1").await;
    let second = db.insert("a", "2").await;
    let fail = Arc::new(AtomicBool::new(false));
    let mut worker = Steps::on(failing_commits(&db, &fail).await, settings("w1")).await;
    fail.store(true, Ordering::SeqCst);
    fails(&mut worker).await;
    assert_eq!(db.state(first).await, "queued");
    // Another worker is handed the token that was rolled back.
    let mut other = Steps::new(&db, "w2").await;
    let claim = one(other.claims().await);
    assert!(worker.claims().await.is_empty(), "the other has it");
    assert_eq!(db.state(first).await, "sending");
    assert_eq!(outcome(&db, first, 1).await, "none");
    other.answer(claim, 200);
    let claim = one(other.claims().await);
    assert_eq!(claim.job, second);
    other.answer(claim, 200);
    other.claims().await;
    assert_eq!(db.int("select count(*) from send_attempts").await, 2);
}

#[tokio::test]
async fn an_outcome_that_the_disk_refused_is_written_later_and_the_next_job_goes_once() {
    let db = Db::fresh(Engine::Sqlite).await.expect("sqlite is built in");
    let zero = db.insert("a", "0").await;
    let first = db.insert("a", "1").await;
    let second = db.insert("a", "2").await;
    let fail = Arc::new(AtomicBool::new(false));
    let mut worker = Steps::on(failing_commits(&db, &fail).await, settings("w1")).await;
    let claim = one(worker.claims().await);
    worker.answer(claim, 200);
    fail.store(true, Ordering::SeqCst);
    fails(&mut worker).await;
    // Step by step: one claim at a time, whatever was in hand.
    let mut sent = Vec::new();
    let mut hand: Option<Claim> = None;
    for _ in 0..12 {
        for claim in worker.cycle().await.claims {
            assert!(hand.is_none(), "{claim:?} beside {hand:?}");
            sent.push(claim.job);
            hand = Some(claim);
        }
        for _ in 0..3 {
            assert!(worker.cycle().await.claims.is_empty(), "one is on the wire");
        }
        if let Some(claim) = hand.take() {
            worker.answer(claim, 200);
        }
    }
    assert_eq!(sent, [first, second]);
    assert_eq!(db.state(zero).await, "delivered");
    assert_eq!(
        db.int("select count(*) from send_attempts where outcome = 'delivered'")
            .await,
        3
    );
}

/// A connection of another process, held by hand.
async fn session(db: &Db) -> sqlx::PgConnection {
    let mut session = sqlx::PgConnection::connect(&db.url)
        .await
        .expect("connects");
    does(
        &mut session,
        "set lock_timeout = '2s'; set deadlock_timeout = '200ms'",
    )
    .await;
    session
}

async fn does(session: &mut sqlx::PgConnection, text: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned()))
        .execute(session)
        .await
        .expect(text);
}

fn insert_sql(recipient: &str) -> String {
    format!(
        "insert into send_jobs (page_id, recipient, message) values ('1', '{{\"id\":\"{recipient}\"}}', '{{\"template_type\":\"text\",\"text\":\"x\"}}')"
    )
}

/// Waits until some session of this database waits for a lock.
async fn someone_waits(db: &Db) {
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while db.int(waits).await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requeue_that_loses_a_deadlock_is_tried_again() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let jobs = [db.insert("a", "1").await, db.insert("b", "2").await];
    let dead = "update send_jobs set state = 'dead', finished_at = created_at";
    db.run(dead, &[]).await;
    let mut other = session(&db).await;
    // Nobody but the requeue finds the deadlock, so it is the one that Postgres ends.
    let patience = "set lock_timeout = '20s'; set deadlock_timeout = '20s'; begin";
    does(&mut other, patience).await;
    let lock = |job| format!("select from send_jobs where id = {job} for update");
    does(&mut other, &lock(jobs[1])).await;
    let pool = db.connect().await;
    let requeue =
        tokio::spawn(async move { operate::requeue(&pool, &jobs, false, &operator()).await });
    someone_waits(&db).await;
    let free = format!("select count(*) from ({} skip locked) f", lock(jobs[0]));
    assert_eq!(
        db.int(&free).await,
        0,
        "what the other session asks for next"
    );
    does(&mut other, &lock(jobs[0])).await;
    does(&mut other, "commit").await;
    let requeued = requeue.await.expect("no panic").expect("tried again");
    let old: Vec<JobId> = requeued.iter().map(|new| new.requeued_from).collect();
    assert_eq!(old, jobs, "once each");
    assert_eq!(db.int("select count(*) from send_jobs").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_in_opposite_order_wait_for_nobody() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let (mut one, mut two) = (session(&db).await, session(&db).await);
    let mut worker = Steps::new(&db, "w1").await;
    for round in 0..60 {
        does(&mut one, &format!("begin; {}", insert_sql("a"))).await;
        does(&mut two, &format!("begin; {}", insert_sql("b"))).await;
        worker.now = db.pool.now().await.expect("now") + 10;
        for claim in worker.claims().await {
            worker.answer(claim, 200);
        }
        does(&mut one, &insert_sql("b")).await;
        does(&mut two, &insert_sql("a")).await;
        for claim in worker.claims().await {
            worker.answer(claim, 200);
        }
        let (first, second) = if round % 2 == 0 {
            (&mut one, &mut two)
        } else {
            (&mut two, &mut one)
        };
        does(first, "commit").await;
        for claim in worker.claims().await {
            worker.answer(claim, 200);
        }
        does(second, "commit").await;
    }
    worker.now = db.pool.now().await.expect("now") + 10;
    worker.deliver_all().await;
    assert_eq!(
        db.int("select count(*) from send_jobs where state = 'delivered'")
            .await,
        240
    );
}

#[tokio::test]
async fn a_job_that_commits_late_with_a_lower_id_waits_for_the_one_that_has_begun() {
    let Some(db) = support::postgres().await else {
        return;
    };
    let mut producer = session(&db).await;
    does(&mut producer, &format!("begin; {}", insert_sql("a"))).await;
    let begun = db.insert("a", "2").await;
    let behind = db.insert("a", "3").await;
    let mut worker = Steps::new(&db, "w1").await;
    let claim = one(worker.claims().await);
    assert_eq!(claim.job, begun);
    does(&mut producer, "commit").await;
    assert!(worker.claims().await.is_empty());
    worker.answer(claim, 503);
    assert!(worker.claims().await.is_empty());
    let now = worker.now;
    // Another worker knows it too: the lane's row says which job has begun.
    let mut worker = Steps::new(&db, "w2").await;
    worker.now = now;
    worker.pass(Duration::from_secs(1));
    let claim = one(worker.claims().await);
    assert_eq!(claim.job, begun);
    worker.pass(LEASE);
    drop(claim);
    let now = worker.now;
    let mut worker = Steps::new(&db, "w3").await;
    worker.now = now;
    assert!(
        worker.claims().await.is_empty(),
        "the lost attempt backs off, and nobody passes"
    );
    worker.pass(Duration::from_secs(2));
    let late = JobId(db.int("select min(id) from send_jobs").await);
    assert_eq!(worker.deliver_all().await, [begun, late, behind]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_routed_while_its_lane_is_being_deleted_is_not_lost() {
    let Some(db) = support::postgres().await else {
        return;
    };
    for round in 0..10 {
        let first = db.insert("a", "1").await;
        let other = db.insert_with("b", "1", &[("delay", "1")]).await;
        let mut recorder = Steps::new(&db, &format!("w{round}")).await;
        let claim = one(recorder.claims().await);
        assert_eq!(claim.job, first);
        recorder.answer(claim, 200);
        recorder.pass(Duration::from_secs(2));
        // The recorder has found nothing behind this job, and waits before it deletes the lane: somebody has its
        // attempt's row.
        let mut holder = session(&db).await;
        does(
            &mut holder,
            &format!(
                "begin; insert into send_attempts (job_id, number, started_at, finished_at, outcome, worker)
                values ({first}, 1, now(), now(), 'not_sent', 'x')"
            ),
        )
        .await;
        let mut router = Steps::new(&db, &format!("x{round}")).await;
        router.now = recorder.now;
        let recording = tokio::spawn(async move {
            let step = recorder.cycle().await;
            (recorder, step.claims)
        });
        someone_waits(&db).await;
        let second = db.insert("a", "2").await;
        let routing = tokio::spawn(async move {
            let claims = router.claims().await;
            (router, claims)
        });
        let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while db.int(waits).await < 2 && !routing.is_finished() {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        does(&mut holder, "rollback").await;
        let (mut recorder, mut claims) = recording.await.expect("records");
        let (mut router, routed) = routing.await.expect("routes");
        claims.extend(recorder.claims().await);
        let all: Vec<JobId> = claims.iter().chain(&routed).map(|c| c.job).collect();
        assert!(
            all.contains(&second) && all.contains(&other) && all.len() == 2,
            "{all:?}"
        );
        for claim in claims {
            recorder.answer(claim, 200);
        }
        for claim in routed {
            router.answer(claim, 200);
        }
        recorder.claims().await;
        router.claims().await;
        assert_eq!(db.int("select count(*) from send_lanes").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_and_a_claim_never_both_win() {
    let Some(db) = support::postgres().await else {
        return;
    };
    for (round, sql, state) in [
        (0, "held", "held"),
        (1, "cancelled", "cancelled"),
        (2, "held", "held"),
    ] {
        let recipient = format!("r{round}");
        let job = db.insert(&recipient, "1").await;
        let next = db.insert(&recipient, "2").await;
        let mut worker = Steps::new(&db, &format!("w{round}")).await;
        // The operator has moved the job and not committed: nothing goes before it.
        let mut holder = session(&db).await;
        let finished = if state == "cancelled" {
            ", finished_at = now()"
        } else {
            ""
        };
        does(
            &mut holder,
            &format!("begin; update send_jobs set state = '{sql}'{finished} where id = {job}"),
        )
        .await;
        assert!(worker.claims().await.is_empty());
        worker.pass(Duration::from_millis(100));
        assert!(worker.claims().await.is_empty());
        does(&mut holder, "commit").await;
        worker.pass(Duration::from_millis(100));
        let claims = worker.claims().await;
        assert_eq!(one(claims).job, next, "the lane goes on in a moment");
        assert_eq!(db.state(job).await, state);
        assert_eq!(
            db.int(&format!(
                "select count(*) from send_attempts where job_id = {job}"
            ))
            .await,
            0
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_among_running_workers_break_nothing() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let Some(db) = Db::fresh(engine).await else {
            continue;
        };
        let db = Arc::new(db);
        let done = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for n in 0..2_u64 {
            let pool = db.connect().await;
            let done = Arc::clone(&done);
            tasks.push(tokio::spawn(async move {
                let mut chance = Chance::new(n + 1);
                while !done.load(Ordering::SeqCst) {
                    let job = i64::try_from(chance.below(400)).expect("small");
                    let verb =
                        *chance.pick(&[Verb::Hold, Verb::Release, Verb::Release, Verb::Cancel]);
                    let jobs: Vec<JobId> = (job..job + 5).map(JobId).collect();
                    match operate::apply(&pool, verb, &jobs, &operator()).await {
                        Ok(_) => {}
                        Err(error) => assert!(error.is_conflict(), "{error}"),
                    }
                    tokio::task::yield_now().await;
                }
            }));
        }
        many_workers_until(&db, 2, 400, "'delivered', 'held', 'cancelled'", false).await;
        done.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.expect("operators go on");
        }
    }
}

/// Drives several workers from tasks of their own, at full speed, and checks what they did.
async fn many_workers(db: &Db, workers: usize, jobs: usize) {
    many_workers_until(db, workers, jobs, "'delivered'", true).await;
}

async fn many_workers_until(db: &Db, workers: usize, jobs: usize, ends: &str, in_order: bool) {
    let left = format!("select count(*) from send_jobs where state not in ({ends})");
    use std::sync::Mutex;
    let history: Arc<Mutex<Vec<(JobId, String, bool)>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for n in 0..workers {
        let mut worker = Steps::new(db, &format!("w{n}")).await;
        let (history, done) = (Arc::clone(&history), Arc::clone(&done));
        tasks.push(tokio::spawn(async move {
            let mut chance = Chance::new(n as u64 + 77);
            let mut hand: Vec<Claim> = Vec::new();
            let mut conflicts = 0_u32;
            // An operator may release a job after the last look: what is claimed is sent, to the end.
            while !done.load(Ordering::SeqCst)
                || worker.ledger.in_flight() + worker.ledger.unwritten() > 0
            {
                match worker
                    .ledger
                    .cycle(postlane::store::wake::Woken::Time)
                    .await
                {
                    Ok(_) => {}
                    Err(error) if error.is_conflict() => conflicts += 1,
                    Err(error) => panic!("{error}"),
                }
                let claims = worker.take_claims().into_iter();
                hand.extend(claims.inspect(|claim| started(&history, claim)));
                let answer = chance.below(hand.len() + 1);
                for _ in 0..answer {
                    let claim = hand.swap_remove(chance.below(hand.len()));
                    history.lock().expect("history").push((
                        claim.job,
                        claim.lane.to_string(),
                        false,
                    ));
                    let status = if chance.once_in(4) { 503 } else { 200 };
                    let mut ended =
                        report(&claim, &support::status_answer(status), None, &worker.wire);
                    ended.slot = Some(claim.slot);
                    ended.attempt.as_mut().expect("an attempt").failed = false;
                    if status == 503 {
                        ended.state = Some(postlane::job::State::Queued);
                        ended.due = ended.finished + 1;
                    }
                    worker.report(ended);
                }
                tokio::task::yield_now().await;
            }
            conflicts
        }));
    }
    let producer = db.connect().await;
    let mut chance = Chance::new(5);
    for n in 0..jobs / 10 {
        let values: Vec<String> = (0..10)
            .map(|_| {
                format!(
                    "('1', '{}', '{}')",
                    support::braces(&format!("\"id\":\"r{}\"", chance.below(12))),
                    support::braces("\"template_type\":\"text\",\"text\":\"x\"")
                )
            })
            .collect();
        let text = format!(
            "insert into send_jobs (page_id, recipient, message) values {}",
            values.join(", ")
        );
        producer.rows_of(text, &[]).await.expect("inserts");
        if n % 8 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while db.int(&left).await > 0 {
        assert!(
            tokio::time::Instant::now() < deadline && !tasks.iter().any(|t| t.is_finished()),
            "stuck: {} are not delivered",
            db.int(&left).await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done.store(true, Ordering::SeqCst);
    let mut conflicts = 0;
    for task in tasks {
        conflicts += task.await.expect("no worker failed");
    }
    let mut running: HashMap<String, JobId> = HashMap::new();
    let mut begun: HashMap<String, JobId> = HashMap::new();
    let mut requests = 0;
    for (job, lane, starts) in history.lock().expect("history").iter() {
        if *starts {
            requests += 1;
            assert_eq!(
                running.insert(lane.clone(), *job),
                None,
                "two at once in {lane}"
            );
            let last = begun.insert(lane.clone(), *job).unwrap_or_default();
            assert!(last <= *job || !in_order, "{job} after {last} in {lane}");
        } else {
            assert_eq!(running.remove(lane), Some(*job));
        }
    }
    assert_eq!(db.int("select count(*) from send_attempts").await, requests);
    assert_eq!(
        db.int("select count(*) from send_lanes where worker is not null")
            .await,
        0
    );
    assert!(conflicts < 50, "{conflicts} conflicts");
    eprintln!("{requests} requests, {conflicts} conflicts");
}

fn started(history: &std::sync::Mutex<Vec<(JobId, String, bool)>>, claim: &Claim) {
    history
        .lock()
        .expect("history")
        .push((claim.job, claim.lane.to_string(), true));
}
