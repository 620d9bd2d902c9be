//! What goes over the wire, and what any answer on it may do: the configured service against a
//! receiver that misbehaves by script, over real HTTP.
//!
//! Each test says what an answer does to a job, its attempts and its lane; what the rules make of
//! an answer is tested beside them. Only the proxy needs the binary: variables are a process's.

#[path = "../rig/mod.rs"]
mod rig;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod waits;

use std::time::Duration;

use postlane::attempt::{Claim, Completion};
use postlane::clock::BootInstant;
use postlane::deliver::{deliver, report};
use postlane::job::{AttemptNo, JobId, Outcome, State, Token};
use postlane::judge::Answer;
use postlane::secrets::{SecretId, Secrets, Signed, sign_with};
use rig::{SECRET, Setup, Sql, sandbox};
use sandbox::{Mock, MockConfig, Script, Step};
use stage::{LONG, Stage, answer, receiver, script, sqlite};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_sends_the_same_bytes_and_the_producers_own() {
    let stage = Stage::new().await;
    stage.mock.script("1", script("503, 500, drop, ok"));
    let message = r#"{ "text" : "h\u00e9llo  é 🙂 #1",  "template_type":"text" }"#;
    let insert = format!(
        "insert into send_jobs (page_id, recipient, message, tag) \
         values ('12345', '{{ \"id\" : \"1\" }}', '{message}', 'ACCOUNT_UPDATE')"
    );
    stage.sql.rows(&insert).await;
    stage.sql.finished(LONG).await;
    let got = stage.got("1");
    assert_eq!(got.len(), 4);
    // The sandbox has checked each signature over the bytes it got.
    let body = got[0].body.clone().expect("kept");
    assert!(got.iter().all(|r| r.body.as_ref() == Some(&body)));
    let text = std::str::from_utf8(&body).expect("UTF-8");
    assert!(text.contains(message), "{text}");
    let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let keys: Vec<_> = json.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["page_id", "recipient", "message", "tag"]);
    stage.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn url_and_header_are_those_of_the_configuration() {
    let config = MockConfig {
        default_secrets: vec![SECRET.to_owned()],
        path: "/some/where/else".to_owned(),
        signature_header: "X-Other-Sign".to_owned(),
        ..MockConfig::default()
    };
    let mock = Mock::start(config).expect("starts");
    let header = "signature_header = \"x-other-sign\"\n";
    let stage = Stage::with(sqlite().await, mock, header).await;
    let attempt = stage.first("1", Script::default()).await;
    assert_eq!(attempt.outcome, "delivered");
    stage.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_redirect_is_followed() {
    let elsewhere = receiver();
    for status in [301, 302, 303, 307, 308] {
        // A stage of its own: two that are turned away would pause the endpoint.
        let stage = Stage::new().await;
        let to = elsewhere.url();
        let redirect = script(&format!("status {status} header=location:{to} *"));
        let attempt = stage.first("1", redirect).await;
        let verdict = ("retryable", "status.endpoint");
        assert_eq!(attempt.verdict(), verdict, "{status}");
        assert_eq!(attempt.state, "queued", "no job dies of a wrong URL");
        stage.ends().await;
    }
    let stats = elsewhere.stats();
    assert_eq!((stats.connections, stats.requests), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_of_the_environment_is_not_used() {
    let (db, mock, trap) = (sqlite().await, sandbox(), receiver());
    let mut setup = Setup::new(&db.url, &mock.url());
    let address = format!("http://{}", trap.addr());
    let names = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    let proxies = names.map(|name| (name.to_owned(), address.clone()));
    setup.env.extend(proxies);
    db.insert("1", "hello #1").await;
    let mut worker = setup.start();
    Sql::open(&db.url).finished(LONG).await;
    assert_eq!(worker.stop().await, 0);
    assert_eq!((mock.count(), trap.stats().connections), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_body_is_read_to_its_bound_and_no_further() {
    let stage = Stage::new().await;
    let began = Instant::now();
    let attempt = stage.first("1", script("endless")).await;
    assert_eq!(attempt.outcome, "delivered", "the status said so");
    let took = began.elapsed();
    assert!(took < Duration::from_millis(900), "it read on: {took:?}");
    let mut huge = br#"{"success":true,"x":""#.to_vec();
    huge.resize(32 << 20, b'x');
    let attempt = stage.first("2", answer(200, &huge)).await;
    assert_eq!(attempt.outcome, "delivered");
    assert_eq!(attempt.response.len(), 2048);
    stage.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_drips_or_never_comes_ends_at_the_deadline() {
    let stage = Stage::new().await;
    for (recipient, text, outcome) in [
        ("1", "hang", "ambiguous"),
        ("2", "drip every=100ms", "ambiguous"),
        ("3", "500 drip-body every=100ms", "ambiguous"),
        ("4", "drip-body every=100ms", "delivered"),
    ] {
        let began = Instant::now();
        let attempt = stage.first(recipient, script(text)).await;
        let took = began.elapsed();
        assert_eq!(attempt.outcome, outcome, "{text}");
        let deadline = Duration::from_millis(950)..Duration::from_millis(2000);
        assert!(deadline.contains(&took), "{text}: {took:?}");
    }
    stage.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_refused_has_sent_nothing() {
    let url = format!("http://127.0.0.1:{}/", rig::free_port());
    let stage = Stage::to(sqlite().await, receiver(), &url, "").await;
    let attempt = stage.first("1", Script::default()).await;
    assert_eq!(attempt.verdict(), ("not_sent", "transport.not_sent"));
    let again = stage.attempt(attempt.job, 3).await;
    assert_eq!(again.outcome, "not_sent");
    let marked = "send_jobs where failures > 0 or possible_duplicate";
    assert_eq!(stage.sql.count(marked).await, 0);
    stage.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_attempt_keeps_how_far_it_came() {
    let stage = Stage::new().await;
    for (text, form) in [
        ("drop", "phase=wait body_sent=yes: %"),
        ("hang", "phase=wait body_sent=yes: %timed out%"),
        ("garbage", "phase=head body_sent=yes: %"),
        (
            "500 drip-body every=100ms",
            "HTTP 500, cut: phase=body body_sent=yes: %timed out%",
        ),
    ] {
        let attempt = stage.first(text, script(text)).await;
        let kept = format!(
            "send_attempts where job_id = {} and number = 1 and error like '{form}'",
            attempt.job
        );
        assert_eq!(stage.sql.count(&kept).await, 1, "{text}");
    }
    let reasons = "send_jobs where reason like '%phase=%body_sent=%'";
    assert!(stage.sql.count(reasons).await > 0);
    stage.ends().await;
}

fn slot() -> postlane::pace::Slot {
    postlane::pace::Slots::new(1)
        .take(&"1".into())
        .expect("one is free")
}

/// The first attempt of a job.
fn claim() -> Claim {
    Claim {
        lane: "1/id:a".into(),
        token: Token(1),
        job: JobId(1),
        number: AttemptNo(1),
        page: "1".into(),
        body: bytes::Bytes::new(),
        failures: 0,
        ambiguous: 0,
        since_previous: None,
        on_ambiguous: None,
        delay: Duration::ZERO,
        expires_in: None,
        started: 0,
        claimed: BootInstant::now(),
        slot: slot(),
    }
}

/// How an answer to the first attempt of a job ends.
fn ended(answer: &Answer) -> Completion {
    let wire = support::wire(
        "http://127.0.0.1:9/",
        Duration::from_secs(1),
        &support::breaker(),
    );
    report(&claim(), answer, None, &wire)
}

/// Signs, and fails on what follows.
struct Fragile;

impl Secrets for Fragile {
    fn sign(&self, _: &str, body: &[u8]) -> Option<Signed> {
        Some(Signed {
            signature: sign_with(SECRET.as_bytes(), body),
            secret: SecretId(1),
        })
    }

    fn has(&self, _: &str) -> bool {
        true
    }

    fn accepted(&self, _: &str, _: SecretId) {
        panic!("a bug");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_after_the_answer_is_reported_as_an_attempt_that_may_have_arrived() {
    let mock = receiver();
    let breaker = support::breaker();
    let wire = support::wire(&mock.url(), Duration::from_secs(2), &breaker);
    let mut wire = std::sync::Arc::into_inner(wire).expect("one owner");
    wire.secrets = std::sync::Arc::new(Fragile);
    mock.script("a", script("ok"));
    let claim = Claim {
        body:
            br#"{"page_id":1,"recipient":{"id":"a"},"message":{"template_type":"text","text":"x"}}"#
                .as_slice()
                .into(),
        ..claim()
    };
    let ended = deliver(claim, &wire).await;
    assert_eq!(mock.count(), 1, "{ended:?}");
    let attempt = ended.attempt.expect("an attempt");
    let found = (attempt.outcome, ended.state, &*attempt.rule);
    assert_eq!(
        found,
        (Outcome::Ambiguous, Some(State::Unknown), "ledger.panic")
    );
    assert!(ended.reason.expect("a reason").contains("please report"));
}

#[tokio::test]
async fn a_job_whose_time_ran_out_before_the_first_byte_is_dead() {
    let expired = ended(&Answer::not_sent("expired"));
    assert_eq!(expired.state, Some(State::Dead));
    assert_eq!(
        expired.attempt.expect("an attempt").outcome,
        Outcome::NotSent
    );
    assert_eq!(expired.reason.as_deref(), Some("expired"));
    let given_up = ended(&Answer::not_sent("the page has no secret"));
    assert_eq!(given_up.state, Some(State::Queued));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_ones_own_judge_and_are_kept_with_the_attempt() {
    let mine = "[[rule]]\nname = \"mine.teapot\"\nwhen.status = [418]\noutcome = \"retryable\"\n\n";
    let before = "[[rule]]\nname = \"status.page\"";
    let rules = postlane::judge::BUILT_IN.replace(before, &format!("{mine}{before}"));
    let folder = tempfile::tempdir().expect("temp folder");
    let file = folder.path().join("rules.toml");
    std::fs::write(&file, rules).expect("writes");
    let section = format!("[judge]\nrules = \"{}\"\n", file.display());
    let stage = Stage::with(sqlite().await, receiver(), &section).await;
    let attempt = stage.first("1", script("418, ok")).await;
    assert_eq!(attempt.verdict(), ("retryable", "mine.teapot"));
    stage.sql.finished(LONG).await;
    stage.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_dies_without_a_status_may_have_delivered() {
    let stage = Stage::new().await;
    for text in ["reset", "close", "drop", "garbage", "reset-before"] {
        let attempt = stage.first(text, script(text)).await;
        let rule = match text {
            "garbage" => "transport.garbled",
            _ => "transport.ambiguous",
        };
        assert_eq!(attempt.verdict(), ("ambiguous", rule), "{text}");
        let second = stage.attempt(attempt.job, 2).await;
        assert_eq!(second.outcome, "delivered", "{text}");
        let job = attempt.job;
        let marked = format!("send_jobs where id = {job} and possible_duplicate and attempts = 2");
        assert_eq!(stage.sql.count(&marked).await, 1, "{text}");
    }
    stage.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_whose_connection_dies_afterwards_is_a_success() {
    let stage = Stage::new().await;
    let half = r#"raw="HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{""#;
    for (recipient, text) in [("1", "cut"), ("2", "reset-mid"), ("3", half)] {
        let attempt = stage.first(recipient, script(text)).await;
        assert_eq!(attempt.outcome, "delivered", "{text}");
        assert_eq!(attempt.state, "delivered", "{text}");
    }
    assert_eq!(stage.mock.count(), 3);
    stage.ends().await;
}

/// `{"success":false,"error":{"code":10010,"msg":"zipped"}}`, compressed.
const ZIPPED: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 86, 42, 46, 77, 78, 78, 45, 46, 86, 178, 74, 75, 204, 41,
    78, 213, 81, 74, 45, 42, 202, 47, 82, 178, 170, 86, 74, 206, 79, 73, 85, 178, 50, 52, 48, 48,
    52, 208, 81, 202, 45, 78, 87, 178, 82, 170, 202, 44, 40, 72, 77, 81, 170, 173, 5, 0, 185, 109,
    59, 251, 55, 0, 0, 0,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_answer_is_not_unpacked() {
    let stage = Stage::new().await;
    let step = Step {
        headers: vec![("content-encoding".to_owned(), "gzip".to_owned())],
        body: Some(ZIPPED.to_vec()),
        ..Step::answer(200)
    };
    let attempt = stage.first("1", Script::new([step])).await;
    // Unpacked, it would be refused for good.
    assert_eq!(attempt.verdict(), ("ambiguous", "body.suspicious"));
    let kept = attempt.response;
    assert!(kept.starts_with('\u{1f}'), "{kept:?}");
    stage.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_answer_two_kib_are_kept_however_they_are_spelt() {
    let stage = Stage::new().await;
    let accents = "é".repeat(5000).into_bytes();
    for (recipient, body) in [
        ("plain", vec![b'x'; 10_000]),
        ("invalid", vec![0xff; 10_000]),
        ("zeros", vec![0; 10_000]),
        ("accents", accents),
    ] {
        let attempt = stage.first(recipient, answer(400, &body)).await;
        assert_eq!(attempt.outcome, "refused");
        let kept = attempt.response.len();
        assert!((2040..=2048).contains(&kept), "{recipient}: {kept} bytes");
    }
    stage.ends().await;
}

both! {
    bytes_that_are_no_text_are_kept_harmlessly, |db| {
        let stage = Stage::on(db).await;
        let nasty = b"\xff\xfe\x00NUL \x1b[31mred\x1b]0;title\x07 \xe2\x80\xae \r\n<script>alert(1)</script>";
        let phrase = "HTTP/1.1 400 \u{fc}\u{e9}\r\ncontent-length: 4\r\n\r\n\u{1b}[0m";
        let phrase = script(&format!("raw={}", serde_json::json!(phrase)));
        let attempts = [stage.first("1", answer(400, nasty)).await, stage.first("2", phrase).await];
        let setup = Setup::new(&stage.db.url, &stage.mock.url());
        for attempt in attempts {
            let id = attempt.job.to_string();
            let (code, out, err) = setup.verb(&["show", &id, "--json", "--show-payload"]);
            assert_eq!(code, 0, "{err}");
            let shown: serde_json::Value = serde_json::from_str(&out).expect("JSON");
            assert_eq!(shown["attempts_log"][0]["outcome"], attempt.outcome.as_str());
            let (code, human, _) = setup.verb(&["show", &id, "--show-payload"]);
            assert_eq!(code, 0);
            for text in [out.trim_end(), human.replace('\n', "").as_str()] {
                assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
            }
        }
        let kept = stage.sql.rows("select response from send_attempts order by job_id limit 1").await;
        assert!(kept[0][0].as_deref().is_some_and(|text| text.contains("NUL")), "{kept:?}");
        stage.ends().await;
    }
}
