//! Configuration: one typed value made of the file, the environment and the flags.
//!
//! Each key may come from a TOML file, over it from a variable (`api.url` is `POSTLANE_API__URL`,
//! `pages.12345.rate` is `POSTLANE_PAGES__12345__RATE`), over that from a flag. All that is wrong
//! is said at once, with key, value, place and what is allowed. Neither this process's
//! environment nor its arguments are read here, nothing is printed, and no error, `Debug` or
//! listing shows a secret.

mod api;
mod database_url;
mod error;
mod file;
mod keys;
mod layers;
mod read;
mod rules;
mod secrets;
mod sections;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postlane_message::validate::Limits;
use secrecy::{ExposeSecret as _, SecretString};

use crate::breaker;
use crate::job::{AfterUnknown, OnAmbiguous};
use crate::judge::RuleSet;

pub use api::{Api, Delay};
pub use database_url::{DatabaseUrl, Engine};
pub use error::ConfigError;
use layers::Layers;
pub use rules::rules_of;
pub use secrets::SecretFile;
pub use source::{Resolved, Source};

/// The files that are looked for when `--config` names none, in this order.
pub const FILES: [&str; 2] = ["postlane.toml", "/etc/postlane/postlane.toml"];

/// Everything that can be configured, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the jobs are.
    pub database_url: DatabaseUrl,
    /// The receiver, and how long it may take.
    pub api: Api,
    /// What messages are judged by (`[message]`), and how the body spells what it may spell in two
    /// ways (`api.page_id`, `api.payload`).
    pub message: Limits,
    /// This process.
    pub worker: Worker,
    /// What follows a failed attempt.
    pub retry: Retry,
    /// What an answer means.
    pub judge: Judge,
    /// When the endpoint pauses by itself, and how what is paused is probed.
    pub circuit: breaker::Settings,
    /// Each page that has keys of its own, and `default` for all others.
    pub pages: BTreeMap<String, Page>,
    /// The lanes of jobs.
    pub lanes: Lanes,
    /// How long finished jobs stay.
    pub retention: Retention,
    /// The admin server.
    pub admin: Admin,
    /// What is logged, and how.
    pub log: Log,
    file: Option<PathBuf>,
    resolved: Vec<Resolved>,
    warnings: Vec<String>,
    unread: Vec<String>,
    elsewhere: Vec<String>,
    written_out: Vec<String>,
    secret_files: Vec<SecretFile>,
}

/// `[worker]`: this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// How this worker signs its attempts; `None` lets it choose.
    pub name: Option<String>,
    /// Requests in flight, 1 to 100000.
    pub concurrency: usize,
    /// How long a stopping worker waits for answers.
    pub shutdown_timeout: Duration,
    /// Postgres: producers wake a sleeping worker.
    pub notify: bool,
    /// How long a lane is taken for. At least [`Api::shortest_lease`].
    pub lease: Duration,
}

/// `[retry]`: what follows a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Failures after which a job is dead, from 1.
    pub max_attempts: u32,
    /// The first wait; it grows from failure to failure.
    pub first: Duration,
    /// The longest wait of our own choice.
    pub max: Duration,
    /// The longest wait that an answer's `Retry-After` may ask for.
    pub max_retry_after: Duration,
    /// What follows an ambiguous attempt where the job does not say.
    pub on_ambiguous: OnAmbiguous,
    /// Ambiguous attempts, while other lanes are delivered, after which a job is unknown whatever the
    /// policy; from 1.
    pub max_ambiguous: u32,
}

/// `[judge]`: what an answer means.
#[derive(Debug, Clone)]
pub struct Judge {
    /// The rules; built in, or those of the file that `rules` names.
    pub rules: Arc<RuleSet>,
}

/// `[pages.…]`: one page, or `default`.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The page's own secret.
    pub secret: PageSecret,
    /// The one before it, for the time of a rotation; only beside a secret of its own.
    pub previous: PageSecret,
    /// Requests a second over all workers, more than 0; `None` defers to `default`.
    pub rate: Option<f64>,
}

/// The secret of a page, as far as it is known.
#[derive(Debug, Clone, Default)]
pub enum PageSecret {
    /// None of its own: the one of `default` is used, if there is one.
    #[default]
    Inherited,
    /// Its own.
    Known(SecretString),
    /// It names one that could not be read. Nothing else is used instead.
    Unread,
}

/// `[lanes]`: the lanes of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lanes {
    /// What an `unknown` job does to the jobs behind it.
    pub after_unknown: AfterUnknown,
    /// The least time between the end of a request and the start of the next in a lane.
    pub min_gap: Duration,
}

/// `[retention]`: how long finished jobs stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// For `delivered` jobs.
    pub delivered: Duration,
    /// For `dead` and `cancelled` jobs.
    pub dead: Duration,
}

/// `[admin]`: the admin server.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it listens; `None` turns it off.
    pub listen: Option<SocketAddr>,
    /// Where the address was set; `None` if it is the default, which the worker can do without.
    pub listen_set_by: Option<Source>,
    /// What its callers must present. Always named where `listen` is not loopback; a server that
    /// finds none there must not start (see [`Config::require_secrets`]).
    pub token: Option<SecretString>,
}

/// `[log]`: what is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// A level or a filter such as `info,postlane::ledger=debug`.
    pub level: String,
}

