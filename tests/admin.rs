//! The admin server: what it shows, to whom, and that nobody can hold it up.

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use postlane::admin::{Admin, Rules, bind, serve};
use postlane::clock::BootInstant;
use postlane::events::Events;
use postlane::job::{AfterUnknown, JobId};
use postlane::store::{Bind, Pool, Use};
use reqwest::{RequestBuilder, Response, StatusCode};
use secrecy::SecretString;
use support::Db;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A server in the test's own process.
struct Server {
    at: SocketAddr,
    up: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    client: reqwest::Client,
}

impl Server {
    async fn of(db: &Db) -> Self {
        let readers = Pool::open(&db.url, Use::Read, false).await.expect("opens");
        Self::start("127.0.0.1:0", Some(readers), None).await
    }

    /// On loopback, with no token and no database: what the server does by itself.
    async fn alone() -> Self {
        Self::start("127.0.0.1:0", None, None).await
    }

    async fn start(at: &str, readers: Option<Pool>, token: Option<&str>) -> Self {
        let listener = bind(at.parse().expect("address")).await.expect("binds");
        let at = listener.local_addr().expect("address");
        let up = Arc::new(AtomicBool::new(true));
        let ready = Arc::clone(&up);
        let (stop, stopping) = watch::channel(false);
        let admin = Admin {
            readers: Arc::new(RwLock::new(readers)),
            events: Arc::new(Events::new()),
            token: token.map(SecretString::from),
            ready: Arc::new(move || ready.load(Ordering::Relaxed)),
            worker: Rules {
                max_attempts: 20,
                after_unknown: AfterUnknown::Block,
                // Page 9 has none.
                has_secret: Arc::new(|page| page != "9"),
            },
        };
        // Fails only if a provider is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            at,
            up,
            stop,
            task: serve(listener, admin, stopping),
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("client"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.at.port())
    }

    /// Sends what is asked, and waits for the head of the answer.
    async fn ask(&self, request: RequestBuilder) -> Response {
        request.send().await.expect("answers")
    }

    async fn fetch(&self, path: &str) -> Response {
        self.ask(self.client.get(self.url(path))).await
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.fetch(path).await;
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.expect("connects")
    }

    /// What the server answers to these bytes until it closes.
    async fn raw(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.expect("writes");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn status_with(&self, path: &str, header: &str, value: &str) -> u16 {
        let request = self.client.get(self.url(path)).header(header, value);
        self.ask(request).await.status().as_u16()
    }
}

/// Texts that would do harm if a page took one of them as it is.
const HOSTILE: [&str; 7] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "</pre></bdi><iframe src=javascript:alert(1)>",
    "<!--<svg/onload=alert(1)>",
    "&lt;script&gt;",
    "{{7*7}}${7*7}",
];

/// No markup of a hostile text is left in a page.
fn is_harmless(page: &str) {
    for bad in [
        "<script",
        "<img",
        "<iframe",
        "<svg",
        "<!--",
        "\"><",
        "' onmouseover='alert(1)\" ",
    ] {
        let found = page.match_indices(bad).find(|(at, _)| {
            // The frame itself ends attributes and begins elements.
            bad != "\"><" || page[at + 3..].starts_with("img")
        });
        assert!(found.is_none(), "{bad} in {page}");
    }
}

