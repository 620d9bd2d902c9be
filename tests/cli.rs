//! The command line: the real binary, its output and its exit codes, on both engines.

mod support;

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// The binary with nothing of the user's environment but where the time zone and home are.
fn postlane(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postlane"));
    command
        .args(arguments)
        .env_clear()
        .env("TZ", "UTC")
        .env("USER", "tester");
    command.current_dir(std::env::temp_dir());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("ended by itself"),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Said {
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    fn json(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }

    #[track_caller]
    fn tells(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is not in {:?}", self.err);
        self
    }
}

fn run(arguments: &[&str]) -> Said {
    postlane(arguments).output().expect("starts").into()
}

fn run_with_input(arguments: &[&str], input: &str) -> Said {
    let mut child = postlane(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .expect("reads");
    child.wait_with_output().expect("ends").into()
}

/// On a database of a test; its flags stand before the verb.
fn on(db: &support::Db, arguments: &[&str]) -> Said {
    run(&[&["--database-url", &db.url], arguments].concat())
}

fn on_with_input(db: &support::Db, arguments: &[&str], input: &str) -> Said {
    run_with_input(&[&["--database-url", &db.url], arguments].concat(), input)
}

/// Puts a job into a state, as the worker or an operator would have.
async fn set(db: &support::Db, job: i64, state: &str, reason: &str) {
    let now = db.time(db.pool.now().await.expect("now"));
    let finished = match state {
        "delivered" | "dead" | "cancelled" => now,
        _ => "null".to_owned(),
    };
    db.run(
        &format!("update send_jobs set state = '{state}', finished_at = {finished}, reason = '{reason}' where id = {job}"),
        &[],
    )
    .await;
}

fn id(job: i64) -> String {
    job.to_string()
}

const COLUMNS: [&str; 23] = [
    "id",
    "page_id",
    "recipient",
    "message",
    "tag",
    "delay",
    "send_at",
    "expires_at",
    "ordering_key",
    "idempotency_key",
    "on_ambiguous",
    "metadata",
    "lane",
    "state",
    "attempts",
    "failures",
    "possible_duplicate",
    "requeued_from",
    "due_at",
    "reason",
    "last_status",
    "created_at",
    "finished_at",
];

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .expect("object")
        .keys()
        .map(String::as_str)
        .collect()
}

const GOOD: &str =
    r#"{"page_id":1,"recipient":{"id":"a"},"message":{"template_type":"text","text":"hi"}}"#;

#[test]
fn the_demo_ends_as_meant_whatever_the_environment_says() {
    let mut demo = postlane(&["demo"]);
    demo.env("POSTLANE_DATABASE_URL", "postgres://nowhere.invalid/x");
    demo.env("POSTLANE_API__URL", "nonsense");
    let said = Said::from(demo.output().expect("starts")).ends(0);
    for kind in ["text", "button", "generic", "list", "receipt"] {
        assert!(said.out.contains(&format!("   {kind} ")), "{kind}");
    }
    assert!(said.out.contains("insert into send_jobs"));
    assert!(said.out.contains("All ended as meant"));
    assert_eq!(said.err, "");
}

#[test]
fn wrong_usage_and_a_wrong_configuration_end_with_2() {
    run(&[]).ends(2);
    run(&["frobnicate"]).ends(2);
    run(&["list", "--state", "sent"])
        .ends(2)
        .tells("queued, sending, delivered");
    run(&["list", "--since", "yesterday"])
        .ends(2)
        .tells("use an age");
    run(&["resolve", "1"]).ends(2);
    run(&["pause"]).ends(2);
    run(&["pause", "--all", "--page", "1"]).ends(2);
    run(&["pause", "--page", "x"])
        .ends(2)
        .tells("not the id of a page");
    run(&["pause", "--lane", "777"])
        .ends(2)
        .tells("12345/id:777");
    run(&["check", "--config", "/nowhere/postlane.toml"]).ends(2);
    run(&["--database-url", "mysql://h/x", "list"])
        .ends(2)
        .tells("sqlite://FILE");
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("postlane.toml");
    std::fs::write(&file, "[api]\nulr = 1\n").expect("writes");
    let file = file.to_str().expect("UTF-8");
    run(&["check", "--config", file]).ends(2).tells("api.url");
    run(&["--config", file, "run"]).ends(2).tells("api.url");
}

#[test]
fn help_names_every_verb_and_each_verb_has_examples() {
    let help = run(&["--help"]).ends(0).out;
    for verb in [
        "demo",
        "run",
        "migrate",
        "check",
        "enqueue",
        "list",
        "show",
        "requeue",
        "cancel",
        "hold",
        "release",
        "resolve",
        "pause",
        "resume",
        "stats",
        "prune",
        "mock",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}");
        let help = run(&[verb, "--help"]).ends(0).out;
        assert!(help.contains("Examples:"), "{verb}");
        assert!(help.contains("--database-url"), "{verb}");
    }
}

