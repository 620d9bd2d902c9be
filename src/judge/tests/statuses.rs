//! Sections 4.3 and 4.4: no status, and each status.

use super::*;
use crate::job::Outcome::{Ambiguous, Delivered, NotSent, Refused, Retryable, Throttled};

#[test]
fn each_status_without_a_body_has_its_rule() {
    use PauseWanted::{Endpoint, None, Page};
    for (statuses, rule, outcome, scope) in [
        (
            &[200, 201, 202, 204, 299][..],
            "status.2xx",
            Delivered,
            None,
        ),
        (
            &[300, 301, 302, 303, 304, 307, 308, 399],
            "status.endpoint",
            Retryable,
            Endpoint,
        ),
        (
            &[
                404, 405, 406, 407, 410, 411, 414, 415, 417, 421, 426, 428, 431, 501, 505, 511,
            ],
            "status.endpoint",
            Retryable,
            Endpoint,
        ),
        (&[401, 403], "status.page", Retryable, Page),
        (&[402, 423, 451], "status.account", Retryable, Page),
        (&[409, 413], "status.message", Refused, None),
        (
            &[408, 425, 503, 521, 522, 523, 525, 526],
            "status.retryable",
            Retryable,
            None,
        ),
        (&[429], "status.429", Throttled, Page),
        (
            &[400, 412, 416, 418, 422, 424, 430, 499],
            "status.refused",
            Refused,
            Page,
        ),
        (
            &[500, 502, 504, 506, 520, 524, 527, 599, 600, 999, 100, 199],
            "status.ambiguous",
            Ambiguous,
            None,
        ),
    ] {
        for code in statuses {
            let judgement = status(*code, "");
            is(&judgement, rule, outcome, scope);
            let blameless = outcome == Throttled || scope != None && outcome != Refused;
            assert_eq!(judgement.counts, !blameless, "{code}");
            assert!(!judgement.hold && judgement.cap.is_none(), "{code}");
        }
    }
}

#[test]
fn a_503_with_retry_after_throttles_the_page() {
    let asked = |status, seconds| {
        let mut answer = answer(status, JSON, "");
        if let Answer::Status { retry_after, .. } = &mut answer {
            *retry_after = Some(Duration::from_secs(seconds));
        }
        judged(&answer)
    };
    for (code, rule, outcome, scope) in [
        (503, "status.503", Throttled, PauseWanted::Page),
        (429, "status.429", Throttled, PauseWanted::Page),
        (502, "status.ambiguous", Ambiguous, PauseWanted::None),
        (200, "status.2xx", Delivered, PauseWanted::None),
    ] {
        let judgement = asked(code, 7);
        is(&judgement, rule, outcome, scope);
        assert_eq!(
            judgement.retry_after,
            Some(Duration::from_secs(7)),
            "{code}"
        );
    }
}

#[test]
fn without_a_status_only_proof_makes_it_unsent() {
    for phase in Phase::ALL {
        for body_sent in [false, true] {
            let evidence = Some(Evidence {
                phase: *phase,
                body_sent,
            });
            let error = || "reset".to_owned();
            let lost = judged(&Answer::Lost {
                error: error(),
                evidence,
            });
            let rule = match phase {
                Phase::Head => "transport.garbled",
                _ => "transport.ambiguous",
            };
            is(&lost, rule, Ambiguous, PauseWanted::None);
            assert_eq!(lost.cap, (*phase == Phase::Head).then_some(3));
            assert!(
                lost.reason
                    .starts_with(&format!("phase={phase} body_sent=")),
                "{}",
                lost.reason
            );
            let unsent = judged(&Answer::NotSent {
                error: error(),
                evidence,
            });
            is(&unsent, "transport.not_sent", NotSent, PauseWanted::None);
            assert!(!unsent.counts && lost.counts);
        }
    }
    let bad = |phase| {
        judged(&Answer::NotSent {
            error: "invalid peer certificate: Expired".to_owned(),
            evidence: Some(Evidence {
                phase,
                body_sent: false,
            }),
        })
    };
    is(
        &bad(Phase::Tls),
        "transport.certificate",
        NotSent,
        PauseWanted::Endpoint,
    );
    is(
        &bad(Phase::Connect),
        "transport.not_sent",
        NotSent,
        PauseWanted::None,
    );
    assert_eq!(judged(&Answer::not_sent("expired")).reason, "expired");
}
