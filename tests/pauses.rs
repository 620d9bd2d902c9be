//! Pauses that workers set and end: of a page, of the endpoint, and the circuit. Stepped by hand.

mod support;

use std::sync::Arc;
use std::time::Duration;

use postlane::attempt::Claim;
use postlane::breaker::{Change, Suspect};
use postlane::job::JobId;
use postlane::keyring::{Keyring, Pair};
use postlane::ledger::Settings;
use postlane::secrets::Slot;
use postlane::store::operate::{Operator, pause, resume};
use postlane::store::pauses;
use support::{Db, Steps};

/// One job each for `recipients` of a page.
async fn jobs(db: &Db, page: &str, recipients: &[&str]) -> Vec<JobId> {
    let mut jobs = Vec::new();
    for recipient in recipients {
        jobs.push(db.insert_on(page, recipient, "hello", &[]).await);
    }
    jobs
}

/// What is paused, in order.
async fn scopes(db: &Db) -> String {
    let rows = db
        .sql("select scope from send_pauses order by scope")
        .await
        .expect("reads");
    let scopes = rows.iter().map(|row| row.text("scope").expect("a scope"));
    scopes.collect::<Vec<_>>().join(" ")
}

/// The pages that the pause of the endpoint names, in order.
async fn failed_first(db: &Db) -> Vec<String> {
    let pages = db
        .text("select pages from send_pauses where scope = 'endpoint'")
        .await;
    let mut pages: Vec<String> = pages.split(' ').map(str::to_owned).collect();
    pages.sort_unstable();
    pages
}

