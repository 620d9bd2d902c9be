//! S8: how long an idle worker takes from an INSERT of another process to the first byte.

use std::slice;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Context;
use crate::database::Database;
use crate::drain::{Load, prepare};
use crate::measure::spread::{Spread, percentile};
use crate::outcome::{Goal, Outcome};
use crate::producer::{Insert, Pace, Producers};
use crate::receiver::{Receiver, Setup};
use crate::sql::Engine;
use crate::worker::{Settings, Worker, beside};

/// One INSERT every 50 ms: the median and the 99th percentile of each run, and the median of those.
pub async fn idle(context: &mut Context, engine: Engine, runs: usize) -> Result<Outcome> {
    let pace = Pace {
        producers: 1,
        rate: 20,
        span: Duration::from_secs_f64(f64::from(context.sizes.wakes) / 20.0),
        recipients: None,
        pages: false,
    };
    let (mut bares, mut middles, mut tails) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=runs {
        bares.push(context.bare().await?);
        let database = prepare(&mut context.house, engine, &Load::new(0, 1)).await?;
        let waits = tokio::time::timeout(context.limit, once(&database, pace)).await;
        let waits = waits.context("void: not in time")??;
        let (p50, p99) = (percentile(&waits, 50.0), percentile(&waits, 99.0));
        eprintln!(
            "  s8 {} {run}/{runs}: p50 {p50:.2} ms, p99 {p99:.2} ms",
            engine.name()
        );
        middles.push(p50);
        tails.push(p99);
    }
    let title = "idle; one INSERT every 50 ms from another process";
    let mut outcome = Outcome::new("s8", engine, title);
    outcome.bare = Some(Spread::of(bares));
    let (p50, p99) = match engine {
        Engine::Sqlite => (4.0, 15.0),
        Engine::Postgres => (2.0, 8.0),
    };
    let (middle, tail) = (Spread::of(middles), Spread::of(tails));
    outcome.goals = vec![
        Goal::at_most("to the first byte, p50", middle.median, p50, " ms"),
        Goal::at_most("to the first byte, p99", tail.median, p99, " ms"),
    ];
    outcome.notes.push(format!(
        "p50 {:.2}–{:.2} ms, p99 {:.2}–{:.2} ms over {runs} runs",
        middle.min, middle.max, tail.min, tail.max
    ));
    Ok(outcome)
}

async fn once(database: &Database, pace: Pace) -> Result<Vec<f64>> {
    let setup = Setup {
        keep: pace.inserts() as usize,
        ..Setup::default()
    };
    let receiver = Receiver::start(&setup).await?;
    let mut worker = Worker::start(database, &receiver, &Settings::new())?;
    let producers = Producers::start(&database.url, "idle", pace).await?;
    let part = async {
        // Until it is at rest.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let inserts = producers.insert().await?;
        receiver.accepts(inserts.len() as u64).await?;
        Ok(inserts)
    };
    let inserts = beside(slice::from_mut(&mut worker), part).await?;
    let waits = first_bytes(&receiver, &inserts, |insert| insert.began_ns).await?;
    worker.stop().await?;
    receiver.verdict(0).await?;
    Ok(waits)
}

/// Milliseconds from a moment of each INSERT to the first byte of its request, sorted.
pub async fn first_bytes(
    receiver: &Receiver,
    inserts: &[Insert],
    from: impl Fn(&Insert) -> u64,
) -> Result<Vec<f64>> {
    let arrivals = receiver.arrivals().await?;
    let wait = |insert: &Insert| {
        let arrived = insert.arrived(&arrivals)?;
        Ok((arrived as f64 - from(insert) as f64) / 1e6)
    };
    let mut waits = inserts.iter().map(wait).collect::<Result<Vec<f64>>>()?;
    waits.sort_by(f64::total_cmp);
    Ok(waits)
}
