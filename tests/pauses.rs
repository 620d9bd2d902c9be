//! Pauses that workers set and end: of a page, of the endpoint, and the circuit. Stepped by hand.

mod support;

use std::sync::Arc;
use std::time::Duration;

use postlane::deliver::{Claim, Slot};
use postlane::job::JobId;
use postlane::keyring::{Keyring, Pair};
use postlane::ledger::Settings;
use postlane::store::operate::{Operator, pause, resume};
use support::{Db, Steps};

/// One job each for `recipients` of a page.
async fn jobs(db: &Db, page: &str, recipients: &[&str]) -> Vec<JobId> {
    let mut jobs = Vec::new();
    for recipient in recipients {
        jobs.push(db.insert_on(page, recipient, "hello", &[]).await);
    }
    jobs
}

fn answer(worker: &mut Steps, claims: Vec<Claim>, status: u16) {
    for claim in claims {
        worker.answer(claim, status);
    }
}

/// Long after every backoff, and after the next probe is due.
const LATER: Duration = Duration::from_secs(40);

fn operator() -> Operator {
    Operator {
        who: "ann".to_owned(),
        why: Some("because".to_owned()),
    }
}

both! {
    a_page_that_refuses_its_signature_waits_is_probed_and_goes_on, |db| {
        let bad = jobs(&db, "1", &["a", "b"]).await;
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 2);
        answer(&mut worker, claims, 401);
        worker.claims().await;
        assert_eq!(db.text("select scope || ' ' || who from send_pauses").await, "page:1 w1");
        assert_eq!(db.int("select sum(failures) from send_jobs").await, 0, "no attempt is used up");
        // More of it waits, and another page does not.
        let more = jobs(&db, "1", &["c", "d"]).await;
        let good = jobs(&db, "2", &["a"]).await;
        worker.pass(Duration::from_millis(500));
        let claims = worker.claims().await;
        assert_eq!(claims.iter().map(|c| c.job).collect::<Vec<_>>(), good);
        answer(&mut worker, claims, 200);
        // One job at a time, each of another lane, each after twice the wait.
        let mut probed = Vec::new();
        let mut waits = Vec::new();
        for _ in 0..4 {
            let mut waited = Duration::ZERO;
            let claim = loop {
                worker.pass(Duration::from_millis(250));
                waited += Duration::from_millis(250);
                let mut claims = worker.claims().await;
                assert!(claims.len() <= 1, "one probe at a time");
                match claims.pop() {
                    Some(claim) => break claim,
                    None => assert!(waited < LATER, "nothing is probed"),
                }
            };
            probed.push(claim.job);
            waits.push(waited);
            worker.answer(claim, 401);
        }
        assert!(waits.windows(2).skip(1).all(|w| w[1] >= w[0] * 3 / 2), "{waits:?}");
        assert!(more.iter().all(|job| probed.contains(job)), "{probed:?} leaves out some of {more:?}");
        assert_eq!(db.int("select sum(failures) from send_jobs").await, 0);
        worker.pass(LATER);
        let claim = worker.claims().await.pop().expect("a probe");
        worker.answer(claim, 200);
        let rest = worker.claims().await;
        assert_eq!(db.int("select count(*) from send_pauses").await, 0);
        answer(&mut worker, rest, 200);
        worker.pass(LATER);
        worker.deliver_all().await;
        for job in bad.into_iter().chain(more) {
            assert_eq!(db.state(job).await, "delivered");
        }
    }

    one_recipient_that_is_refused_stops_nobody, |db| {
        jobs(&db, "1", &["bad"]).await;
        let mut worker = Steps::new(&db, "w1").await;
        for n in 0..6 {
            for claim in worker.claims().await {
                let status = if claim.lane.ends_with("bad") { 401 } else { 200 };
                worker.answer(claim, status);
            }
            jobs(&db, "1", &[&format!("good{n}")]).await;
            worker.pass(LATER);
        }
        worker.claims().await;
        assert_eq!(db.int("select count(*) from send_pauses").await, 0);
        assert_eq!(db.int("select count(*) from send_jobs where state = 'delivered'").await, 5);
        assert!(db.int("select max(failures) from send_jobs").await > 1, "it counts while others pass");
    }

    a_wrong_url_pauses_everything_and_one_real_answer_ends_that, |db| {
        let all = jobs(&db, "1", &["a", "b"]).await.into_iter().chain(jobs(&db, "2", &["a", "b"]).await);
        let all: Vec<JobId> = all.collect();
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 4);
        answer(&mut worker, claims, 404);
        worker.claims().await;
        assert_eq!(db.text("select scope from send_pauses").await, "endpoint");
        assert_eq!(db.int("select sum(failures) from send_jobs").await, 0);
        worker.pass(LATER);
        let mut claims = worker.claims().await;
        assert_eq!(claims.len(), 1, "one probe for all pages");
        worker.answer(claims.remove(0), 200);
        let rest = worker.claims().await;
        assert_eq!(db.int("select count(*) from send_pauses").await, 0);
        answer(&mut worker, rest, 200);
        worker.pass(LATER);
        worker.deliver_all().await;
        for job in all {
            assert_eq!(db.state(job).await, "delivered");
        }
    }

    the_circuit_opens_uses_up_no_attempts_and_closes, |db| {
        let names: Vec<String> = (0..30).map(|n| format!("r{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let all = jobs(&db, "1", &names).await;
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 30);
        answer(&mut worker, claims, 500);
        worker.claims().await;
        assert_eq!(db.text("select scope from send_pauses").await, "endpoint");
        let used = db.int("select sum(failures) from send_jobs").await;
        assert!(used < 20, "{used}: those before the circuit opened");
        for _ in 0..20 {
            worker.pass(LATER);
            let claims = worker.claims().await;
            assert_eq!(claims.len(), 1);
            answer(&mut worker, claims, 500);
        }
        assert_eq!(db.int("select sum(failures) from send_jobs").await, used, "probes use up none");
        worker.pass(LATER);
        let claims = worker.claims().await;
        answer(&mut worker, claims, 200);
        let rest = worker.claims().await;
        answer(&mut worker, rest, 200);
        worker.pass(LATER);
        worker.deliver_all().await;
        for job in all {
            assert_eq!(db.state(job).await, "delivered");
        }
    }

    a_pause_is_seen_by_every_worker_and_probed_by_one, |db| {
        jobs(&db, "1", &["a", "b", "c", "d"]).await;
        let (mut one, mut two) = (Steps::new(&db, "w1").await, Steps::new(&db, "w2").await);
        let claims = one.claims().await;
        assert_eq!(claims.len(), 4);
        answer(&mut one, claims, 401);
        one.claims().await;
        assert!(two.claims().await.is_empty());
        one.pass(LATER);
        two.pass(LATER);
        let claims = two.claims().await;
        assert_eq!(claims.len(), 1);
        assert!(one.claims().await.is_empty(), "the right is taken");
        answer(&mut two, claims, 200);
        for worker in [&mut one, &mut two] {
            worker.pass(Duration::from_millis(10));
        }
        assert_eq!(two.claims().await.len() + one.claims().await.len(), 3);
    }

    an_operator_ends_a_workers_pause_and_makes_it_his_own, |db| {
        jobs(&db, "1", &["a", "b"]).await;
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        answer(&mut worker, claims, 401);
        worker.claims().await;
        assert!(resume(&db.pool, "page:1", &operator()).await.expect("resumes"));
        worker.pass(LATER);
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 2, "all at once");
        answer(&mut worker, claims, 401);
        worker.claims().await;
        assert!(pause(&db.pool, "page:1", &operator()).await.expect("pauses"), "his own now");
        assert_eq!(db.text("select who from send_pauses where probe_at is null").await, "ann");
        worker.pass(LATER);
        assert!(worker.claims().await.is_empty(), "an operator's pause is not probed");
        assert!(!pause(&db.pool, "page:1", &operator()).await.expect("pauses"), "it is his already");
    }

    a_page_that_is_too_fast_waits_as_long_as_it_is_told, |db| {
        jobs(&db, "1", &["a", "b", "c"]).await;
        let good = jobs(&db, "2", &["a"]).await;
        let mut worker = Steps::new(&db, "w1").await;
        for claim in worker.claims().await {
            let answer = match &*claim.page {
                "1" => support::throttled(Duration::from_secs(20)),
                _ => support::status_answer(200),
            };
            worker.answer_with(claim, &answer);
        }
        worker.claims().await;
        assert_eq!(db.state(good[0]).await, "delivered");
        assert_eq!(db.text("select scope from send_pauses").await, "page:1");
        worker.pass(Duration::from_secs(19));
        assert!(worker.claims().await.is_empty());
        worker.pass(Duration::from_secs(2));
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 1);
        answer(&mut worker, claims, 200);
        let rest = worker.claims().await;
        answer(&mut worker, rest, 200);
        worker.pass(LATER);
        worker.deliver_all().await;
        assert_eq!(db.int("select count(*) from send_jobs where state <> 'delivered'").await, 0);
    }

    a_page_whose_secret_changed_goes_on_at_once, |db| {
        jobs(&db, "1", &["a", "b"]).await;
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        answer(&mut worker, claims, 401);
        worker.claims().await;
        assert_eq!(db.int("select count(*) from send_pauses").await, 1);
        jobs(&db, "1", &["c", "d"]).await;
        worker.pass(Duration::from_millis(900));
        assert!(worker.claims().await.is_empty(), "paused");
        worker.wire.breaker.lock().expect("not poisoned").secret_changed("default", |_| false);
        assert_eq!(worker.claims().await.len(), 4);
        assert_eq!(db.int("select count(*) from send_pauses").await, 0);
    }

    another_secret_of_default_ends_no_pause_of_a_page_that_has_its_own, |db| {
        let key = |secret: &str| Pair { current: Some(secret.into()), previous: None };
        let ring = [("default".to_owned(), key("shared")), ("1".to_owned(), key("own"))];
        let ring = Arc::new(Keyring::new(ring));
        for page in ["1", "2"] {
            jobs(&db, page, &["a", "b"]).await;
        }
        let secrets = Arc::<Keyring>::clone(&ring);
        let mut worker = Steps::with(&db, Settings { secrets, ..support::settings("w1") }).await;
        let claims = worker.claims().await;
        answer(&mut worker, claims, 401);
        worker.claims().await;
        assert_eq!(db.int("select count(*) from send_pauses").await, 2);
        worker.pass(Duration::from_millis(900));
        for (section, page) in [("default", "2"), ("1", "1")] {
            assert!(ring.set(section, Slot::Current, "new".into()));
            let claims = worker.claims().await;
            assert_eq!(claims.iter().map(|claim| &*claim.page).collect::<Vec<_>>(), [page; 2]);
        }
        assert_eq!(db.int("select count(*) from send_pauses").await, 0);
    }

    a_page_and_the_endpoint_that_are_both_paused_are_probed_together, |db| {
        jobs(&db, "1", &["a", "b"]).await;
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        answer(&mut worker, claims, 401);
        worker.claims().await;
        let claim = loop {
            worker.pass(LATER);
            match worker.claims().await.pop() {
                Some(claim) if claim.lane.ends_with('a') => break claim,
                Some(claim) => worker.answer(claim, 401),
                None => {}
            }
        };
        worker.answer(claim, 404);
        worker.claims().await;
        worker.pass(LATER);
        let claims = worker.claims().await;
        answer(&mut worker, claims, 404);
        worker.claims().await;
        assert_eq!(db.int("select count(*) from send_pauses").await, 2);
        worker.pass(LATER);
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 1);
        answer(&mut worker, claims, 200);
        let rest = worker.claims().await;
        assert_eq!(db.int("select count(*) from send_pauses").await, 0);
        answer(&mut worker, rest, 200);
        worker.pass(LATER);
        worker.deliver_all().await;
        assert_eq!(db.int("select count(*) from send_jobs where state <> 'delivered'").await, 0);
    }

    heads_that_cannot_be_sent_do_not_use_up_the_probe, |db| {
        jobs(&db, "1", &["a", "b"]).await;
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        answer(&mut worker, claims, 401);
        worker.claims().await;
        // Due before all others, and expired by the time of the probe.
        let soon = db.time(worker.now + 5_000);
        for n in 0..20 {
            db.insert_with(&format!("old{n}"), "late", &[("expires_at", &soon)]).await;
        }
        worker.pass(LATER);
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 1, "one is sent at the first probe");
        answer(&mut worker, claims, 200);
        worker.claims().await;
        assert_eq!(db.int("select count(*) from send_pauses").await, 0);
    }
}
