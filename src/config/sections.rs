//! What each section may say: the bounds of its values, and which contradict each other. `[api]`
//! has a file of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postlane_message::validate::{Limits, WireForm};
use secrecy::ExposeSecret as _;
use tracing::level_filters::LevelFilter;

use super::error::line;
use super::layers::{Form, Layers};
use super::read::Reader;
use super::{
    Admin, Api, Config, DatabaseUrl, Judge, Lanes, Log, LogFormat, Page, PageSecret, Retention,
    Retry, Source, Worker, database_url, keys, rules_of,
};
use crate::breaker;
use crate::job::{AfterUnknown, OnAmbiguous};
use crate::judge::RuleSet;

/// The shortest span where zero makes no sense; moments are kept in milliseconds.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// The shortest token of the admin server, in bytes.
const TOKEN_MIN: usize = 16;

/// The configuration that `layers` make, and all that is wrong with it.
pub(super) fn config(layers: Layers) -> (Config, Vec<String>) {
    let mut reader = Reader {
        layers,
        unread: Vec::new(),
        elsewhere: Vec::new(),
        written_out: Vec::new(),
        files: Vec::new(),
    };
    let api = reader.api();
    let message = reader.message(&api);
    let worker = reader.worker(&api);
    let retry = reader.retry();
    let judge = reader.judge();
    let circuit = reader.circuit();
    let config = Config {
        database_url: reader.database_url(),
        api,
        message,
        worker,
        retry,
        judge,
        circuit,
        pages: reader.pages(),
        lanes: Lanes {
            after_unknown: reader.choice(
                "lanes.after_unknown",
                &words(AfterUnknown::ALL, AfterUnknown::as_str),
            ),
            min_gap: reader.span("lanes.min_gap", Duration::ZERO),
        },
        retention: Retention {
            delivered: reader.span("retention.delivered", Duration::ZERO),
            dead: reader.span("retention.dead", Duration::ZERO),
        },
        admin: reader.admin(),
        log: reader.log(),
        file: reader.layers.file.take(),
        resolved: reader.resolved(),
        warnings: lines(std::mem::take(&mut reader.layers.warnings)),
        unread: lines(reader.unread),
        elsewhere: lines(reader.elsewhere),
        written_out: lines(reader.written_out),
        secret_files: reader.files,
    };
    (config, lines(reader.layers.problems))
}

/// A line each.
fn lines(told: Vec<String>) -> Vec<String> {
    told.into_iter().map(line).collect()
}

fn words<T: Copy>(all: &[T], word: fn(T) -> &'static str) -> Vec<(&'static str, T)> {
    all.iter().map(|value| (word(*value), *value)).collect()
}

impl Reader {
    fn database_url(&mut self) -> DatabaseUrl {
        let url = self.value("database_url", Form::Text, |url| {
            url.parse::<DatabaseUrl>().map_err(|e| e.to_string())
        });
        let set = self.layers.settings.get("database_url");
        let in_file = set.filter(|set| {
            matches!(set.source, Source::File(..)) && database_url::holds_password(&set.text)
        });
        if let (Some(set), Some(mode)) = (in_file, self.layers.mode)
            && mode & 0o004 != 0
        {
            let why = format!(
                "database_url ({}) holds a password that others may read (mode {mode:04o}): chmod \
                 640 the file, or set POSTLANE_DATABASE_URL",
                set.source
            );
            self.layers.problems.push(why);
        }
        let flag = self
            .layers
            .settings
            .get("database_url")
            .filter(|set| matches!(set.source, Source::Flag(_)));
        if flag.is_some_and(|set| database_url::holds_password(&set.text)) {
            let warning = "--database-url holds a password that other users can see: set POSTLANE_DATABASE_URL instead";
            self.layers.warnings.push(warning.to_owned());
        }
        url
    }

