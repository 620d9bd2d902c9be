//! `run` and `mock`: how they start, wait, tell and stop.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout};
use std::time::Duration;

use postlane::sign::signature;
use serde_json::Value;

use crate::{GOOD, Said, both, on, on_with_input, postlane, run, stop, support};

/// A sandbox on a free port, its output after the address, and where it is.
fn sandbox(arguments: &[&str]) -> (Child, BufReader<ChildStdout>, String) {
    let start = ["mock", "--listen", "127.0.0.1:0", "--json"];
    let mut child = postlane(&[&start[..], arguments].concat())
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
    (child, out, host)
}

#[test]
fn the_sandbox_says_where_it_is_and_ends_with_its_counts() {
    let (child, mut out, host) = sandbox(&["--script", "777=500 x2, ok"]);
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

/// The status of the answer to a signed request with this text.
fn ask(host: &str, recipient: &str, text: &str) -> u16 {
    let body = format!(
        r#"{{"page_id":1,"recipient":{{"id":"{recipient}"}},"message":{{"template_type":"text","text":"{text}"}}}}"#
    );
    let (length, signature) = (body.len(), signature(b"sandbox", body.as_bytes()));
    let mut stream = TcpStream::connect(host).expect("connects");
    write!(
        stream,
        "POST /api/send_message HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\
         x-joinchat-signature: {signature}\r\n\r\n{body}"
    )
    .expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    let status = answer.split(' ').nth(1).expect("a status line");
    status.parse().expect("a status")
}

#[test]
fn the_sandbox_holds_requests_against_the_rules_and_reads_scripts_from_a_file() {
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("scripts.toml");
    let path = file.to_str().expect("UTF-8");
    std::fs::write(&file, "# for two\n\"777\" = \"503\"\n\"*\" = \"501 *\"\n").expect("writes");
    for (rules, blank) in [("enforce", 400), ("note", 502), ("off", 502)] {
        let arguments = ["--rules", rules, "--script-file", path];
        let (child, mut out, host) = sandbox(&[&arguments[..], &["--script", "*=502 *"]].concat());
        let statuses = [("777", "hi"), ("778", "hi"), ("778", " ")];
        let statuses = statuses.map(|(recipient, text)| ask(&host, recipient, text));
        assert_eq!(statuses, [503, 502, blank], "{rules}");
        stop(child).ends(0);
        let mut rest = String::new();
        out.read_to_string(&mut rest).expect("reads");
        let stats: Value = serde_json::from_str(&rest).expect("JSON");
        assert_eq!(stats["invalid"], u64::from(rules != "off"), "{rules}");
    }
    std::fs::write(&file, "777 = 5").expect("writes");
    run(&["mock", "--script-file", path]).ends(2).tells(path);
    run(&["mock", "--script-file", "/nowhere"])
        .ends(2)
        .tells("/nowhere");
}

/// Reads on until a line holds this, and returns all that was read.
fn until(from: &mut impl BufRead, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let more = from.read_line(&mut read).expect("reads");
        assert!(more > 0, "{text:?} never came: {read}");
    }
    read
}

#[test]
fn run_waits_for_its_database_and_stops_when_told() {
    let folder = tempfile::tempdir().expect("temp folder");
    let url = format!("sqlite://{}/later.db", folder.path().display());
    let mut child = postlane(&[
        "run",
        "--database-url",
        &url,
        "--log",
        "info,postlane=debug",
    ]);
    let mut child = child
        .env("POSTLANE_ADMIN__LISTEN", "")
        .spawn()
        .expect("starts");
    let mut err = BufReader::new(child.stderr.take().expect("piped"));
    let told = until(&mut err, "database still cannot be used");
    assert_eq!(
        told.matches("ERROR database cannot be used yet").count(),
        1,
        "{told}"
    );
    assert!(told.contains("postlane migrate"), "{told}");
    let dry = run(&["migrate", "--dry-run", "--database-url", &url]).ends(0);
    assert!(dry.out.contains("would create"), "{}", dry.out);
    assert!(!folder.path().join("later.db").exists());
    let said = run(&["migrate", "--database-url", &url]).ends(0);
    assert!(said.out.contains("applied 1 migration"), "{}", said.out);
    let again = run(&["migrate", "--database-url", &url]).ends(0);
    assert!(again.out.contains("nothing to do"), "{}", again.out);
    until(&mut err, "database can be used now");
    stop(child).ends(0);
    until(&mut err, "worker stopped");
}

