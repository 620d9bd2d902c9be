//! Section 4 of the API's specification, row by row, as the built-in rules judge it; and what a rule set
//! may not say.

mod bodies;
mod codes;
mod random;
mod sets;
mod statuses;

use std::time::Duration;

use super::*;

const JSON: Option<&str> = Some("application/json");
const HOUR: Duration = Duration::from_secs(3600);

fn answer(status: u16, content_type: Option<&str>, body: &str) -> Answer {
    Answer::Status {
        status,
        content_type: content_type.map(str::to_owned),
        retry_after: None,
        body: body.as_bytes().to_vec(),
        cut: None,
    }
}

fn cut(status: u16, body: &str) -> Answer {
    let mut answer = answer(status, JSON, body);
    if let Answer::Status { cut, .. } = &mut answer {
        *cut = Some("longer".to_owned());
    }
    answer
}

fn judged(answer: &Answer) -> Judgement<'static> {
    static RULES: std::sync::LazyLock<std::sync::Arc<RuleSet>> =
        std::sync::LazyLock::new(RuleSet::built_in);
    judge(&RULES, answer)
}

fn status(status: u16, body: &str) -> Judgement<'static> {
    judged(&answer(status, JSON, body))
}

#[track_caller]
fn is(judgement: &Judgement<'_>, rule: &str, outcome: Outcome, scope: PauseWanted) {
    let found = (judgement.rule, judgement.outcome, judgement.scope);
    assert_eq!(found, (rule, outcome, scope), "{judgement:?}");
}

/// A relayed Graph error.
fn graph(code: i64, subcode: i64, message: &str) -> String {
    format!(
        r#"{{"error":{{"message":"{message}","type":"OAuthException","code":{code},"error_subcode":{subcode},"fbtrace_id":"x"}}}}"#
    )
}
