//! Verbs that move jobs: what they take, what they refuse, and what they say.

use postlane::job::JobId;

use crate::{both, id, keys, on, on_with_input, set, support};

both! {
    jobs_are_held_and_released_and_a_refusal_says_why, |db| {
        let queued = db.insert("a", "1").await;
        let sending = db.insert("b", "2").await;
        let over = db.insert("c", "3").await;
        set(&db, sending, "sending", "").await;
        set(&db, over, "dead", "").await;
        on(&db, &["hold"]).ends(2).tells("--all");
        let dry = on(&db, &["hold", "--all", "--dry-run", "--json"]).ends(0).json();
        assert_eq!(dry, [serde_json::json!({"id": queued, "changed": false, "state": "held", "was": "queued", "dry_run": true})]);
        assert_eq!(db.state(queued).await, "queued");
        on(&db, &["hold", &id(queued), &id(sending), &id(over), "--why", "price", "--who", "me"]).ends(1)
            .tells(&format!("{sending} is sending: it can't be held while it is on the wire; cancel it or wait"))
            .tells(&format!("{over} is dead"));
        assert_eq!(db.state(queued).await, "held");
        assert_eq!(db.text("select who || verb || what || changed || why from send_audit").await, format!("mehold{queued}1price"));
        on(&db, &["hold", "777777"]).ends(3);
        on_with_input(&db, &["hold", "-"], "").ends(3);
        let changed = on(&db, &["release", "--page", "1", "--json", "--yes"]).ends(0).json();
        assert_eq!(keys(&changed[0]), ["id", "changed", "state", "was"]);
        assert_eq!(db.state(queued).await, "queued");
        let host = db.text("select who from send_audit order by id desc limit 1").await;
        assert!(host.starts_with("tester@"), "{host}");
        on(&db, &["release", "--all"]).ends(3);
    }

    cancel_ends_jobs_and_marks_the_one_that_is_sent, |db| {
        let queued = db.insert("a", "1").await;
        let sending = db.insert("b", "2").await;
        set(&db, sending, "sending", "").await;
        let said = on_with_input(&db, &["cancel", "-"], &format!("{queued}\n{{\"id\":{sending}}}\n")).ends(0);
        assert!(said.out.contains(&format!("{sending} is being sent: it is marked")), "{}", said.out);
        assert_eq!(db.state(queued).await, "cancelled");
        assert_eq!(db.state(sending).await, "sending");
        on(&db, &["cancel", &id(queued)]).ends(1).tells("over already");
        on(&db, &["cancel", &id(sending)]).ends(1).tells("marked already");
        on_with_input(&db, &["cancel", "-"], "one two").ends(2);
    }

    unknown_jobs_are_resolved, |db| {
        let jobs = [db.insert("a", "1").await, db.insert("b", "2").await, db.insert("c", "3").await];
        for job in jobs {
            set(&db, job, "unknown", "no answer").await;
        }
        on(&db, &["resolve", &id(jobs[0]), "--delivered", "--dead"]).ends(2);
        on(&db, &["resolve", &id(jobs[0]), "--delivered"]).ends(0);
        on(&db, &["resolve", &id(jobs[1]), "--dead"]).ends(0);
        on_with_input(&db, &["resolve", "-", "--resend"], &id(jobs[2])).ends(0);
        assert_eq!([db.state(jobs[0]).await, db.state(jobs[1]).await, db.state(jobs[2]).await], ["delivered", "dead", "queued"]);
        on(&db, &["resolve", &id(jobs[2]), "--dead"]).ends(1).tells("only unknown jobs");
    }

    requeue_repeats_each_job_once_and_delivered_ones_only_by_name, |db| {
        let dead = db.insert("a", "1").await;
        let delivered = db.insert("b", "2").await;
        let queued = db.insert("c", "3").await;
        set(&db, dead, "dead", "HTTP 403: no").await;
        set(&db, delivered, "delivered", "").await;
        let dry = on(&db, &["requeue", "--reason", "HTTP 4", "--dry-run"]).ends(0);
        assert!(dry.out.contains(&format!("{dead} would be requeued")), "{}", dry.out);
        assert_eq!(db.int("select count(*) from send_jobs").await, 3);
        on(&db, &["requeue", "--reason", "100%"]).ends(3);
        let new = on(&db, &["requeue", "--all", "--json", "--yes"]).ends(0).json();
        assert_eq!(new.len(), 1, "delivered ones are not meant by --all");
        assert_eq!(keys(&new[0]), ["id", "requeued_from"]);
        assert_eq!(new[0]["requeued_from"], dead.0);
        on(&db, &["requeue", "--all", "--yes"]).ends(3).tells("requeued already");
        on(&db, &["requeue", &id(dead)]).ends(1).tells(&format!("it was requeued as {} already", new[0]["id"]));
        on(&db, &["requeue", &id(dead), "--again"]).ends(0);
        on(&db, &["requeue", &id(queued)]).ends(1).tells("not over yet");
        let said = on(&db, &["requeue", "--state", "delivered", "--yes"]).ends(0);
        assert!(said.out.contains(&format!("{delivered} → ")), "{}", said.out);
        assert_eq!(db.int("select count(*) from send_jobs where requeued_from is not null").await, 3);
    }

    a_script_that_changes_more_than_named_ids_has_to_say_so, |db| {
        let jobs = [db.insert("a", "1").await, db.insert("b", "2").await];
        set(&db, jobs[1], "held", "").await;
        for verb in [&["cancel", "--all"][..], &["cancel", "--page", "1"], &["hold", "--state", "queued"]] {
            let said = on(&db, verb).ends(2).tells("--yes").tells(" would change ");
            assert_eq!(said.out, "");
        }
        on(&db, &["cancel", "--all"]).ends(2).tells("cancel would change 2 jobs (1 held, 1 queued)");
        assert_eq!([db.state(jobs[0]).await, db.state(jobs[1]).await], ["queued", "held"]);
        on(&db, &["cancel", "--page", "2"]).ends(3);
        on(&db, &["cancel", "--all", "--dry-run"]).ends(0);
        on(&db, &["cancel", &id(jobs[0])]).ends(0);
        on(&db, &["cancel", "--all", "--yes"]).ends(0);
        assert_eq!(db.state(jobs[1]).await, "cancelled");
    }

    since_and_until_ask_when_a_job_came_into_its_state, |db| {
        let now = db.pool.now().await.expect("now");
        let hours = |n: i64| db.time(now - n * 3_600_000);
        let mut jobs = Vec::new();
        for state in ["dead", "cancelled", "delivered"] {
            let job = db.insert(state, "x").await;
            set(&db, job, state, "").await;
            db.run(&format!("update send_jobs set created_at = {}, finished_at = {} where id = {job}", hours(5), hours(1)), &[]).await;
            jobs.push(job);
        }
        let held = db.insert("held", "x").await;
        on(&db, &["hold", &id(held)]).ends(0);
        db.run(&format!("update send_jobs set created_at = {} where id = {held}", hours(5)), &[]).await;
        let unknown = db.insert("unknown", "x").await;
        set(&db, unknown, "unknown", "").await;
        db.run(&format!("update send_jobs set created_at = {} where id = {unknown}", hours(5)), &[]).await;
        db.run(&format!("insert into send_attempts (job_id, number, started_at, finished_at, outcome, worker)
            values ({unknown}, 1, {}, {}, 'ambiguous', 'w1')", hours(2), hours(1)), &[]).await;
        jobs.extend([held, unknown]);
        let ids = |arguments: &[&str]| {
            let said = on(&db, &[&["list", "--json"][..], arguments].concat());
            said.json().iter().map(|job| JobId(job["id"].as_i64().expect("id"))).rev().collect::<Vec<_>>()
        };
        for state in [&[][..], &["--state", "dead,cancelled,delivered,held,unknown"]] {
            assert_eq!(ids(&[&["--since", "2h"][..], state].concat()), jobs);
            assert_eq!(ids(&[&["--enqueued-since", "6h", "--enqueued-until", "4h"][..], state].concat()), jobs);
            assert_eq!(ids(&[&["--enqueued-since", "2h"][..], state].concat()), Vec::<JobId>::new());
            assert_eq!(ids(&[&["--until", "2h"][..], state].concat()), Vec::<JobId>::new());
        }
        assert_eq!(ids(&["--state", "dead", "--since", "2h", "--until", "30m", "--limit", "1"]), [jobs[0]]);
        assert_eq!(ids(&["--state", "held", "--since", "30m"]), [held]);
        let queued = db.insert("queued", "x").await;
        assert_eq!(ids(&["--state", "queued", "--since", "1h"]), [queued]);
        on(&db, &["list", "--state", "dead", "--since", "2h"]).ends(0).tells("jobs that came into their state at or after ");
        on(&db, &["list", "--enqueued-since", "2h"]).ends(0).tells("jobs that were enqueued at or after ");
        on(&db, &["requeue", "--state", "dead", "--enqueued-since", "2h", "--yes"]).ends(3);
        on(&db, &["requeue", "--state", "dead", "--since", "2h", "--yes"]).ends(0).tells("came into their state");
        on(&db, &["release", &id(held)]).ends(0);
        assert_eq!(db.int("select count(*) from send_jobs where held_at is not null").await, 0);
    }

    more_jobs_than_a_batch_are_changed_with_one_command, |db| {
        db.run("with recursive n (i) as (select 1 union all select i + 1 from n where i < 2100)
            insert into send_jobs (page_id, recipient, message)
            select '7', '{\"id\":\"a\"}', '{\"template_type\":\"text\",\"text\":\"x\"}' from n", &[]).await;
        let said = on(&db, &["cancel", "--page", "7", "--yes"]).ends(0);
        assert!(said.out.contains("2100 jobs cancelled"), "{}", said.out);
        let ids: String = on(&db, &["list", "--json", "--all-rows"]).ends(0).out;
        on_with_input(&db, &["requeue", "-"], &ids).ends(0);
        assert_eq!(db.int("select count(*) from send_jobs where state = 'queued'").await, 2100);
        assert_eq!(db.int("select count(*) from send_audit where verb = 'requeue'").await, 3);
    }
}
