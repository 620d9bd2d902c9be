//! `demo`: the whole way of a job, from a plain INSERT to the receiver, with nothing to set up.
//!
//! A temporary SQLite file, the sandbox API on loopback, and the real worker between them, from a
//! configuration file like any other. Reads neither files nor variables of the user.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use sandbox::{Mock, MockConfig, MockStats, Rules, ScriptError};

use super::out::safe;
use super::run::Signals;
use super::time::span;
use super::{Failure, Out};
use crate::clock::BootInstant;
use crate::config::{Config, Overrides};
use crate::events::Events;
use crate::job::State;
use crate::service::Service;
use crate::store::read::{self, Job};
use crate::store::select::Selector;
use crate::store::{Pool, Use, schema};

mod cases;

use cases::{CASES, Case, MAX_ATTEMPTS, SCRIPTS};

/// See it work, with no configuration at all: ten seconds at most
///
/// Makes a temporary SQLite file, starts the sandbox API and the real worker, enqueues jobs by
/// plain SQL (one of each message type, and some that must be tried again or must fail), and
/// shows what became of them. Nothing leaves this machine and nothing is left on it.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane demo\n  \
    postlane demo --log info      with the worker's log")]
pub struct Demo {}

/// How long the jobs may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What signs the demo's requests.
const SECRET: &str = "demo-secret";

impl Demo {
    pub async fn run(&self, out: &mut Out) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        let folder = Folder::new()?;
        tokio::select! {
            () = signals.next() => Err(Failure::Failed("interrupted".to_owned())),
            done = demo(&folder.0, out) => done,
        }
    }
}

async fn demo(folder: &Path, out: &mut Out) -> Result<(), Failure> {
    let sandbox = sandbox()?;
    let config = configure(folder, &sandbox.url())?;
    let url = config.database_url.expose();
    schema::migrate(url).await?;
    out.line(format_args!(
        "A temporary SQLite file, the sandbox API at {}, a worker between them.\n\
         A producer inserts {} rows, with nothing but SQL:\n",
        sandbox.url(),
        CASES.len()
    ))?;
    let service = Service::start(&config, &Arc::new(Events::new()))
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let producer = Pool::open(url, Use::Write, false).await?;
    for case in &CASES {
        out.line(case.sql)?;
        producer.rows(case.sql, &[]).await?;
    }
    out.line("\nThe worker delivers them …\n")?;
    out.finish()?;
    let jobs = finished(&producer).await?;
    let unwritten = service.stop().await;
    producer.close().await;
    let stats = sandbox.stats();
    sandbox.shutdown().await;
    let wrong = show(&jobs, out)?;
    tell(&stats, out)?;
    let faults = stats.bad_signatures + stats.invalid + stats.duplicates + stats.order_violations;
    let clean = faults == 0;
    if wrong > 0 || !clean || unwritten > 0 {
        return Err(Failure::Failed(format!(
            "{wrong} of {} jobs did not end as meant; please report this",
            CASES.len()
        )));
    }
    out.line(
        "All ended as meant. What next:\n  \
         postlane mock                                   the sandbox, to try things against\n  \
         postlane migrate && postlane check              tables of your own, and your settings\n  \
         POSTLANE_API__URL=http://127.0.0.1:8080/api/send_message \\\n  \
         POSTLANE_PAGES__DEFAULT__SECRET=sandbox postlane run\n  \
         postlane --help                                 everything else",
    )?;
    Ok(())
}

fn sandbox() -> Result<Mock, Failure> {
    let scripts: Result<_, ScriptError> = SCRIPTS.iter().map(|script| script.parse()).collect();
    let config = MockConfig {
        default_secrets: vec![SECRET.to_owned()],
        scripts: scripts.map_err(|error| Failure::Failed(error.to_string()))?,
        rules: Rules::Enforce,
        ..MockConfig::default()
    };
    Mock::start(config).map_err(|error| Failure::Failed(format!("the sandbox: {error}")))
}

