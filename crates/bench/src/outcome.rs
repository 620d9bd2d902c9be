//! What a scenario found, beside what it was to reach.

use serde::Serialize;

use crate::measure::costs::Costs;
use crate::measure::spread::Spread;
use crate::sql::Engine;

/// A figure and its bound.
#[derive(Debug, Clone, Serialize)]
pub struct Goal {
    /// What the figure is.
    pub what: String,
    /// What was measured.
    pub value: f64,
    /// What it should be.
    pub bound: f64,
    /// True if more is better.
    pub at_least: bool,
    /// What it is measured in; empty for a ratio.
    pub unit: &'static str,
    /// The lowest run of what it is compared with, as a part of its median: what lies within that
    /// spread is no difference.
    pub noise: Option<f64>,
    /// Whether it is reached.
    pub met: bool,
}

impl Goal {
    /// A figure that should not be smaller.
    pub fn at_least(what: impl Into<String>, value: f64, bound: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            bound,
            at_least: true,
            unit,
            noise: None,
            met: value >= bound,
        }
    }

    /// A figure that should not be larger.
    pub fn at_most(what: impl Into<String>, value: f64, bound: f64, unit: &'static str) -> Self {
        Self {
            at_least: false,
            met: value <= bound,
            ..Self::at_least(what, value, bound, unit)
        }
    }

    /// Also reached by what lies within the spread of what it is compared with.
    pub fn or_within(mut self, other: Spread, runs: usize) -> Self {
        if runs > 1 && other.median > 0.0 {
            let noise = other.min / other.median;
            self.noise = Some(noise);
            self.met |= self.value >= noise;
        }
        self
    }

    /// `0.41 of 0.45: missed`.
    pub fn sentence(&self) -> String {
        let word = if self.at_least { "of" } else { "of at most" };
        let met = match self.met {
            true if self.at_least && self.value < self.bound => "met, within the spread of S1",
            true => "met",
            false => "missed",
        };
        let (value, bound) = (number(self.value), number(self.bound));
        format!("{}: {value} {word} {bound}{}: {met}", self.what, self.unit)
    }
}

/// A figure with as many digits as say something.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 20.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// What one scenario found on one engine.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// `s1` and so on.
    pub scenario: &'static str,
    /// On which.
    pub engine: Engine,
    /// What it does, with its sizes.
    pub title: String,
    /// Deliveries (S13: attempts) a second.
    pub rate: Option<Spread>,
    /// Of the bare loop, in turn with it.
    pub bare: Option<Spread>,
    /// Of the one to the other, pair by pair.
    pub ratio: Option<Spread>,
    /// Deliveries a second of S1, in turn with it.
    pub first: Option<Spread>,
    /// Of the one to the other, pair by pair.
    pub of_first: Option<Spread>,
    /// What it was to reach.
    pub goals: Vec<Goal>,
    /// Of the run whose rate was the middle one.
    pub costs: Option<Costs>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

impl Outcome {
    /// One without figures.
    pub fn new(scenario: &'static str, engine: Engine, title: impl Into<String>) -> Self {
        Self {
            scenario,
            engine,
            title: title.into(),
            rate: None,
            bare: None,
            ratio: None,
            first: None,
            of_first: None,
            goals: Vec::new(),
            costs: None,
            notes: Vec::new(),
        }
    }
}
