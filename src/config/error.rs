//! All that is wrong with a configuration, a line each.

/// A configuration that cannot be used, with all that is wrong with it. Shows no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration cannot be used:\n  {}", .problems.join("\n  "))]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    pub(super) fn new(problems: Vec<String>) -> Self {
        Self { problems }
    }

    /// What is wrong, a line each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

/// One line, whatever the paths and names in it hold.
pub(super) fn line(told: String) -> String {
    if !told.contains(char::is_control) {
        return told;
    }
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    told.chars().map(shown).collect()
}
