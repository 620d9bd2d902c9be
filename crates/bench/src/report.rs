//! What people and machines read at the end: one table, a JSON file, a chart.

pub mod chart;
pub mod table;

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::outcome::Outcome;

/// Where and how it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// Of this program.
    pub version: &'static str,
    /// True if the sizes were not those of the goals.
    pub quick: bool,
    /// Cores of this machine.
    pub cores: usize,
    /// The server's version times 10,000; none without a server.
    pub postgres: Option<i64>,
    /// Scenarios without figures, and why.
    pub void: Vec<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    setting: &'a Setting,
    outcomes: &'a [Outcome],
}

/// Writes the JSON.
pub fn write_json(path: &Path, setting: &Setting, outcomes: &[Outcome]) -> Result<()> {
    let report = Report { setting, outcomes };
    let mut text = serde_json::to_string_pretty(&report)?;
    text.push('\n');
    write(path, &text)
}

/// Writes the chart.
pub fn write_svg(path: &Path, setting: &Setting, outcomes: &[Outcome]) -> Result<()> {
    write(path, &chart::svg(setting, outcomes))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    std::fs::write(path, text).with_context(failed)
}
