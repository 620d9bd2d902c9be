//! Where log lines go: to standard error, by a thread of its own.
//!
//! Lossy on purpose: a pipe that is not read must never stall a worker.

use std::io::{self, IsTerminal as _};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Starts logging. What is still queued is written when the guard is dropped.
///
/// # Errors
/// If `filter` is not a filter.
pub fn start(format: LogFormat, filter: &str) -> Result<WorkerGuard, String> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| format!("log filter: {error}"))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .finish(io::stderr());
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal() && !no_colour);
    // Fails only where a subscriber is installed already, as in a test.
    let _ = match format {
        LogFormat::Human => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(guard)
}