/// Goes the way of any configuration: a file, and nothing of the user's environment over it.
fn configure(folder: &Path, api: &str) -> Result<Config, Failure> {
    let database = folder.join("postlane.db");
    let text = format!(
        "database_url = {}\n\
         [api]\nurl = \"{api}\"\ntimeout = \"5s\"\nconnect_timeout = \"2s\"\ntcp_user_timeout = \"2s\"\n\
         [worker]\nlease = \"8s\"\nshutdown_timeout = \"2s\"\n\
         [retry]\nmax_attempts = {MAX_ATTEMPTS}\nfirst = \"200ms\"\nmax = \"1s\"\n\
         [pages.12345]\nsecret = \"{SECRET}\"\n\
         [admin]\nlisten = \"\"\n",
        toml::Value::String(format!("sqlite://{}", database.display()))
    );
    let file = folder.join("postlane.toml");
    fs::write(&file, text)?;
    let overrides = Overrides {
        config: Some(file),
        ..Overrides::default()
    };
    Ok(Config::load(
        &overrides,
        std::iter::empty::<(String, String)>(),
    )?)
}

/// The jobs in the order of their ids, once all have ended, or as they are at the limit.
async fn finished(pool: &Pool) -> Result<Vec<Job>, Failure> {
    let began = BootInstant::now();
    loop {
        let mut jobs = read::list(pool, &Selector::default(), None, 1_000).await?;
        let is_final = |job: &Job| job.state.parse::<State>().is_ok_and(State::is_final);
        if jobs.iter().all(is_final) || began.elapsed() > LIMIT {
            jobs.reverse();
            return Ok(jobs);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The table of what happened. Returns how many jobs did not end as meant.
fn show(jobs: &[Job], out: &mut Out) -> Result<usize, Failure> {
    let headings = [
        "ID",
        "TEMPLATE_TYPE",
        "RECIPIENT",
        "STATE",
        "ATTEMPTS",
        "TOOK",
        "WHY",
    ];
    let mut table = out.new_table(&headings);
    let mut wrong = CASES.len().abs_diff(jobs.len());
    for (job, case) in jobs.iter().zip(&CASES) {
        let as_meant = is_as_meant(job, case);
        wrong += usize::from(!as_meant);
        let took = job.finished_at.map(|at| span((at - job.created_at).max(0)));
        let mark = if as_meant { "" } else { "NOT AS MEANT: " };
        table.add_row([
            job.id.to_string().into(),
            case.template_type.into(),
            case.recipient.into(),
            out.word(&job.state),
            job.attempts.to_string().into(),
            took.unwrap_or_default().into(),
            comfy_table::Cell::new(format!(
                "{mark}{}",
                safe(job.reason.as_deref().unwrap_or_default())
            )),
        ]);
    }
    out.table(&table)?;
    Ok(wrong)
}

fn is_as_meant(job: &Job, case: &Case) -> bool {
    let (state, attempts) = case.wanted;
    let early = job
        .finished_at
        .is_some_and(|at| at < job.created_at + job.delay * 1_000);
    job.state == state.as_str() && job.attempts == attempts && !(early && attempts > 0)
}

fn tell(stats: &MockStats, out: &mut Out) -> Result<(), Failure> {
    Ok(out.line(format_args!(
        "\nThe sandbox got {} requests, {} with a good signature, {} with a bad one; \
         {} duplicates, {} order violations.\n",
        stats.requests,
        stats.received,
        stats.bad_signatures,
        stats.duplicates,
        stats.order_violations
    ))?)
}

/// A folder of our own; it goes with its value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let number = BootInstant::now().nanos();
        let name = format!("postlane-demo-{}-{number:x}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let failed = |error| Failure::Failed(format!("{}: {error}", folder.display()));
        // Fails if it exists already: what is in it is not used.
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(failed)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing can be done about what cannot be removed.
        let _ = fs::remove_dir_all(&self.0);
    }
}
