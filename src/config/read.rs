//! One value at a time: from layered text to a typed value, its default, or a complaint.
//!
//! A value that is refused is noted and replaced by its default, so that one reading finds all
//! that is wrong and no mistake causes a second complaint. Which values make sense, alone and
//! together, is said in `sections.rs` and `api.rs`.

use std::ops::RangeInclusive;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::layers::{Form, Layers, Setting};
use super::secrets::Unread;
use super::{PageSecret, Resolved, SecretFile, Source, database_url, keys, secrets};

/// The longest span: added to any moment it stays far from the end of 64 bits.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// The longest name in a list, in bytes: that of the column `tag`.
const NAME_MAX: usize = 100;

/// The longest list of names.
const NAMES_MAX: usize = 100;

/// What was set, while it is being understood.
pub(super) struct Reader {
    pub(super) layers: Layers,
    /// Secrets that are named but cannot be read.
    pub(super) unread: Vec<String>,
    /// Secrets that only the service can read.
    pub(super) elsewhere: Vec<String>,
    /// Secrets that are written out.
    pub(super) written_out: Vec<String>,
    /// Files that hold the secrets of pages.
    pub(super) files: Vec<SecretFile>,
}

impl Reader {
    /// A duration of at least `shortest`.
    pub(super) fn span(&mut self, key: &'static str, shortest: Duration) -> Duration {
        self.value(key, Form::Text, |text| {
            match humantime::parse_duration(text) {
                Ok(span) if (shortest..=LONGEST).contains(&span) => Ok(span),
                Ok(_) if shortest.is_zero() => Err("use at most 100 years".to_owned()),
                Ok(_) => Err("use at least 1ms and at most 100 years".to_owned()),
                Err(_) => {
                    Err("use a duration such as \"500ms\", \"30s\", \"10m\" or \"7d\"".to_owned())
                }
            }
        })
    }

