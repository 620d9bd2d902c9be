//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::scenario;
use crate::sql::Engine;

/// Measures Postlane: named scenarios on SQLite and on Postgres, beside a bare loop
///
/// Each scenario runs in turn with a bare loop, which signs and posts the same bodies with the same
/// client to the same kind of receiver, without a database; figures are ratios pair by pair, and the
/// median counts. Worker, receiver, bare loop and producers are processes of their own. The receiver
/// verifies every signature, and a run with a duplicate or out of order is void. A delivery counts
/// when its outcome is committed. It ends with 1 if a run was void, never because a goal was missed.
///
/// Postgres is the server that POSTLANE_TEST_POSTGRES_URL names, else one of its own in a temporary
/// folder, from /usr/lib/postgresql or the PATH; without either, Postgres is left out. Databases are
/// in TMPDIR, which should be on a real disk (S5 needs some 10 GB there).
#[derive(Debug, Parser)]
#[command(bin_name = "cargo run --release -p postlane-bench --", after_long_help = teach())]
pub struct Options {
    /// What to run: scenarios (s1, s2, …) and engines (sqlite, postgres); none: all
    #[arg(value_name = "SCENARIO|ENGINE", value_parser = word)]
    pub words: Vec<Word>,
    /// Small sizes, one run each: a few minutes for all
    #[arg(long)]
    pub quick: bool,
    /// How often each scenario runs, instead of 5, 3 or 1 times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub runs: Option<u16>,
    /// 10,000,000 queued jobs in S4
    #[arg(long)]
    pub huge: bool,
    /// Where the figures go as JSON
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/bench/delivery.json"
    )]
    pub json: PathBuf,
    /// Where the chart goes
    #[arg(long, value_name = "FILE", default_value = "target/bench/delivery.svg")]
    pub svg: PathBuf,
    /// Allow databases in memory (TMPDIR on a tmpfs): the figures then say nothing about a disk
    #[arg(long)]
    pub in_memory: bool,
}

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// A scenario, by its place in the list.
    Scenario(usize),
    /// An engine.
    Engine(Engine),
}

fn word(text: &str) -> Result<Word, String> {
    let engines = [Engine::Sqlite, Engine::Postgres];
    if let Some(engine) = engines.into_iter().find(|engine| engine.name() == text) {
        return Ok(Word::Engine(engine));
    }
    let named = scenario::ALL
        .iter()
        .position(|scenario| scenario.id == text);
    named.map(Word::Scenario).ok_or_else(|| {
        "no scenario and no engine; use s1 to s17, sqlite, postgres, or --help".to_owned()
    })
}

fn teach() -> String {
    let mut text = "Scenarios:\n".to_owned();
    for scenario in scenario::ALL {
        text.push_str(&format!("  {:<4} {}\n", scenario.id, scenario.about));
    }
    text.push_str(
        "\nExamples:\n  \
         cargo run --release -p postlane-bench -- --quick\n  \
         cargo run --release -p postlane-bench -- s1 s2 postgres --runs=3\n  \
         cargo run --release -p postlane-bench -- s4 --huge --json=s4.json --svg=s4.svg",
    );
    text
}

impl Options {
    /// The engines to measure.
    pub fn engines(&self) -> Vec<Engine> {
        let all = [Engine::Sqlite, Engine::Postgres];
        let named = |engine: &Engine| self.words.contains(&Word::Engine(*engine));
        let any = all.iter().any(named);
        all.into_iter().filter(|e| !any || named(e)).collect()
    }

    /// The scenarios to run, in their order.
    pub fn scenarios(&self) -> Vec<&'static scenario::Scenario> {
        let named = |at: usize| self.words.contains(&Word::Scenario(at));
        let any = (0..scenario::ALL.len()).any(named);
        let wanted = |(at, scenario)| (!any || named(at)).then_some(scenario);
        scenario::ALL
            .iter()
            .enumerate()
            .filter_map(wanted)
            .collect()
    }
}
