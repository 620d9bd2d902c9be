//! The benchmark: deliveries per second as a ratio to a bare loop in the same run.
//!
//! `cargo bench --bench delivery -- [--quick] [--runs=N] [sqlite] [postgres]`. The bare loop signs and
//! posts the same bodies with the same client to the same receiver, without a database. The
//! receiver is a process of its own (this program, started again); it checks every signature and
//! counts order violations and duplicates: a run with one is void. Deliveries are counted when
//! their outcome is committed. Postgres is the one that POSTLANE_TEST_POSTGRES_URL names.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for people at a terminal; it may panic"
)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postlane::clock::BootInstant;
use postlane::config::{Config, Overrides};
use postlane::http::{Endpoint, Http};
use postlane::mock::{Mock, MockConfig, MockStats};
use postlane::service::Service;
use postlane::sign::signature;
use postlane::store::{Pool, Use, schema};

const SECRET: &str = "xxxxx";
const IN_FLIGHT: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match arguments.first().map(String::as_str) {
        Some("receiver") => runtime.block_on(receive()),
        Some("producer") => runtime.block_on(produce(&arguments[1], arguments[2].parse().unwrap())),
        _ => runtime.block_on(measure(&arguments)),
    }
}

/// The receiver's process: serves until its standard input ends.
async fn receive() {
    let config = MockConfig {
        default_secrets: vec![SECRET.to_owned()],
        keep: 4096,
        ..MockConfig::default()
    };
    let mock = Mock::start(config).unwrap();
    println!("{}", mock.url());
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count())
        .await
        .unwrap();
}

/// The producer's process: one INSERT every 50 ms; prints when each began, on the boot clock.
async fn produce(url: &str, inserts: usize) {
    let pool = Pool::open(url, Use::Write, false).await.unwrap();
    for n in 0..inserts {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let text = format!(
            "insert into send_jobs (page_id, recipient, message) values ('1', '{{\"id\":\"idle-{n}\"}}', \
             '{{\"template_type\":\"text\",\"text\":\"#{}\"}}')",
            n + 1
        );
        let began = BootInstant::now().nanos();
        execute(&pool, &text).await;
        println!("{} {began}", n + 1);
    }
}

struct Receiver {
    child: Child,
    url: String,
}

impl Receiver {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("receiver")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        Self {
            child,
            url: url.trim().to_owned(),
        }
    }

    async fn get(&self, path: &str) -> String {
        let url = self.url.replace("/api/send_message", path);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    /// Refuses a run that broke a promise.
    async fn stop(mut self) -> MockStats {
        let stats: MockStats = serde_json::from_str(&self.get("/stats").await).unwrap();
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
        let broken =
            stats.order_violations + stats.duplicates + stats.overlaps + stats.bad_signatures;
        assert_eq!(broken, 0, "a run with violations is void: {stats:?}");
        stats
    }
}

/// Signs and posts without a database: what this machine can do at most.
async fn bare(jobs: usize) -> f64 {
    let receiver = Receiver::start();
    let http = Http::new(endpoint(&receiver.url)).unwrap();
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let began = BootInstant::now();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (http, next) = (http.clone(), Arc::clone(&next));
        senders.spawn(async move {
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if n >= jobs {
                    return;
                }
                let body = format!(
                    "{{\"page_id\":1,\"recipient\":{{\"id\":\"r{n}\"}},\"message\":{{\"template_type\":\"text\",\"text\":\"Hello World #1\"}}}}"
                );
                let signed = signature(SECRET.as_bytes(), body.as_bytes());
                http.post(Bytes::from(body), &signed, 0).await;
            }
        });
    }
    while senders.join_next().await.is_some() {}
    let rate = per_second(jobs, began);
    assert_eq!(receiver.stop().await.received, jobs as u64);
    rate
}

fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        url: url.parse().unwrap(),
        signature_header: "x-joinchat-signature".parse().unwrap(),
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        tcp_user_timeout: Duration::from_secs(10),
        max_retry_after: Duration::from_secs(3600),
        connections: IN_FLIGHT,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Engine {
    Sqlite,
    Postgres,
}

/// A fresh database, dropped at the end.
struct Fresh {
    engine: Engine,
    url: String,
    _folder: tempfile::TempDir,
}

