//! File, environment and flags, laid over each other: every key with its text and its source.
//!
//! Nothing is understood here beyond which keys exist. Values stay text, with the form they had
//! in the file, so that `read.rs` can judge all layers alike.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Overrides, Source, keys};

/// The form a value had in the file; a variable or a flag has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Integer,
    Float,
    Boolean,
    List,
    Any,
}

/// One value as it was written, and where. Holds secrets, so it is not `Debug`.
pub(super) struct Setting {
    pub(super) text: String,
    pub(super) form: Form,
    pub(super) source: Source,
}

/// All that was set, and what was wrong with it.
#[derive(Default)]
pub(super) struct Layers {
    pub(super) settings: BTreeMap<String, Setting>,
    /// Every page that has a section or a variable, `default` among them.
    pub(super) pages: BTreeSet<String>,
    pub(super) environment: BTreeMap<String, OsString>,
    /// The file that was read.
    pub(super) file: Option<PathBuf>,
    /// Its mode, if it is a regular file.
    pub(super) mode: Option<u32>,
    pub(super) problems: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Layers {
    /// Reads the file that `--config` names, else the first of `candidates` that exists.
    pub(super) fn file(&mut self, flag: Option<&Path>, candidates: &[&Path]) {
        for path in flag.map_or(candidates, |_| &[]).iter().copied().chain(flag) {
            match read(path) {
                Ok((text, mode)) => {
                    if let Some(mode) = mode.filter(|mode| mode & 0o002 != 0) {
                        // Who may write it decides where messages and their signatures go.
                        self.problems.push(format!(
                            "others may write {} (mode {mode:04o}): chmod o-w it",
                            path.display()
                        ));
                    }
                    self.mode = mode;
                    return self.toml(&text, path);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && flag.is_none() => {}
                Err(error) => {
                    let named = if flag.is_some() {
                        " (named by --config)"
                    } else {
                        ""
                    };
                    return self
                        .problems
                        .push(format!("{}{named}: {error}", path.display()));
                }
            }
        }
    }

    /// Lays the text of the file at `path` over what is there.
    pub(super) fn toml(&mut self, text: &str, path: &Path) {
        self.file = Some(path.to_owned());
        match DeTable::parse(text) {
            Ok(table) => self.table(table.get_ref(), "", &|at| {
                Source::File(path.into(), line(text, at))
            }),
            Err(error) => {
                // The message alone: the rest of the error quotes the line, which may hold a secret.
                let line = error.span().map_or(1, |span| line(text, span.start));
                self.problems
                    .push(format!("{}:{line}: {}", path.display(), error.message()));
            }
        }
    }

    fn table(&mut self, table: &DeTable<'_>, section: &str, source: &dyn Fn(usize) -> Source) {
        for (name, value) in table {
            let dot = if section.is_empty() { "" } else { "." };
            let path = format!("{section}{dot}{}", name.get_ref());
            let place = source(name.span().start);
            if name.get_ref().contains('.') {
                self.problems.push(format!(
                    "{place}: unknown key {path:?}; write it without quotes"
                ));
                continue;
            }
            if let DeValue::Table(inner) = value.get_ref()
                && keys::is_section(&path)
            {
                if let Some(page) = path.strip_prefix("pages.") {
                    self.pages.insert(page.to_owned());
                }
                self.table(inner, &path, source);
            } else if section == "pages" && !keys::is_page(name.get_ref()) {
                self.problems.push(format!(
                    "{place}: {path:?} is no page: a page is a number without leading zeros, or \"default\""
                ));
            } else if keys::is_section(&path) {
                self.problems
                    .push(format!("{place}: {path} is a section: write [{path}]"));
            } else if !keys::is_key(&path) {
                let nearest = keys::nearest(&path);
                self.problems.push(format!(
                    "{place}: unknown key {path:?}; did you mean \"{nearest}\"?"
                ));
            } else if let Some((text, form)) = written(value, keys::takes_list(&path)) {
                self.settings.insert(
                    path,
                    Setting {
                        text,
                        form,
                        source: place,
                    },
                );
            } else {
                let kind = value.get_ref().type_str();
                let takes = match keys::takes_list(&path) {
                    true => "a list of strings",
                    false => "one value",
                };
                let problem = format!("{place}: {path} takes {takes}, not a TOML {kind}");
                self.problems.push(problem);
            }
        }
    }

    /// Lays the environment over what is there, and keeps it for the secrets.
    pub(super) fn environment(&mut self, variables: impl Iterator<Item = (OsString, OsString)>) {
        self.environment = variables
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        let secret = self.named_by_secrets();
        let ours: Vec<_> = self
            .environment
            .iter()
            .filter(|(name, _)| keys::is_ours(name) && !secret.contains(*name))
            .map(|(name, value)| (name.clone(), value.clone().into_string()))
            .collect();
        for (name, value) in ours {
            match (keys::of_variable(&name), value) {
                (None, _) => {
                    let guess = name.trim_start_matches("POSTLANE_").to_ascii_lowercase();
                    let meant = [guess.replace("__", "."), guess.replacen('_', ".", 1)]
                        .into_iter()
                        .find(|path| keys::is_key(path))
                        .unwrap_or_else(|| keys::nearest(&guess.replace("__", ".")));
                    let meant = keys::variable(&meant);
                    self.warnings.push(format!(
                        "{} is no key and is ignored; did you mean {meant}?",
                        name.escape_debug()
                    ));
                }
                (Some(_), Err(_)) => self
                    .problems
                    .push(format!("{name}: the value is not UTF-8")),
                (Some(path), Ok(text)) => {
                    if let Some((page, _)) = keys::page_key(&path) {
                        self.pages.insert(page.to_owned());
                    }
                    self.settings.insert(
                        path,
                        Setting {
                            text,
                            form: Form::Any,
                            source: Source::Env(name),
                        },
                    );
                }
            }
        }
    }

    /// The variables that `secret_env`, `previous_secret_env` or `token_env` names, in the file or in the environment.
    fn named_by_secrets(&self) -> BTreeSet<String> {
        let names = |path: &str| path.ends_with("secret_env") || path.ends_with(".token_env");
        let in_file = self
            .settings
            .iter()
            .filter(|(path, _)| names(path))
            .map(|(_, s)| s.text.clone());
        let in_environment = self.environment.iter().filter_map(|(name, value)| {
            keys::of_variable(name).filter(|path| names(path))?;
            value.clone().into_string().ok()
        });
        in_file.chain(in_environment).collect()
    }

    /// Lays the flags over all else.
    pub(super) fn flags(&mut self, overrides: &Overrides) {
        for (path, flag, text) in [
            ("database_url", "--database-url", &overrides.database_url),
            ("log.level", "--log", &overrides.log),
        ] {
            if let Some(text) = text.clone() {
                let source = Source::Flag(flag);
                self.settings.insert(
                    path.to_owned(),
                    Setting {
                        text,
                        form: Form::Any,
                        source,
                    },
                );
            }
        }
    }

    /// Adds what `version` presets below what is set.
    pub(super) fn preset(&mut self, version: &str, values: &[(&str, &str)]) {
        for (path, text) in values {
            self.settings
                .entry((*path).to_owned())
                .or_insert_with(|| Setting {
                    text: (*text).to_owned(),
                    form: Form::Any,
                    source: Source::Preset(version.to_owned()),
                });
        }
    }

    /// The folder that a path written at `source` is relative to: that of the file, else here.
    pub(super) fn folder(source: &Source) -> PathBuf {
        match source {
            Source::File(path, _) => path.parent().map(Path::to_owned).unwrap_or_default(),
            _ => PathBuf::new(),
        }
    }
}

/// The text of a file, and its mode if it is a regular one.
fn read(path: &Path) -> std::io::Result<(String, Option<u32>)> {
    let mut file = File::open(path)?;
    let about = file.metadata()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mode = about.permissions().mode() & 0o7777;
    Ok((text, about.is_file().then_some(mode)))
}

/// A value as text, and its form. A list is its strings with commas between them, as a variable
/// has it.
fn written(value: &Spanned<DeValue<'_>>, list: bool) -> Option<(String, Form)> {
    Some(match value.get_ref() {
        DeValue::String(text) => (text.clone().into_owned(), Form::Text),
        DeValue::Integer(number) => {
            let text = i128::from_str_radix(number.as_str(), number.radix());
            (
                text.map_or_else(|_| number.to_string(), |n| n.to_string()),
                Form::Integer,
            )
        }
        DeValue::Float(number) => (number.as_str().to_owned(), Form::Float),
        DeValue::Boolean(truth) => (truth.to_string(), Form::Boolean),
        DeValue::Array(items) if list => {
            let strings = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.as_ref()),
                _ => None,
            });
            let strings: Vec<&str> = strings.collect::<Option<_>>()?;
            (strings.join(", "), Form::List)
        }
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => return None,
    })
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
