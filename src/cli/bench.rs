//! `bench`: how fast the configured database is, with the real worker and the sandbox as the receiver.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use sandbox::{Mock, MockConfig, MockStats};
use serde::Serialize;

use super::out::progress;
use super::run::Signals;
use super::{Failure, Globals, Out};
use crate::clock::BootInstant;
use crate::config::{Config, Overrides};
use crate::events::Events;
use crate::service::Service;
use crate::store::enqueue::{self, NewJob};
use crate::store::scratch::Scratch;
use crate::store::{Pool, Use};

/// Measure how fast your database is: some ten seconds, beside your queue and not in it
///
/// Makes a queue of its own (a file beside yours on SQLite, a schema in the same database on
/// Postgres), delivers a backlog and then single jobs to the sandbox on loopback with the real
/// worker, shows what that took, and removes it. Your jobs and your API are not touched, but the
/// database works for it meanwhile. On Postgres the role needs CREATE on the database.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane bench\n  \
    postlane bench --jobs 100000 --recipients 100\n  \
    postlane bench --json")]
pub struct Bench {
    /// Jobs of the backlog, 100 to 1,000,000
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    jobs: u32,
    /// Recipients of the backlog, each with as many jobs [default: one for each job]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    recipients: Option<u32>,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

/// Single jobs, one every [`EVERY`].
const SINGLES: u32 = 100;
const EVERY: Duration = Duration::from_millis(50);
/// Jobs of the backlog that are inserted in one transaction.
const BITE: usize = 1000;
/// How often the bar moves.
const LOOK: Duration = Duration::from_millis(100);
/// How long the backlog may take.
const LIMIT: Duration = Duration::from_secs(600);
const SECRET: &str = "bench";

/// What was found; times in milliseconds.
#[derive(Debug, Serialize)]
struct Found {
    engine: &'static str,
    jobs: u32,
    recipients: u32,
    /// The backlog: how long it took and deliveries a second.
    seconds: f64,
    deliveries_per_second: f64,
    /// A producer's INSERT of a single job, a transaction of its own.
    insert_p50_ms: f64,
    insert_p99_ms: f64,
    /// From there to the first byte of its request, by an idle worker.
    to_request_p50_ms: f64,
    to_request_p99_ms: f64,
    duplicates: u64,
    order_violations: u64,
}

impl Bench {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        let config = globals.load()?;
        let scratch = Scratch::create(config.database_url.expose()).await?;
        let found = tokio::select! {
            () = signals.next() => Err(Failure::Failed("interrupted".to_owned())),
            found = self.measure(&config, &scratch) => found,
        };
        let removed = scratch.remove().await;
        let found = found?;
        removed?;
        self.show(&found, out)
    }