static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Fresh {
    async fn new(engine: Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match engine {
            Engine::Sqlite => format!("sqlite://{}/bench.db", folder.path().display()),
            Engine::Postgres => {
                let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let name = format!("postlane_bench_{}_{number}", std::process::id());
                Self::server(&format!("create database {name}")).await;
                let server = std::env::var("POSTLANE_TEST_POSTGRES_URL").unwrap();
                format!("{}/{name}", server.rsplit_once('/').unwrap().0)
            }
        };
        schema::migrate(&url).await.unwrap();
        Self {
            engine,
            url,
            _folder: folder,
        }
    }

    async fn server(text: &str) {
        let url = std::env::var("POSTLANE_TEST_POSTGRES_URL")
            .expect("POSTLANE_TEST_POSTGRES_URL names a server");
        let pool = Pool::open(&url, Use::Write, false).await.unwrap();
        execute(&pool, text).await;
        pool.close().await;
    }

    async fn end(self) {
        if self.engine == Engine::Postgres {
            let name = self.url.rsplit_once('/').unwrap().1;
            Self::server(&format!("drop database {name} with (force)")).await;
        }
    }

    /// Fills the queue: `jobs` jobs over `recipients` recipients, each lane numbered from 1.
    async fn fill(&self, pool: &Pool, jobs: usize, recipients: usize, prefix: &str) {
        let numbers = match self.engine {
            Engine::Sqlite => format!(
                "with recursive g (n) as (select 0 union all select n + 1 from g where n + 1 < {jobs}) "
            ),
            Engine::Postgres => format!("with g as (select generate_series(0, {jobs} - 1) as n) "),
        };
        let json = |text: String| match self.engine {
            Engine::Sqlite => text,
            Engine::Postgres => format!("({text})::json"),
        };
        let recipient = json(format!(
            "'{{\"id\":\"{prefix}' || (n % {recipients}) || '\"}}'"
        ));
        let message = json(format!(
            "'{{\"template_type\":\"text\",\"text\":\"Hello World #' || (n / {recipients} + 1) || '\"}}'"
        ));
        execute(
            pool,
            &format!("insert into send_jobs (page_id, recipient, message) {numbers} select '1', {recipient}, {message} from g order by n")
                .replace("insert into send_jobs (page_id, recipient, message) with", "with")
                .replacen("select '1'", "insert into send_jobs (page_id, recipient, message) select '1'", 1),
        )
        .await;
        if self.engine == Engine::Postgres {
            execute(pool, "analyze send_jobs, send_inbox").await;
        }
    }
}

async fn execute(pool: &Pool, text: &str) {
    let text = sqlx::AssertSqlSafe(text.to_owned());
    match pool {
        Pool::Postgres(pool) => sqlx::raw_sql(text).execute(pool).await.map(drop).unwrap(),
        Pool::Sqlite(pool, _) => sqlx::raw_sql(text).execute(pool).await.map(drop).unwrap(),
    }
}

async fn number(pool: &Pool, text: &str) -> i64 {
    pool.rows_of(format!("select ({text}) as value"), &[])
        .await
        .unwrap()[0]
        .int("value")
        .unwrap()
}

async fn service(database: &str, api: &str) -> Service {
    let environment = [
        ("POSTLANE_DATABASE_URL", database),
        ("POSTLANE_API__URL", api),
        ("POSTLANE_PAGES__DEFAULT__SECRET", SECRET),
    ];
    let config = Config::load(&Overrides::default(), environment).unwrap();
    Service::start(&config, &Arc::new(postlane::events::Events::new()))
        .await
        .unwrap()
}

/// What is in the queue before the clock starts.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    jobs: usize,
    recipients: usize,
    deep: usize,
}

/// Deliveries a second of a backlog; a deep lane beside it is not counted.
async fn backlog(engine: Engine, load: Load) -> f64 {
    let fresh = Fresh::new(engine).await;
    let pool = Pool::open(&fresh.url, Use::Write, false).await.unwrap();
    if load.deep > 0 {
        fresh.fill(&pool, load.deep, 1, "deep").await;
    }
    fresh.fill(&pool, load.jobs, load.recipients, "r").await;
    let receiver = Receiver::start();
    let began = BootInstant::now();
    let service = service(&fresh.url, &receiver.url).await;
    while service.events.recorded() < load.jobs as u64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let left = "select count(*) from send_jobs where state in ('queued', 'sending') and lane <> '1/id:deep0'";
    while load.deep > 0 && number(&pool, left).await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rate = per_second(load.jobs, began);
    if std::env::var_os("BENCH_METRICS").is_some() {
        eprintln!("{}", service.events.metrics());
    }
    assert_eq!(service.stop().await, 0);
    receiver.stop().await;
    let delivered = number(
        &pool,
        "select count(*) from send_jobs where state = 'delivered' and lane <> '1/id:deep0'",
    )
    .await;
    assert_eq!(delivered, load.jobs as i64);
    pool.close().await;
    fresh.end().await;
    rate
}

