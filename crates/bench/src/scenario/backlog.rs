//! Backlogs: the bare loop, S1 where it is the measure, and the scenario, in turn; pair by pair.

use anyhow::Result;

use super::Context;
use super::plans::{Plan, Want};
use crate::bare;
use crate::drain::{Drained, drain};
use crate::fill::Backlog;
use crate::measure::costs::Costs;
use crate::measure::spread::Spread;
use crate::outcome::{Goal, Outcome};
use crate::sql::Engine;

/// The most memory that a worker may take, in MiB.
const MEMORY: f64 = 64.0;

/// What was finished so many days ago, retention takes.
const RETENTION: u32 = 7;

struct Round {
    bare: f64,
    first: Option<f64>,
    /// Deliveries a second, or attempts.
    rate: f64,
    old: i64,
    costs: Costs,
}

/// Runs a plan so many times.
pub async fn rounds(
    context: &mut Context,
    engine: Engine,
    id: &'static str,
    plan: Plan,
    runs: usize,
) -> Result<Outcome> {
    let mut rounds = Vec::new();
    for run in 1..=runs {
        let round = round(context, engine, &plan).await?;
        let first = round.first.map_or(String::new(), |first| {
            format!(", S1 {first:.0}/s ({:.3})", round.rate / first)
        });
        eprintln!(
            "  {id} {} {run}/{runs}: bare {:.0}/s{first}, {:.0}/s, {:.3} of bare",
            engine.name(),
            round.bare,
            round.rate,
            round.rate / round.bare
        );
        rounds.push(round);
    }
    let mut outcome = Outcome::new(id, engine, plan.title.clone());
    outcome.rate = Some(Spread::of(rounds.iter().map(|round| round.rate)));
    outcome.bare = Some(Spread::of(rounds.iter().map(|round| round.bare)));
    outcome.ratio = Some(Spread::of(
        rounds.iter().map(|round| round.rate / round.bare),
    ));
    let firsts = Spread::of(rounds.iter().filter_map(|round| round.first));
    outcome.first = rounds[0].first.map(|_| firsts);
    outcome.of_first = outcome.first.map(|_| of_first(&rounds));
    outcome.goals.push(goal(&plan, engine, &rounds, firsts));
    let peak = rounds.iter().map(|round| round.costs.worker_peak_memory);
    if plan.memory {
        let peak = peak.max().unwrap_or(0) as f64 / (1024.0 * 1024.0);
        outcome
            .goals
            .push(Goal::at_most("memory of the worker", peak, MEMORY, " MiB"));
    }
    if let Backlog::Finished(jobs, RETENTION..) = plan.load.backlog {
        let left = rounds.iter().map(|round| round.old as f64);
        let pruned = jobs as f64 - Spread::of(left).median;
        outcome
            .notes
            .push(format!("{pruned:.0} old jobs pruned meanwhile"));
    }
    rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    outcome.costs = Some(rounds[rounds.len() / 2].costs);
    Ok(outcome)
}

async fn round(context: &mut Context, engine: Engine, plan: &Plan) -> Result<Round> {
    let (load, limit) = (&plan.load, context.limit);
    let in_flight = load.settings.in_flight;
    let bare = bare::rate(load.deliveries, in_flight, load.receiver.latency_ms);
    let bare = tokio::time::timeout(limit, bare).await??;
    let first = match plan.first(&context.sizes) {
        None => None,
        Some(first) => Some(
            drain(&mut context.house, engine, &first, limit)
                .await?
                .rate(),
        ),
    };
    let drained: Drained = drain(&mut context.house, engine, load, limit).await?;
    let rate = match plan.want {
        Want::AttemptsOfFirst(_) => drained.requests / drained.seconds,
        _ => drained.rate(),
    };
    Ok(Round {
        bare,
        first,
        rate,
        old: drained.old,
        costs: drained.costs,
    })
}

fn of_first(rounds: &[Round]) -> Spread {
    let pairs = rounds.iter().filter_map(|r| Some(r.rate / r.first?));
    Spread::of(pairs)
}

fn goal(plan: &Plan, engine: Engine, rounds: &[Round], firsts: Spread) -> Goal {
    let of = |part: fn(&Round) -> f64| Spread::of(rounds.iter().map(part)).median;
    let choose = |sqlite: f64, postgres: f64| match engine {
        Engine::Sqlite => sqlite,
        Engine::Postgres => postgres,
    };
    match plan.want {
        Want::OfBare { sqlite, postgres } => Goal::at_least(
            "of the bare loop",
            of(|round| round.rate / round.bare),
            choose(sqlite, postgres),
            "",
        ),
        Want::OfFirst(part) => {
            let goal = Goal::at_least("of S1", of_first(rounds).median, part, "");
            // Where 0.95 is wanted, what lies within S1's own spread will do.
            match part >= 0.95 {
                true => goal.or_within(firsts, rounds.len()),
                false => goal,
            }
        }
        Want::AttemptsOfFirst(part) => {
            Goal::at_least("attempts, of S1", of_first(rounds).median, part, "")
        }
        Want::OfPossible { part, possible } => {
            let reached = rounds.iter().map(|r| r.rate / r.bare.min(possible));
            let what = format!("of {possible:.0}/s or the bare loop");
            Goal::at_least(what, Spread::of(reached).median, part, "")
        }
        Want::PerSecond { sqlite, postgres } => Goal::at_least(
            "deliveries",
            of(|round| round.rate),
            choose(sqlite, postgres),
            "/s",
        ),
    }
}
