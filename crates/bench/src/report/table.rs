//! The table, and below it what was reached and what was missed.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::measure::spread::Spread;
use crate::outcome::{Outcome, number};

const HEAD: [&str; 12] = [
    "",
    "engine",
    "rate /s",
    "bare /s",
    "of bare",
    "of S1",
    "CPU s/1000\nworker",
    "CPU s/1000\ndatabase",
    "WAL bytes\neach",
    "commits\neach",
    "peak\nMiB",
    "goals\nmet",
];

/// The table of all scenarios.
pub fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(HEAD);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for outcome in outcomes {
        table.add_row(row(outcome));
    }
    table
}

fn row(outcome: &Outcome) -> Vec<String> {
    let rate =
        |spread: Option<Spread>| spread.map_or(String::new(), |s| format!("{:.0}", s.median));
    let costs = outcome.costs;
    let figure = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.3}"));
    let whole = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.0}"));
    let met = outcome.goals.iter().filter(|goal| goal.met).count();
    vec![
        outcome.scenario.to_uppercase(),
        outcome.engine.name().to_owned(),
        rate(outcome.rate),
        rate(outcome.bare),
        figure(outcome.ratio.map(|ratio| ratio.median)),
        figure(outcome.of_first.map(|part| part.median)),
        figure(costs.map(|costs| costs.worker_cpu_s_per_1000)),
        figure(costs.and_then(|costs| costs.database_cpu_s_per_1000)),
        whole(costs.map(|costs| costs.wal_bytes_per_delivery)),
        figure(costs.map(|costs| costs.commits_per_delivery)),
        whole(costs.map(|costs| costs.worker_peak_memory as f64 / (1024.0 * 1024.0))),
        format!("{met} of {}", outcome.goals.len()),
    ]
}

/// Each goal in a line, and what else is to be known.
pub fn goals(outcomes: &[Outcome]) -> String {
    let mut lines = Vec::new();
    for outcome in outcomes {
        let id = outcome.scenario.to_uppercase();
        lines.push(format!("{id} {}: {}", outcome.engine.name(), outcome.title));
        for goal in &outcome.goals {
            lines.push(format!("    {}", goal.sentence()));
        }
        if let Some(first) = outcome.first {
            lines.push(format!("    S1 beside it: {}/s", range(first)));
        }
        for note in &outcome.notes {
            lines.push(format!("    {note}"));
        }
    }
    lines.join("\n")
}

fn range(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    format!("{} ({}–{})", number(median), number(min), number(max))
}