#[test]
fn completions_and_manual_pages_are_written() {
    assert!(
        run(&["completions", "bash"])
            .ends(0)
            .out
            .contains("requeue")
    );
    assert!(run(&["man"]).ends(0).out.contains(".TH postlane 1"));
    let folder = tempfile::tempdir().expect("temp folder");
    run(&["man", "--out", folder.path().to_str().expect("UTF-8")]).ends(0);
    assert!(folder.path().join("postlane-requeue.1").exists());
    run(&["man", "--out", "/nowhere"]).ends(1);
}

#[test]
fn a_secret_is_never_shown() {
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("postlane.toml");
    let text = "database_url = \"postgres://me:canary@127.0.0.1:1/x\"\n[pages.1]\nsecret = \"canary\"\n[pages.2]\nsecret_env = \"PAGE_2\"\n";
    std::fs::write(&file, text).expect("writes");
    let file = file.to_str().expect("UTF-8");
    for more in [&["--offline"][..], &[], &["--json"]] {
        let mut check = postlane(&[&["check", "--config", file], more].concat());
        let said = Said::from(check.env("PAGE_2", "canary").output().expect("starts")).ends(0);
        assert!(
            !said.out.contains("canary") && !said.err.contains("canary"),
            "{}{}",
            said.out,
            said.err
        );
        assert!(said.out.contains("***"));
    }
    let said = run(&["check", "--config", file, "--offline"])
        .ends(2)
        .tells("PAGE_2");
    assert!(
        said.out.contains("pages.2.secret_env"),
        "the settings are shown all the same"
    );
    let said = run(&["list", "--config", file]).ends(1);
    assert!(!said.err.contains("canary"), "{}", said.err);
}

#[test]
fn enqueue_validates_without_a_database() {
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("requests.jsonl");
    let lines = format!(
        "{GOOD}\n\n{{\"page_id\":0}}\n[]\nnot json\n{{\"page_id\":1,\"recipient\":{{\"id\":\"a\"}},\"message\":{{\"template_type\":\"text\",\"text\":\"{}\"}}}}\n",
        "x".repeat(641)
    );
    std::fs::write(&file, &lines).expect("writes");
    let said = run(&["enqueue", "--dry-run", file.to_str().expect("UTF-8")]).ends(1);
    for place in [
        "line 3: page_id",
        "line 4: request.object",
        "line 5: ",
        "line 6: text.max_640: message.text",
    ] {
        assert!(said.err.contains(place), "{place}: {}", said.err);
    }
    assert!(said.err.contains("1 valid, 4 invalid"));
    run_with_input(&["enqueue", "-", "--dry-run"], GOOD).ends(0);
    run(&["enqueue", "/nowhere"]).ends(1).tells("/nowhere");
    let long = format!("{}\n{GOOD}\n", "x".repeat(1024 * 1024 + 1));
    run_with_input(&["enqueue", "--dry-run"], &long)
        .ends(1)
        .tells("line 1: request.max_bytes");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = postlane(&["demo"]).spawn().expect("starts");
    drop(child.stdout.take());
    let said = Said::from(child.wait_with_output().expect("ends")).ends(0);
    assert_eq!(said.err, "");
    let mut child = postlane(&["completions", "zsh"]).spawn().expect("starts");
    drop(child.stdout.take());
    assert_eq!(
        Said::from(child.wait_with_output().expect("ends"))
            .ends(0)
            .err,
        ""
    );
}

fn stop(child: Child) -> Said {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("runs");
    child.wait_with_output().expect("ends").into()
}

