//! Several figures of the same thing: their middle, and how far they lie apart.

use serde::Serialize;

/// The median and the extremes of some runs.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure; zeros of none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Self {
            median: percentile(&figures, 50.0),
            min: figures.first().copied().unwrap_or(0.0),
            max: figures.last().copied().unwrap_or(0.0),
        }
    }
}

/// The figure below or at which so many per cent of the sorted ones are; 0 of none.
pub fn percentile(sorted: &[f64], per_cent: f64) -> f64 {
    let rank = (per_cent / 100.0 * sorted.len() as f64).ceil();
    let at = (rank as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(0.0)
}
