//! The rule set: read from TOML, checked, and asked in order.
//!
//! The built-in one is `rules.toml` beside this file, which explains the format. What cannot be
//! used is refused with its line and with what is allowed; nothing is read from disk here.

use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use toml::Spanned;

use super::answer::Answer;
use super::cover;
use super::rule::{Facts, Rule, Verdict, When};
use super::said::Reading;
use super::value::Wait;
use crate::job::{Outcome, PauseWanted};

/// The format of rule sets that this program reads.
pub const VERSION: i64 = 1;
/// The longest rule set, in bytes.
pub const RULES_LIMIT: usize = 256 * 1024;
/// The most rules in a set.
const COUNT: usize = 300;
/// The longest name of a rule, in bytes.
const NAME: usize = 64;

/// The rules that judge answers, in order; the first that fits decides.
#[derive(Debug, Clone)]
pub struct RuleSet {
    body: Reading,
    rules: Vec<Rule>,
}

/// A rule set that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct RulesError {
    /// Where, from 1.
    pub line: usize,
    /// What is wrong, and what is allowed.
    pub what: String,
}

#[derive(Deserialize)]
struct Versioned {
    version: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "version")]
    _version: i64,
    body: Reading,
    rule: Vec<Written>,
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Spanned<String>,
    #[serde(default)]
    when: When,
    outcome: Outcome,
    counts: Option<bool>,
    #[serde(default)]
    hold: bool,
    cap: Option<u32>,
    pause: Option<PauseWanted>,
    pause_after: Option<u32>,
    wait: Option<Wait>,
    reason: Option<String>,
}

/// The text of the built-in rule set.
pub const BUILT_IN: &str = include_str!("rules.toml");

static BUILT_IN_SET: LazyLock<Arc<RuleSet>> =
    LazyLock::new(|| Arc::new(RuleSet::parse(BUILT_IN).expect("the built-in rules are tested")));

impl RuleSet {
    /// The rules that come with this program.
    pub fn built_in() -> Arc<Self> {
        Arc::clone(&BUILT_IN_SET)
    }

    /// The longest wait that a rule asks for.
    pub fn longest_wait(&self) -> std::time::Duration {
        let waits = self.rules.iter().filter_map(|rule| rule.verdict.wait);
        waits.max().unwrap_or_default()
    }

    /// Reads a rule set.
    ///
    /// # Errors
    /// An unknown version, key or word, a name used twice, a rule that contradicts itself or that
    /// no answer reaches, answers that no rule takes, and whatever is over its bound.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let at = |offset, what| RulesError {
            line: line(text, offset),
            what,
        };
        let wrong = |error: toml::de::Error| {
            let offset = error.span().map_or(0, |span| span.start);
            at(offset, error.message().to_owned())
        };
        if text.len() > RULES_LIMIT {
            return Err(at(
                0,
                format!("the rule set is longer than {RULES_LIMIT} bytes"),
            ));
        }
        let Versioned { version } = toml::from_str(text).map_err(wrong)?;
        if *version.get_ref() != VERSION {
            let what = format!(
                "version = {}: this postlane reads version {VERSION}",
                version.get_ref()
            );
            return Err(at(version.span().start, what));
        }
        let document: Document = toml::from_str(text).map_err(wrong)?;
        document.body.check().map_err(|why| {
            let section = text.find("[body]").unwrap_or_default();
            at(section, format!("[body]: {why}"))
        })?;
        let mut rules: Vec<Rule> = Vec::new();
        for written in document.rule {
            let (offset, name) = (written.name.span().start, written.name.get_ref().clone());
            let rule = written
                .rule(line(text, offset))
                .and_then(|rule| unlike(rule, &rules))
                .map_err(|why| at(offset, format!("rule {name:?}: {why}")))?;
            rules.push(rule);
        }
        cover::check(&rules).map_err(|(line, what)| RulesError { line, what })?;
        Ok(Self {
            body: document.body,
            rules,
        })
    }

    /// The names of the rules, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name.as_str())
    }

    pub(super) fn facts<'a>(&'a self, answer: &'a Answer) -> Facts<'a> {
        Facts::of(answer, &self.body)
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl Written {
    fn rule(self, line: usize) -> Result<Rule, String> {
        let pause = self.pause.unwrap_or(PauseWanted::None);
        let blameless = matches!(self.outcome, Outcome::Throttled | Outcome::NotSent)
            || pause != PauseWanted::None && self.pause_after.is_none();
        let rule = Rule {
            name: named(self.name.into_inner())?,
            line,
            when: self.when,
            verdict: Verdict {
                outcome: self.outcome,
                counts: self.counts.unwrap_or(!blameless),
                hold: self.hold,
                cap: self.cap,
                pause,
                pause_after: self.pause_after,
                wait: self.wait.map(|wait| wait.0),
                reason: self.reason,
            },
        };
        rule.when.check()?;
        rule.verdict.check()?;
        Ok(rule)
    }
}

fn named(name: String) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if name.is_empty() || name.len() > NAME || !name.chars().all(fits) {
        return Err(format!(
            "use a name of a-z, 0-9, \".\", \"_\" and \"-\", at most {NAME} bytes"
        ));
    }
    if name.starts_with("ledger.") {
        return Err("names that begin with \"ledger.\" are the ledger's own".to_owned());
    }
    Ok(name)
}

fn unlike(rule: Rule, others: &[Rule]) -> Result<Rule, String> {
    if others.len() == COUNT {
        return Err(format!("a rule set has at most {COUNT} rules"));
    }
    match others.iter().find(|other| other.name == rule.name) {
        Some(other) => Err(format!("line {} has a rule of this name", other.line)),
        None => Ok(rule),
    }
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