#[test]
fn run_stops_at_once_while_it_waits_for_its_database() {
    let mut child = postlane(&["run", "--database-url", "sqlite:///nowhere/jobs.db"]);
    let mut child = child
        .env("POSTLANE_ADMIN__LISTEN", "")
        .spawn()
        .expect("starts");
    let mut err = BufReader::new(child.stderr.take().expect("piped"));
    until(&mut err, "database cannot be used yet");
    stop(child).ends(0);
}

/// The default admin address is taken by this test or by somebody else; either will do.
#[test]
fn a_second_worker_on_a_machine_runs_without_the_admin_server() {
    let _taken = std::net::TcpListener::bind("127.0.0.1:9464");
    let folder = tempfile::tempdir().expect("temp folder");
    let url = format!("sqlite://{}/jobs.db", folder.path().display());
    run(&["migrate", "--database-url", &url]).ends(0);
    let child = postlane(&["run", "--database-url", &url]);
    let mut child = { child }.spawn().expect("starts");
    let mut err = BufReader::new(child.stderr.take().expect("piped"));
    let told = until(&mut err, "worker started");
    let warned = "runs without an admin server";
    assert_eq!(told.matches(warned).count(), 1, "{told}");
    assert!(told.contains("POSTLANE_ADMIN__LISTEN"), "{told}");
    stop(child).ends(0);
    // The same address, but somebody asked for it.
    let mut child = postlane(&["run", "--database-url", &url]);
    child.env("POSTLANE_ADMIN__LISTEN", "127.0.0.1:9464");
    Said::from(child.output().expect("starts"))
        .ends(1)
        .tells("admin.listen = \"127.0.0.1:9464\" (POSTLANE_ADMIN__LISTEN): cannot listen there");
}