    async fn measure(&self, config: &Config, scratch: &Scratch) -> Result<Found, Failure> {
        let sandbox = Mock::start(MockConfig {
            default_secrets: vec![SECRET.to_owned()],
            ..MockConfig::default()
        })?;
        let events = Arc::new(Events::new());
        let producer = Pool::open(scratch.url(), Use::Write, false).await?;
        let recipients = self.recipients.unwrap_or(self.jobs).min(self.jobs);
        let bar = progress(u64::from(self.jobs) * 2, "deliver");
        for first in (0..self.jobs).step_by(BITE) {
            let numbers = (first..self.jobs).take(BITE);
            let jobs: Vec<NewJob> = numbers.map(|n| job(n, recipients, "b")).collect();
            insert(&producer, &jobs).await?;
            bar.inc(jobs.len() as u64);
        }
        let worker = configure(config, scratch.url(), &sandbox.url())?;
        let began = BootInstant::now();
        let service = Service::start(&worker, &events)
            .await
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let wanted = u64::from(self.jobs);
        let all = |stats: &MockStats| stats.accepted >= wanted;
        while !sandbox.wait_until(all, LOOK).await {
            bar.set_position(wanted + sandbox.stats().accepted);
            if began.elapsed() > LIMIT {
                return Err(Failure::Failed(format!(
                    "not done after {} s; see the worker's log with --log info",
                    LIMIT.as_secs()
                )));
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let singles = singles(&producer, &sandbox).await?;
        let unrecorded = service.stop().await;
        producer.close().await;
        if unrecorded > 0 {
            return Err(Failure::Failed(format!(
                "{unrecorded} attempts could not be recorded"
            )));
        }
        let stats = sandbox.stats();
        sandbox.shutdown().await;
        Ok(Found {
            engine: producer.dialect().as_str(),
            jobs: self.jobs,
            recipients,
            seconds,
            deliveries_per_second: f64::from(self.jobs) / seconds,
            insert_p50_ms: percentile(&singles.inserts, 50),
            insert_p99_ms: percentile(&singles.inserts, 99),
            to_request_p50_ms: percentile(&singles.waits, 50),
            to_request_p99_ms: percentile(&singles.waits, 99),
            duplicates: stats.duplicates,
            order_violations: stats.order_violations,
        })
    }

    fn show(&self, found: &Found, out: &mut Out) -> Result<(), Failure> {
        if self.json {
            return Ok(out.json(found)?);
        }
        let mut table = out.new_table(&["", "MEDIAN", "P99"]);
        let ms = |ms: f64| format!("{ms:.2} ms");
        table.add_row([
            "a producer's INSERT of one job".to_owned(),
            ms(found.insert_p50_ms),
            ms(found.insert_p99_ms),
        ]);
        table.add_row([
            "from that INSERT to the first byte of the request, idle".to_owned(),
            ms(found.to_request_p50_ms),
            ms(found.to_request_p99_ms),
        ]);
        out.line(format_args!(
            "{}: {} jobs for {} recipients delivered in {:.1} s, {:.0} a second; {} duplicates, {} order \
             violations.\n",
            found.engine,
            found.jobs,
            found.recipients,
            found.seconds,
            found.deliveries_per_second,
            found.duplicates,
            found.order_violations
        ))?;
        out.table(&table)?;
        Ok(())
    }
}

/// The settings of a worker that reads no file and no environment: as many requests in flight as
/// are configured, everything else at its default.
fn configure(config: &Config, database: &str, api: &str) -> Result<Config, Failure> {
    let overrides = Overrides {
        config: Some("/dev/null".into()),
        ..Overrides::default()
    };
    let concurrency = config.worker.concurrency.to_string();
    let set = [
        ("DATABASE_URL", database),
        ("API__URL", api),
        ("PAGES__DEFAULT__SECRET", SECRET),
        ("ADMIN__LISTEN", ""),
        ("WORKER__CONCURRENCY", &concurrency),
        ("WORKER__SHUTDOWN_TIMEOUT", "5s"),
    ];
    let set = set.map(|(key, value)| (format!("POSTLANE_{key}"), value.to_owned()));
    Ok(Config::load(&overrides, set)?)
}

fn job(number: u32, recipients: u32, prefix: &str) -> NewJob {
    let (recipient, text) = (number % recipients, number / recipients + 1);
    NewJob {
        page_id: "1".to_owned(),
        recipient: format!("{{\"id\":\"{prefix}{recipient}\"}}"),
        message: format!("{{\"template_type\":\"text\",\"text\":\"Hello World #{text}\"}}"),
        ..NewJob::default()
    }
}

async fn insert(producer: &Pool, jobs: &[NewJob]) -> Result<(), Failure> {
    let mut tx = producer.begin().await?;
    enqueue::insert(&mut tx, jobs).await?;
    Ok(tx.commit().await?)
}

/// Sorted milliseconds.
struct Singles {
    inserts: Vec<f64>,
    waits: Vec<f64>,
}

/// Single jobs to an idle worker.
async fn singles(producer: &Pool, sandbox: &Mock) -> Result<Singles, Failure> {
    let before = sandbox.stats().accepted;
    let mut began = Vec::new();
    let mut inserts = Vec::new();
    for number in 0..SINGLES {
        tokio::time::sleep(EVERY).await;
        let at = BootInstant::now();
        insert(producer, &[job(number, SINGLES, "s")]).await?;
        inserts.push(at.elapsed().as_secs_f64() * 1e3);
        began.push(at.nanos());
    }
    let wanted = before + u64::from(SINGLES);
    let all = sandbox.wait_until(|stats| stats.accepted >= wanted, Duration::from_secs(30));
    if !all.await {
        return Err(Failure::Failed(
            "single jobs were not delivered within 30 s".to_owned(),
        ));
    }
    let mut waits: Vec<f64> = sandbox
        .received()
        .iter()
        .filter_map(|request| {
            let number: usize = request.recipient.strip_prefix('s')?.parse().ok()?;
            Some((request.head_ns.saturating_sub(*began.get(number)?)) as f64 / 1e6)
        })
        .collect();
    inserts.sort_by(f64::total_cmp);
    waits.sort_by(f64::total_cmp);
    Ok(Singles { inserts, waits })
}

/// The figure below or at which so many per cent of the sorted ones are.
fn percentile(sorted: &[f64], per_cent: usize) -> f64 {
    let rank = (sorted.len() * per_cent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}