/// From an INSERT of another process to the first byte at the receiver, while nothing else
/// happens: p50 and p99 in milliseconds.
async fn idle(engine: Engine, inserts: usize) -> (f64, f64) {
    let fresh = Fresh::new(engine).await;
    let receiver = Receiver::start();
    let service = service(&fresh.url, &receiver.url).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let exe = std::env::current_exe().unwrap();
    let (url, count) = (fresh.url.clone(), inserts.to_string());
    let output = tokio::task::spawn_blocking(move || {
        Command::new(exe).args(["producer", &url, &count]).output()
    })
    .await
    .unwrap()
    .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut heads = std::collections::HashMap::new();
    for line in receiver.get("/received").await.lines() {
        let received: serde_json::Value = serde_json::from_str(line).unwrap();
        heads.insert(
            received["number"].as_u64().unwrap(),
            received["head_ns"].as_u64().unwrap(),
        );
    }
    let mut waits: Vec<f64> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(n, began)| (heads[&n.parse().unwrap()] as f64 - began.parse::<f64>().unwrap()) / 1e6)
        .collect();
    assert_eq!(waits.len(), inserts);
    waits.sort_by(f64::total_cmp);
    service.stop().await;
    receiver.stop().await;
    fresh.end().await;
    (waits[inserts / 2], waits[inserts * 99 / 100])
}

fn per_second(jobs: usize, began: BootInstant) -> f64 {
    jobs as f64 / began.elapsed().as_secs_f64()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn measure(arguments: &[String]) {
    let has = |word: &str| arguments.iter().any(|a| a == word);
    let (runs, jobs) = if has("--quick") {
        (1, 20_000)
    } else {
        (5, 50_000)
    };
    let runs = arguments
        .iter()
        .find_map(|a| a.strip_prefix("--runs=")?.parse().ok())
        .unwrap_or(runs);
    let loads = [
        Load {
            name: "one job a recipient",
            jobs,
            recipients: jobs,
            deep: 0,
        },
        Load {
            name: "100 recipients",
            jobs,
            recipients: 100,
            deep: 0,
        },
        Load {
            name: "beside a lane of 200,000",
            jobs,
            recipients: jobs,
            deep: 200_000,
        },
    ];
    let engines: Vec<(&str, Engine)> = [("sqlite", Engine::Sqlite), ("postgres", Engine::Postgres)]
        .into_iter()
        .filter(|(name, _)| has(name) || !(has("sqlite") || has("postgres")))
        .collect();
    println!(
        "{jobs} jobs, {IN_FLIGHT} in flight, median of {runs}; every ratio to a bare loop run right before"
    );
    for (engine_name, engine) in engines {
        for load in loads.iter().filter(|l| {
            !has("--idle") && (!has("--first") || l.recipients == l.jobs && l.deep == 0)
        }) {
            let (mut rates, mut ratios, mut bares) = (Vec::new(), Vec::new(), Vec::new());
            for run in 0..runs {
                let bare = bare(jobs).await;
                let rate = backlog(engine, *load).await;
                eprintln!(
                    "  run {}: bare {bare:.0}/s, {rate:.0}/s, ratio {:.3}",
                    run + 1,
                    rate / bare
                );
                bares.push(bare);
                rates.push(rate);
                ratios.push(rate / bare);
            }
            println!(
                "{engine_name:<9} {:<26} {:>7.0}/s  bare {:>7.0}/s  ratio {:.3}",
                load.name,
                median(&mut rates),
                median(&mut bares),
                median(&mut ratios)
            );
        }
        if !has("--first") {
            let (mut middles, mut tails) = (Vec::new(), Vec::new());
            for _ in 0..runs {
                let (p50, p99) = idle(engine, 100).await;
                middles.push(p50);
                tails.push(p99);
            }
            println!(
                "{engine_name:<9} idle, INSERT to first byte: p50 {:.2} ms, p99 {:.2} ms",
                median(&mut middles),
                median(&mut tails)
            );
        }
    }
}