/// A job that is on the wire and gets no answer, and the service that sends it.
async fn hanging() -> (support::Db, sandbox::Mock, std::process::Child) {
    let db = support::Db::fresh(support::Engine::Sqlite)
        .await
        .expect("sqlite is built in");
    let config = sandbox::MockConfig {
        default_secrets: vec!["xxxxx".to_owned()],
        scripts: vec!["*=hang *".parse().expect("a script")],
        ..Default::default()
    };
    let sandbox = sandbox::Mock::start(config).expect("starts");
    on_with_input(&db, &["enqueue"], GOOD).ends(0);
    let mut child = postlane(&["--database-url", &db.url, "run"]);
    child
        .env("POSTLANE_API__URL", sandbox.url())
        .env("POSTLANE_ADMIN__LISTEN", "");
    child.env("POSTLANE_PAGES__DEFAULT__SECRET", "xxxxx");
    let child = child.spawn().expect("starts");
    assert!(sandbox.wait_for(1, Duration::from_secs(20)).await);
    (db, sandbox, child)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_at_once_with_1() {
    let (_db, _sandbox, child) = hanging().await;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("runs");
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop(child).ends(1).tells("second signal");
}

#[test]
fn the_service_manager_is_told_when_it_delivers_lives_and_stops() {
    let folder = tempfile::tempdir().expect("temp folder");
    let url = format!("sqlite://{}/jobs.db", folder.path().display());
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("binds");
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("sets");
    let said = || {
        let mut text = [0; 200];
        let length = socket.recv(&mut text).expect("it tells");
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    let mut child = postlane(&["--database-url", &url, "run"]);
    child
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .env("POSTLANE_ADMIN__LISTEN", "");
    let child = child.spawn().expect("starts");
    assert!(
        said().starts_with("EXTEND_TIMEOUT_USEC="),
        "while the database is away"
    );
    run(&["migrate", "--database-url", &url]).ends(0);
    while said() != "READY=1" {}
    assert_eq!([said(), said()], ["WATCHDOG=1", "WATCHDOG=1"]);
    stop(child).ends(0);
    while said() != "STOPPING=1" {}
}

both! {
    run_delivers_what_was_enqueued_and_stops_with_0, |db| {
        let sandbox = sandbox::Mock::start(sandbox::MockConfig {
            default_secrets: vec!["xxxxx".to_owned()],
            ..Default::default()
        }).expect("starts");
        on_with_input(&db, &["enqueue"], &format!("{GOOD}\n{GOOD}\n")).ends(0);
        let mut child = postlane(&["--database-url", &db.url, "run"]);
        child.env("POSTLANE_API__URL", sandbox.url()).env("POSTLANE_ADMIN__LISTEN", "").env("POSTLANE_LOG__FORMAT", "json");
        child.env("POSTLANE_PAGES__DEFAULT__SECRET_ENV", "PAGE").env("PAGE", "xxxxx");
        let child = child.spawn().expect("starts");
        assert!(sandbox.wait_for(2, Duration::from_secs(20)).await);
        on(&db, &["pause", "--all"]).ends(0);
        let waiting = on_with_input(&db, &["enqueue"], GOOD).ends(0).out;
        let no_worker = "for a worker: none is seen on this database";
        assert_eq!(on(&db, &["stats", "--json"]).ends(0).json()[0]["worker_seen"], true);
        assert!(on(&db, &["stats"]).ends(0).out.starts_with("trouble: everything is paused\n"));
        assert!(!on(&db, &["show", waiting.trim()]).ends(0).out.contains(no_worker));
        let said = stop(child).ends(0);
        assert_eq!(on(&db, &["stats", "--json"]).ends(0).json()[0]["worker_seen"], false);
        assert!(on(&db, &["why", waiting.trim()]).ends(0).out.contains(no_worker));
        assert!(!said.err.contains("xxxxx"));
        for line in said.err.lines() {
            serde_json::from_str::<Value>(line).expect(line);
        }
        assert_eq!(on(&db, &["list", "--json", "--state", "delivered"]).ends(0).json().len(), 2);
    }

    the_benchmark_leaves_nothing_behind_and_touches_no_job, |db| {
        let job = db.insert("a", "1").await;
        let said = on(&db, &["bench", "--jobs", "300", "--recipients", "30", "--json"]).ends(0);
        let found = &said.json()[0];
        let count = |key: &str| found[key].as_u64().expect("a count");
        assert_eq!((count("jobs"), count("duplicates"), count("order_violations")), (300, 0, 0));
        for key in ["deliveries_per_second", "insert_p50_ms", "to_request_p50_ms", "to_request_p99_ms"] {
            assert!(found[key].as_f64().is_some_and(|figure| figure > 0.0), "{key}: {found}");
        }
        assert!(on(&db, &["bench", "--jobs", "100"]).ends(0).out.contains("100 jobs for 100 recipients delivered in"));
        assert_eq!(db.state(job).await, "queued");
        match db.engine {
            support::Engine::Sqlite => {
                let file = db.url.strip_prefix("sqlite://").expect("a file");
                let folder = std::path::Path::new(file).parent().expect("a folder");
                let left = std::fs::read_dir(folder).expect("reads").filter(|entry| {
                    entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().contains(".bench-"))
                });
                assert_eq!(left.count(), 0);
            }
            support::Engine::Postgres => {
                let schemas = "select count(*) from pg_namespace where nspname like 'postlane\\_bench%'";
                assert_eq!(db.int(schemas).await, 0);
            }
        }
    }
}
