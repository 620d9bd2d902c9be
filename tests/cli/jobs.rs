//! Looking at jobs, bringing them in, and giving up old ones.

use serde_json::Value;

use crate::{COLUMNS, GOOD, both, id, keys, on, on_with_input, set, support};

both! {
    jobs_are_listed_newest_first_with_the_columns_of_the_contract, |db| {
        on(&db, &["list"]).ends(3);
        for n in 0..60 {
            db.insert_with("a", &format!("x{n}"), &[("metadata", "'[1,\n2]'")]).await;
        }
        let jobs = on(&db, &["list", "--json"]).ends(0).json();
        assert_eq!(jobs.len(), 50);
        assert_eq!(keys(&jobs[0]), COLUMNS);
        assert!(jobs[0]["id"].as_i64() > jobs[1]["id"].as_i64());
        assert_eq!(jobs[0]["recipient"], Value::Null);
        assert_eq!(jobs[0]["message"], Value::Null);
        assert_eq!(jobs[0]["metadata"], Value::Null, "it is the producer's, and may hold anything");
        assert_eq!(jobs[0]["lane"], "1/id:a");
        let created = jobs[0]["created_at"].as_str().expect("text");
        assert!(created.len() == 24 && created.ends_with('Z'), "{created}");
        assert_eq!(on(&db, &["list", "--json", "--all-rows"]).ends(0).json().len(), 60);
        let shown = on(&db, &["list", "--json", "--limit", "1", "--show-payload"]).ends(0).json();
        assert_eq!(shown[0]["message"]["text"], "x59");
        assert_eq!(shown[0]["metadata"], serde_json::json!([1, 2]));
        assert_eq!(shown[0]["recipient"]["id"], "a");
        assert!(!on(&db, &["list"]).ends(0).out.contains("template_type"));
        on(&db, &["list", "--state", "dead"]).ends(3);
        on(&db, &["list", "--since", "1h", "--until", "2100-01-01", "--page", "1", "--lane", "1/id:a"]).ends(0);
        on(&db, &["list", "--since", "2100-01-01T00:00:00Z"]).ends(3);
        on(&db, &["list", "--page", "abc"]).ends(2).tells("not the id of a page");
        on(&db, &["cancel", "--lane", "777", "--yes"]).ends(2).tells("12345/id:777");
    }

    control_characters_of_a_job_reach_no_terminal, |db| {
        let job = db.insert("a", "x").await;
        db.run(&format!("update send_jobs set reason = 'a' || $1 || 'b' where id = {job}"), &["\u{1b}[31m\n".into()]).await;
        let said = on(&db, &["list"]).ends(0);
        assert!(!said.out.contains('\u{1b}') && said.out.contains("a\\u{1b}[31m\\u{a}b"), "{}", said.out);
        let shown = on(&db, &["show", &id(job)]).ends(0);
        assert!(!shown.out.contains('\u{1b}'));
    }

    show_tells_the_attempts_and_what_a_job_waits_for, |db| {
        let first = db.insert("a", "1").await;
        let second = db.insert_with("a", "2", &[("delay", "10")]).await;
        let mut worker = support::Steps::new(&db, "w1").await;
        let claim = worker.claims().await.remove(0);
        worker.answer(claim, 503);
        worker.claims().await;
        for number in [2_i64, 3, 1] {
            let text = "insert into send_attempts (job_id, number, started_at, finished_at, outcome, worker)
                values ($1, $2, {at: 1}, {at: 2}, 'retryable', 'w1')";
            db.run(text, &[second.into(), number.into()]).await;
        }
        let jobs = on(&db, &["show", "--json", &id(first), &id(second)]).ends(0).json();
        let order: Vec<_> = jobs[1]["attempts_log"].as_array().expect("a list").iter().map(|a| &a["number"]).collect();
        assert_eq!(order, [1, 2, 3]);
        let log = &jobs[0]["attempts_log"][0];
        assert_eq!(keys(log), ["number", "started_at", "finished_at", "outcome", "http_status", "error", "response", "rule", "worker"]);
        assert_eq!((&log["number"], &log["http_status"], &log["outcome"]), (&1.into(), &503.into(), &"retryable".into()));
        let waits = jobs[1]["waits_for"].to_string();
        assert!(waits.contains("for a worker: none is seen on this database") && waits.contains("if the worker has none for page 1 either") && waits.contains("its delay") && waits.contains(&format!("1 job ahead of it in its lane; {first} is queued: HTTP 503")), "{waits}");
        on(&db, &["pause", "--page", "1", "--why", "token"]).ends(0);
        let out = on(&db, &["show", &id(second)]).ends(0).out;
        assert!(out.contains("page:1 is paused (token; 2 jobs wait)") && out.contains("hidden"), "{out}");
        assert!(on(&db, &["show", &id(second), "--show-payload"]).ends(0).out.contains("template_type"));
        on(&db, &["show", "999999"]).ends(3);
        on(&db, &["show", "999999", &id(first)]).ends(1);
    }

    a_pause_that_a_worker_set_is_told_and_ended_by_hand, |db| {
        db.insert("a", "1").await;
        db.insert("b", "1").await;
        let mut worker = support::Steps::new(&db, "w1").await;
        for claim in worker.claims().await {
            worker.answer(claim, 404);
        }
        worker.claims().await;
        let waiting = db.insert("c", "1").await;
        let out = on(&db, &["show", &id(waiting)]).ends(0).out;
        assert!(out.contains("until page:1 is well again, since") && out.contains("(HTTP 404; rule status.endpoint; 3 jobs wait)") && out.contains("one job is tried"), "{out}");
        let out = on(&db, &["stats"]).ends(0).out;
        assert!(out.contains("paused: page:1 since") && out.contains("by w1: HTTP 404; rule status.endpoint; 3 jobs wait; one job is tried"), "{out}");
        let stats = on(&db, &["stats", "--json"]).ends(0).json();
        assert!(stats[0]["pauses"][0]["probe_at"].is_string(), "{stats:?}");
        assert_eq!((&stats[0]["pauses"][0]["rule"], &stats[0]["pauses"][0]["waiting"]), (&"status.endpoint".into(), &3.into()));
        let open = "insert into send_pauses (scope, who, rule, pages, suspect, probe_at) values ('endpoint', 'w1', 'status.503', '1 7', 'endpoint', 0)";
        db.run(open, &[]).await;
        let out = on(&db, &["stats"]).ends(0).out;
        assert!(out.contains("by w1: rule status.503; pages 1, 7 failed first; 3 jobs wait; each page that is not paused itself tries one job at once"), "{out}");
        on(&db, &["resume", "--endpoint"]).ends(0).tells("page:1 is still paused by w1: HTTP 404");
        on(&db, &["resume", "--endpoint"]).ends(3);
        on(&db, &["resume", "--page", "1"]).ends(0);
        worker.pass(std::time::Duration::from_secs(60));
        assert_eq!(worker.claims().await.len(), 3);
    }

    pauses_are_set_shown_and_ended, |db| {
        on(&db, &["pause", "--all", "--dry-run"]).ends(0);
        on(&db, &["resume", "--all"]).ends(3);
        on(&db, &["pause", "--all", "--why", "maintenance"]).ends(0);
        on(&db, &["pause", "--all"]).ends(3);
        on(&db, &["pause", "--lane", "1/id:a"]).ends(0);
        let stats = on(&db, &["stats", "--json"]).ends(0).json();
        assert_eq!(keys(&stats[0]), ["jobs", "lanes", "leased", "inbox", "scheduled", "oldest_due_ms", "oldest_waiting_ms", "worker_seen", "is_well", "status", "pauses"]);
        assert_eq!(stats[0]["pauses"][0]["scope"], "all");
        assert_eq!(stats[0]["pauses"][0]["why"], "maintenance");
        assert!(on(&db, &["stats"]).ends(0).out.contains("paused: lane:1/id:a"));
        assert_eq!((&stats[0]["lanes"], &stats[0]["oldest_due_ms"]), (&0.into(), &0.into()));
        db.run("insert into send_lanes (lane, page_id, due_at, worker, job, number, started_at) values
            ('1/id:due', '1', 1000000000, null, null, null, null), ('1/id:later', '1', 2000000000, null, null, null, null),
            ('1/id:blocked', '1', null, null, null, null, null), ('1/id:taken', '1', 0, 'w1', 1, 1, 1)", &[]).await;
        let before = db.pool.now().await.expect("now");
        let stats = on(&db, &["stats", "--json"]).ends(0).json();
        assert_eq!((&stats[0]["lanes"], &stats[0]["leased"]), (&4.into(), &1.into()));
        let waited = stats[0]["oldest_due_ms"].as_i64().expect("a number");
        assert!((before - 1_000_000_000..before - 999_940_000).contains(&waited), "{waited}, the longest that is due and nobody's");
        on(&db, &["resume", "--all"]).ends(0).tells("lane:1/id:a is still paused");
        on(&db, &["resume", "--lane", "1/id:a"]).ends(0);
        assert_eq!(db.int("select count(*) from send_pauses").await, 0);
    }

    prune_gives_up_what_is_old_and_nothing_else, |db| {
        for state in ["delivered", "dead", "cancelled", "unknown", "held", "queued"] {
            let job = db.insert(state, "x").await;
            set(&db, job, state, "").await;
        }
        let old = db.time(1_000_000);
        on(&db, &["prune"]).ends(3);
        db.run(&format!("update send_jobs set finished_at = {old} where finished_at is not null"), &[]).await;
        let dry = on(&db, &["prune", "--dry-run", "--json"]).ends(0).json();
        assert_eq!(dry[0], serde_json::json!({"delivered": 1, "dead": 2, "dry_run": true}));
        assert_eq!(db.int("select count(*) from send_jobs").await, 6);
        on(&db, &["prune", "--dead", "1h"]).ends(2).tells("prune would delete 1 delivered and 2 dead or cancelled jobs, for good");
        assert_eq!(db.int("select count(*) from send_jobs").await, 6);
        on(&db, &["prune", "--dead", "200000d"]).ends(0);
        assert_eq!(db.int("select count(*) from send_jobs").await, 5);
        on(&db, &["prune"]).ends(0);
        assert_eq!(db.int("select count(*) from send_jobs").await, 3);
        assert_eq!(db.int("select sum(changed) from send_audit where verb = 'prune'").await, 3);
    }

    enqueue_inserts_the_valid_lines_and_tells_the_others, |db| {
        let full = r#"{"page_id":"1","recipient":{"id":"a"},"message":{"template_type":"text","text":"x"},"tag":"ACCOUNT_UPDATE","delay":2,"send_at":"2100-01-01T00:00:00Z","expires_at":4102444800500,"ordering_key":"k","idempotency_key":"once","on_ambiguous":"hold","metadata":{"a":[1]}}"#;
        let said = on_with_input(&db, &["enqueue", "--json"], &format!("{GOOD}\n{{}}\n{full}\n")).ends(1).tells("line 2: ").tells("1 line is invalid");
        let ids = said.json();
        assert_eq!((&ids[0]["line"], &ids[1]["line"]), (&1.into(), &3.into()));
        let job = on(&db, &["why", "--json", "--show-payload", &ids[1]["id"].to_string()]).ends(0).json().remove(0);
        assert_eq!(job["send_at"], "2100-01-01T00:00:00.000Z");
        assert_eq!(job["expires_at"], "2100-01-01T00:00:00.500Z");
        assert_eq!((&job["ordering_key"], &job["on_ambiguous"], &job["delay"]), (&"k".into(), &"hold".into(), &2.into()));
        assert_eq!(job["metadata"], serde_json::json!({"a": [1]}));
        on_with_input(&db, &["enqueue"], &format!("{GOOD}\n{full}\n")).ends(1)
            .tells("line 2: the idempotency_key \"once\" of page 1 is taken; nothing was inserted");
        assert_eq!(db.int("select count(*) from send_jobs").await, 2, "all or none");
        on_with_input(&db, &["enqueue"], "\n\n").ends(3).tells("nothing to enqueue");
        let key = |n: usize| GOOD.replace("\"page_id\"", &format!("\"idempotency_key\":\"k{n}\",\"page_id\""));
        let mut many: Vec<String> = (0..1200).map(key).collect();
        many[1100] = key(7);
        on_with_input(&db, &["enqueue"], &many.join("\n")).ends(1).tells("line 1101: the idempotency_key \"k7\"");
        assert_eq!(db.int("select count(*) from send_jobs").await, 2, "all or none");
        many[1100] = key(1100);
        let ids = on_with_input(&db, &["enqueue"], &many.join("\n")).ends(0).out;
        assert!(ids.lines().map(|id| id.parse::<i64>().expect("an id")).is_sorted() && ids.lines().count() == 1200);
        assert_eq!(db.text("select idempotency_key from send_jobs order by id desc limit 1").await, "k1199");
    }

    check_reports_a_database_that_is_not_fit_and_ends_with_0, |db| {
        assert!(on(&db, &["check"]).ends(0).out.contains("schema version 1"));
        let lines = on(&db, &["check", "--json"]).ends(0).json();
        assert_eq!(keys(&lines[0]), ["key", "value", "source"]);
        assert_eq!(lines[0]["source"], "--database-url");
        let empty = support::Db::empty(db.engine).await.expect("as the other");
        on(&empty, &["check"]).ends(0).tells("run `postlane migrate`");
        on(&empty, &["list"]).ends(1).tells("run `postlane migrate`");
        on(&empty, &["migrate"]).ends(0);
        on(&empty, &["list"]).ends(3);
    }
}
