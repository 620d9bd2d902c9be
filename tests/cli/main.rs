//! The command line: the real binary, its output and its exit codes, on both engines.

#[path = "../support/mod.rs"]
mod support;

mod alone;
mod changes;
mod classify;
mod jobs;
mod service;

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

use postlane::job::JobId;
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
async fn set(db: &support::Db, job: JobId, state: &str, reason: &str) {
    if state == "sending" {
        let text = "insert into send_lanes (lane, page_id, due_at, worker, job, number, started_at)
            select lane, page_id, 1, 'w1', id, 1, 1 from send_jobs where id = $1";
        db.run(text, &[job.into()]).await;
        return;
    }
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

fn id(job: JobId) -> String {
    job.to_string()
}

const COLUMNS: [&str; 24] = [
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
    "last_rule",
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

fn stop(child: Child) -> Said {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("runs");
    child.wait_with_output().expect("ends").into()
}
