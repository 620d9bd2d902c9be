//! Any answer, by the built-in rules: one of them takes it, in one bounded line, and it never calls
//! unsent what was sent, nor delivered what has no 2xx.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use postlane::job::{AttemptNo, JobId, OnAmbiguous, Outcome, State};
use postlane::judge::{
    Answer, BODY_LIMIT, Evidence, Judgement, Phase, RuleSet, judge, judge_aloud,
};
use postlane::retry::{self, Attempted, Policy};

/// The most that `Retry-After` is believed here.
const HOUR: Duration = Duration::from_secs(3600);
/// The longest wait that a built-in rule asks for.
const LONGEST_WAIT: Duration = HOUR;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    kind: u8,
    status: u16,
    phase: u8,
    flags: u8,
    now_unix_secs: i64,
    job: i64,
    /// `name: value` lines, a blank line, the body; without a status, the error.
    rest: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let rules = RuleSet::built_in();
    let answer = answer(&input);
    let judgement = judge(&rules, &answer);
    let mut passed = 0;
    let aloud = judge_aloud(&rules, &answer, |_| passed += 1);
    assert_eq!(aloud, judgement);
    assert!(passed < rules.names().count());
    assert_ne!(judgement.rule, "rules.none");
    sensible(&answer, &judgement);
    follows(&input, &judgement);
});

fn answer(input: &Input<'_>) -> Answer {
    let phase = Phase::ALL[usize::from(input.phase) % Phase::ALL.len()];
    let evidence = (input.flags & 1 != 0).then_some(Evidence {
        phase,
        body_sent: input.flags & 2 != 0,
    });
    let error = String::from_utf8_lossy(input.rest).into_owned();
    match input.kind {
        0xfe => Answer::NotSent { error, evidence },
        0xff => Answer::Lost { error, evidence },
        _ => with_status(input),
    }
}

fn with_status(input: &Input<'_>) -> Answer {
    let mut rest = input.rest;
    let mut headers: Vec<(String, &[u8])> = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            break;
        };
        let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
        headers.push((name, line[colon + 1..].trim_ascii()));
    }
    let header = |name: &str| {
        headers
            .iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| *value)
    };
    let body = rest[..rest.len().min(BODY_LIMIT)].to_vec();
    let cut = (input.flags & 4 != 0).then(|| "cut".to_owned());
    Answer::status(input.status, header, (body, cut), input.now_unix_secs, HOUR)
}

fn sensible(answer: &Answer, judgement: &Judgement<'_>) {
    assert!(
        judgement
            .retry_after
            .is_none_or(|wait| wait <= HOUR.max(LONGEST_WAIT))
    );
    match answer {
        Answer::NotSent { .. } => assert_eq!(judgement.outcome, Outcome::NotSent),
        Answer::Lost { .. } => assert_eq!(judgement.outcome, Outcome::Ambiguous),
        Answer::Status { status, .. } => {
            assert_ne!(judgement.outcome, Outcome::NotSent);
            let is_fine = (200..=299).contains(status);
            assert!(
                is_fine || judgement.outcome != Outcome::Delivered,
                "{judgement:?}"
            );
            let reason = &judgement.reason;
            assert!(reason.chars().count() < 600, "{reason:?}");
            assert!(
                !reason.contains(char::is_control),
                "more than a line: {reason:?}"
            );
        }
    }
}

/// What follows for the job: no failure is lost, no wait is longer than it may be.
fn follows(input: &Input<'_>, judgement: &Judgement<'_>) {
    let policy = Policy {
        max_attempts: 20,
        first: Duration::from_secs(2),
        max: Duration::from_secs(600),
        on_ambiguous: OnAmbiguous::Retry,
        max_ambiguous: 5,
    };
    let attempted = Attempted {
        job: JobId(input.job),
        number: AttemptNo::after(i64::from(input.kind)),
        failures: i64::from(input.phase),
        ambiguous: i64::from(input.phase),
        others_pass: input.flags & 16 != 0,
        on_ambiguous: (input.flags & 8 != 0).then_some(OnAmbiguous::Hold),
    };
    let next = retry::next(&policy, attempted, judgement);
    assert_eq!(
        next.state == State::Delivered,
        judgement.outcome == Outcome::Delivered
    );
    assert_eq!(next.reason.is_none(), next.state == State::Delivered);
    assert!(next.after <= HOUR.max(LONGEST_WAIT), "{:?}", next.after);
}
