//! S16: what people have most of the time. Single-row transactions at a steady pace, each delivered
//! at once: what a delivery costs, and how long it takes.
//!
//! Each pace runs in turn without a worker and with one. What the server spends without one is the
//! producers' share, and taken off.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Context;
use super::plans::thousands;
use super::produce::times;
use super::wake::first_bytes;
use crate::database::Database;
use crate::drain::{Load, prepare};
use crate::measure::costs::{Costs, Meter};
use crate::measure::spread::{Spread, percentile};
use crate::outcome::{Goal, Outcome};
use crate::producer::{Pace, Producers};
use crate::receiver::{Receiver, Setup};
use crate::sql::Engine;
use crate::worker::{Settings, Worker, beside};

const RECIPIENTS: u32 = 2000;

/// A pace and what is wanted of it: microseconds of the server, of the worker on Postgres and on
/// SQLite (with the database in it), milliseconds at the median and at the 99th percentile.
struct Stream {
    producers: u32,
    rate: u32,
    server_us: f64,
    worker_us: Option<f64>,
    sqlite_us: Option<f64>,
    waits_ms: Option<(f64, f64)>,
}

const STREAMS: [Stream; 3] = [
    Stream {
        producers: 1,
        rate: 50,
        server_us: 600.0,
        worker_us: None,
        sqlite_us: None,
        waits_ms: None,
    },
    Stream {
        producers: 2,
        rate: 150,
        server_us: 400.0,
        worker_us: Some(200.0),
        sqlite_us: Some(250.0),
        waits_ms: Some((4.0, 10.0)),
    },
    Stream {
        producers: 4,
        rate: 250,
        server_us: 180.0,
        worker_us: None,
        sqlite_us: None,
        waits_ms: None,
    },
];

/// What the INSERTs took, in milliseconds, and what the server spent on each.
#[derive(Clone, Copy)]
struct Inserts {
    p50: f64,
    p99: f64,
    server_us: f64,
}

struct Round {
    alone: Inserts,
    beside: Inserts,
    p50: f64,
    p99: f64,
    /// The database's without the producers' share.
    costs: Costs,
}

impl Round {
    fn server_us(&self) -> f64 {
        self.beside.server_us - self.alone.server_us
    }

    fn worker_us(&self) -> f64 {
        self.costs.worker_cpu_s_per_1000 * 1000.0
    }
}

/// Each pace.
pub async fn streams(context: &mut Context, engine: Engine, runs: usize) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for stream in &STREAMS {
        let mut rounds = Vec::new();
        for run in 1..=runs {
            let round = round(context, engine, stream).await?;
            eprintln!(
                "  s16 {} {}/s {run}/{runs}: server {:.0} µs, worker {:.0} µs, p50 {:.2} ms, p99 {:.2} ms",
                engine.name(),
                stream.producers * stream.rate,
                round.server_us(),
                round.worker_us(),
                round.p50,
                round.p99
            );
            rounds.push(round);
        }
        outcomes.push(outcome(context, engine, stream, &rounds));
    }
    Ok(outcomes)
}