    /// A whole number in `range`.
    pub(super) fn number<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> T
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        self.value(key, Form::Integer, |text| {
            let number = text.parse().ok().filter(|number| range.contains(number));
            number.ok_or_else(|| {
                format!(
                    "use a whole number from {} to {}",
                    range.start(),
                    range.end()
                )
            })
        })
    }

    /// A yes or no.
    pub(super) fn truth(&mut self, key: &'static str) -> bool {
        self.value(key, Form::Boolean, |text| {
            text.parse().map_err(|_| "use true or false".to_owned())
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)]) -> T {
        self.value(key, Form::Text, |text| {
            let found = words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| *value);
            found.ok_or_else(|| {
                let words: Vec<_> = words
                    .iter()
                    .map(|(word, _)| format!("\"{word}\""))
                    .collect();
                format!("use {}", words.join(" or "))
            })
        })
    }

    /// Names with commas between them; in the file a list of strings.
    pub(super) fn names(&mut self, key: &'static str) -> Vec<String> {
        self.value(key, Form::List, |text| {
            let names = text.split(',').map(str::trim);
            let names: Vec<_> = names.filter(|_| !text.trim().is_empty()).collect();
            let plain = |name: &&str| {
                let bytes = name.bytes();
                (1..=NAME_MAX).contains(&name.len())
                    && bytes.into_iter().all(|b| b.is_ascii_graphic())
            };
            match names.len() <= NAMES_MAX && names.iter().all(plain) {
                true => Ok(names.into_iter().map(str::to_owned).collect()),
                false => Err(format!(
                    "use at most {NAMES_MAX} names of 1 to {NAME_MAX} letters, digits and signs"
                )),
            }
        })
    }

    /// What is set at `key` if it is of the right form and `parse` takes it, else the default.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        form: Form,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        if let Some(set) = self.layers.settings.get(key) {
            let right = set.form == form || set.form == Form::Any;
            match parse(&set.text) {
                Ok(value) if right => return value,
                Err(why) if right => self.refuse(key, &why),
                _ => self.refuse(
                    key,
                    match form {
                        Form::Integer | Form::Float => "write a number without quotes",
                        Form::Boolean => "write true or false without quotes",
                        Form::List => "write a list of strings, such as [\"A\", \"B\"]",
                        Form::Text | Form::Any => "write a string in quotes",
                    },
                ),
            }
        }
        let default = keys::KEYS
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, default)| parse(default));
        default
            .and_then(Result::ok)
            .expect("every key that is read has a default that is allowed")
    }

    /// Requests a second, if there is a limit.
    pub(super) fn rate(&mut self, key: &str) -> Option<f64> {
        let set = self.layers.settings.get(key)?;
        let rate = set
            .text
            .parse::<f64>()
            .ok()
            .filter(|rate| rate.is_finite() && *rate > 0.0);
        if rate.is_none() || !matches!(set.form, Form::Integer | Form::Float | Form::Any) {
            self.refuse(
                key,
                "use a number over 0, in requests a second; no key is no limit",
            );
        }
        rate
    }

    /// The secret that one of `keys` names; more than one contradict each other.
    pub(super) fn secret(&mut self, keys: &[String]) -> PageSecret {
        let set = |key: &&String| {
            self.layers
                .settings
                .get(*key)
                .map(|set| set.source.to_string())
        };
        let named: Vec<(&String, String)> = keys
            .iter()
            .filter_map(|key| Some((key, set(&key)?)))
            .collect();
        match named.as_slice() {
            [] => return PageSecret::Inherited,
            [_] => {}
            several => {
                let several: Vec<_> = several
                    .iter()
                    .map(|(key, source)| format!("{key} ({source})"))
                    .collect();
                self.layers.problems.push(format!(
                    "{} contradict each other: keep one",
                    several.join(" and ")
                ));
                return PageSecret::Unread;
            }
        }
        let key = named[0].0;
        match self.read_secret(key) {
            Some(secret) => {
                if secret.expose_secret().trim() != secret.expose_secret() {
                    self.layers.warnings.push(format!(
                        "the secret of {key} begins or ends with white space"
                    ));
                }
                PageSecret::Known(secret)
            }
            None => PageSecret::Unread,
        }
    }

    fn read_secret(&mut self, key: &str) -> Option<SecretString> {
        let set = self.layers.settings.get(key)?;
        let (is_variable, is_file) = (key.ends_with("_env"), key.ends_with("_file"));
        if set.form != Form::Text && set.form != Form::Any {
            self.refuse(key, "write a string in quotes");
            return None;
        }
        if set.text.trim().is_empty() {
            self.refuse(key, "must not be empty");
            return None;
        }
        if is_variable && !secrets::is_variable(&set.text) {
            self.refuse(key, "must be the name of an environment variable");
            return None;
        }
        if !is_variable && !is_file {
            let warning = format!(
                "{key} ({}) is a secret written out: for trials only",
                set.source
            );
            let secret = SecretString::from(set.text.as_str());
            self.written_out.push(warning);
            return Some(secret);
        }
        let environment = &self.layers.environment;
        let read = if is_variable {
            secrets::from_variable(&set.text, environment).map_err(Unread::Wrong)
        } else {
            secrets::path_of(&set.text, &Layers::folder(&set.source), environment).and_then(
                |path| {
                    self.files.extend(SecretFile::of(key, &path));
                    Ok(secrets::from_file(&path)?)
                },
            )
        };
        let (whose, why) = match read {
            Ok(secret) => return Some(secret),
            Err(Unread::Elsewhere(why)) => (&mut self.elsewhere, why),
            Err(Unread::Wrong(why)) => (&mut self.unread, why),
        };
        whose.push(format!("{key} ({}): {why}", set.source));
        None
    }

    /// Notes that what is set at `key` cannot be used.
    pub(super) fn refuse(&mut self, key: &str, why: &str) {
        let (value, source) = self.layers.settings.get(key).map_or_else(
            || (default(key).to_owned(), Source::Default),
            |Setting { text, source, .. }| (shown(key, text), source.clone()),
        );
        self.layers
            .problems
            .push(format!("{key} = {value:?} ({source}): {why}"));
    }

    /// Every key outside `[pages]`, and those of pages that are set.
    pub(super) fn resolved(&self) -> Vec<Resolved> {
        let row = |key: &str| {
            let set = self.layers.settings.get(key);
            Resolved {
                key: key.to_owned(),
                value: set.map_or_else(|| default(key).to_owned(), |set| shown(key, &set.text)),
                source: set.map_or(Source::Default, |set| set.source.clone()),
            }
        };
        let pages = self
            .layers
            .settings
            .keys()
            .filter(|key| keys::page_key(key).is_some());
        keys::KEYS
            .iter()
            .map(|(key, _)| *key)
            .chain(pages.map(String::as_str))
            .map(row)
            .collect()
    }
}

fn default(key: &str) -> &'static str {
    keys::KEYS
        .iter()
        .find(|(name, _)| *name == key)
        .map_or("", |(_, default)| default)
}

/// A value as it may be shown: without passwords, secrets and what may be one in a wrong place.
fn shown(key: &str, text: &str) -> String {
    match key.rsplit_once('.').map_or(key, |(_, last)| last) {
        "database_url" => database_url::redacted(text, true),
        "url" if !text.contains(['@', '?', '=', ':']) => text.to_owned(),
        "url" => database_url::redacted(text, false),
        "secret" | "previous_secret" => "***".to_owned(),
        "secret_env" | "previous_secret_env" | "token_env" if !secrets::is_variable(text) => {
            "***".to_owned()
        }
        _ => text.to_owned(),
    }
}
