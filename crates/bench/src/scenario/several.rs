//! S11: several workers on one Postgres, and what becomes of the lanes of one that is killed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postlane::clock::BootInstant;

use super::Context;
use super::plans::thousands;
use crate::database::Database;
use crate::drain::{Load, drain, finished_since, prepare};
use crate::measure::spread::Spread;
use crate::outcome::{Goal, Outcome};
use crate::receiver::Receiver;
use crate::sql::{Engine, Safety, Sql};
use crate::worker::Worker;

/// How many workers, in turn.
const WORKERS: [usize; 3] = [1, 2, 4];
/// A lane that is due is found by the next look of a sleeping worker.
const LOOK: f64 = 1.0;

/// One, two, four; then one of four is killed.
pub async fn workers(context: &mut Context, runs: usize) -> Result<Outcome> {
    let (jobs, limit) = (context.sizes.jobs, context.limit);
    let mut rounds = Vec::new();
    for run in 1..=runs {
        let bare = context.bare().await?;
        let (mut rates, mut costs) = ([0.0; 3], None);
        for (at, workers) in WORKERS.into_iter().enumerate() {
            let load = Load {
                workers,
                ..Load::new(jobs, jobs)
            };
            let drained = drain(&mut context.house, Engine::Postgres, &load, limit).await?;
            rates[at] = drained.rate();
            costs = Some(drained.costs);
        }
        let [one, two, four] = rates;
        eprintln!(
            "  s11 postgres {run}/{runs}: bare {bare:.0}/s, one {one:.0}/s, two {two:.0}/s, four {four:.0}/s"
        );
        rounds.push((bare, rates, costs));
    }
    let spread = |figure: &dyn Fn(f64, [f64; 3]) -> f64| {
        Spread::of(rounds.iter().map(|(bare, rates, _)| figure(*bare, *rates)))
    };
    let title = format!(
        "{} jobs, 1, 2 and 4 workers; then one of 4 is killed",
        thousands(jobs)
    );
    let mut outcome = Outcome::new("s11", Engine::Postgres, title);
    outcome.rate = Some(spread(&|_, rates| rates[2]));
    outcome.bare = Some(spread(&|bare, _| bare));
    outcome.ratio = Some(spread(&|bare, rates| rates[2] / bare));
    outcome.first = Some(spread(&|_, rates| rates[0]));
    outcome.of_first = Some(spread(&|_, rates| rates[2] / rates[0]));
    outcome.costs = rounds.last().and_then(|(.., costs)| *costs);
    let (two, four) = (
        spread(&|_, rates| rates[1] / rates[0]).median,
        spread(&|_, rates| rates[2] / rates[0]).median,
    );
    outcome.goals = vec![
        Goal::at_least("two workers, of one", two, 0.9, ""),
        Goal::at_least("four workers, of one", four, 0.9, ""),
    ];
    let killed = killed(context).await?;
    let lease = context.sizes.lease as f64;
    outcome.goals.push(Goal::at_most(
        format!("lanes of the killed one go on after, lease {lease:.0} s"),
        killed.taken_over,
        lease + LOOK,
        " s",
    ));
    outcome.notes.push(format!(
        "{} requests were in flight at the kill, {} arrived twice; all was delivered after {:.1} s",
        killed.in_flight, killed.duplicates, killed.delivered
    ));
    Ok(outcome)
}

struct Killed {
    in_flight: usize,
    duplicates: u64,
    /// Seconds from the kill until the last of its attempts was judged lost.
    taken_over: f64,
    /// And until everything was delivered.
    delivered: f64,
}

async fn killed(context: &mut Context) -> Result<Killed> {
    let (jobs, lease) = (context.sizes.jobs, context.sizes.lease);
    let mut load = Load::new(jobs, jobs);
    // The shortest lease is a time-out, a third of a lease here, and what belongs to it.
    let third = format!("{}ms", lease * 1000 / 3);
    load.settings = load
        .settings
        .with("WORKER__LEASE", &format!("{lease}s"))
        .with("API__TIMEOUT", &third)
        .with("API__CONNECT_TIMEOUT", &third)
        .with("API__TCP_USER_TIMEOUT", &third);
    // So that something is on its way at any moment.
    load.receiver.latency_ms = 20;
    let database = prepare(&mut context.house, Engine::Postgres, &load).await?;
    let killed = tokio::time::timeout(context.limit, kill(&database, &load)).await;
    killed.context("void: not in time")?
}

async fn kill(database: &Database, load: &Load) -> Result<Killed> {
    let receiver = Receiver::start(&load.receiver).await?;
    let start = database.now().await? - 1000;
    let mut workers = Vec::new();
    for number in 0..4 {
        workers.push(Worker::start(
            database,
            &receiver,
            &load.settings.of(number),
        )?);
    }
    receiver.accepts(load.jobs as u64 / 5).await?;
    workers.remove(0).kill().await?;
    let killed = BootInstant::now();
    let mut sql = database.open(Safety::Full).await?;
    let name = load.settings.of(0).name;
    let jobs = open_attempts(&mut sql, &name).await?;
    ensure!(
        !jobs.is_empty(),
        "void: nothing was in flight when the worker was killed"
    );
    let open = format!(
        "select count(*) from send_lanes where job in ({}) and worker like '{name}-%'",
        jobs.join(", ")
    );
    until_zero(&mut sql, &open).await?;
    let taken_over = killed.elapsed().as_secs_f64();
    let left = format!(
        "select {} - ({})",
        load.jobs,
        finished_since(database.engine, start)
    );
    until_zero(&mut sql, &left).await?;
    let delivered = killed.elapsed().as_secs_f64();
    sql.close().await?;
    for worker in workers {
        worker.stop().await?;
    }
    // What was on its way when the worker died may come again, once.
    let stats = receiver.verdict(jobs.len() as u64).await?;
    eprintln!("  s11 postgres, one killed: its lanes went on after {taken_over:.1} s");
    Ok(Killed {
        in_flight: jobs.len(),
        duplicates: stats.duplicates,
        taken_over,
        delivered,
    })
}

/// The jobs that a worker had on their way.
async fn open_attempts(sql: &mut Sql, worker: &str) -> Result<Vec<String>> {
    sql.texts(&format!(
        "select cast(job as text) from send_lanes where worker like '{worker}-%'"
    ))
    .await
}

async fn until_zero(sql: &mut Sql, count: &str) -> Result<()> {
    while sql.number(count).await? > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
