//! The benchmark: named scenarios on SQLite and on Postgres, each beside a bare loop in the same run.
//!
//! `cargo run --release -p postlane-bench -- --help` says what there is. This program is also the
//! receiver, the bare loop and the producers: it starts itself again in a role, so that each is a
//! process of its own. The worker is the real binary, which lies beside this one.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people at a terminal"
)]

mod bare;
mod database;
mod drain;
mod fill;
mod measure;
mod options;
mod outcome;
mod process;
mod producer;
mod receiver;
mod report;
mod scenario;
mod server;
mod sql;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::database::House;
use crate::options::Options;
use crate::outcome::Outcome;
use crate::report::Setting;
use crate::scenario::{Context, Sizes};
use crate::server::Server;
use crate::sql::Engine;

/// The longest that one measured run may take.
const LIMIT: Duration = Duration::from_secs(600);
const QUICK_LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    match play() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One of the roles, or the harness.
fn play() -> Result<ExitCode> {
    // Fails only if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let role = std::env::args().nth(1).unwrap_or_default();
    match role.as_str() {
        "receiver" => Runtime::new()?.block_on(receiver::serve())?,
        "bare" => Runtime::new()?.block_on(bare::post())?,
        "producer" => producer::produce()?,
        "worker" => worker::become_worker()?,
        _ => return harness(&Options::parse()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Children and databases end with what is dropped here, also after a signal.
fn harness(options: &Options) -> Result<ExitCode> {
    worker::build()?;
    process::raise_open_files()?;
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        tokio::select! {
            done = measure(options) => done,
            _ = term.recv() => bail!("stopped by a signal"),
            _ = int.recv() => bail!("stopped by a signal"),
        }
    })
}

async fn measure(options: &Options) -> Result<ExitCode> {
    if let Some(kind) = database::memory_disk() {
        eprintln!("WARNING: the temporary folder is a {kind}: a commit costs nothing there");
        if !options.in_memory {
            bail!("set TMPDIR to a folder on a real disk, or say --in-memory");
        }
    }
    let mut engines = options.engines();
    let server = match engines.contains(&Engine::Postgres) {
        true => Server::find().await?,
        false => None,
    };
    if engines.contains(&Engine::Postgres) && server.is_none() {
        eprintln!(
            "SKIPPED: everything on Postgres. There is no server: install one, or set POSTLANE_TEST_POSTGRES_URL"
        );
        engines.retain(|engine| *engine != Engine::Postgres);
    }
    let mut setting = Setting {
        version: env!("CARGO_PKG_VERSION"),
        quick: options.quick,
        cores: std::thread::available_parallelism()?.get(),
        postgres: server.as_ref().map(|server| server.version),
        void: Vec::new(),
    };
    if server.as_ref().is_some_and(|s| s.postmaster.is_none()) {
        eprintln!("the Postgres server is elsewhere: its processor time is not measured");
    }
    let mut context = context(options, server);
    let mut outcomes: Vec<Outcome> = Vec::new();
    for engine in engines {
        for scenario in options.scenarios() {
            if !scenario.is_for(engine) {
                continue;
            }
            match scenario.run(&mut context, engine).await {
                Ok(more) => outcomes.extend(more),
                Err(error) => {
                    let void = format!("{} {}: {error:#}", scenario.id, engine.name());
                    eprintln!("  {void}");
                    setting.void.push(void);
                }
            }
            context.house.forget();
        }
    }
    tell(options, &setting, &outcomes)
}

fn context(options: &Options, server: Option<Server>) -> Context {
    let mut sizes = match options.quick {
        true => Sizes::QUICK,
        false => Sizes::FULL,
    };
    if options.huge {
        sizes.queued = 10_000_000;
    }
    let runs = options.runs.map(usize::from);
    Context {
        house: House::new(server),
        sizes,
        runs: runs.or(options.quick.then_some(1)),
        limit: if options.quick { QUICK_LIMIT } else { LIMIT },
    }
}

fn tell(options: &Options, setting: &Setting, outcomes: &[Outcome]) -> Result<ExitCode> {
    println!("\n{}\n", report::table::table(outcomes));
    println!("{}\n", report::table::goals(outcomes));
    report::write_json(&options.json, setting, outcomes)?;
    report::write_svg(&options.svg, setting, outcomes)?;
    let goals = || outcomes.iter().flat_map(|outcome| &outcome.goals);
    println!(
        "{} of {} goals met; {} and {} written",
        goals().filter(|goal| goal.met).count(),
        goals().count(),
        options.json.display(),
        options.svg.display()
    );
    for void in &setting.void {
        println!("VOID {void}");
    }
    Ok(match setting.void.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
