//! S6: a page whose every request fails, with many due jobs, beside a healthy one.
//!
//! In turn: the bare loop, the healthy page alone, the other page answered 503, the other page never
//! answered. First the healthy page's backlog is delivered, then producers insert for it at a
//! moderate pace. The worker's configuration is the default.

use std::slice;
use std::time::Duration;

use anyhow::{Context as _, Result};
use postlane::clock::BootInstant;

use super::Context;
use super::plans::thousands;
use super::wake::first_bytes;
use crate::database::Database;
use crate::drain::{Load, delivered, prepare};
use crate::fill::Backlog;
use crate::measure::spread::{Spread, percentile};
use crate::outcome::{Goal, Outcome};
use crate::producer::{Pace, Producers};
use crate::receiver::Receiver;
use crate::sql::Engine;
use crate::worker::{Worker, beside};

/// What becomes of the other page's requests.
const SICK: [(&str, &str); 2] = [("503", "answered 503"), ("hang", "never answered")];

/// Requests that the receiver remembers: those of the producers are among the newest.
const KEEP: usize = 400_000;

/// Between the backlog and the producers.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Found {
    rate: f64,
    p99: f64,
}

struct Round {
    bare: f64,
    alone: Found,
    sick: [Found; 2],
}

/// Both variants.
pub async fn pages(context: &mut Context, engine: Engine, runs: usize) -> Result<Vec<Outcome>> {
    let mut rounds = Vec::new();
    for run in 1..=runs {
        let bare = context.bare().await?;
        let alone = once(context, engine, None).await?;
        let sick = [
            once(context, engine, Some(SICK[0].0)).await?,
            once(context, engine, Some(SICK[1].0)).await?,
        ];
        let tell = |found: Found| format!("{:.0}/s, p99 {:.1} ms", found.rate, found.p99);
        eprintln!(
            "  s6 {} {run}/{runs}: bare {bare:.0}/s, alone {}, 503 {}, hang {}",
            engine.name(),
            tell(alone),
            tell(sick[0]),
            tell(sick[1])
        );
        rounds.push(Round { bare, alone, sick });
    }
    let outcome = |variant| outcome(context, engine, &rounds, variant);
    Ok(vec![outcome(0), outcome(1)])
}

fn outcome(context: &Context, engine: Engine, rounds: &[Round], variant: usize) -> Outcome {
    let how = SICK[variant].1;
    let title = format!(
        "a healthy page beside {} due jobs of one that is {how}",
        thousands(context.sizes.deep)
    );
    let spread = |figure: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(figure));
    let mut outcome = Outcome::new("s6", engine, title);
    let alone = spread(&|round| round.alone.rate);
    let of_first = spread(&|round| round.sick[variant].rate / round.alone.rate);
    let tails = spread(&|round| round.sick[variant].p99 / round.alone.p99);
    outcome.rate = Some(spread(&|round| round.sick[variant].rate));
    outcome.bare = Some(spread(&|round| round.bare));
    outcome.ratio = Some(spread(&|round| round.sick[variant].rate / round.bare));
    outcome.first = Some(alone);
    outcome.of_first = Some(of_first);
    outcome.goals = vec![
        Goal::at_least(format!("{how}, of S1"), of_first.median, 0.95, "")
            .or_within(alone, rounds.len()),
        Goal::at_most(format!("{how}, p99 of that alone"), tails.median, 2.0, ""),
    ];
    outcome.notes.push(format!(
        "p99 {:.2} ms, alone {:.2} ms",
        spread(&|round| round.sick[variant].p99).median,
        spread(&|round| round.alone.p99).median
    ));
    outcome
}

async fn once(context: &mut Context, engine: Engine, script: Option<&str>) -> Result<Found> {
    let jobs = context.sizes.jobs;
    let mut load = Load::new(jobs, jobs);
    load.receiver.keep = KEEP;
    if let Some(script) = script {
        load.backlog = Backlog::Sick(context.sizes.deep);
        load.receiver.scripts = vec![format!("2/*={script} *")];
    }
    let database = prepare(&mut context.house, engine, &load).await?;
    let pace = Pace {
        producers: 2,
        rate: 100,
        span: Duration::from_secs(context.sizes.produce),
        recipients: None,
        pages: false,
    };
    let found = tokio::time::timeout(context.limit, measure(&database, &load, pace)).await;
    found.with_context(|| format!("void: not done within {:?}", context.limit))?
}

async fn measure(database: &Database, load: &Load, pace: Pace) -> Result<Found> {
    let receiver = Receiver::start(&load.receiver).await?;
    let start = database.now().await? - 1000;
    let producers = Producers::start(&database.url, "late", pace).await?;
    let began = BootInstant::now();
    let mut worker = Worker::start(database, &receiver, &load.settings)?;
    let parts = async {
        let wanted = delivered(database, &receiver, load.deliveries, start, began).await?;
        tokio::time::sleep(PAUSE).await;
        let inserts = producers.insert().await?;
        let all = load.deliveries + inserts.len();
        receiver.accepts(all as u64).await?;
        Ok((wanted.0, inserts))
    };
    let ((committed, took), inserts) = beside(slice::from_mut(&mut worker), parts).await?;
    let waits = first_bytes(&receiver, &inserts, |insert| insert.began_ns).await?;
    worker.stop().await?;
    receiver.verdict(0).await?;
    Ok(Found {
        rate: committed as f64 / took.as_secs_f64(),
        p99: percentile(&waits, 99.0),
    })
}
