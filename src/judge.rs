//! What came back becomes an outcome, and the rule that said so.
//!
//! The rules are data ([`RuleSet`]): the first one that fits decides. Pure: no clock, no network,
//! no job. `is_connect()` is the only proof that nothing was sent; whatever else went wrong after
//! sending began is ambiguous, and no rule set can say otherwise. What an outcome means for the
//! job is decided in [`crate::retry`].

mod answer;
mod cover;
mod prefix;
mod rule;
mod rules;
mod said;
#[cfg(test)]
mod tests;
mod value;

use std::fmt::Write as _;
use std::time::Duration;

pub use answer::{Answer, BODY_LIMIT, Evidence, Phase, retry_after};
use rule::{Facts, Rule, Seen};
pub use rules::{BUILT_IN, RULES_LIMIT, RuleSet, RulesError, VERSION};
use said::Class;

use crate::job::{Outcome, PauseWanted};

/// The verdict on one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement<'r> {
    /// How it ended.
    pub outcome: Outcome,
    /// Which rule said so.
    pub rule: &'r str,
    /// What to show as the reason, if not delivered.
    pub reason: String,
    /// False if the job is not to blame: its attempts are not used up.
    pub counts: bool,
    /// Wait at least this long.
    pub retry_after: Option<Duration>,
    /// Whatever the policy says, an operator decides.
    pub hold: bool,
    /// How many such failures end the job, if fewer than `max_attempts`.
    pub cap: Option<u32>,
    /// What else should be paused.
    pub scope: PauseWanted,
    /// Pause only once this many judgements in a row asked for it; none: as soon as it is sure.
    pub pause_after: Option<u32>,
}

impl<'r> Judgement<'r> {
    fn new(outcome: Outcome, rule: &'r str, reason: impl Into<String>) -> Self {
        Self {
            outcome,
            rule,
            reason: reason.into(),
            counts: !matches!(outcome, Outcome::Throttled | Outcome::NotSent),
            retry_after: None,
            hold: false,
            cap: None,
            scope: PauseWanted::None,
            pause_after: None,
        }
    }

    /// What the ledger knows without an answer: nothing was sent.
    pub fn not_sent(rule: &'r str, reason: impl Into<String>) -> Self {
        Self::new(Outcome::NotSent, rule, reason)
    }

    /// What the ledger knows without an answer: it may have arrived.
    pub fn lost(rule: &'r str, reason: impl Into<String>) -> Self {
        Self::new(Outcome::Ambiguous, rule, reason)
    }
}

/// A rule that was asked before the one that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed<'r> {
    /// The rule.
    pub rule: &'r str,
    /// The first of its conditions that did not hold.
    pub condition: &'static str,
}

/// Judges an answer: the first rule that fits.
pub fn judge<'r>(rules: &'r RuleSet, answer: &Answer) -> Judgement<'r> {
    judge_aloud(rules, answer, |_| {})
}

/// [`judge`], telling of each rule that was asked and did not match.
pub fn judge_aloud<'r>(
    rules: &'r RuleSet,
    answer: &Answer,
    mut passed: impl FnMut(Passed<'r>),
) -> Judgement<'r> {
    let facts = rules.facts(answer);
    for rule in rules.rules() {
        match rule.fits(&facts) {
            Ok(()) => return judgement(rule, &facts, answer),
            Err(condition) => passed(Passed {
                rule: &rule.name,
                condition,
            }),
        }
    }
    // A rule set that leaves an answer without a rule is refused when it is read.
    Judgement::lost("rules.none", "no rule takes this answer")
}

fn judgement<'r>(rule: &'r Rule, facts: &Facts<'_>, answer: &Answer) -> Judgement<'r> {
    let verdict = &rule.verdict;
    let asked = match answer {
        Answer::Status { retry_after, .. } => *retry_after,
        _ => None,
    };
    Judgement {
        outcome: verdict.outcome,
        rule: &rule.name,
        reason: match verdict.outcome {
            Outcome::Delivered => String::new(),
            _ => reason(verdict.reason.as_deref(), facts, answer),
        },
        counts: verdict.counts,
        retry_after: asked.max(verdict.wait),
        hold: verdict.hold,
        cap: verdict.cap,
        scope: verdict.pause,
        pause_after: verdict.pause_after,
    }
}

/// What happened in one line: `WHY (HTTP 400, code 100/2018001): WHAT IT SAID`.
fn reason(why: Option<&str>, facts: &Facts<'_>, answer: &Answer) -> String {
    let (status, cut) = match answer {
        Answer::NotSent { error, evidence } | Answer::Lost { error, evidence } => {
            let error = Evidence::before(*evidence, error);
            return why.map_or(error.clone(), |why| format!("{why}: {error}"));
        }
        Answer::Status { status, cut, .. } => (*status, cut),
    };
    let mut text = format!("HTTP {status}");
    // Writing into a String cannot fail.
    if let Some(code) = facts.code()
        && code != i64::from(status)
    {
        let _ = write!(text, ", code {code}");
        if let Some(subcode) = facts.subcode() {
            let _ = write!(text, "/{subcode}");
        }
    }
    if let Some(said) = &facts.said
        && matches!(
            facts.seen,
            Seen::Status {
                status: 200..=299,
                body: Class::Suspicious,
                ..
            }
        )
    {
        let _ = write!(text, ", but the body is {}", said.odd);
    }
    if let Some(cut) = cut {
        let _ = write!(text, ", cut: {cut}");
    }
    if let Some(why) = why {
        text = format!("{why} ({text})");
    }
    if let Some(words) = facts.words() {
        // The receiver's words: one line, whatever they hold.
        let line = words.chars().map(|c| if c.is_control() { ' ' } else { c });
        let _ = write!(text, ": {}", line.take(200).collect::<String>());
    }
    text
}
