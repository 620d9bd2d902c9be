//! Any text as a rule set: refused with a line, or every answer finds a rule in it that does not
//! call unsent what was sent, nor sure what is not. The text may be followed by a NUL and a body.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use postlane::job::Outcome;
use postlane::judge::{Answer, Evidence, Phase, RuleSet, judge};

fuzz_target!(|input: &[u8]| {
    let (text, body) = match input.iter().position(|byte| *byte == 0) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (
            input,
            &b"{\"success\":false,\"errors\":{\"code\":10010,\"msg\":\"x\"}}"[..],
        ),
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let rules = match RuleSet::parse(text) {
        Ok(rules) => rules,
        Err(error) => {
            let lines = text.split('\n').count();
            assert!((1..=lines).contains(&error.line), "{error:?}");
            assert!(!error.what.is_empty());
            return;
        }
    };
    for status in [100, 200, 204, 299, 302, 400, 401, 404, 429, 500, 503, 999] {
        for cut in [None, Some("cut".to_owned())] {
            let answer = Answer::status(
                status,
                |name| (name == "retry-after").then_some(b"5"),
                (body.to_vec(), cut),
                0,
                Duration::from_secs(3600),
            );
            let judgement = judge(&rules, &answer);
            assert_ne!(judgement.rule, "rules.none", "{status}");
            assert_ne!(judgement.outcome, Outcome::NotSent, "{status}");
        }
    }
    let error = String::from_utf8_lossy(body).into_owned();
    let evidence = Phase::ALL.iter().flat_map(|phase| {
        [false, true].map(|body_sent| {
            Some(Evidence {
                phase: *phase,
                body_sent,
            })
        })
    });
    for evidence in evidence.chain([None]) {
        let error = error.clone();
        let judgement = judge(
            &rules,
            &Answer::Lost {
                error: error.clone(),
                evidence,
            },
        );
        assert_ne!(judgement.rule, "rules.none");
        assert_eq!(judgement.outcome, Outcome::Ambiguous, "of what was lost");
        let judgement = judge(&rules, &Answer::NotSent { error, evidence });
        assert_ne!(judgement.rule, "rules.none");
        assert_ne!(
            judgement.outcome,
            Outcome::Delivered,
            "of what was not sent"
        );
    }
});
