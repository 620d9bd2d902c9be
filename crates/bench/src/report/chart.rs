//! The chart: a bar for each goal, as long as its figure is beside the goal, whose mark stands at 1.
//!
//! Readable in light and dark: the picture brings both sets of colours with it.

use std::fmt::Write as _;

use super::Setting;
use crate::outcome::{Goal, Outcome, number};

const LINE: usize = 22;
const TOP: usize = 64;
/// Where the bars begin, and how far it is to the mark of the goal.
const LEFT: f64 = 430.0;
const GOAL: f64 = 240.0;
/// A bar that is longer is cut.
const LONGEST: f64 = 1.75;
const WIDTH: usize = 1100;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}\
.small{font-size:11px;fill:#57606a}.mark{stroke:#57606a;stroke-dasharray:3 3}\
.ground{fill:#ffffff}.met{fill:#1a7f37}.missed{fill:#bc4c00}\
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.mark{stroke:#9198a1}\
.ground{fill:#0d1117}.met{fill:#3fb950}.missed{fill:#db6d28}}";

/// The chart of all goals.
pub fn svg(setting: &Setting, outcomes: &[Outcome]) -> String {
    let goals: Vec<(&Outcome, &Goal)> = outcomes
        .iter()
        .flat_map(|outcome| outcome.goals.iter().map(move |goal| (outcome, goal)))
        .collect();
    let height = TOP + goals.len() * LINE + 30;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Figures of the benchmark beside their goals\">\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    let quick = if setting.quick { ", quick sizes" } else { "" };
    text(
        &mut out,
        ("start", 16.0, 26),
        "name",
        &format!(
            "Postlane {}: figures beside their goals ({} cores{quick})",
            setting.version, setting.cores
        ),
    );
    let mark = LEFT + GOAL;
    text(
        &mut out,
        ("middle", mark, 50),
        "small",
        "goal = 1; for times, memory and rest less is better",
    );
    for (at, (outcome, goal)) in goals.iter().enumerate() {
        bar(&mut out, TOP + at * LINE, outcome, goal);
    }
    let end = TOP + goals.len() * LINE;
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "<line class=\"mark\" x1=\"{mark}\" x2=\"{mark}\" y1=\"{TOP}\" y2=\"{end}\"/>\n</svg>"
    );
    out
}

fn bar(out: &mut String, y: usize, outcome: &Outcome, goal: &Goal) {
    let id = outcome.scenario.to_uppercase();
    let name = format!("{id} {}: {}", outcome.engine.name(), goal.what);
    text(out, ("end", LEFT - 8.0, y + 15), "name", &name);
    let part = match goal.bound > 0.0 {
        true => (goal.value / goal.bound).clamp(0.0, LONGEST),
        // A bound of nothing: either nothing, or too much.
        false if goal.value > 0.0 => LONGEST,
        false => 0.0,
    };
    let class = if goal.met { "met" } else { "missed" };
    let width = (part * GOAL).max(1.0);
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" rx=\"2\"/>",
        y + 3,
        LINE - 7
    );
    let word = if goal.at_least { "of" } else { "of at most" };
    let (value, bound) = (number(goal.value), number(goal.bound));
    let says = format!("{value} {word} {bound}{} · {class}", goal.unit);
    let at = LEFT + width.max(GOAL) + 8.0;
    text(out, ("start", at, y + 15), "small", &says);
}

/// Where a text stands: its anchor, and where that is.
type Place = (&'static str, f64, usize);

fn text(out: &mut String, (anchor, x, y): Place, class: &str, what: &str) {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" class=\"{class}\">{what}</text>"
    );
}
