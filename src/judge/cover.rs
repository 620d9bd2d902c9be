//! Whether every rule can be reached, every answer is taken, and no rule promises too much.
//!
//! What every attempt shows is one of finitely many cases: they are simply all asked. Of codes,
//! fields and texts only whole rules are compared.

use std::collections::BTreeSet;

use super::answer::Phase;
use super::rule::{Rule, Seen, Transport};
use super::said::Class;
use super::value::Statuses;
use crate::job::Outcome;

/// Fails with a line and what is wrong there.
pub(super) fn check(rules: &[Rule]) -> Result<(), (usize, String)> {
    let cases = cases(rules);
    let mut taken = vec![false; cases.len()];
    let mut admitted: Vec<Vec<bool>> = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let wrong = |why: String| Err((rule.line, format!("rule {:?}: {why}", rule.name)));
        let own: Vec<bool> = cases
            .iter()
            .map(|case| rule.when.admits(*case).is_ok())
            .collect();
        let within = |others: &[bool]| own.iter().zip(others).all(|(own, other)| !own || *other);
        if !own.contains(&true) {
            return wrong("can never be reached: its conditions exclude each other".to_owned());
        }
        let earlier = rules[..index].iter().zip(&admitted);
        let mut wider =
            earlier.filter(|(r, cases)| within(cases) && r.when.is_as_wide_as(&rule.when));
        if let Some((earlier, _)) = wider.next() {
            let (name, line) = (&earlier.name, earlier.line);
            return wrong(format!(
                "can never be reached: {name:?} (line {line}) takes all of it"
            ));
        }
        if within(&taken) {
            return wrong("can never be reached: rules before it take all of it".to_owned());
        }
        let asked = cases.iter().zip(&own).filter(|(_, own)| **own);
        if let Some(why) = asked
            .into_iter()
            .find_map(|(case, _)| too_much(*case, rule.verdict.outcome))
        {
            return wrong(why);
        }
        if rule.when.is_plain() {
            taken
                .iter_mut()
                .zip(&own)
                .for_each(|(taken, own)| *taken |= own);
        }
        admitted.push(own);
    }
    match cases.iter().zip(&taken).find(|(_, taken)| !**taken) {
        None => Ok(()),
        Some((case, _)) => Err((
            rules.last().map_or(1, |rule| rule.line),
            format!(
                "no rule takes {case}: end with a rule that has no conditions and is ambiguous"
            ),
        )),
    }
}

/// No rule set may say of what may have arrived that it has not, nor the other way round.
fn too_much(case: Seen, outcome: Outcome) -> Option<String> {
    use Outcome::{Ambiguous, NotSent};
    let allowed: &[Outcome] = match case {
        Seen::Transport {
            transport: Transport::Lost,
            ..
        } => &[Ambiguous],
        Seen::Transport { .. } => &[NotSent, Ambiguous],
        Seen::Status { .. } if outcome == NotSent => &[],
        Seen::Status { .. } => return None,
    };
    if allowed.contains(&outcome) {
        return None;
    }
    let allowed: Vec<_> = allowed.iter().map(|outcome| outcome.as_str()).collect();
    let allowed = match allowed.as_slice() {
        [] => "any other".to_owned(),
        some => some.join(" or "),
    };
    Some(format!("outcome = \"{outcome}\" for {case}: use {allowed}"))
}

/// One of each kind that rules can tell apart.
fn cases(rules: &[Rule]) -> Vec<Seen> {
    let phases = Phase::ALL.iter().copied().map(Some).chain([None]);
    let mut cases: Vec<Seen> = phases
        .flat_map(|phase| {
            let case = move |transport: &Transport| Seen::Transport {
                transport: *transport,
                phase,
            };
            Transport::ALL.iter().map(case)
        })
        .collect();
    let named = rules
        .iter()
        .filter_map(|rule| rule.when.status.as_ref())
        .flatten();
    // A kind begins with each first status and after each last one.
    let kinds: BTreeSet<u16> = named
        .flat_map(|Statuses(first, last)| [*first, last + 1])
        .chain([100, 200, 300])
        .filter(|status| *status <= 999)
        .collect();
    for status in kinds {
        for body in Class::ALL.iter().copied() {
            for (cut, retry_after) in [(false, false), (false, true), (true, false), (true, true)] {
                cases.push(Seen::Status {
                    status,
                    body,
                    cut,
                    retry_after,
                });
            }
        }
    }
    cases
}
