//! S12: another client's transaction stays open, so that Postgres may not clean up what the worker
//! leaves behind, while jobs come and go.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Context;
use crate::database::Database;
use crate::drain::{Load, prepare};
use crate::measure::costs::{Costs, Meter};
use crate::measure::spread::{Spread, percentile};
use crate::outcome::{Goal, Outcome};
use crate::producer::{Insert, Pace, Producers};
use crate::receiver::{Receiver, Setup};
use crate::sql::{Engine, Safety};
use crate::worker::{Settings, Worker, beside};

/// Jobs a second, of all producers.
const RATE: f64 = 1000.0;
/// What is left out at the start: connections are opened and plans are made.
const WARM_UP: Duration = Duration::from_secs(1);

/// One request, seconds after the first INSERT was due.
struct Trip {
    due: f64,
    arrived: f64,
    wait_ms: f64,
}

/// Two minutes of it.
pub async fn open(context: &mut Context) -> Result<Outcome> {
    let span = Duration::from_secs(context.sizes.held);
    let pace = Pace {
        producers: 4,
        rate: 250,
        span,
        recipients: None,
        pages: false,
    };
    let bare = context.bare().await?;
    let database = prepare(&mut context.house, Engine::Postgres, &Load::new(0, 1)).await?;
    let run = tokio::time::timeout(context.limit, once(&database, pace)).await;
    let (trips, costs) = run.context("void: not in time")??;
    // Ten seconds at the start beside the last ten.
    let window = (span.as_secs_f64() / 3.0).min(10.0);
    let p99 = |from: f64, to: f64| {
        let within = trips.iter().filter(|trip| (from..to).contains(&trip.due));
        let mut waits: Vec<f64> = within.map(|trip| trip.wait_ms).collect();
        waits.sort_by(f64::total_cmp);
        percentile(&waits, 99.0)
    };
    let (start, end) = (WARM_UP.as_secs_f64(), span.as_secs_f64());
    let (first, last) = (p99(start, start + window), p99(end - window, end));
    let arrived = trips
        .iter()
        .filter(|trip| (end - window..end).contains(&trip.arrived));
    let rate = arrived.count() as f64 / window;
    let title = format!(
        "{RATE:.0} jobs a second for {} s beside an open transaction",
        span.as_secs()
    );
    let mut outcome = Outcome::new("s12", Engine::Postgres, title);
    outcome.bare = Some(Spread::of([bare]));
    outcome.goals = vec![
        Goal::at_least("rate at the end", rate, 0.95 * RATE, "/s"),
        Goal::at_most(
            "p99 at the end, of that at the start",
            last / first,
            3.0,
            "",
        ),
    ];
    let all = p99(0.0, end);
    outcome.notes.push(format!(
        "INSERT to first byte, p99: first {window:.0} s {first:.2} ms, last {window:.0} s {last:.2} ms, all {all:.2} ms"
    ));
    outcome.costs = Some(costs);
    eprintln!("  s12 postgres 1/1: {rate:.0}/s at the end, p99 {first:.2} then {last:.2} ms");
    Ok(outcome)
}

async fn once(database: &Database, pace: Pace) -> Result<(Vec<Trip>, Costs)> {
    let setup = Setup {
        keep: pace.inserts() as usize,
        ..Setup::default()
    };
    let receiver = Receiver::start(&setup).await?;
    let mut workers = [Worker::start(database, &receiver, &Settings::new())?];
    let producers = Producers::start(&database.url, "h", pace).await?;
    tokio::time::sleep(WARM_UP).await;
    let mut holder = database.open(Safety::Full).await?;
    holder
        .run("begin isolation level repeatable read; select txid_current(), count(*) from send_schema")
        .await?;
    let meter = Meter::begin(database, &workers).await?;
    let part = async {
        let inserts = producers.insert().await?;
        receiver.accepts(inserts.len() as u64).await?;
        Ok(inserts)
    };
    let inserts = beside(&mut workers, part).await?;
    let count = inserts.len() as u64;
    let reading = meter.read(database, &workers, count).await?;
    for worker in workers {
        worker.stop().await?;
    }
    holder.run("rollback").await?;
    holder.close().await?;
    let costs = reading.end(database, inserts.len() as i64 + 1).await?;
    let trips = trips(&receiver, &inserts).await?;
    receiver.verdict(0).await?;
    Ok((trips, costs))
}

async fn trips(receiver: &Receiver, inserts: &[Insert]) -> Result<Vec<Trip>> {
    let arrivals = receiver.arrivals().await?;
    let begin = inserts.iter().map(|insert| insert.scheduled_ns).min();
    let begin = begin.context("no producer inserted anything")?;
    let seconds = |at: u64| (at as f64 - begin as f64) / 1e9;
    let trip = |insert: &Insert| {
        let arrived = insert.arrived(&arrivals)?;
        Ok(Trip {
            due: seconds(insert.scheduled_ns),
            arrived: seconds(arrived),
            wait_ms: (arrived as f64 - insert.scheduled_ns as f64) / 1e6,
        })
    };
    inserts.iter().map(trip).collect()
}
