//! The scenarios, S1 to S15: which there are, how often each runs, and who runs it.

mod backlog;
mod plans;
mod wake;

use std::time::Duration;

use anyhow::Result;

use crate::database::House;
use crate::outcome::Outcome;
use crate::sql::Engine;

pub use plans::Sizes;

/// What every scenario needs to know.
pub struct Context {
    /// Where databases come from.
    pub house: House,
    /// How big everything is.
    pub sizes: Sizes,
    /// How often, if not as usual.
    pub runs: Option<usize>,
    /// The longest that one measured run may take.
    pub limit: Duration,
}

/// How a scenario is run.
#[derive(Clone, Copy)]
enum Kind {
    /// A backlog is delivered, beside the bare loop and perhaps S1.
    Backlog(fn(&Sizes) -> plans::Plan),
    /// An INSERT wakes an idle worker.
    Wake,
}

/// One scenario.
pub struct Scenario {
    /// `s1` and so on.
    pub id: &'static str,
    /// In a few words.
    pub about: &'static str,
    /// How often; the median counts.
    runs: usize,
    /// False if it says nothing about SQLite.
    on_sqlite: bool,
    kind: Kind,
}

const fn scenario(id: &'static str, runs: usize, kind: Kind, about: &'static str) -> Scenario {
    Scenario {
        id,
        about,
        runs,
        on_sqlite: true,
        kind,
    }
}

/// All of them.
pub const ALL: &[Scenario] = &[
    scenario(
        "s1",
        5,
        Kind::Backlog(plans::s1),
        "one job for each recipient",
    ),
    scenario("s2", 5, Kind::Backlog(plans::s2), "100 recipients"),
    scenario(
        "s3",
        3,
        Kind::Backlog(plans::s3),
        "beside a deep lane whose head fails",
    ),
    scenario(
        "s4",
        3,
        Kind::Backlog(plans::s4),
        "the first of a big queue",
    ),
    scenario("s5", 3, Kind::Backlog(plans::s5), "beside a long history"),
    scenario(
        "s7",
        3,
        Kind::Backlog(plans::s7),
        "a receiver that takes 200 ms",
    ),
    scenario(
        "s8",
        5,
        Kind::Wake,
        "idle, from an INSERT to the first byte",
    ),
    scenario(
        "s13",
        3,
        Kind::Backlog(plans::s13),
        "one request in five answered 500",
    ),
    scenario(
        "s14",
        1,
        Kind::Backlog(plans::s14),
        "while retention prunes",
    ),
    scenario("s15", 5, Kind::Backlog(plans::s15), "one single lane"),
];

impl Scenario {
    /// True if it says something about this engine.
    pub fn is_for(&self, engine: Engine) -> bool {
        self.on_sqlite || engine == Engine::Postgres
    }

    /// Runs it as often as it should.
    pub async fn run(&self, context: &mut Context, engine: Engine) -> Result<Vec<Outcome>> {
        let runs = context.runs.unwrap_or(self.runs);
        match self.kind {
            Kind::Backlog(plan) => {
                let plan = plan(&context.sizes);
                let outcome = backlog::rounds(context, engine, self.id, plan, runs).await?;
                Ok(vec![outcome])
            }
            Kind::Wake => Ok(vec![wake::idle(context, engine, runs).await?]),
        }
    }
}
