//! The file that `judge.rules` names.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use crate::judge::{RULES_LIMIT, RuleSet};

/// Reads the rule set in a file.
///
/// # Errors
/// Names the file, the line, what is wrong there and what is allowed.
pub fn rules_of(path: &Path) -> Result<RuleSet, String> {
    let shown = path.display();
    let failed = |error: std::io::Error| format!("{shown}: {error}");
    // Asked before it is opened: opening a pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    if metadata.len() > RULES_LIMIT as u64 {
        return Err(format!("{shown} is longer than {RULES_LIMIT} bytes"));
    }
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(RULES_LIMIT as u64)
        .read_to_string(&mut text)
        .map_err(failed)?;
    RuleSet::parse(&text).map_err(|error| format!("{shown}: {error}"))
}