/// The shape of a log line (`log.format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A line to read.
    Human,
    /// A JSON object on each line.
    Json,
}

/// What the flags say; they win over everything else. Not `Debug`: a URL may hold a password.
#[derive(Clone, Default)]
pub struct Overrides {
    /// `--config`: the file, which must then exist.
    pub config: Option<PathBuf>,
    /// `--database-url`.
    pub database_url: Option<String>,
    /// `--log`: the log filter.
    pub log: Option<String>,
}

impl Config {
    /// Lays file, `environment` (all of it: secrets may have any name) and flags over the
    /// defaults and checks the result.
    ///
    /// # Errors
    /// Names everything that is unknown, of the wrong kind, out of bounds or contradictory.
    /// Secrets that are named but cannot be read are not an error here: see [`Self::require_secrets`].
    pub fn load<K: Into<OsString>, V: Into<OsString>>(
        overrides: &Overrides,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigError> {
        Self::load_from(&FILES.map(Path::new), overrides, environment)
    }

    fn load_from<K: Into<OsString>, V: Into<OsString>>(
        files: &[&Path],
        overrides: &Overrides,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::default();
        layers.file(overrides.config.as_deref(), files);
        layers.environment(
            environment
                .into_iter()
                .map(|(name, value)| (name.into(), value.into())),
        );
        layers.flags(overrides);
        let (config, problems) = sections::config(layers);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::new(problems))
        }
    }

    /// Fails where a secret or a token is named but could not be read. `run` asks; verbs that sign
    /// nothing need not.
    ///
    /// # Errors
    /// Names each secret that is missing, and why.
    pub fn require_secrets(&self) -> Result<(), ConfigError> {
        let missing = [&self.unread[..], &self.elsewhere].concat();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(ConfigError::new(missing)),
        }
    }

    /// The same for who only looks at the configuration: what only the service can read (a credential
    /// of systemd) is not an error.
    ///
    /// # Errors
    /// Names each other secret that is missing, and why.
    pub fn require_readable_secrets(&self) -> Result<(), ConfigError> {
        match self.unread.is_empty() {
            true => Ok(()),
            false => Err(ConfigError::new(self.unread.clone())),
        }
    }

    /// Secrets that only the service can read, a line each.
    pub fn elsewhere(&self) -> &[String] {
        &self.elsewhere
    }

    /// Secrets that are written out in the configuration, a warning each, for those who sign or check.
    pub fn written_out(&self) -> &[String] {
        &self.written_out
    }

    /// The secret that signs a page's requests; `None` if there is none, and its jobs wait.
    ///
    /// A page whose own secret cannot be read has none: it is never signed with another.
    pub fn secret(&self, page_id: &str) -> Option<&SecretString> {
        let secret = |page: &str| self.pages.get(page).map(|page| &page.secret);
        match secret(page_id) {
            Some(PageSecret::Known(own)) => Some(own),
            Some(PageSecret::Unread) => None,
            Some(PageSecret::Inherited) | None => match secret(keys::DEFAULT_PAGE) {
                Some(PageSecret::Known(shared)) => Some(shared),
                _ => None,
            },
        }
    }

    /// True if a secret is named for a page, here readable or not.
    pub fn names_secret(&self, page_id: &str) -> bool {
        let secret = |page: &str| self.pages.get(page).map(|page| &page.secret);
        match secret(page_id) {
            Some(PageSecret::Known(_) | PageSecret::Unread) => true,
            Some(PageSecret::Inherited) | None => !matches!(
                secret(keys::DEFAULT_PAGE),
                None | Some(PageSecret::Inherited)
            ),
        }
    }

    /// The files that hold secrets of pages.
    pub fn secret_files(&self) -> &[SecretFile] {
        &self.secret_files
    }

    /// True if anything but the secrets of pages differs, as far as it can be told: what a file
    /// says that is named in both is not compared.
    pub fn differs_beside_secrets(&self, other: &Self) -> bool {
        fn rest(config: &Config) -> Vec<(&str, &str)> {
            let secret = |key: &str| {
                let secret = |(_, last): (&str, &str)| last.contains("secret");
                keys::page_key(key).is_some_and(secret)
            };
            let rest = config.resolved.iter().filter(|row| !secret(&row.key));
            rest.map(|row| (row.key.as_str(), row.value.as_str()))
                .collect()
        }
        // What `resolved` shows with asterisks.
        let url = |config: &Self| config.database_url.expose().to_owned();
        let token = |config: &Self| {
            let token = config.admin.token.as_ref();
            token.map(|token| token.expose_secret().to_owned())
        };
        rest(self) != rest(other)
            || url(self) != url(other)
            || self.api.url != other.api.url
            || token(self) != token(other)
    }

    /// The rate of a page in requests a second: its own, else that of `default`, else no limit.
    pub fn page_rate(&self, page_id: &str) -> Option<f64> {
        let rate = |page: &str| self.pages.get(page).and_then(|page| page.rate);
        rate(page_id).or_else(|| rate(keys::DEFAULT_PAGE))
    }

    /// The file that was read, if there was one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Every key with its value and its source, in the order of the documentation.
    pub fn resolved(&self) -> &[Resolved] {
        &self.resolved
    }

    /// What is allowed but probably not meant, a line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Default for Config {
    /// What holds with no file, no variable and no flag.
    fn default() -> Self {
        sections::config(Layers::default()).0
    }
}