    /// `[message]`, and the forms of `[api]` that the rules must know.
    fn message(&mut self, api: &Api) -> Limits {
        // No message is longer than 64 KiB.
        let bound = 1..=65_536;
        Limits {
            text_max: self.number("message.text_max", bound.clone()),
            button_title_max: self.number("message.button_title_max", bound.clone()),
            element_title_max: self.number("message.element_title_max", bound.clone()),
            element_subtitle_max: self.number("message.element_subtitle_max", bound.clone()),
            payload_max: self.number("message.payload_max", bound.clone()),
            buttons_max: self.number("message.buttons_max", bound.clone()),
            generic_elements_max: self.number("message.generic_elements_max", bound.clone()),
            // A list has at least two.
            list_elements_max: self.number("message.list_elements_max", 2..=65_536),
            receipt_elements_max: self.number("message.receipt_elements_max", bound),
            tags: self.names("message.tags"),
            tags_retired: self.names("message.tags_retired"),
            form: WireForm {
                page_id: api.page_id,
                payload: api.payload,
            },
            ..Limits::default()
        }
    }

    fn worker(&mut self, api: &Api) -> Worker {
        let lease = self.span("worker.lease", SHORTEST);
        if lease < api.shortest_lease() {
            let span = humantime::format_duration;
            let (timeout, tcp) = (span(api.timeout), span(api.tcp_user_timeout));
            self.refuse(
                "worker.lease",
                &format!(
                    "must be at least {}: api.timeout ({timeout}), api.tcp_user_timeout ({tcp}) \
                     and a tenth of api.timeout, not under 100ms",
                    span(api.shortest_lease())
                ),
            );
        }
        let name = self.value("worker.name", Form::Text, |name| match name {
            "" => Ok(None),
            name if name.len() > 128 || name.chars().any(char::is_control) => {
                Err("use at most 128 bytes and no control characters".to_owned())
            }
            name => Ok(Some(name.to_owned())),
        });
        Worker {
            name,
            concurrency: self.number("worker.concurrency", 1..=100_000),
            shutdown_timeout: self.span("worker.shutdown_timeout", Duration::ZERO),
            notify: self.truth("worker.notify"),
            lease,
        }
    }

    fn circuit(&mut self) -> breaker::Settings {
        let (probe, max_probe) = (
            self.span("circuit.probe", SHORTEST),
            self.span("circuit.max_probe", SHORTEST),
        );
        if probe > max_probe {
            self.refuse(
                "circuit.probe",
                &format!(
                    "must not be over circuit.max_probe ({})",
                    humantime::format_duration(max_probe)
                ),
            );
        }
        breaker::Settings {
            attempts: self.number("circuit.attempts", 1..=1_000_000),
            recipients: self.number("circuit.recipients", 1..=1_000),
            window: self.span("circuit.window", SHORTEST),
            failing: f64::from(self.number::<u8>("circuit.failing_percent", 1..=100)) / 100.0,
            probe,
            max_probe,
        }
    }

    fn retry(&mut self) -> Retry {
        let (first, max) = (
            self.span("retry.first", SHORTEST),
            self.span("retry.max", SHORTEST),
        );
        if first > max {
            self.refuse(
                "retry.first",
                &format!(
                    "must not be over retry.max ({})",
                    humantime::format_duration(max)
                ),
            );
        }
        Retry {
            max_attempts: self.number("retry.max_attempts", 1..=1_000_000),
            first,
            max,
            max_retry_after: self.span("retry.max_retry_after", SHORTEST),
            on_ambiguous: self.choice(
                "retry.on_ambiguous",
                &words(OnAmbiguous::ALL, OnAmbiguous::as_str),
            ),
            max_ambiguous: self.number("retry.max_ambiguous", 1..=1_000_000),
        }
    }

    fn judge(&mut self) -> Judge {
        let set = self.layers.settings.get("judge.rules");
        let folder = set.map(|set| Layers::folder(&set.source));
        let folder = folder.unwrap_or_default();
        let rules = self.value("judge.rules", Form::Text, |file| match file {
            "" => Ok(RuleSet::built_in()),
            file => rules_of(&folder.join(file)).map(Arc::new),
        });
        Judge { rules }
    }

