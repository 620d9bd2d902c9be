//! The file that `judge.rules` names.

use std::io::Read as _;
use std::path::Path;

use super::file;
use crate::judge::{RULES_LIMIT, RuleSet};

/// Reads the rule set in a file.
///
/// # Errors
/// Names the file, the line, what is wrong there and what is allowed.
pub fn rules_of(path: &Path) -> Result<RuleSet, String> {
    let shown = file::shown(path);
    let failed = |error: std::io::Error| format!("{shown}: {error}");
    let file = file::open(path)?;
    if file.metadata().map_err(failed)?.len() > RULES_LIMIT as u64 {
        return Err(format!("{shown} is longer than {RULES_LIMIT} bytes"));
    }
    let mut text = String::new();
    file.take(RULES_LIMIT as u64)
        .read_to_string(&mut text)
        .map_err(failed)?;
    RuleSet::parse(&text).map_err(|error| format!("{shown}: {error}"))
}
