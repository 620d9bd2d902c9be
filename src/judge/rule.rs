//! One rule: the conditions under which it speaks, and what it says.
//!
//! All conditions that a rule names must hold. Those on the few things that every attempt shows
//! ([`Seen`]) are asked first and cost next to nothing; codes, fields and texts are read from a
//! body only for a rule that wants them.

use std::cell::OnceCell;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::answer::{Answer, Phase};
use super::said::{Class, Field, Reading, Said, bounded};
use super::value::{Pattern, Statuses};
use crate::job::{Outcome, PauseWanted, words};

words! {
    /// What is certain of an attempt without a status (`when.transport`).
    Transport, "transport", {
        /// No byte left.
        NotSent = "not_sent",
        /// It may have arrived.
        Lost = "lost",
    }
}

/// `rule.when`: all that is named must hold; of a list, one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct When {
    transport: Option<Vec<Transport>>,
    phase: Option<Vec<Phase>>,
    pub(super) status: Option<Vec<Statuses>>,
    body: Option<Vec<Class>>,
    failed: Option<bool>,
    cut: Option<bool>,
    retry_after: Option<bool>,
    code: Option<Vec<i64>>,
    subcode: Option<Vec<i64>>,
    text: Option<Pattern>,
    field: Vec<Field>,
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) counts: bool,
    pub(super) hold: bool,
    pub(super) cap: Option<u32>,
    pub(super) pause: PauseWanted,
    pub(super) pause_after: Option<u32>,
    pub(super) wait: Option<Duration>,
    pub(super) reason: Option<String>,
}

/// A rule, ready to be asked.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) name: String,
    /// Where it stands in its file, from 1.
    pub(super) line: usize,
    pub(super) when: When,
    pub(super) verdict: Verdict,
}

/// What an attempt shows, as far as it is one of a few things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Transport {
        transport: Transport,
        phase: Option<Phase>,
    },
    Status {
        status: u16,
        body: Class,
        cut: bool,
        retry_after: bool,
    },
}

/// All that rules may ask of an attempt; what is expensive is read once, when it is first asked for.
pub(super) struct Facts<'a> {
    pub(super) seen: Seen,
    pub(super) said: Option<Said<'a>>,
    /// What went wrong in transport, if it did.
    error: &'a str,
    reading: &'a Reading,
    code: OnceCell<Option<i64>>,
    subcode: OnceCell<Option<i64>>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(answer: &'a Answer, reading: &'a Reading) -> Self {
        let (seen, said, error) = match answer {
            Answer::NotSent { error, evidence } => {
                let phase = evidence.map(|evidence| evidence.phase);
                let transport = Transport::NotSent;
                (Seen::Transport { transport, phase }, None, error.as_str())
            }
            Answer::Lost { error, evidence } => {
                let phase = evidence.map(|evidence| evidence.phase);
                let transport = Transport::Lost;
                (Seen::Transport { transport, phase }, None, error.as_str())
            }
            Answer::Status {
                status,
                content_type,
                retry_after,
                body,
                cut,
            } => {
                let said = reading.read(body, content_type.as_deref(), cut.is_some());
                let seen = Seen::Status {
                    status: *status,
                    body: said.class,
                    cut: cut.is_some(),
                    retry_after: retry_after.is_some(),
                };
                (seen, Some(said), "")
            }
        };
        Self {
            seen,
            said,
            error,
            reading,
            code: OnceCell::new(),
            subcode: OnceCell::new(),
        }
    }

    pub(super) fn code(&self) -> Option<i64> {
        let read = || self.reading.code(self.said.as_ref()?);
        *self.code.get_or_init(read)
    }

    pub(super) fn subcode(&self) -> Option<i64> {
        let read = || self.reading.subcode(self.said.as_ref()?);
        *self.subcode.get_or_init(read)
    }

    /// What the body says in words.
    pub(super) fn words(&self) -> Option<&str> {
        self.reading.words(self.said.as_ref()?)
    }

    fn text(&self) -> &str {
        match &self.said {
            Some(said) => self.reading.text(said),
            None => self.error,
        }
    }
}

impl Rule {
    /// Says yes, or which condition does not hold.
    pub(super) fn fits(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        let when = &self.when;
        when.admits(facts.seen)?;
        let listed = |list: &Option<Vec<i64>>, read: &dyn Fn() -> Option<i64>| {
            let is_listed = |list: &Vec<i64>| read().is_some_and(|code| list.contains(&code));
            list.as_ref().is_none_or(is_listed)
        };
        let said = facts.said.as_ref();
        let has = |field| said.is_some_and(|said| facts.reading.has(said, field));
        holds("code", listed(&when.code, &|| facts.code()))?;
        holds("subcode", listed(&when.subcode, &|| facts.subcode()))?;
        holds("field", when.field.iter().all(has))?;
        let found = |pattern: &Pattern| pattern.is_in(facts.text());
        holds("text", when.text.as_ref().is_none_or(found))
    }
}