fn outcome(context: &Context, engine: Engine, stream: &Stream, rounds: &[Round]) -> Outcome {
    let median = |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(figure)).median;
    let title = format!(
        "{} single-row transactions a second for {} s, {} recipients",
        thousands((stream.producers * stream.rate) as usize),
        context.sizes.steady,
        thousands(RECIPIENTS as usize)
    );
    let mut outcome = Outcome::new("s16", engine, title);
    let worker = median(Round::worker_us);
    let (p50, p99) = (median(|round| round.p50), median(|round| round.p99));
    let goals = &mut outcome.goals;
    let bound = match engine {
        Engine::Sqlite => stream.sqlite_us,
        Engine::Postgres => {
            let (what, server) = ("server, each delivery", median(Round::server_us));
            goals.push(Goal::at_most(what, server, stream.server_us, " µs"));
            stream.worker_us
        }
    };
    if let Some(bound) = bound {
        goals.push(Goal::at_most("worker, each delivery", worker, bound, " µs"));
    }
    if let Some((middle, tail)) = stream.waits_ms {
        goals.push(Goal::at_most(
            "INSERT to first byte, p50",
            p50,
            middle,
            " ms",
        ));
        goals.push(Goal::at_most("INSERT to first byte, p99", p99, tail, " ms"));
    }
    if engine == Engine::Sqlite {
        let what = "p99 of an INSERT, of that without a worker";
        let felt = median(|round| round.beside.p99 / round.alone.p99);
        goals.push(Goal::at_most(what, felt, 3.0, ""));
    }
    outcome.notes = vec![
        format!("worker {worker:.0} µs; INSERT to first byte p50 {p50:.2} ms, p99 {p99:.2} ms"),
        format!(
            "INSERT p50 {:.2} ms, p99 {:.2} ms; alone p50 {:.2} ms, p99 {:.2} ms, {:.0} µs of the server",
            median(|round| round.beside.p50),
            median(|round| round.beside.p99),
            median(|round| round.alone.p50),
            median(|round| round.alone.p99),
            median(|round| round.alone.server_us),
        ),
    ];
    outcome.costs = rounds.last().map(|round| round.costs);
    outcome
}

async fn round(context: &mut Context, engine: Engine, stream: &Stream) -> Result<Round> {
    let pace = Pace {
        producers: stream.producers,
        rate: stream.rate,
        span: Duration::from_secs(context.sizes.steady),
        recipients: Some(RECIPIENTS),
        pages: false,
    };
    let empty = Load::new(0, 1);
    let database = prepare(&mut context.house, engine, &empty).await?;
    let alone = tokio::time::timeout(context.limit, alone(&database, pace)).await;
    let alone = alone.context("void: not in time")??;
    drop(database);
    let database = prepare(&mut context.house, engine, &empty).await?;
    let round = tokio::time::timeout(context.limit, worked(&database, pace, alone)).await;
    round.context("void: not in time")?
}

async fn alone(database: &Database, pace: Pace) -> Result<Inserts> {
    let producers = Producers::start(&database.url, "p", pace).await?;
    let meter = Meter::begin(database, &[]).await?;
    let inserts = producers.insert().await?;
    let reading = meter.read(database, &[], inserts.len() as u64).await?;
    let costs = reading.end(database, 0).await?;
    Ok(felt(&times(&inserts), &costs))
}

async fn worked(database: &Database, pace: Pace, alone: Inserts) -> Result<Round> {
    let setup = Setup {
        keep: pace.inserts() as usize,
        ..Setup::default()
    };
    let receiver = Receiver::start(&setup).await?;
    let mut workers = [Worker::start(database, &receiver, &Settings::new())?];
    let producers = Producers::start(&database.url, "p", pace).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let meter = Meter::begin(database, &workers).await?;
    let part = async {
        let inserts = producers.insert().await?;
        receiver.accepts(inserts.len() as u64).await?;
        Ok(inserts)
    };
    let inserts = beside(&mut workers, part).await?;
    let reading = meter.read(database, &workers, inserts.len() as u64).await?;
    let waits = first_bytes(&receiver, &inserts, |insert| insert.began_ns).await?;
    for worker in workers {
        worker.stop().await?;
    }
    let mut costs = reading.end(database, inserts.len() as i64).await?;
    receiver.verdict(0).await?;
    let beside = felt(&times(&inserts), &costs);
    if let Some(database) = &mut costs.database_cpu_s_per_1000 {
        *database -= alone.server_us / 1000.0;
    }
    Ok(Round {
        alone,
        beside,
        p50: percentile(&waits, 50.0),
        p99: percentile(&waits, 99.0),
        costs,
    })
}

fn felt(times: &[f64], costs: &Costs) -> Inserts {
    Inserts {
        p50: percentile(times, 50.0),
        p99: percentile(times, 99.0),
        server_us: costs.database_cpu_s_per_1000.unwrap_or(0.0) * 1000.0,
    }
}
