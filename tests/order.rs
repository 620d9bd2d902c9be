//! Order and time: each lane in the order of ids, never early. Stepped by hand.

mod support;

use std::time::Duration;

use postlane::job::JobId;
use postlane::store::operate::{Operator, pause, resume};
use support::{Engine, Steps, status_answer};

both! {
    a_job_is_claimed_with_its_attempt_row_and_delivered, |db| {
        let job = db.insert("a", "hello").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 1);
        assert_eq!(db.state(job).await, "sending");
        assert_eq!(db.int("select count(*) from send_lanes where worker is not null").await, 1);
        assert_eq!(
            String::from_utf8_lossy(&claims[0].body),
            r#"{"page_id":1,"recipient":{"id":"a"},"message":{"template_type":"text","text":"hello"}}"#
        );
        let [claim] = <[_; 1]>::try_from(claims).expect("one");
        worker.answer(claim, 200);
        assert!(worker.claims().await.is_empty());
        assert_eq!(db.state(job).await, "delivered");
        assert_eq!(db.text("select outcome || http_status || rule from send_attempts").await, "delivered200status.2xx");
        assert_eq!(db.int("select count(*) from send_lanes").await, 0, "an empty lane leaves no row");
        assert_eq!(db.int("select count(*) from send_inbox").await, 0);
    }

    one_lane_sends_one_job_at_a_time_in_the_order_of_ids, |db| {
        let mut jobs = Vec::new();
        for n in 0..20 {
            jobs.push(db.insert(if n % 2 == 0 { "even" } else { "odd" }, &n.to_string()).await);
        }
        let mut worker = Steps::new(&db, "w1").await;
        let first = worker.claims().await;
        assert_eq!(first.len(), 2, "one job a lane");
        for claim in first {
            worker.answer(claim, 200);
        }
        let sent = worker.deliver_all().await;
        let (even, odd): (Vec<JobId>, Vec<JobId>) = sent.iter().partition(|id| jobs.iter().position(|j| j == *id).expect("known") % 2 == 0);
        assert!(even.is_sorted() && odd.is_sorted() && sent.len() == 18, "{sent:?}");
    }

    a_retry_keeps_its_place_and_the_jobs_behind_wait, |db| {
        let first = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = worker.claims().await.remove(0);
        worker.answer(claim, 503);
        assert!(worker.claimed().await.is_empty(), "in backoff nobody of the lane goes");
        assert_eq!(db.text(&format!("select state || failures || reason from send_jobs where id = {first}")).await, "queued1HTTP 503");
        let third = db.insert("a", "3").await;
        assert!(worker.claimed().await.is_empty(), "a new job does not wake a lane in backoff");
        worker.pass(Duration::from_secs(1));
        assert_eq!(worker.deliver_all().await, [first, second, third]);
    }

    a_delay_is_kept_and_the_jobs_behind_wait_for_it, |db| {
        let slow = db.insert_with("a", "1", &[("delay", "3")]).await;
        let fast = db.insert("a", "2").await;
        let other = db.insert("b", "3").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        assert_eq!(claims.iter().map(|c| c.job).collect::<Vec<_>>(), [other]);
        let due = match db.engine {
            Engine::Sqlite => format!("select due_at from send_jobs where id = {slow}"),
            Engine::Postgres => format!("select ceil(extract(epoch from due_at) * 1000) from send_jobs where id = {slow}"),
        };
        worker.now = db.int(&due).await - 1;
        assert!(worker.claimed().await.is_empty());
        worker.now += 1;
        let claim = worker.claims().await.remove(0);
        assert_eq!(claim.job, slow);
        worker.answer(claim, 503);
        worker.claims().await;
        worker.pass(Duration::from_secs(1));
        assert_eq!(worker.deliver_all().await, [slow, fast], "the delay is not applied again on a retry");
    }

    a_job_with_send_at_holds_nobody_up_and_joins_when_its_time_comes, |db| {
        let now = db.pool.now().await.expect("now");
        let later = db.insert_with("a", "1", &[("send_at", &db.time(now + 60_000))]).await;
        let second = db.insert("a", "2").await;
        let third = db.insert("a", "3").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = worker.claims().await.remove(0);
        assert_eq!(claim.job, second);
        worker.pass(Duration::from_secs(61));
        assert!(worker.claimed().await.is_empty(), "a job that has begun stays the head, although a lower id joined");
        worker.answer(claim, 503);
        assert!(worker.claimed().await.is_empty());
        worker.pass(Duration::from_secs(1));
        assert_eq!(worker.deliver_all().await, [second, later, third]);
    }

    a_job_with_send_at_wakes_a_lane_that_waits_for_a_delay, |db| {
        let now = db.pool.now().await.expect("now");
        let scheduled = db.insert_with("a", "1", &[("send_at", &db.time(now + 1_000))]).await;
        let delayed = db.insert_with("a", "2", &[("delay", "10")]).await;
        let mut worker = Steps::new(&db, "w1").await;
        assert!(worker.claimed().await.is_empty());
        worker.pass(Duration::from_secs(2));
        let claim = worker.claims().await.remove(0);
        assert_eq!(claim.job, scheduled, "the lowest joined id is the head");
        worker.answer(claim, 200);
        assert!(worker.claimed().await.is_empty());
        worker.pass(Duration::from_secs(10));
        assert_eq!(worker.claimed().await, [delayed]);
    }

    an_expired_job_is_never_sent_and_the_line_goes_on, |db| {
        let now = db.pool.now().await.expect("now");
        let mut expired = Vec::new();
        for n in 0..40 {
            expired.push(db.insert_with("a", &n.to_string(), &[("expires_at", &db.time(now - 1))]).await);
        }
        let fresh = db.insert_with("a", "x", &[("expires_at", &db.time(now + 60_000))]).await;
        let mut worker = Steps::new(&db, "w1").await;
        assert_eq!(worker.deliver_all().await, [fresh]);
        assert_eq!(db.int("select count(*) from send_jobs where state = 'dead' and reason = 'expired' and attempts = 0").await, 40);
        assert_eq!(db.int("select count(*) from send_attempts").await, 1);
    }

    a_job_that_had_expired_when_it_was_inserted_ends_no_earlier_than_it_came, |db| {
        let mut worker = Steps::new(&db, "w1").await;
        // The cycle read the clock before the INSERT.
        worker.now -= 1_000;
        let job = db.insert_with("a", "1", &[("expires_at", &db.time(worker.now - 60_000))]).await;
        assert!(worker.claims().await.is_empty());
        assert_eq!(db.state(job).await, "dead");
        assert_eq!(db.int("select count(*) from send_jobs where finished_at < created_at").await, 0);
    }

    no_head_waits_for_longer_than_any_rule_says_when_the_clock_is_set_back, |db| {
        // (delay, attempts, how far ahead due_at is, how long it waits)
        let (minute, hour) = (60_000, 3_600_000);
        let cases = [
            ("none", 0, 0, 10 * hour, 0),
            ("delay", 10, 0, 10_000, 10_000),
            ("clock", 10, 0, 10_000 + minute + 5_000, 0),
            ("backoff", 0, 3, hour + minute - 5_000, hour + minute - 5_000),
            ("tried", 0, 3, hour + minute + 5_000, 0),
        ];
        let mut worker = Steps::new(&db, "w1").await;
        for (name, delay, attempts, ahead, waits) in cases {
            let job = db.insert_with(name, "x", &[("delay", &delay.to_string())]).await;
            worker.now = worker.now.max(db.pool.now().await.expect("now") + 10);
            let due = db.time(worker.now + ahead);
            db.run(&format!("update send_jobs set due_at = {due}, attempts = {attempts} where id = {job}"), &[]).await;
            let claimed = worker.claimed().await;
            if waits > 0 {
                assert!(claimed.is_empty(), "{name}");
                worker.now += waits - 1;
                assert!(worker.claimed().await.is_empty(), "{name}");
                worker.now += 1;
                assert_eq!(worker.claimed().await, [job], "{name}");
            } else {
                assert_eq!(claimed, [job], "{name}");
            }
        }
    }

    a_job_that_expires_in_its_backoff_ends_then_and_the_line_goes_on, |db| {
        let now = db.pool.now().await.expect("now");
        let first = db.insert_with("a", "1", &[("expires_at", &db.time(now + 5_000))]).await;
        let second = db.insert("a", "2").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = worker.claims().await.remove(0);
        let answer = postlane::judge::Answer::Status {
            status: 429, content_type: None, retry_after: Some(Duration::from_secs(3000)), body: vec![], cut: None,
        };
        worker.answer_with(claim, &answer);
        worker.claims().await;
        worker.pass(Duration::from_secs(6));
        assert_eq!(worker.deliver_all().await, [second]);
        assert_eq!(db.text(&format!("select state || reason from send_jobs where id = {first}")).await, "deadexpired");
    }

    an_invalid_job_ends_without_an_attempt_and_the_line_goes_on, |db| {
        let long = "x".repeat(641);
        let bad = db.insert("a", &long).await;
        let good = db.insert("a", "ok").await;
        let mut worker = Steps::new(&db, "w1").await;
        assert_eq!(worker.deliver_all().await, [good]);
        let reason = db.text(&format!("select reason from send_jobs where id = {bad} and state = 'dead' and attempts = 0")).await;
        assert!(reason.starts_with("invalid: text.max_640: message.text"), "{reason}");
        assert_eq!(db.int(&format!("select count(*) from send_attempts where job_id = {bad}")).await, 0);
    }

    a_page_without_a_secret_waits_and_costs_others_nothing, |db| {
        db.run("insert into send_jobs (page_id, recipient, message) select '900', recipient, message from send_jobs", &[]).await;
        db.insert("a", "1").await;
        db.run("insert into send_jobs (page_id, recipient, message) select '900', recipient, message from send_jobs", &[]).await;
        let mut worker = Steps::new(&db, "w1").await;
        assert_eq!(worker.deliver_all().await.len(), 1);
        assert_eq!(db.text("select state from send_jobs where page_id = '900'").await, "queued");
        assert_eq!(db.int("select count(*) from send_lanes").await, 0);
    }

    a_refused_job_is_dead_at_once_and_the_line_goes_on, |db| {
        let first = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = worker.claims().await.remove(0);
        worker.answer(claim, 400);
        assert_eq!(worker.deliver_all().await, [second]);
        assert_eq!(db.text(&format!("select state || last_status || reason from send_jobs where id = {first}")).await, "dead400HTTP 400");
    }

    a_lane_whose_lease_ran_out_before_its_outcome_was_written_goes_on_once, |db| {
        let first = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = worker.claims().await.remove(0);
        // The database was away for longer than the lease, and nobody else came.
        worker.pass(Duration::from_secs(60));
        worker.answer(claim, 200);
        assert_eq!(worker.claimed().await, [second]);
        assert_eq!(db.state(first).await, "delivered");
    }

    a_job_is_dead_after_max_attempts, |db| {
        let job = db.insert("a", "1").await;
        let mut worker = Steps::new(&db, "w1").await;
        for _ in 0..5 {
            let claim = worker.claims().await.remove(0);
            worker.answer(claim, 503);
            worker.claims().await;
            worker.pass(Duration::from_secs(10));
        }
        assert_eq!(db.text(&format!("select state || attempts || failures || reason from send_jobs where id = {job}")).await,
            "dead55out of attempts (5 of 5): HTTP 503");
        assert!(worker.claimed().await.is_empty());
    }

    a_throttled_or_unsent_attempt_uses_up_nothing, |db| {
        let job = db.insert("a", "1").await;
        let mut worker = Steps::new(&db, "w1").await;
        for n in 0..12 {
            let claim = worker.claims().await.remove(0);
            let answer = if n % 2 == 0 { status_answer(429) } else {
                postlane::judge::Answer::not_sent("refused")
            };
            worker.answer_with(claim, &answer);
            worker.claims().await;
            worker.pass(Duration::from_secs(10));
        }
        assert_eq!(db.text(&format!("select state || failures || attempts from send_jobs where id = {job}")).await, "queued012");
        assert_eq!(worker.deliver_all().await, [job]);
    }

    an_ambiguous_attempt_is_repeated_and_says_so, |db| {
        let job = db.insert("a", "1").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = worker.claims().await.remove(0);
        let first = claim.body.clone();
        worker.answer(claim, 500);
        worker.claims().await;
        let flag = format!("select count(*) from send_jobs where id = {job} and possible_duplicate");
        assert_eq!(db.int(&flag).await, 0, "not before it is sent again");
        worker.pass(Duration::from_secs(1));
        let claim = worker.claims().await.remove(0);
        assert_eq!(claim.body, first, "a retry sends the same bytes");
        worker.answer(claim, 503);
        worker.claims().await;
        assert_eq!(db.int(&flag).await, 1);
    }

    an_ambiguous_attempt_under_hold_blocks_its_line, |db| {
        let job = db.insert_with("a", "1", &[("on_ambiguous", "'hold'")]).await;
        let second = db.insert("a", "2").await;
        let mut worker = Steps::new(&db, "w1").await;
        let claim = worker.claims().await.remove(0);
        worker.answer(claim, 500);
        worker.claims().await;
        assert_eq!(db.state(job).await, "unknown");
        db.insert("a", "3").await;
        worker.pass(Duration::from_secs(10_000));
        assert!(worker.claimed().await.is_empty(), "the lane waits for an operator");
        assert_eq!(db.state(second).await, "queued");
    }

    an_unknown_job_lets_the_line_go_on_where_the_policy_says_so, |db| {
        let job = db.insert_with("a", "1", &[("on_ambiguous", "'hold'")]).await;
        let second = db.insert("a", "2").await;
        let mut settings = support::settings("w1");
        settings.after_unknown = postlane::job::AfterUnknown::Continue;
        let mut worker = Steps::with(&db, settings).await;
        let claim = worker.claims().await.remove(0);
        worker.answer(claim, 500);
        assert_eq!(worker.deliver_all().await, [second]);
        assert_eq!(db.state(job).await, "unknown");
    }

    lanes_of_ordering_keys_and_kinds_are_apart, |db| {
        for recipient in [r#""id":"1""#, r#""phone":"1""#, r#""email":"1""#, r#""uuid":"1""#] {
            for key in ["null", "'k'"] {
                db.run(&format!("insert into send_jobs (page_id, recipient, message, ordering_key) values ('1', '{}', '{}', {key})",
                    support::braces(recipient), support::braces(r#""template_type":"text","text":"x""#)), &[]).await;
            }
        }
        let mut worker = Steps::new(&db, "w1").await;
        let lanes: Vec<String> = worker.claims().await.iter().map(|c| c.lane.to_string()).collect();
        let mut sorted = lanes.clone();
        sorted.sort();
        assert_eq!(sorted, ["1/email:1", "1/id:1", "1/key:k", "1/phone:1", "1/uuid:1"]);
    }

    a_mark_of_an_operator_does_not_wake_a_lane_that_rests, |db| {
        let mut settings = support::settings("w1");
        settings.min_gap = Duration::from_millis(300);
        db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let mut worker = Steps::with(&db, settings).await;
        let claim = worker.claims().await.remove(0);
        worker.answer(claim, 200);
        assert!(worker.claimed().await.is_empty());
        let ann = Operator { who: "ann".to_owned(), why: None };
        assert!(pause(&db.pool, &support::scope("lane:1/id:a"), &ann).await.expect("pauses"));
        assert!(resume(&db.pool, &support::scope("lane:1/id:a"), &ann).await.expect("leaves a mark"));
        assert_eq!(db.int("select count(*) from send_inbox").await, 1);
        worker.pass(Duration::from_millis(100));
        assert!(worker.claimed().await.is_empty(), "it rests");
        worker.pass(Duration::from_millis(200));
        assert_eq!(worker.claimed().await, [second]);
    }

    a_minimum_gap_rests_the_lane_between_requests, |db| {
        db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        let mut settings = support::settings("w1");
        settings.min_gap = Duration::from_millis(300);
        let mut worker = Steps::with(&db, settings).await;
        let claim = worker.claims().await.remove(0);
        worker.answer(claim, 200);
        assert!(worker.claimed().await.is_empty());
        worker.pass(Duration::from_millis(299));
        assert!(worker.claimed().await.is_empty());
        worker.pass(Duration::from_millis(1));
        assert_eq!(worker.claimed().await, [second]);
    }
}
