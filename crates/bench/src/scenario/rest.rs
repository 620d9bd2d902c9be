//! S9: what a worker costs that has nothing to do.

use std::time::Duration;

use anyhow::{Context as _, Result};
use postlane::clock::BootInstant;

use super::Context;
use crate::database::Database;
use crate::drain::{Load, prepare};
use crate::measure::spread::Spread;
use crate::measure::{costs, proc};
use crate::outcome::{Goal, Outcome};
use crate::receiver::{Receiver, Setup};
use crate::sql::Engine;
use crate::worker::{Settings, Worker};

/// The threads in which SQLite's statements run, by what the kernel keeps of their names.
const SQLITE_THREADS: &str = "sqlx-sqlite-wor";

/// How long after its start a worker is at rest: its sweeper has looked once more after the last write
/// (thirty seconds), and an idle session of Postgres has told its counts (ten seconds).
const SETTLE: Duration = Duration::from_secs(35);

#[derive(Clone, Copy)]
struct Counts {
    cpu: f64,
    commits: i64,
    wakes: u64,
    reads: u64,
}

/// A while of nothing.
pub async fn rest(context: &mut Context, engine: Engine) -> Result<Outcome> {
    let span = Duration::from_secs(context.sizes.rest);
    let bare = context.bare().await?;
    let database = prepare(&mut context.house, engine, &Load::new(0, 1)).await?;
    let counts = tokio::time::timeout(context.limit, once(&database, span)).await;
    let (spent, seconds) = counts.context("void: not in time")??;
    let a_second = |count: f64| count / seconds;
    let title = format!("idle for {} s", span.as_secs());
    let mut outcome = Outcome::new("s9", engine, title);
    outcome.bare = Some(Spread::of([bare]));
    outcome.goals.push(Goal::at_most(
        "of a core",
        a_second(spent.cpu) * 100.0,
        0.5,
        " %",
    ));
    match engine {
        Engine::Postgres => outcome.goals.push(Goal::at_most(
            "transactions",
            a_second(spent.commits as f64),
            1.0,
            "/s",
        )),
        Engine::Sqlite => {
            outcome.goals.push(Goal::at_most(
                "wake-ups of the database's threads",
                a_second(spent.wakes as f64),
                0.0,
                "/s",
            ));
            let reads = a_second(spent.reads as f64);
            let note = format!("{reads:.2} read calls a second, of files and of anything else");
            outcome.notes.push(note);
        }
    }
    eprintln!(
        "  s9 {} 1/1: {:.3} s of a core in {seconds:.0} s",
        engine.name(),
        spent.cpu
    );
    Ok(outcome)
}

async fn once(database: &Database, span: Duration) -> Result<(Counts, f64)> {
    let receiver = Receiver::start(&Setup::default()).await?;
    let worker = Worker::start(database, &receiver, &Settings::new())?;
    tokio::time::sleep(SETTLE).await;
    let (began, before) = (BootInstant::now(), counts(database, &worker).await?);
    tokio::time::sleep(span).await;
    let (seconds, after) = (
        began.elapsed().as_secs_f64(),
        counts(database, &worker).await?,
    );
    worker.stop().await?;
    receiver.verdict(0).await?;
    let spent = Counts {
        cpu: after.cpu - before.cpu,
        commits: after.commits - before.commits,
        wakes: after.wakes - before.wakes,
        reads: after.reads - before.reads,
    };
    Ok((spent, seconds))
}

async fn counts(database: &Database, worker: &Worker) -> Result<Counts> {
    let commits = match database.server() {
        None => 0,
        Some(server) => {
            let mut sql = server.admin().await?;
            let commits = costs::commits(&mut sql, &database.name).await?;
            sql.close().await?;
            commits
        }
    };
    Ok(Counts {
        cpu: proc::cpu_seconds(worker.pid()),
        commits,
        wakes: proc::wakes(worker.pid(), SQLITE_THREADS),
        reads: proc::reads(worker.pid()),
    })
}