#[test]
fn the_sandbox_says_where_it_is_and_ends_with_its_counts() {
    use std::io::{BufRead as _, BufReader, Read as _};
    let mut child = postlane(&[
        "mock",
        "--listen",
        "127.0.0.1:0",
        "--script",
        "777=500 x2, ok",
        "--json",
    ])
    .spawn()
    .expect("starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("reads");
    let address: Value = serde_json::from_str(&line).expect("JSON");
    let host = address["url"]
        .as_str()
        .expect("url")
        .trim_start_matches("http://")
        .split('/')
        .next()
        .expect("host")
        .to_owned();
    run(&["mock", "--listen", &host]).ends(1).tells(&host);
    stop(child).ends(0);
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("reads");
    let stats: Value = serde_json::from_str(&rest).expect("JSON");
    assert_eq!(stats["order_violations"], 0);
    run(&["mock", "--script", "777=whatever"])
        .ends(2)
        .tells("unknown word");
}

#[test]
fn run_waits_for_its_database_and_stops_when_told() {
    let folder = tempfile::tempdir().expect("temp folder");
    let url = format!("sqlite://{}/later.db", folder.path().display());
    let mut child = postlane(&["run", "--database-url", &url]);
    let child = child
        .env("POSTLANE_ADMIN__LISTEN", "")
        .spawn()
        .expect("starts");
    std::thread::sleep(Duration::from_millis(700));
    run(&["migrate", "--dry-run", "--database-url", &url]).ends(0);
    assert!(!folder.path().join("later.db").exists());
    let said = run(&["migrate", "--database-url", &url]).ends(0);
    assert!(said.out.contains("applied 1 migration"), "{}", said.out);
    assert!(
        run(&["migrate", "--database-url", &url])
            .ends(0)
            .out
            .contains("nothing to do")
    );
    std::thread::sleep(Duration::from_secs(3));
    let said = stop(child).ends(0);
    assert_eq!(
        said.err.matches("postlane migrate").count(),
        2,
        "told once: {}",
        said.err
    );
    assert!(
        said.err.contains("worker started") && said.err.contains("worker stopped"),
        "{}",
        said.err
    );
}

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
        assert_eq!(jobs[0]["metadata"], serde_json::json!([1, 2]));
        assert_eq!(jobs[0]["lane"], "1/id:a");
        let created = jobs[0]["created_at"].as_str().expect("text");
        assert!(created.len() == 24 && created.ends_with('Z'), "{created}");
        assert_eq!(on(&db, &["list", "--json", "--all-rows"]).ends(0).json().len(), 60);
        let shown = on(&db, &["list", "--json", "--limit", "1", "--show-payload"]).ends(0).json();
        assert_eq!(shown[0]["message"]["text"], "x59");
        assert_eq!(shown[0]["recipient"]["id"], "a");
        assert!(!on(&db, &["list"]).ends(0).out.contains("template_type"));
        on(&db, &["list", "--state", "dead"]).ends(3);
        on(&db, &["list", "--since", "1h", "--until", "2100-01-01", "--page", "1", "--lane", "1/id:a"]).ends(0);
        on(&db, &["list", "--since", "2100-01-01T00:00:00Z"]).ends(3);
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
        let jobs = on(&db, &["show", "--json", &id(first), &id(second)]).ends(0).json();
        let log = &jobs[0]["attempts_log"][0];
        assert_eq!(keys(log), ["number", "started_at", "finished_at", "outcome", "http_status", "error", "response", "rule", "worker"]);
        assert_eq!((&log["number"], &log["http_status"], &log["outcome"]), (&1.into(), &503.into(), &"retryable".into()));
        let waits = jobs[1]["waits_for"].to_string();
        assert!(waits.contains("page 1 has none") && waits.contains("its delay") && waits.contains(&format!("1 job before it in its line; {first} is queued: HTTP 503")), "{waits}");
        on(&db, &["pause", "--page", "1", "--why", "token"]).ends(0);
        let out = on(&db, &["show", &id(second)]).ends(0).out;
        assert!(out.contains("page:1 is paused (token)") && out.contains("hidden"), "{out}");
        assert!(on(&db, &["show", &id(second), "--show-payload"]).ends(0).out.contains("template_type"));
        on(&db, &["show", "999999"]).ends(3);
        on(&db, &["show", "999999", &id(first)]).ends(1);
    }

    jobs_are_held_and_released_and_a_refusal_says_why, |db| {
        let queued = db.insert("a", "1").await;
        let sending = db.insert("b", "2").await;
        let over = db.insert("c", "3").await;
        set(&db, sending, "sending", "").await;
        set(&db, over, "dead", "").await;
        on(&db, &["hold"]).ends(2).tells("--all");
        on(&db, &["hold", "--all", "--dry-run"]).ends(0);
        assert_eq!(db.state(queued).await, "queued");
        on(&db, &["hold", &id(queued), &id(sending), &id(over), "--why", "price", "--who", "me"]).ends(1)
            .tells(&format!("{sending} is sending: it can't be held while it is on the wire; cancel it or wait"))
            .tells(&format!("{over} is dead"));
        assert_eq!(db.state(queued).await, "held");
        assert_eq!(db.text("select who || verb || what || changed || why from send_audit").await, format!("mehold{queued}1price"));
        on(&db, &["hold", "777777"]).ends(3);
        on_with_input(&db, &["hold", "-"], "").ends(3);
        let changed = on(&db, &["release", "--page", "1", "--json"]).ends(0).json();
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
        let new = on(&db, &["requeue", "--all", "--json"]).ends(0).json();
        assert_eq!(new.len(), 1, "delivered ones are not meant by --all");
        assert_eq!(keys(&new[0]), ["id", "requeued_from"]);
        assert_eq!(new[0]["requeued_from"], dead);
        on(&db, &["requeue", "--all"]).ends(3).tells("requeued already");
        on(&db, &["requeue", &id(dead)]).ends(1).tells(&format!("it was requeued as {} already", new[0]["id"]));
        on(&db, &["requeue", &id(dead), "--again"]).ends(0);
        on(&db, &["requeue", &id(queued)]).ends(1).tells("not over yet");
        let said = on(&db, &["requeue", "--state", "delivered"]).ends(0);
        assert!(said.out.contains(&format!("{delivered} → ")), "{}", said.out);
        assert_eq!(db.int("select count(*) from send_jobs where requeued_from is not null").await, 3);
    }

    more_jobs_than_a_batch_are_changed_with_one_command, |db| {
        db.run("with recursive n (i) as (select 1 union all select i + 1 from n where i < 2100)
            insert into send_jobs (page_id, recipient, message)
            select '7', '{\"id\":\"a\"}', '{\"template_type\":\"text\",\"text\":\"x\"}' from n", &[]).await;
        let said = on(&db, &["cancel", "--page", "7"]).ends(0);
        assert!(said.out.contains("2100 jobs cancelled"), "{}", said.out);
        let ids: String = on(&db, &["list", "--json", "--all-rows"]).ends(0).out;
        on_with_input(&db, &["requeue", "-"], &ids).ends(0);
        assert_eq!(db.int("select count(*) from send_jobs where state = 'queued'").await, 2100);
        assert_eq!(db.int("select count(*) from send_audit where verb = 'requeue'").await, 3);
    }

    pauses_are_set_shown_and_ended, |db| {
        on(&db, &["pause", "--all", "--dry-run"]).ends(0);
        on(&db, &["resume", "--all"]).ends(3);
        on(&db, &["pause", "--all", "--why", "maintenance"]).ends(0);
        on(&db, &["pause", "--all"]).ends(3);
        on(&db, &["pause", "--lane", "1/id:a"]).ends(0);
        let stats = on(&db, &["stats", "--json"]).ends(0).json();
        assert_eq!(keys(&stats[0]), ["jobs", "lanes", "leased", "inbox", "scheduled", "oldest_due_ms", "pauses"]);
        assert_eq!(stats[0]["pauses"][0]["scope"], "all");
        assert_eq!(stats[0]["pauses"][0]["why"], "maintenance");
        assert!(on(&db, &["stats"]).ends(0).out.contains("paused: lane:1/id:a"));
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
        let job = on(&db, &["show", "--json", &ids[1]["id"].to_string()]).ends(0).json().remove(0);
        assert_eq!(job["send_at"], "2100-01-01T00:00:00.000Z");
        assert_eq!(job["expires_at"], "2100-01-01T00:00:00.500Z");
        assert_eq!((&job["ordering_key"], &job["on_ambiguous"], &job["delay"]), (&"k".into(), &"hold".into(), &2.into()));
        assert_eq!(job["metadata"], serde_json::json!({"a": [1]}));
        on_with_input(&db, &["enqueue"], &format!("{GOOD}\n{full}\n")).ends(1)
            .tells("line 2: the idempotency_key \"once\" of page 1 is taken; nothing was inserted");
        assert_eq!(db.int("select count(*) from send_jobs").await, 2, "all or none");
        on_with_input(&db, &["enqueue"], "\n\n").ends(0);
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

    run_delivers_what_was_enqueued_and_stops_with_0, |db| {
        let sandbox = postlane::mock::Mock::start(postlane::mock::MockConfig {
            default_secrets: vec!["xxxxx".to_owned()],
            ..Default::default()
        }).expect("starts");
        on_with_input(&db, &["enqueue"], &format!("{GOOD}\n{GOOD}\n")).ends(0);
        let mut child = postlane(&["--database-url", &db.url, "run"]);
        child.env("POSTLANE_API__URL", sandbox.url()).env("POSTLANE_ADMIN__LISTEN", "").env("POSTLANE_LOG__FORMAT", "json");
        child.env("POSTLANE_PAGES__DEFAULT__SECRET_ENV", "PAGE").env("PAGE", "xxxxx");
        let child = child.spawn().expect("starts");
        assert!(sandbox.wait_for(2, Duration::from_secs(20)).await);
        let said = stop(child).ends(0);
        assert!(!said.err.contains("xxxxx"));
        for line in said.err.lines() {
            serde_json::from_str::<Value>(line).expect(line);
        }
        assert_eq!(on(&db, &["list", "--json", "--state", "delivered"]).ends(0).json().len(), 2);
    }
}