impl When {
    /// Asks for what every attempt shows; says which condition does not hold.
    pub(super) fn admits(&self, seen: Seen) -> Result<(), &'static str> {
        match seen {
            Seen::Transport { transport, phase } => {
                holds("transport", self.asks_status().is_none())?;
                holds("transport", has(&self.transport, &transport))?;
                let is_listed = |list: &Vec<Phase>| phase.is_some_and(|p| list.contains(&p));
                holds("phase", self.phase.as_ref().is_none_or(is_listed))
            }
            Seen::Status {
                status,
                body,
                cut,
                retry_after,
            } => {
                holds("transport", self.transport.is_none())?;
                holds("phase", self.phase.is_none())?;
                let is_in = |list: &Vec<Statuses>| list.iter().any(|s| s.holds(status));
                holds("status", self.status.as_ref().is_none_or(is_in))?;
                holds("body", has(&self.body, &body))?;
                holds("failed", self.failed.is_none_or(|f| f == seen.has_failed()))?;
                holds("cut", self.cut.is_none_or(|wanted| wanted == cut))?;
                let is_wanted = |wanted| wanted == retry_after;
                holds("retry_after", self.retry_after.is_none_or(is_wanted))
            }
        }
    }

    /// True if [`Self::admits`] is all there is to ask.
    pub(super) fn is_plain(&self) -> bool {
        let codes = self.code.is_some() || self.subcode.is_some();
        !codes && self.text.is_none() && self.field.is_empty()
    }

    /// True if whatever codes, fields and text `other` asks for, this asks for no less.
    pub(super) fn is_as_wide_as<'w>(&'w self, other: &'w Self) -> bool {
        let covers = |own: &Option<Vec<i64>>, others: &Option<Vec<i64>>| match (own, others) {
            (None, _) => true,
            (Some(own), Some(others)) => others.iter().all(|code| own.contains(code)),
            (Some(_), None) => false,
        };
        let text = |when: &'w Self| when.text.as_ref().map(Pattern::as_str);
        covers(&self.code, &other.code)
            && covers(&self.subcode, &other.subcode)
            && (self.text.is_none() || text(self) == text(other))
            && self.field.iter().all(|field| other.field.contains(field))
    }

    /// A condition that only an attempt with a status can meet.
    fn asks_status(&self) -> Option<&'static str> {
        [
            ("status", self.status.is_some()),
            ("body", self.body.is_some()),
            ("failed", self.failed.is_some()),
            ("cut", self.cut.is_some()),
            ("retry_after", self.retry_after.is_some()),
            ("code", self.code.is_some()),
            ("subcode", self.subcode.is_some()),
            ("field", !self.field.is_empty()),
        ]
        .into_iter()
        .find_map(|(name, asked)| asked.then_some(name))
    }

    /// Says what cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        let length = |list: &Option<Vec<i64>>| list.as_ref().map_or(1, Vec::len);
        for (name, length) in [
            (
                "when.transport",
                self.transport.as_ref().map_or(1, Vec::len),
            ),
            ("when.phase", self.phase.as_ref().map_or(1, Vec::len)),
            ("when.status", self.status.as_ref().map_or(1, Vec::len)),
            ("when.body", self.body.as_ref().map_or(1, Vec::len)),
            ("when.code", length(&self.code)),
            ("when.subcode", length(&self.subcode)),
        ] {
            bounded(name, length)?;
            if length == 0 {
                return Err(format!("{name} = [] can never be true: leave it out"));
            }
        }
        bounded("when.field", self.field.len())?;
        self.field.iter().try_for_each(Field::check)
    }
}

impl Verdict {
    /// Says what contradicts itself.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { outcome, .. } = self;
        let never_counts = matches!(outcome, Outcome::Throttled | Outcome::NotSent);
        let again = matches!(outcome, Outcome::Retryable | Outcome::Ambiguous);
        for (wrong, why) in [
            (
                never_counts && self.counts,
                "counts = true: attempts that are throttled or not sent never count",
            ),
            (
                self.hold && *outcome != Outcome::Ambiguous,
                "hold = true is for outcome = \"ambiguous\"",
            ),
            (
                self.cap.is_some() && !(again && self.counts),
                "cap is for retryable and ambiguous attempts that count",
            ),
            (self.cap == Some(0), "cap = 0: use at least 1"),
            (
                self.pause != PauseWanted::None && *outcome == Outcome::Delivered,
                "pause is not for what was delivered",
            ),
            (
                self.pause_after.is_some() && self.pause == PauseWanted::None,
                "pause_after needs a pause: \"page\" or \"endpoint\"",
            ),
            (
                self.pause_after == Some(0),
                "pause_after = 0: use at least 1",
            ),
            (
                self.reason.as_ref().is_some_and(|text| text.len() > 200),
                "reason is longer than 200 bytes",
            ),
        ] {
            if wrong {
                return Err(why.to_owned());
            }
        }
        Ok(())
    }
}

impl Seen {
    /// A status other than 2xx, or a body that says no.
    pub(super) fn has_failed(self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Status { status, body, .. } => {
                !(200..=299).contains(&status) || body == Class::Failure
            }
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport { transport, phase } => {
                write!(f, "transport {transport}")?;
                phase.map_or(Ok(()), |phase| write!(f, " in phase {phase}"))
            }
            Self::Status {
                status, body, cut, ..
            } => {
                let cut = if *cut { ", cut" } else { "" };
                write!(f, "HTTP {status} with a {body} body{cut}")
            }
        }
    }
}

fn holds(condition: &'static str, does: bool) -> Result<(), &'static str> {
    does.then_some(()).ok_or(condition)
}

fn has<T: PartialEq>(list: &Option<Vec<T>>, value: &T) -> bool {
    list.as_ref().is_none_or(|list| list.contains(value))
}
