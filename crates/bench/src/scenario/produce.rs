//! S10: what producers feel of a worker that delivers what they insert.
//!
//! Single-row transactions at a fixed pace, an INSERT's time counted from the moment it was due; in
//! turn without a worker and with one.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Context;
use crate::database::Database;
use crate::drain::{Load, finished_since, prepare};
use crate::measure::costs::{Costs, Meter};
use crate::measure::spread::{Spread, percentile};
use crate::outcome::{Goal, Outcome};
use crate::producer::{Insert, Pace, Producers};
use crate::receiver::{Receiver, Setup};
use crate::sql::{Engine, Safety};
use crate::worker::{Settings, Worker, beside};

/// How long after the last INSERT nothing may be left.
const CATCH_UP: Duration = Duration::from_secs(2);

struct Round {
    bare: f64,
    alone: f64,
    /// INSERTs a second that they managed alone.
    pace: f64,
    beside: f64,
    /// Of those beside a worker.
    p50: f64,
    rate: f64,
    left: f64,
    costs: Costs,
}

/// Producers alone, producers beside a worker.
pub async fn felt(context: &mut Context, engine: Engine, runs: usize) -> Result<Outcome> {
    let pace = Pace {
        producers: 4,
        rate: 500,
        span: Duration::from_secs(context.sizes.produce),
        recipients: None,
        pages: false,
    };
    let mut rounds = Vec::new();
    for run in 1..=runs {
        let round = round(context, engine, pace);
        let round = round.await?;
        eprintln!(
            "  s10 {} {run}/{runs}: p99 alone {:.2} ms, beside a worker {:.2} ms, {:.0} inserts/s, {:.0} left",
            engine.name(),
            round.alone,
            round.beside,
            round.rate,
            round.left
        );
        rounds.push(round);
    }
    let spread = |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(figure));
    let title = format!(
        "{} producers × {} transactions a second for {} s, delivered meanwhile",
        pace.producers,
        pace.rate,
        pace.span.as_secs()
    );
    let mut outcome = Outcome::new("s10", engine, title);
    outcome.bare = Some(spread(|round| round.bare));
    let bound = match engine {
        Engine::Sqlite => 4.0,
        Engine::Postgres => 2.0,
    };
    outcome.goals = vec![
        Goal::at_most(
            "p99 of an INSERT, of that without a worker",
            spread(|round| round.beside / round.alone).median,
            bound,
            "",
        ),
        Goal::at_most(
            format!("left behind after {} s", CATCH_UP.as_secs()),
            spread(|round| round.left).max,
            0.0,
            " jobs",
        ),
    ];
    let pace = f64::from(pace.producers * pace.rate);
    let median = |figure| spread(figure).median;
    outcome.notes.push(format!(
        "INSERT beside a worker p50 {:.2} ms, p99 {:.2} ms; alone p99 {:.2} ms",
        median(|round| round.p50),
        median(|round| round.beside),
        median(|round| round.alone),
    ));
    if median(|round| round.pace) < 0.95 * pace {
        outcome.notes.push(format!(
            "the database takes {:.0} of {pace:.0} transactions a second even without a worker, {:.0} \
             with one: the times are those of a growing lane",
            median(|round| round.pace),
            median(|round| round.rate),
        ));
    }
    outcome.costs = rounds.last().map(|round| round.costs);
    Ok(outcome)
}

async fn round(context: &mut Context, engine: Engine, pace: Pace) -> Result<Round> {
    let bare = context.bare().await?;
    let empty = Load::new(0, 1);
    let database = prepare(&mut context.house, engine, &empty).await?;
    let alone = async {
        let producers = Producers::start(&database.url, "p", pace).await?;
        producers.insert().await
    };
    let alone = tokio::time::timeout(context.limit, alone).await;
    let alone = alone.context("void: not in time")??;
    let managed = rate(&alone);
    drop(database);
    let database = prepare(&mut context.house, engine, &empty).await?;
    let round = tokio::time::timeout(context.limit, worked(&database, pace)).await;
    let round = round.context("void: not in time")??;
    Ok(Round {
        bare,
        alone: percentile(&times(&alone), 99.0),
        pace: managed,
        ..round
    })
}

/// Producers beside a worker.
async fn worked(database: &Database, pace: Pace) -> Result<Round> {
    let receiver = Receiver::start(&Setup::default()).await?;
    let start = database.now().await? - 1000;
    let mut workers = [Worker::start(database, &receiver, &Settings::new())?];
    let producers = Producers::start(&database.url, "p", pace).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let meter = Meter::begin(database, &workers).await?;
    let inserts = beside(&mut workers, producers.insert()).await?;
    tokio::time::sleep(CATCH_UP).await;
    let mut sql = database.open(Safety::Full).await?;
    let done = sql.number(&finished_since(database.engine, start)).await?;
    sql.close().await?;
    let deliveries = done.unsigned_abs().max(1);
    let reading = meter.read(database, &workers, deliveries).await?;
    // What is left must come all the same: jobs that are lost make the run void.
    beside(&mut workers, receiver.accepts(inserts.len() as u64)).await?;
    for worker in workers {
        worker.stop().await?;
    }
    let costs = reading.end(database, inserts.len() as i64 + 1).await?;
    receiver.verdict(0).await?;
    let times = times(&inserts);
    Ok(Round {
        bare: 0.0,
        alone: 0.0,
        pace: 0.0,
        beside: percentile(&times, 99.0),
        p50: percentile(&times, 50.0),
        rate: rate(&inserts),
        left: inserts.len() as f64 - done as f64,
        costs,
    })
}

/// INSERTs a second, from the first one's moment to the last commit.
fn rate(inserts: &[Insert]) -> f64 {
    let span = |of: fn(&Insert) -> u64| inserts.iter().map(of);
    let first = span(|insert| insert.scheduled_ns).min().unwrap_or(0);
    let last = span(|insert| insert.done_ns).max().unwrap_or(0);
    inserts.len() as f64 / ((last - first) as f64 / 1e9)
}

/// Milliseconds from the moment each INSERT was due to its confirmed commit, sorted.
pub fn times(inserts: &[Insert]) -> Vec<f64> {
    let mut times: Vec<f64> = inserts.iter().map(Insert::took_ms).collect();
    times.sort_by(f64::total_cmp);
    times
}