both! {
    the_probes_tell_alive_from_ready, |db| {
        let server = Server::of(&db).await;
        assert_eq!(server.get("/healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(server.get("/readyz").await, (200, "ready\n".to_owned()));
        server.up.store(false, Ordering::Relaxed);
        let (status, why) = server.get("/readyz").await;
        assert_eq!(status, 503);
        assert!(why.contains("cannot write") && why.lines().count() == 1, "{why}");
        assert_eq!(server.get("/healthz").await.0, 200, "alive all the same");
        server.up.store(true, Ordering::Relaxed);
        assert_eq!(server.get("/readyz").await.0, 200);
    }

    without_a_schema_it_is_not_ready_and_says_what_to_do, |db| {
        let empty = Db::empty(db.engine).await.expect("as the other");
        let server = Server::of(&empty).await;
        let (status, why) = server.get("/readyz").await;
        assert_eq!(status, 503);
        assert!(why.contains("postlane migrate"), "{why}");
        let (status, page) = server.get("/").await;
        assert_eq!(status, 200);
        assert!(page.contains("not ready") && page.contains("postlane migrate"), "{page}");
        postlane::store::schema::migrate(&empty.url).await.expect("migrates");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(server.get("/readyz").await.0, 200, "what was found is kept for a second only");
    }

    metrics_are_openmetrics_with_the_gauges_and_no_recipient, |db| {
        for n in 0..3 {
            db.insert(&format!("person{n}"), "hello").await;
        }
        let server = Server::of(&db).await;
        let answer = server.fetch("/metrics").await;
        assert_eq!(
            answer.headers()["content-type"],
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        let text = answer.text().await.expect("text");
        for line in ["postlane_inbox_marks 3", "postlane_lanes 0", "postlane_database_up 1", "postlane_commits_total 0"] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
        assert!(!text.contains("person"), "{text}");
    }

    the_dashboard_shows_totals_pauses_and_what_ended_badly, |db| {
        let dead = db.insert("gone", "hello").await;
        let queued = db.insert("waits", "hello").await;
        db.run("update send_jobs set state = 'dead', reason = 'HTTP 400', last_status = 400, finished_at = created_at where id = $1", &[dead.into()]).await;
        db.run("insert into send_pauses (scope, who, why) values ('page:1', 'ann', 'wrong secret')", &[]).await;
        let server = Server::of(&db).await;
        let (status, page) = server.get("/").await;
        assert_eq!(status, 200);
        for text in [">trouble<", "1 page is paused", "page:1", "wrong secret", "ann", "HTTP 400", "1/id:gone", "1/id:waits"] {
            assert!(page.contains(text), "{text} in {page}");
        }
        let (badly, latest) = page.split_once("Latest jobs").expect("both lists");
        let link = format!("\"/jobs/{queued}\"");
        assert!(latest.contains(&link) && !badly.contains(&link));
        assert!(badly.contains(&format!("\"/jobs/{dead}\"")));
    }

    a_listing_is_filtered_and_paged, |db| {
        for n in 0..70 {
            db.insert(&format!("r{n}"), "hello").await;
        }
        db.run("update send_jobs set state = 'held' where id <= 2", &[]).await;
        let server = Server::of(&db).await;
        let (_, first) = server.get("/?state=queued&page=1").await;
        assert!(first.contains("r69<") && !first.contains("r19<"), "{first}");
        let older = first.split("href=\"/?before=").nth(1).expect("a link").split('"').next().expect("a link");
        let (_, second) = server.get(&format!("/?before={}", older.replace("&amp;", "&"))).await;
        assert!(second.contains("r19<") && second.contains("r2<") && !second.contains("id:r1<"), "{second}");
        assert!(!second.contains(">older<"), "{second}");
        let (_, held) = server.get("/?state=held").await;
        assert!(held.contains("id:r0<") && held.contains("id:r1<") && !held.contains("id:r2<"), "{held}");
        let (_, none) = server.get("/?state=&page=77").await;
        assert!(none.contains("No jobs."), "{none}");
        for bad in ["/?state=sent", "/?before=x", "/?state=queued&state=dead"] {
            assert_eq!(server.get(bad).await.0, 400, "{bad}");
        }
    }

    a_job_page_shows_columns_and_attempts_and_the_payload_only_on_request, |db| {
        let job = db.insert_with("who", "the secret text", &[("tag", "'SOME_TAG'"), ("metadata", "'[77123]'")]).await;
        db.run(&format!(
            "insert into send_attempts (job_id, number, started_at, finished_at, outcome, http_status, error, response, rule, worker)
             select id, 1, created_at, created_at, 'retryable', 503, 'no answer', 'come back later', 'status.5xx', 'w1' from send_jobs where id = {job}"
        ), &[]).await;
        let server = Server::of(&db).await;
        let (status, page) = server.get(&format!("/jobs/{job}")).await;
        assert_eq!(status, 200);
        for text in ["1/id:who", "SOME_TAG", "retryable", "HTTP 503", "no answer", "come back later", "status.5xx", "w1"] {
            assert!(page.contains(text), "{text} in {page}");
        }
        assert!(!page.contains("the secret text") && !page.contains("77123") && !page.contains("template_type"), "{page}");
        let (_, page) = server.get(&format!("/jobs/{job}?payload=1")).await;
        assert!(page.contains("the secret text") && page.contains("77123"), "{page}");
        let (_, all) = server.get("/?payload=1").await;
        assert!(!all.contains("the secret text"));
        db.run(&format!(
            "with recursive n (i) as (select 2 union all select i + 1 from n where i < 102)
             insert into send_attempts (job_id, number, started_at, finished_at, outcome, worker)
             select {job}, i, {{at: 1}}, {{at: 2}}, 'retryable', 'w1' from n"
        ), &[]).await;
        let (_, page) = server.get(&format!("/jobs/{job}")).await;
        let begins: Vec<_> = page.split("<li value=\"").skip(1).filter_map(|li| li.split('"').next()).collect();
        let last: Vec<_> = (3..=102).map(|number| number.to_string()).collect();
        assert_eq!(begins, last, "the last hundred, in order");
        assert_eq!(server.get("/jobs/999999").await.0, 404);
        assert_eq!(server.get("/jobs/x%3Cscript%3E").await.0, 404);
    }

    what_waits_is_measured_by_cause_and_counters_begin_at_0, |db| {
        let server = Server::of(&db).await;
        let ago = db.time(db.pool.now().await.expect("now") - 100_000);
        let seconds = |text: &str, cause: &str| {
            let line = format!("postlane_oldest_waiting_seconds{{cause=\"{cause}\"}} ");
            let found = text.lines().find_map(|l| l.strip_prefix(&line)).map(str::to_owned);
            found.expect(&line).parse::<f64>().expect("a number")
        };
        let (_, text) = server.get("/metrics").await;
        for cause in ["ready", "paused", "throttled", "backoff", "unknown", "no_secret", "held", "scheduled"] {
            assert_eq!(seconds(&text, cause).to_bits(), 0_f64.to_bits(), "{cause}");
        }
        for line in [
            "postlane_attempts_total{outcome=\"ambiguous\"} 0",
            "postlane_jobs_ended_total{state=\"dead\"} 0",
            "postlane_pauses_opened_total{scope=\"endpoint\"} 0",
            "postlane_jobs{state=\"unknown\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        // Jobs of a page each: one for each cause, in its lane or still a mark.
        let page = |page: i64, more: &str| format!("insert into send_jobs (page_id, recipient, message, created_at, due_at{}) values
            ('{page}', '{{\"id\":\"a\"}}', '{{\"template_type\":\"text\",\"text\":\"x\"}}', {ago}, {ago}{})",
            if more.is_empty() { "" } else { ", send_at" }, if more.is_empty() { String::new() } else { format!(", {more}") });
        for n in [1, 2, 3, 4, 5, 6, 9] {
            db.run(&page(n, ""), &[]).await;
        }
        db.run(&page(7, &ago), &[]).await;
        let now = db.pool.now().await.expect("now");
        for (n, due) in [(3, (now + 60_000).to_string()), (4, (now + 60_000).to_string()), (5, "null".to_owned())] {
            db.run(&format!("delete from send_inbox where page_id = '{n}'"), &[]).await;
            db.run(&format!("insert into send_lanes (lane, page_id, due_at) values ('{n}/id:a', '{n}', {due})"), &[]).await;
        }
        for text in [
            "insert into send_pauses (scope, who) values ('page:2', 'ann')",
            "update send_jobs set last_status = 429 where page_id = '3'",
            "update send_jobs set state = 'unknown' where page_id = '5'",
            "update send_jobs set state = 'held' where page_id = '6'",
        ] {
            db.run(text, &[]).await;
        }
        let server = Server::of(&db).await;
        let (_, text) = server.get("/metrics").await;
        for cause in ["ready", "paused", "throttled", "backoff", "unknown", "no_secret", "held", "scheduled"] {
            let waited = seconds(&text, cause);
            assert!((100.0..160.0).contains(&waited), "{cause}: {waited}");
        }
        for line in ["postlane_jobs{state=\"held\"} 1", "postlane_jobs{state=\"scheduled\"} 1", "postlane_jobs{state=\"unknown\"} 1", "postlane_jobs{state=\"queued\"} 5"] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        let (_, page) = server.get("/?state=queued").await;
        assert!(page.contains(">trouble<") && page.contains("1 page is paused; 1 job may have arrived and waits for a decision; jobs wait for the secret"), "{page}");
        db.run("update send_pauses set scope = 'endpoint'", &[]).await;
        let server = Server::of(&db).await;
        let (_, page) = server.get("/?state=queued").await;
        assert!(page.contains("the endpoint is paused"), "{page}");
        let (_, text) = server.get("/metrics").await;
        assert!(seconds(&text, "ready") < 1.0 && seconds(&text, "paused") >= 100.0, "{text}");
        assert_eq!(server.get("/readyz").await.0, 200, "it may take work all the same");
    }

    nothing_in_a_page_is_obeyed_by_a_terminal, |db| {
        let job = db.insert("a", "x").await;
        db.run(&format!("update send_jobs set reason = $1, tag = $1 where id = {job}"), &["\u{1b}[31mred\u{202e}\u{9b}".into()]).await;
        let server = Server::of(&db).await;
        for path in ["/".to_owned(), format!("/jobs/{job}"), format!("/jobs/{job}?payload=1")] {
            let (_, page) = server.get(&path).await;
            assert!(page.contains("\\u{1b}[31mred"), "{page}");
            assert!(!page.contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{page}");
        }
    }

    the_page_of_a_job_gives_all_the_reasons_that_show_does, |db| {
        let later = db.time(db.pool.now().await.expect("now") + 100_000);
        let scheduled = db.insert_with("a", "1", &[("send_at", &later)]).await;
        let held = db.insert("b", "1").await;
        let backoff = db.insert("c", "1").await;
        db.run(&format!("update send_jobs set attempts = 4, failures = 3, due_at = {later} where id = {backoff}"), &[]).await;
        db.run(&format!("update send_jobs set state = 'held' where id = {held}"), &[]).await;
        db.run("insert into send_jobs (page_id, recipient, message) values ('9', '{\"id\":\"d\"}', '{\"template_type\":\"text\",\"text\":\"x\"}')", &[]).await;
        let server = Server::of(&db).await;
        for (job, reason) in [
            (scheduled, "for its send_at: "),
            (held, "postlane release"),
            (backoff, "for its backoff after 3 of 20 failures: "),
            (JobId(backoff.0 + 1), "for a secret: page 9 has none in the worker&#39;s configuration"),
        ] {
            let (_, page) = server.get(&format!("/jobs/{job}")).await;
            let plain = reason.replace("&#39;", "'");
            assert!(page.contains(reason) || page.contains(&plain), "{reason}: {page}");
        }
    }

    a_waiting_job_says_what_it_waits_for, |db| {
        let first = db.insert("a", "1").await;
        let second = db.insert("a", "2").await;
        db.run("insert into send_pauses (scope, who, why) values ('lane:1/id:a', 'ann', 'asked to')", &[]).await;
        let server = Server::of(&db).await;
        let (_, page) = server.get(&format!("/jobs/{second}")).await;
        assert!(page.contains("1 job ahead of it in its lane") && page.contains(&format!("/jobs/{first}")), "{page}");
        assert!(page.contains("asked to"), "{page}");
    }

    a_database_that_is_stuck_is_waited_for_only_so_long_and_not_by_everybody_anew, |db| {
        if db.engine == support::Engine::Sqlite {
            return; // Readers of a write-ahead log wait for nobody.
        }
        let server = Server::of(&db).await;
        let mut tx = db.pool.begin().await.expect("begins");
        tx.rows_of("set local idle_in_transaction_session_timeout = 0".to_owned(), &[]).await.expect("sets");
        tx.rows_of("lock table send_schema, send_jobs in access exclusive mode".to_owned(), &[]).await.expect("locks");
        let began = BootInstant::now();
        let probes = futures_util::future::join_all((0..20).map(|_| server.get("/readyz")));
        for (status, why) in probes.await {
            assert_eq!((status, why.contains("did not answer in time")), (503, true), "{why}");
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        let (status, page) = server.get("/").await;
        assert!(status == 200 && page.contains("did not answer in time"), "{page}");
        assert_eq!(server.get("/metrics").await.0, 200);
        let looking = db.connect().await.rows_of(
            "select count(*) as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'".to_owned(), &[],
        ).await.expect("activity")[0].int("n").expect("int");
        assert!(looking <= 3, "one check, one count, one page: {looking}");
        tx.rollback().await.expect("rolls back");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(server.get("/readyz").await.0, 200);
    }

    hostile_text_in_any_column_is_shown_as_text, |db| {
        let mut jobs = Vec::new();
        for hostile in HOSTILE {
            let json = serde_json::json!({ "id": hostile }).to_string();
            let message = serde_json::json!({ "template_type": "text", "text": hostile }).to_string();
            let metadata = serde_json::json!([hostile]).to_string();
            let rows = db.pool.rows_of(
                "insert into send_jobs (page_id, recipient, message, tag, ordering_key, idempotency_key, metadata, reason, state, finished_at)
                 values ('1', {json: $1}, {json: $2}, $3, $3, $3, {json: $4}, $3, 'dead', {at: 1}) returning id".to_owned(),
                &[json.into(), message.into(), hostile.into(), metadata.into()],
            ).await.expect("inserts");
            let job = rows[0].int("id").expect("id");
            let binds: [Bind; 2] = [job.into(), hostile.into()];
            db.run(
                "insert into send_attempts (job_id, number, started_at, finished_at, outcome, error, response, rule, worker)
                 values ($1, 1, {at: 1}, {at: 2}, 'refused', $2, $2, $2, $2)", &binds).await;
            db.run("insert into send_pauses (scope, who, why) values ('lane:' || $1, $1, $1)", &binds[1..]).await;
            jobs.push((job, hostile));
        }
        let waits = db.insert_with("w", "x", &[("ordering_key", "'<script>'")]).await;
        db.run("insert into send_pauses (scope, who, why) values ('all', $1, $1)", &[HOSTILE[0].into()]).await;
        let server = Server::of(&db).await;
        let mut paths = vec!["/".to_owned(), "/?state=dead".to_owned(), format!("/jobs/{waits}")];
        paths.extend(jobs.iter().map(|(job, _)| format!("/jobs/{job}?payload=1")));
        paths.push("/?page=%22%3E%3Cscript%3E".to_owned());
        paths.push("/?state=%22%3E%3Cscript%3E".to_owned());
        for path in paths {
            is_harmless(&server.get(&path).await.1);
        }
        for (job, hostile) in jobs {
            let (_, page) = server.get(&format!("/jobs/{job}")).await;
            let escaped = hostile.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
            assert_eq!(page.matches(&escaped).count(), 9, "reason, lane, tag, two keys, error, response, rule, worker: {page}");
        }
    }
}

#[tokio::test]
async fn before_the_database_is_connected_it_is_alive_and_not_ready() {
    let server = Server::alone().await;
    assert_eq!(server.get("/healthz").await.0, 200);
    let (status, why) = server.get("/readyz").await;
    assert_eq!(
        (status, why.contains("not connected yet")),
        (503, true),
        "{why}"
    );
    let (status, text) = server.get("/metrics").await;
    assert!(status == 200 && text.contains("postlane_database_up 0") && text.ends_with("# EOF\n"));
    let (status, page) = server.get("/").await;
    assert!(
        status == 200 && page.contains("not connected yet"),
        "{page}"
    );
    assert_eq!(server.get("/jobs/1").await.0, 503);
}

#[tokio::test]
async fn a_token_is_asked_for_everywhere_but_at_the_probes() {
    let server = Server::start("127.0.0.1:0", None, Some("s3cret:with:colons")).await;
    let guarded = [
        "/",
        "/metrics",
        "/jobs/1",
        "/style.css",
        "/nothing",
        "/healthz/",
        "//healthz",
    ];
    let basic = |user: &str, password: &str| {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        format!("Basic {pair}")
    };
    let wrong = [
        "Bearer wrong".to_owned(),
        "Bearer s3cret:with:colons2".to_owned(),
        "Bearer".to_owned(),
        "s3cret:with:colons".to_owned(),
        "Digest s3cret:with:colons".to_owned(),
        basic("s3cret:with:colons", ""),
        basic("any", "s3cret"),
        "Basic ****".to_owned(),
    ];
    let mut bodies = Vec::new();
    for path in guarded {
        let answer = server.fetch(path).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(
            answer.headers()["www-authenticate"]
                .to_str()
                .expect("text")
                .starts_with("Basic ")
        );
        assert_eq!(answer.headers()["cache-control"], "no-store");
        bodies.push(answer.text().await.expect("text"));
    }
    for given in &wrong {
        let request = server.client.get(server.url("/metrics"));
        let answer = server.ask(request.header("authorization", given)).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{given}");
        bodies.push(answer.text().await.expect("text"));
    }
    assert!(bodies.iter().all(|body| body == &bodies[0]), "{bodies:?}");
    for right in [
        "Bearer s3cret:with:colons".to_owned(),
        basic("any", "s3cret:with:colons"),
        basic("", "s3cret:with:colons"),
    ] {
        assert_eq!(
            server
                .status_with("/metrics", "authorization", &right)
                .await,
            200,
            "{right}"
        );
        assert_eq!(
            server
                .status_with("/nothing", "authorization", &right)
                .await,
            404,
            "{right}"
        );
    }
    assert_eq!(server.get("/healthz").await.0, 200);
    assert_eq!(server.get("/readyz").await.0, 503, "not 401");
    let twice = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret:with:colons\r\n\
                 Authorization: Bearer s3cret:with:colons\r\nConnection: close\r\n\r\n";
    assert!(server.raw(twice).await.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn an_address_that_others_reach_shows_nothing_without_a_token() {
    let open = Server::start("0.0.0.0:0", None, None).await;
    assert_eq!(open.get("/metrics").await.0, 401);
    assert_eq!(open.get("/healthz").await.0, 200);
    let closed = Server::start("0.0.0.0:0", None, Some("token")).await;
    assert_eq!(
        closed
            .status_with("/metrics", "authorization", "Bearer token")
            .await,
        200
    );
    let named = closed
        .client
        .get(closed.url("/metrics"))
        .header("host", "postlane.internal")
        .header("authorization", "Bearer token");
    assert_eq!(
        closed.ask(named).await.status(),
        200,
        "any name, since the token decides"
    );
}

#[tokio::test]
async fn on_loopback_only_names_of_this_machine_are_answered() {
    let server = Server::alone().await;
    for host in ["localhost", "localhost:80", "127.0.0.1", "[::1]:9464"] {
        assert_eq!(
            server.status_with("/metrics", "host", host).await,
            200,
            "{host}"
        );
    }
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:9464",
        "192.168.0.1",
    ] {
        for path in ["/", "/metrics", "/healthz"] {
            assert_eq!(server.status_with(path, "host", host).await, 421, "{host}");
        }
    }
    for odd in [
        "GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /metrics HTTP/1.0\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ] {
        let answer = server.raw(odd).await;
        assert!(answer.contains(" 421 "), "{odd}: {answer}");
    }
}

#[tokio::test]
async fn nothing_but_get_and_head_is_taken() {
    let server = Server::alone().await;
    for path in ["/", "/healthz", "/metrics", "/jobs/1", "/nothing"] {
        for method in [
            "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY",
        ] {
            let method = reqwest::Method::from_bytes(method.as_bytes()).expect("method");
            let request = server.client.request(method.clone(), server.url(path));
            let answer = server.ask(request).await;
            assert_eq!(answer.status(), 405, "{method} {path}");
            assert_eq!(answer.headers()["allow"], "GET, HEAD");
        }
    }
    let head = server.client.head(server.url("/metrics"));
    let head = server.ask(head).await;
    assert_eq!(head.status(), 200);
    assert!(head.text().await.expect("text").is_empty());
}

#[tokio::test]
async fn every_answer_carries_the_same_guarding_headers() {
    let server = Server::alone().await;
    for path in [
        "/",
        "/healthz",
        "/metrics",
        "/style.css",
        "/nothing",
        "/?state=x",
    ] {
        let answer = server.fetch(path).await;
        let headers = answer.headers();
        let policy = headers["content-security-policy"].to_str().expect("text");
        for part in [
            "default-src 'none'",
            "style-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cache-control"], "no-store");
        let text = answer.text().await.expect("text");
        assert!(
            !text.contains("<style") && !text.contains(" style=") && !text.contains("<script"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_large_body_is_refused_and_a_large_head_too() {
    let server = Server::alone().await;
    let body = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\nConnection: close\r\n\r\n";
    assert!(server.raw(body).await.contains(" 413 "));
    let head = format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    assert!(!server.raw(&head).await.contains(" 200 "));
    assert_eq!(server.get("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_is_closed_and_so_is_a_silent_one() {
    let server = Server::alone().await;
    let began = BootInstant::now();
    let drip = async {
        let mut stream = server.connect().await;
        for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
            .iter()
            .cycle()
        {
            let mut answer = [0; 256];
            let read = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut answer));
            match read.await {
                Err(_) if stream.write_all(&[*byte]).await.is_ok() => {}
                _ => break,
            }
        }
        began.elapsed()
    };
    let silent = async {
        let mut stream = server.connect().await;
        let _ = stream.read(&mut [0; 256]).await;
        began.elapsed()
    };
    let meanwhile = async {
        for _ in 0..40 {
            let asked = BootInstant::now();
            assert_eq!(server.get("/healthz").await.0, 200);
            assert!(
                asked.elapsed() < Duration::from_secs(1),
                "nobody else waits"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (drip, silent, ()) = tokio::join!(drip, silent, meanwhile);
    for closed in [drip, silent] {
        assert!(
            closed > Duration::from_secs(4) && closed < Duration::from_secs(8),
            "{closed:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_connections_say_nothing_the_probes_are_answered() {
    let server = Server::alone().await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(
            TcpStream::connect(server.at)
                .await
                .expect("the backlog takes it"),
        );
    }
    let ask = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    // Sooner than any of them runs out of time.
    let answer = tokio::time::timeout(Duration::from_secs(3), server.raw(ask)).await;
    let answer = answer.expect("the oldest gave way");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_of_a_token_are_counted_slow_and_in_nobodys_way() {
    let token = "a token of many words";
    let server = Server::start("127.0.0.1:0", None, Some(token)).await;
    let began = BootInstant::now();
    let guesses = (0..100).map(|guess| {
        let ask = server.client.get(server.url("/metrics"));
        ask.bearer_auth(guess)
            .timeout(Duration::from_millis(1500))
            .send()
    });
    let guesses = futures_util::future::join_all(guesses);
    let right = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(server.get("/healthz").await.0, 200);
        let ask = server.client.get(server.url("/metrics")).bearer_auth(token);
        let text = server.ask(ask).await.text().await.expect("text");
        assert!(began.elapsed() < Duration::from_millis(1400));
        text
    };
    let (guesses, text) = tokio::join!(guesses, right);
    let answered = guesses.iter().filter(|guess| guess.is_ok()).count();
    assert!((1..=8).contains(&answered), "{answered} in 1.5 s");
    let counted = text
        .lines()
        .find_map(|line| line.strip_prefix("postlane_admin_wrong_tokens_total "))
        .expect("a counter");
    assert!(counted.parse::<u64>().expect("a number") >= 50, "{counted}");
}

#[tokio::test]
async fn a_stop_closes_the_idle_and_ends_the_server() {
    let server = Server::alone().await;
    assert_eq!(server.get("/healthz").await.0, 200);
    let mut idle = server.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("writes");
    assert!(idle.read(&mut [0; 1024]).await.expect("reads") > 0);
    server.stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(2), server.task)
        .await
        .expect("ends soon")
        .expect("ends well");
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert!(
        TcpStream::connect(server.at).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_answers_is_closed() {
    let server = Server::alone().await;
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(server.at).await.expect("connects");
    let asks = "GET /style.css HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let began = BootInstant::now();
    let closed = tokio::time::timeout(Duration::from_secs(30), async {
        while stream.write_all(asks.as_bytes()).await.is_ok() {}
    });
    closed.await.expect("the server gives up");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(8), "{took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}
