//! The scenarios, S1 to S17: which there are, how often each runs, and who runs it.

mod backlog;
mod held;
mod pages;
mod plans;
mod produce;
mod rest;
mod several;
mod sick;
mod steady;
mod wake;

use std::time::Duration;

use anyhow::Result;

use crate::bare;
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

impl Context {
    /// Requests a second of the bare loop, for as many jobs as S1 has: what the machine can do now.
    async fn bare(&self) -> Result<f64> {
        let bare = bare::rate(self.sizes.jobs, 256, 0);
        tokio::time::timeout(self.limit, bare).await?
    }
}

/// How a scenario is run.
#[derive(Clone, Copy)]
enum Kind {
    /// A backlog is delivered, beside the bare loop and perhaps S1.
    Backlog(fn(&Sizes) -> plans::Plan),
    /// A page fails beside a healthy one.
    Sick,
    /// An INSERT wakes an idle worker.
    Wake,
    /// Nothing happens.
    Rest,
    /// Producers insert while a worker delivers.
    Produce,
    /// Several workers, one of which is killed.
    Several,
    /// A transaction stays open.
    Held,
    /// Single jobs come at a steady pace.
    Steady,
    /// Many pages have work.
    Pages,
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
        on_sqlite: !matches!(kind, Kind::Several | Kind::Held),
        kind,
    }
}

use Kind::{Backlog, Held, Pages, Produce, Rest, Several, Sick, Steady, Wake};

/// All of them.
#[rustfmt::skip]
pub const ALL: &[Scenario] = &[
    scenario("s1", 5, Backlog(plans::s1), "one job for each recipient"),
    scenario("s2", 5, Backlog(plans::s2), "100 recipients"),
    scenario("s3", 3, Backlog(plans::s3), "beside a deep lane whose head fails"),
    scenario("s4", 3, Backlog(plans::s4), "the first of a big queue"),
    scenario("s5", 3, Backlog(plans::s5), "beside a long history"),
    scenario("s6", 3, Sick, "beside a page that is answered 503, or never"),
    scenario("s7", 3, Backlog(plans::s7), "a receiver that takes 200 ms, 2,000 requests in flight"),
    scenario("s8", 5, Wake, "idle, from an INSERT of another process to the first byte"),
    scenario("s9", 1, Rest, "idle, what that costs"),
    scenario("s10", 3, Produce, "producers beside the worker that delivers their jobs"),
    scenario("s11", 3, Several, "1, 2, 4 workers, then one of them killed (Postgres)"),
    scenario("s12", 1, Held, "beside a transaction that stays open (Postgres)"),
    scenario("s13", 3, Backlog(plans::s13), "one request in five answered 500"),
    scenario("s14", 1, Backlog(plans::s14), "while retention prunes"),
    scenario("s15", 5, Backlog(plans::s15), "one single lane"),
    scenario("s16", 3, Steady, "a steady 50, 300 and 1,000 jobs a second"),
    scenario("s17", 1, Pages, "1,000 to 100,000 pages: sending, without a secret, with a rate"),
];

impl Scenario {
    /// True if it says something about this engine.
    pub fn is_for(&self, engine: Engine) -> bool {
        self.on_sqlite || engine == Engine::Postgres
    }

    /// Runs it as often as it should.
    pub async fn run(&self, context: &mut Context, engine: Engine) -> Result<Vec<Outcome>> {
        let runs = context.runs.unwrap_or(self.runs);
        Ok(match self.kind {
            Backlog(plan) => {
                let plan = plan(&context.sizes);
                vec![backlog::rounds(context, engine, self.id, plan, runs).await?]
            }
            Sick => sick::pages(context, engine, runs).await?,
            Wake => vec![wake::idle(context, engine, runs).await?],
            Rest => vec![rest::rest(context, engine).await?],
            Produce => vec![produce::felt(context, engine, runs).await?],
            Several => vec![several::workers(context, runs).await?],
            Held => vec![held::open(context).await?],
            Steady => steady::streams(context, engine, runs).await?,
            Pages => vec![pages::many(context, engine, runs).await?],
        })
    }
}