/// The pages of claims, in order.
fn pages(claims: &[Claim]) -> Vec<&str> {
    let mut pages: Vec<&str> = claims.iter().map(|claim| &*claim.page).collect();
    pages.sort_unstable();
    pages
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
        let mut all = Vec::new();
        for page in ["1", "2", "3"] {
            all.extend(jobs(&db, page, &["a", "b", "c"]).await);
        }
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 9);
        answer(&mut worker, claims, 404);
        worker.claims().await;
        assert_eq!(scopes(&db).await, "endpoint page:1 page:2 page:3");
        assert_eq!(failed_first(&db).await, ["1", "2", "3"]);
        assert_eq!(db.text("select rule from send_pauses where scope = 'endpoint'").await, "status.endpoint");
        assert_eq!(db.int("select sum(failures) from send_jobs").await, 0);
        worker.pass(LATER);
        let claims = worker.claims().await;
        assert_eq!(pages(&claims), ["1", "2", "3"], "one probe for each");
        answer(&mut worker, claims, 404);
        worker.claims().await;
        // The probes of the others are a minute away, and due at once when one has passed.
        worker.pass(LATER);
        let mut claims = worker.claims().await;
        let last = claims.pop().expect("a probe");
        let well = last.page.to_string();
        answer(&mut worker, claims, 404);
        worker.claims().await;
        worker.answer(last, 200);
        worker.pass(Duration::from_millis(10));
        let rest = worker.claims().await;
        let paused = scopes(&db).await;
        assert!(paused.len() == "page:1 page:2".len() && !paused.contains(&well), "{paused}");
        let sent = |page: &str| rest.iter().filter(|claim| &*claim.page == page).count();
        for page in ["1", "2", "3"] {
            assert_eq!(sent(page), if page == well { 2 } else { 1 }, "page {page}, {well} is well");
        }
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
        assert_eq!(scopes(&db).await, "page:1", "nobody else has failed");
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
        assert!(resume(&db.pool, &support::scope("page:1"), &operator()).await.expect("resumes"));
        worker.pass(LATER);
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 2, "all at once");
        answer(&mut worker, claims, 401);
        worker.claims().await;
        assert!(pause(&db.pool, &support::scope("page:1"), &operator()).await.expect("pauses"), "his own now");
        assert_eq!(db.text("select who from send_pauses where probe_at is null").await, "ann");
        worker.pass(LATER);
        assert!(worker.claims().await.is_empty(), "an operator's pause is not probed");
        assert!(!pause(&db.pool, &support::scope("page:1"), &operator()).await.expect("pauses"), "it is his already");
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

    a_pause_says_its_newest_reason_and_since_when_it_is, |db| {
        jobs(&db, "1", &["a", "b"]).await;
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        answer(&mut worker, claims, 401);
        worker.claims().await;
        let since = db.text("select since from send_pauses").await;
        assert_eq!(db.text("select rule || ' ' || suspect from send_pauses").await, "status.page page");
        worker.pass(LATER);
        let claims = worker.claims().await;
        assert_eq!(claims.len(), 1);
        answer(&mut worker, claims, 405);
        worker.claims().await;
        assert_eq!(db.text("select rule from send_pauses").await, "status.endpoint");
        assert!(db.text("select why from send_pauses").await.starts_with("HTTP 405"));
        assert_eq!(db.text("select since from send_pauses").await, since);
    }

    one_sick_page_stops_no_other_whoever_has_work, |db| {
        for sick in [8, 60] {
            let page = sick.to_string();
            let names: Vec<String> = (0..sick).map(|n| format!("s{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            jobs(&db, &page, &names).await;
            let mut worker = Steps::new(&db, "w1").await;
            // By night: nobody else has work.
            for _ in 0..30 {
                for claim in worker.claims().await {
                    worker.answer(claim, 503);
                }
                worker.pass(Duration::from_millis(500));
            }
            assert_eq!(db.int(&format!("select count(*) from send_pauses where scope = 'page:{page}'")).await, 1);
            let healthy = jobs(&db, "2002", &["healthy"]).await;
            worker.now += 5;
            let claims = worker.claims().await;
            let claim = claims.into_iter().find(|claim| claim.job == healthy[0]).expect("at once");
            worker.answer(claim, 200);
            worker.claims().await;
            assert_eq!(db.state(healthy[0]).await, "delivered");
            assert_eq!(db.int("select count(*) from send_pauses where scope = 'endpoint'").await, 0);
        }
    }

    while_the_endpoint_is_paused_a_page_that_has_not_failed_goes_at_once_through_any_worker, |db| {
        for page in ["11", "12", "13"] {
            jobs(&db, page, &["a", "b", "c", "d", "e", "f", "g"]).await;
        }
        let mut one = Steps::new(&db, "w1").await;
        for _ in 0..4 {
            let claims = one.claims().await;
            answer(&mut one, claims, 503);
            one.now += 300;
        }
        one.claims().await;
        assert_eq!(failed_first(&db).await, ["11", "12", "13"]);
        // Another worker, or this one born again: it remembers nothing but what the rows say.
        let mut two = Steps::new(&db, "w2").await;
        two.now = one.now;
        let bad = jobs(&db, "14", &["a", "b"]).await;
        let good = jobs(&db, "15", &["a", "b"]).await;
        two.now += 20;
        let claims = two.claims().await;
        let first: Vec<JobId> = claims.iter().map(|claim| claim.job).filter(|job| bad.contains(job) || good.contains(job)).collect();
        assert_eq!(first.len(), 2, "one job of each page that has not failed: {claims:?}");
        let (good_claims, others): (Vec<Claim>, Vec<Claim>) = claims.into_iter().partition(|claim| &*claim.page == "15");
        answer(&mut two, others, 503);
        two.claims().await;
        assert_eq!(db.int("select count(*) from send_pauses where scope = 'page:14'").await, 1, "it has failed now");
        assert_eq!(db.int("select sum(failures) from send_jobs where page_id = '14'").await, 0);
        answer(&mut two, good_claims, 200);
        two.pass(Duration::from_millis(10));
        let rest = two.claims().await;
        assert_eq!(db.int("select count(*) from send_pauses where scope = 'endpoint'").await, 0);
        assert!(rest.iter().any(|claim| good.contains(&claim.job)), "the rest of the page that is well");
        assert!(db.int("select count(*) from send_pauses where scope = 'page:14'").await == 1, "who fails stays paused");
        assert_eq!(rest.iter().filter(|claim| &*claim.page == "14").count(), 1, "and is probed at once");
    }

    a_probe_goes_to_who_has_not_been_refused_before_those_who_have, |db| {
        let gone: Vec<String> = (0..150).map(|n| format!("gone{n}")).collect();
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        jobs(&db, "1", &gone).await;
        let mut worker = Steps::new(&db, "w1").await;
        for _ in 0..3 {
            let claims = worker.claims().await;
            answer(&mut worker, claims, 401);
            worker.pass(LATER);
        }
        worker.claims().await;
        assert_eq!(scopes(&db).await, "page:1");
        // Long after, when all of the others are due again.
        worker.pass(Duration::from_secs(600));
        let healthy = jobs(&db, "1", &["healthy"]).await;
        worker.now += 20;
        let mut seen = Vec::new();
        for _ in 0..2 {
            let claims = worker.claims().await;
            seen.extend(claims.iter().map(|claim| claim.job));
            answer(&mut worker, claims, 401);
            worker.pass(LATER);
        }
        assert!(seen.contains(&healthy[0]), "{seen:?} without {healthy:?}");
        assert_eq!(seen.len(), 2, "one job at a time");
    }

    an_operators_pause_of_the_endpoint_is_ended_by_no_answer_and_pauses_no_page, |db| {
        jobs(&db, "1", &["a", "b", "c"]).await;
        let mut worker = Steps::new(&db, "w1").await;
        let mut claims = worker.claims().await;
        assert_eq!(claims.len(), 3);
        assert!(pause(&db.pool, &support::scope("endpoint"), &operator()).await.expect("pauses"));
        worker.claims().await;
        worker.answer(claims.remove(0), 503);
        worker.answer(claims.remove(0), 200);
        jobs(&db, "2", &["a"]).await;
        worker.pass(LATER);
        assert!(worker.claims().await.is_empty());
        assert_eq!(scopes(&db).await, "endpoint");
        assert_eq!(db.int("select sum(failures) from send_jobs").await, 0);
        assert!(resume(&db.pool, &support::scope("endpoint"), &operator()).await.expect("resumes"));
        worker.pass(LATER);
        assert_eq!(worker.claims().await.len(), 2);
    }

    probes_take_turns_where_all_have_failed, |db| {
        let all = jobs(&db, "1", &["a", "b", "c", "d", "e", "f"]).await;
        let mut worker = Steps::new(&db, "w1").await;
        let claims = worker.claims().await;
        answer(&mut worker, claims, 401);
        worker.claims().await;
        let mut probed = Vec::new();
        for _ in 0..all.len() {
            worker.pass(LATER);
            let claims = worker.claims().await;
            probed.extend(claims.iter().map(|claim| claim.job));
            answer(&mut worker, claims, 401);
        }
        probed.sort_unstable();
        assert_eq!(probed, all);
    }

    people_that_are_refused_are_asked_in_growing_numbers, |db| {
        let names: Vec<String> = (0..64).map(|n| format!("gone{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        jobs(&db, "1", &names).await;
        let mut worker = Steps::new(&db, "w1").await;
        let open = Change::Open {
            scope: support::scope("page:1"), rule: "code.permission".to_owned(), why: "no permission".to_owned(),
            pages: Vec::new(), suspect: Suspect::People, wait: Duration::from_secs(1),
        };
        assert!(pauses::open(&db.pool, &open, "w1", worker.now).await.expect("opens"));
        let mut probes = Vec::new();
        for _ in 0..4 {
            worker.pass(LATER);
            let claims = worker.claims().await;
            probes.push(claims.len());
            answer(&mut worker, claims, 401);
        }
        assert_eq!(probes, [2, 4, 8, 16]);
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