    fn pages(&mut self) -> BTreeMap<String, Page> {
        let in_page = |page: &str, keys: [&str; 3]| keys.map(|key| format!("pages.{page}.{key}"));
        let names = self.layers.pages.clone();
        let settings = &self.layers.settings;
        let first = |page: &str, keys| {
            let mut keys = in_page(page, keys).into_iter();
            keys.find(|key| settings.contains_key(key))
        };
        let has_secret = |page: &str| first(page, keys::SECRET_KEYS).is_some();
        let alone: Vec<String> = names
            .iter()
            .filter(|page| !has_secret(page))
            .filter_map(|page| first(page, keys::PREVIOUS_KEYS))
            .collect();
        let bare: Vec<String> = match has_secret(keys::DEFAULT_PAGE) {
            true => Vec::new(),
            false => names
                .iter()
                .filter(|page| *page != keys::DEFAULT_PAGE && !has_secret(page))
                .cloned()
                .collect(),
        };
        for key in alone {
            let why = "comes before a secret of the same page: \
                       set one of secret_env, secret_file, secret beside it";
            self.refuse(&key, why);
        }
        for page in bare {
            self.layers.problems.push(format!(
                "pages.{page} names no secret, nor does pages.default: \
                 set one of secret_env, secret_file, secret in either"
            ));
        }
        names
            .into_iter()
            .map(|page| {
                let page_with = Page {
                    secret: self.secret(&in_page(&page, keys::SECRET_KEYS)),
                    previous: self.secret(&in_page(&page, keys::PREVIOUS_KEYS)),
                    rate: self.rate(&format!("pages.{page}.rate")),
                };
                (page, page_with)
            })
            .collect()
    }

    fn admin(&mut self) -> Admin {
        let listen = self.value("admin.listen", Form::Text, |address| match address {
            "" => Ok(None),
            address => address.parse::<SocketAddr>().map(Some).map_err(|_| {
                "use an IP address and a port such as \"127.0.0.1:9464\", or \"\" for no server"
                    .to_owned()
            }),
        });
        // Set to nothing is not set: nothing is what `resolved` shows for them.
        for key in ["admin.token_file", "admin.token_env"] {
            if self
                .layers
                .settings
                .get(key)
                .is_some_and(|set| set.text.is_empty())
            {
                self.layers.settings.remove(key);
            }
        }
        let token = match self.secret(&["admin.token_file", "admin.token_env"].map(str::to_owned)) {
            PageSecret::Inherited => {
                if listen.is_some_and(|address| !address.ip().to_canonical().is_loopback()) {
                    self.refuse(
                        "admin.listen",
                        "is not loopback: set admin.token_file or admin.token_env",
                    );
                }
                None
            }
            PageSecret::Known(token) => {
                if token.expose_secret().len() < TOKEN_MIN {
                    let named = |key: &&str| self.layers.settings.contains_key(*key);
                    let key = ["admin.token_file", "admin.token_env"]
                        .into_iter()
                        .find(named);
                    self.layers.problems.push(format!(
                        "{} names a token of fewer than {TOKEN_MIN} bytes, which can be guessed: make \
                         one with `openssl rand -hex 32`",
                        key.unwrap_or("admin.token_file")
                    ));
                }
                Some(token)
            }
            PageSecret::Unread => None,
        };
        let set = self.layers.settings.get("admin.listen");
        Admin {
            listen,
            listen_set_by: set.map(|set| set.source.clone()),
            token,
        }
    }

    fn log(&mut self) -> Log {
        Log {
            format: self.choice(
                "log.format",
                &[("human", LogFormat::Human), ("json", LogFormat::Json)],
            ),
            level: self.value("log.level", Form::Text, |level| {
                // The parser panics at some texts that are not ASCII.
                let filter = level.is_ascii()
                    && tracing_subscriber::EnvFilter::builder()
                        .parse(level)
                        .is_ok();
                // The parser takes any lone word for a module; "verbose" is not meant as one.
                let lone = |part: &&str| !part.contains(['=', '[']);
                let mut words = level.split(',').filter(lone);
                if !level.is_empty()
                    && filter
                    && words.all(|word| word.parse::<LevelFilter>().is_ok())
                {
                    return Ok(level.to_owned());
                }
                Err(
                    "use off, error, warn, info, debug, trace or MODULE=LEVEL, with commas"
                        .to_owned(),
                )
            }),
        }
    }
}
