//! `check`: the configuration as it ended up, and whether the database is fit.

use clap::Args;
use serde_json::json;

use super::out::safe;
use super::{Failure, Globals, Out};
use crate::config::Config;
use crate::store::{Pool, Use, schema};

/// Show every resolved setting and where it came from, and try the database
///
/// Refuses what contradicts itself and secrets that are named but cannot be read (exit code 2).
/// A database that is away or has no tables yet is a warning, not an error of the configuration.
/// Secrets are never shown.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane check\n  \
    postlane check --config /etc/postlane/postlane.toml --offline\n  \
    postlane check --json | jq 'select(.key == \"api.url\")'")]
pub struct Check {
    /// Do not try the database
    #[arg(long)]
    offline: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Check {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let config = globals.load()?;
        if self.json {
            for resolved in config.resolved() {
                out.json(resolved)?;
            }
        } else {
            let mut table = out.new_table(&["KEY", "VALUE", "SOURCE"]);
            for resolved in config.resolved() {
                table.add_row([
                    safe(&resolved.key),
                    safe(&resolved.value),
                    safe(&resolved.source.to_string()),
                ]);
            }
            out.table(&table)?;
        }
        for warning in config.warnings() {
            self.warn(warning, out)?;
        }
        for warning in config.written_out() {
            self.warn(warning, out)?;
        }
        for secret in config.elsewhere() {
            self.warn(&format!("{secret}; it cannot be checked here"), out)?;
        }
        config.require_readable_secrets()?;
        if !self.offline {
            self.database(&config, out).await?;
        }
        Ok(())
    }

    async fn database(&self, config: &Config, out: &mut Out) -> Result<(), Failure> {
        let opened = Pool::open(config.database_url.expose(), Use::Read, false).await;
        let fit = match opened {
            Ok(pool) => match schema::check(&pool).await {
                Ok(()) => schema::check_fit(&pool).await,
                error => error,
            },
            Err(error) => Err(error),
        };
        match fit {
            Ok(()) if self.json => {
                out.json(&json!({"database": "ok", "schema": schema::VERSION}))?
            }
            Ok(()) => out.line(format_args!(
                "\ndatabase: answers, schema version {}",
                schema::VERSION
            ))?,
            Err(error) => self.warn(&error.to_string(), out)?,
        }
        Ok(())
    }

    fn warn(&self, warning: &str, out: &mut Out) -> Result<(), Failure> {
        if self.json {
            out.json(&json!({ "warning": warning }))?;
        } else {
            out.note(format_args!("warning: {}", safe(warning)));
        }
        Ok(())
    }
}
