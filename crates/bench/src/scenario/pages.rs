//! S17: many pages. A page costs what it sends, and no other.
//!
//! Backlogs of as many jobs, of one page, of a thousand and of thousands; beside pages that have no
//! secret; of pages with a rate. And how long a job waits whose page has just got its first one, while
//! the others are busy, or wait for their secrets.

use std::slice;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Context;
use super::plans::thousands;
use super::wake::first_bytes;
use crate::database::Database;
use crate::drain::{Load, drain, prepare};
use crate::fill::Backlog;
use crate::measure::spread::{Spread, percentile};
use crate::outcome::{Goal, Outcome};
use crate::producer::{Pace, Producers};
use crate::receiver::Receiver;
use crate::sql::Engine;
use crate::worker::{Worker, beside};

/// Deliveries a second of each backlog, and milliseconds that newcomers waited.
#[derive(Debug, Clone, Copy)]
struct Round {
    one: f64,
    thousand: f64,
    many: f64,
    beside_secretless: f64,
    unlimited: f64,
    limited: f64,
    /// The longest of them, beside busy pages.
    beside_busy: f64,
    /// p50 and p99, beside pages without a secret.
    beside_idle: (f64, f64),
}

/// All of it.
pub async fn many(context: &mut Context, engine: Engine, runs: usize) -> Result<Outcome> {
    let mut rounds = Vec::new();
    for run in 1..=runs {
        let round = round(context, engine).await?;
        eprintln!("  s17 {} {run}/{runs}: {round:.1?}", engine.name());
        rounds.push(round);
    }
    let median = |figure: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(figure)).median;
    let [busy, secretless, rated] = context.sizes.pages.map(thousands);
    let mut outcome = Outcome::new("s17", engine, "many pages");
    let of_one = |part: &dyn Fn(&Round) -> f64| median(&|round| part(round) / round.one);
    let slow = |round: &Round| round.limited / round.unlimited;
    outcome.goals = vec![
        Goal::at_least("1,000 pages, of one", of_one(&|r| r.thousand), 0.9, ""),
        Goal::at_least(
            format!("{busy} pages, of one"),
            of_one(&|r| r.many),
            0.5,
            "",
        ),
        Goal::at_least(
            format!("beside {secretless} pages without a secret, of alone"),
            of_one(&|r| r.beside_secretless),
            0.95,
            "",
        ),
        Goal::at_least(
            format!("{rated} pages with a rate, of those without"),
            median(&slow),
            0.9,
            "",
        ),
        Goal::at_most(
            format!("a newcomer beside {busy} busy pages, longest"),
            median(&|round| round.beside_busy),
            2000.0,
            " ms",
        ),
        Goal::at_most(
            format!("beside {secretless} pages without a secret, p99"),
            median(&|round| round.beside_idle.1),
            20.0,
            " ms",
        ),
    ];
    outcome.rate = Some(Spread::of(rounds.iter().map(|round| round.many)));
    outcome.first = Some(Spread::of(rounds.iter().map(|round| round.one)));
    outcome.notes.push(format!(
        "beside {secretless} pages without a secret: p50 {:.2} ms",
        median(&|round| round.beside_idle.0)
    ));
    Ok(outcome)
}

async fn round(context: &mut Context, engine: Engine) -> Result<Round> {
    let [busy, secretless, rated] = context.sizes.pages;
    let jobs = context.sizes.jobs;
    let spread = |pages, jobs| Load {
        pages,
        ..Load::new(jobs, jobs)
    };
    let mut without = Load::new(jobs, jobs);
    without.backlog = Backlog::Pages(secretless);
    without.settings.page = Some("1".to_owned());
    let mut limited = spread(rated, rated);
    limited.settings = limited.settings.with("PAGES__DEFAULT__RATE", "300");
    let (many, limit) = (spread(busy, jobs.max(busy)), context.limit);
    let mut rate = async |load: &Load| {
        let drained = drain(&mut context.house, engine, load, limit).await?;
        eprintln!(
            "    {:.0}/s of {} pages beside {}",
            drained.rate(),
            load.pages,
            load.backlog
        );
        anyhow::Ok(drained.rate())
    };
    Ok(Round {
        one: rate(&Load::new(jobs, jobs)).await?,
        thousand: rate(&spread(1000, jobs)).await?,
        many: rate(&many).await?,
        beside_secretless: rate(&without).await?,
        unlimited: rate(&spread(rated, rated)).await?,
        limited: rate(&limited).await?,
        beside_busy: {
            let load = spread(busy, 3 * busy);
            newcomer(context, engine, &load).await?.1
        },
        beside_idle: {
            let load = Load { jobs: 0, ..without };
            let waits = newcomer(context, engine, &load).await?;
            (waits.0, waits.1)
        },
    })
}

/// What jobs of page 1 wait that come while others have work: p50 and the longest (p99 if there is nothing to
/// deliver but them), in milliseconds.
async fn newcomer(context: &mut Context, engine: Engine, load: &Load) -> Result<(f64, f64)> {
    let database = prepare(&mut context.house, engine, load).await?;
    let pace = Pace {
        producers: 1,
        rate: 50,
        span: Duration::from_secs(context.sizes.produce),
        recipients: None,
        pages: load.jobs > 0,
    };
    let waits = tokio::time::timeout(context.limit, wait(&database, load, pace)).await;
    waits.context("void: not in time")?
}

async fn wait(database: &Database, load: &Load, pace: Pace) -> Result<(f64, f64)> {
    let mut setup = load.receiver.clone();
    setup.keep = load.jobs + pace.inserts() as usize;
    let receiver = Receiver::start(&setup).await?;
    let producers = Producers::start(&database.url, "new", pace).await?;
    let mut worker = Worker::start(database, &receiver, &load.settings)?;
    let part = async {
        if load.jobs == 0 {
            tokio::time::sleep(Duration::from_secs(3)).await;
        } else {
            receiver.accepts(100).await?;
        }
        let inserts = producers.insert().await?;
        receiver.accepts((load.jobs + inserts.len()) as u64).await?;
        Ok(inserts)
    };
    let inserts = beside(slice::from_mut(&mut worker), part).await?;
    let waits = first_bytes(&receiver, &inserts, |insert| insert.began_ns).await?;
    worker.stop().await?;
    receiver.verdict(0).await?;
    let last = if load.jobs == 0 { 99.0 } else { 100.0 };
    Ok((percentile(&waits, 50.0), percentile(&waits, last)))
}
