//! The command line: what can be asked, and the exit code that answers.
//!
//! One verb, one file. A verb reads its flags, calls the store and shows what came back; it holds
//! no SQL and no rule. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 nothing
//! matched. Nothing here may show a secret, and messages and recipients only when asked to.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Overrides};
use crate::store::{self, Pool, Use, schema};

mod bench;
mod cancel;
mod change;
mod check;
mod check_message;
mod choice;
mod classify;
mod completions;
mod demo;
mod enqueue;
mod hold;
mod limits;
mod line;
mod list;
mod log;
mod man;
mod migrate;
mod mock;
mod out;
mod pause;
mod prune;
mod release;
mod reload;
mod requests;
mod requeue;
mod resolve;
mod resume;
mod run;
mod show;
mod stats;
mod time;
mod view;

pub use out::Out;

/// A durable, ordered delivery worker for JoinChat's send API.
#[derive(Debug, Parser)]
#[command(
    name = "postlane",
    version,
    about,
    long_about = "A durable, ordered delivery worker for JoinChat's send API.\n\n\
        A producer inserts one row into send_jobs; `postlane run` sends it as one signed request, \
        in the order of its recipient's lane, and tries again until it is delivered or refused.",
    after_long_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 nothing matched.\n\n\
        Examples:\n  \
        postlane demo                      see it work, with no configuration at all\n  \
        postlane migrate && postlane run   the service\n  \
        postlane list --state dead --json | postlane requeue -"
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags that every verb takes, before or after its name.
#[derive(Debug, Args)]
struct Globals {
    /// The configuration file [else ./postlane.toml, else /etc/postlane/postlane.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// sqlite://FILE or postgres://USER@HOST/DATABASE; others can see a password given here
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// What is logged: a level, or a filter such as info,postlane::ledger=debug
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Demo),
    Run(run::Run),
    Migrate(migrate::Migrate),
    Check(check::Check),
    Classify(classify::Classify),
    CheckMessage(check_message::CheckMessage),
    Enqueue(enqueue::Enqueue),
    List(list::List),
    #[command(visible_alias = "why")]
    Show(show::Show),
    Requeue(requeue::Requeue),
    Cancel(cancel::Cancel),
    Hold(hold::Hold),
    Release(release::Release),
    Resolve(resolve::Resolve),
    Pause(pause::Pause),
    Resume(resume::Resume),
    Stats(stats::Stats),
    Prune(prune::Prune),
    Mock(mock::Mock),
    Bench(bench::Bench),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Cli {
    /// Runs the verb.
    ///
    /// # Errors
    /// Says why it is not done, and with which exit code the process ends.
    pub async fn run(self, out: &mut Out) -> Result<(), Failure> {
        let globals = &self.globals;
        match &self.verb {
            Verb::Run(verb) => return verb.run(globals, out).await,
            Verb::Completions(verb) => return verb.run(out),
            Verb::Man(verb) => return verb.run(out),
            _ => {}
        }
        let quiet = if matches!(self.verb, Verb::Demo(_)) {
            "error"
        } else {
            "warn"
        };
        let _flushed = log::start(
            crate::config::LogFormat::Human,
            globals.log.as_deref().unwrap_or(quiet),
        )
        .map_err(Failure::Usage)?;
        match &self.verb {
            Verb::Demo(verb) => verb.run(out).await,
            Verb::Migrate(verb) => verb.run(globals, out).await,
            Verb::Check(verb) => verb.run(globals, out).await,
            Verb::Classify(verb) => verb.run(globals, out),
            Verb::CheckMessage(verb) => verb.run(globals, out),
            Verb::Enqueue(verb) => verb.run(globals, out).await,
            Verb::List(verb) => verb.run(globals, out).await,
            Verb::Show(verb) => verb.run(globals, out).await,
            Verb::Requeue(verb) => verb.run(globals, out).await,
            Verb::Cancel(verb) => verb.run(globals, out).await,
            Verb::Hold(verb) => verb.run(globals, out).await,
            Verb::Release(verb) => verb.run(globals, out).await,
            Verb::Resolve(verb) => verb.run(globals, out).await,
            Verb::Pause(verb) => verb.run(globals, out).await,
            Verb::Resume(verb) => verb.run(globals, out).await,
            Verb::Stats(verb) => verb.run(globals, out).await,
            Verb::Prune(verb) => verb.run(globals, out).await,
            Verb::Mock(verb) => verb.run(out).await,
            Verb::Bench(verb) => verb.run(globals, out).await,
            Verb::Run(_) | Verb::Completions(_) | Verb::Man(_) => Ok(()),
        }
    }
}

impl Globals {
    /// The configuration that file, environment and flags make.
    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.overrides(), std::env::vars_os())?)
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            database_url: self.database_url.clone(),
            log: self.log.clone(),
        }
    }

    /// The configuration, its warnings told, and a database that this binary can work on.
    async fn open(&self, purpose: Use, out: &mut Out) -> Result<(Config, Pool), Failure> {
        let config = self.load()?;
        for warning in config.warnings() {
            out.note(format_args!("warning: {warning}"));
        }
        let pool = Pool::open(config.database_url.expose(), purpose, false).await?;
        schema::check(&pool).await?;
        Ok((config, pool))
    }
}

/// Why a verb is not done. An empty text means that all has been said.
#[derive(Debug)]
pub enum Failure {
    /// It could not be done: exit code 1.
    Failed(String),
    /// It was asked for in a wrong way, or the configuration is wrong: exit code 2.
    Usage(String),
    /// There is nothing it could be done to: exit code 3.
    Nothing(String),
}

impl Failure {
    /// The end of a verb that found so many invalid lines.
    fn of_invalid(lines: usize) -> Result<(), Self> {
        match lines {
            0 => Ok(()),
            1 => Err(Self::Failed("1 line is invalid".to_owned())),
            n => Err(Self::Failed(format!("{n} lines are invalid"))),
        }
    }

    /// The exit code and the text.
    fn parts(&self) -> (u8, &str) {
        match self {
            Self::Failed(text) => (1, text),
            Self::Usage(text) => (2, text),
            Self::Nothing(text) => (3, text),
        }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Url(_) => Self::Usage(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Out {
    /// Flushes, says what went wrong and gives the exit code.
    pub fn end(mut self, done: Result<(), Failure>) -> ExitCode {
        let done = done.and(self.finish().map_err(Failure::from));
        let Err(failure) = done else {
            return ExitCode::SUCCESS;
        };
        let (code, text) = failure.parts();
        if !text.is_empty() {
            self.note(format_args!("postlane: {text}"));
        }
        ExitCode::from(code)
    }
}
