//! Section 4.6: codes and subcodes.

use super::*;
use crate::job::Outcome::{Ambiguous, Refused, Retryable, Throttled};

#[test]
fn each_code_has_its_rule_on_any_failed_answer() {
    use PauseWanted::{None, Page};
    for (code, subcode, message, rule, outcome, scope) in [
        (10010, 0, "Recipient not found", "code.10010", Refused, None),
        (-1, 0, "", "code.unknown", Retryable, None),
        (1, 0, "", "code.unknown", Retryable, None),
        (1, 99, "", "code.unknown", Retryable, None),
        (2, 0, "", "code.unknown", Retryable, None),
        (1, 1_357_046, "", "code.sent_anyway", Ambiguous, None),
        (2, 1_357_046, "", "code.unknown", Retryable, None),
        (1200, 0, "", "code.temporary", Retryable, None),
        (1200, 2_018_024, "", "code.temporary", Retryable, None),
        (4, 0, "", "code.rate", Throttled, Page),
        (4, 2_018_022, "", "code.rate", Throttled, Page),
        (17, 0, "", "code.rate", Throttled, Page),
        (32, 0, "", "code.rate", Throttled, Page),
        (613, 0, "", "code.rate", Throttled, Page),
        (80001, 0, "", "code.rate", Throttled, Page),
        (80006, 0, "", "code.rate", Throttled, Page),
        (
            613,
            0,
            "Bothersome or abusive",
            "code.abusive_rate",
            Throttled,
            Page,
        ),
        (
            613,
            0,
            "please decrease the rate",
            "code.abusive_rate",
            Throttled,
            Page,
        ),
        (10, 2_018_278, "", "code.window", Refused, None),
        (10, 2_018_065, "", "code.window", Refused, None),
        (10, 2_018_108, "", "code.not_receiving", Refused, None),
        (200, 1_545_041, "", "code.not_receiving", Refused, None),
        (551, 0, "", "code.not_available", Refused, None),
        (551, 1_545_041, "", "code.not_receiving", Refused, None),
        (2, 2_018_278, "", "code.window", Refused, None),
        (200, 2_018_001, "", "code.no_user", Refused, None),
        (4, 2_018_354, "", "code.enough", Refused, None),
        (9, 2_018_352, "", "code.enough", Refused, None),
        (
            200,
            0,
            "(#200) This person isn't receiving messages from you right now.",
            "code.person",
            Refused,
            None,
        ),
        (
            10,
            0,
            "(#10) This person isn’t available right now",
            "code.person",
            Refused,
            None,
        ),
        (
            10,
            0,
            "(#10) This message is sent outside of allowed window.",
            "code.person",
            Refused,
            None,
        ),
        (200, 0, "user not available", "code.person", Refused, None),
        (
            200,
            0,
            "You were blocked by the user",
            "code.person",
            Refused,
            None,
        ),
        (
            200,
            0,
            "Cannot message users who are not admins, developers or testers of the app",
            "code.permission",
            Refused,
            Page,
        ),
        (
            10,
            0,
            "Application does not have permission",
            "code.permission",
            Refused,
            Page,
        ),
        (100, 2_018_001, "", "code.no_user", Refused, None),
        (100, 2_018_034, "", "code.content", Refused, None),
        (100, 2_018_032, "", "code.content", Refused, None),
        (100, 0, "Length of param x", "code.length", Refused, None),
        (105, 0, "", "code.elements", Refused, None),
        (
            100,
            0,
            "Invalid message tag",
            "code.retired_tag",
            Refused,
            None,
        ),
        (
            100,
            0,
            "ACCOUNT_UPDATE is gone",
            "code.retired_tag",
            Refused,
            None,
        ),
        (
            100,
            0,
            "URL is not whitelisted for messenger extensions",
            "code.whitelist",
            Refused,
            None,
        ),
        (
            100,
            0,
            "List template on Messenger Platform is deprecated",
            "code.list_template",
            Refused,
            None,
        ),
        (190, 460, "", "code.token", Retryable, Page),
        (200, 2_018_028, "", "code.app_permission", Retryable, Page),
        (200, 2_018_027, "", "code.app_permission", Retryable, Page),
        (200, 2_018_021, "", "code.app_permission", Retryable, Page),
        (10, 1_893_063, "", "code.restricted", Retryable, Page),
        (368, 0, "", "code.disallowed", Retryable, Page),
        (200, 0, "", "code.permission", Refused, Page),
        (10, 0, "", "code.permission", Refused, Page),
        (3, 0, "", "code.permission", Refused, Page),
    ] {
        for http in [200, 400, 403, 404, 429, 500, 503] {
            is(
                &status(http, &graph(code, subcode, message)),
                rule,
                outcome,
                scope,
            );
        }
    }
    let of = |code, subcode, message: &str| status(400, &graph(code, subcode, message));
    assert_eq!(of(2, 0, "").cap, Some(3));
    assert_eq!(of(1200, 0, "").cap, Option::None);
    assert!(of(1, 1_357_046, "").hold);
    assert_eq!(of(200, 0, "").pause_after, Some(5));
    assert_eq!(of(190, 0, "").pause_after, Option::None);
    assert_eq!(of(613, 0, "abusive").retry_after, Some(HOUR));
    assert_eq!(of(10, 1_893_063, "").retry_after, Some(HOUR / 2));
    for code in [190, 368, 613] {
        assert!(!of(code, 0, "").counts, "{code}");
    }
}

#[test]
fn words_about_the_person_are_the_jobs_and_words_about_the_account_the_pages() {
    let failure = |words: &str| format!(r#"{{"success":false,"errors":{{"msg":"{words}"}}}}"#);
    for (words, rule) in [
        ("Recipient not found", "text.person"),
        ("This user is currently unavailable", "text.person"),
        ("bot was blocked by the user", "text.person"),
        ("The customer has opted out", "text.person"),
        ("user is deactivated", "text.person"),
        ("no such user", "text.person"),
        ("unknown recipient", "text.person"),
        ("用户不存在", "text.person_abroad"),
        ("对方已拉黑", "text.person_abroad"),
        (
            "Esta persona no está disponible en este momento",
            "text.person_abroad",
        ),
    ] {
        for http in [200, 400, 403, 404, 422] {
            let judgement = status(http, &failure(words));
            is(&judgement, rule, Refused, PauseWanted::None);
        }
        // It may have come after acceptance.
        assert_eq!(status(500, &failure(words)).rule, "status.ambiguous");
        assert_eq!(status(401, &failure(words)).rule, "status.page", "{words}");
    }
    for words in [
        "insufficient balance",
        "Payment required",
        "Your account has been suspended",
        "monthly quota exceeded",
        "余额不足",
        "账户已停用",
    ] {
        for http in [200, 400, 403, 422] {
            let judgement = status(http, &failure(words));
            is(&judgement, "text.account", Retryable, PauseWanted::Page);
            assert!(!judgement.counts, "{words}");
        }
    }
    for firewall in [
        "Sorry, you have been blocked",
        "Your IP is blocked",
        "Access denied",
    ] {
        is(
            &status(403, &failure(firewall)),
            "status.page",
            Retryable,
            PauseWanted::Page,
        );
    }
}

#[test]
fn a_code_next_to_a_known_one_is_judged_by_text_or_status() {
    for code in [
        10009, 10011, 0, 5, 16, 33, 99, 189, 191, 369, 550, 552, 612, 614, 1199, 1201,
    ] {
        is(
            &status(200, &graph(code, 0, "x")),
            "body.failure",
            Retryable,
            PauseWanted::None,
        );
        is(
            &status(422, &graph(code, 0, "x")),
            "status.refused",
            Refused,
            PauseWanted::Page,
        );
    }
    is(
        &status(200, &graph(100, 2_018_002, "x")),
        "body.failure",
        Retryable,
        PauseWanted::None,
    );
}

#[test]
fn codes_are_found_wherever_the_vendor_puts_them() {
    for body in [
        r#"{"success":false,"errors":{"code":10010,"msg":"x"}}"#,
        r#"{"success":false,"error":{"code":10010,"msg":"x"}}"#,
        r#"{"success":false,"errors":{"code":"10010"}}"#,
        r#"{"success":false,"errors":[{"code":10010}]}"#,
        r#"{"success":false,"code":10010}"#,
    ] {
        is(&status(200, body), "code.10010", Refused, PauseWanted::None);
        is(&status(404, body), "code.10010", Refused, PauseWanted::None);
    }
    is(
        &status(404, r#"{"code":10010}"#),
        "code.10010",
        Refused,
        PauseWanted::None,
    );
    for body in [
        r#"{"success":false,"errors":{"code":10010.5}}"#,
        r#"{"success":false,"errors":{"code":1e400}}"#,
        r#"{"success":false,"errors":{"code":99999999999999999999}}"#,
        r#"{"success":false,"errors":{"id":10010}}"#,
    ] {
        is(
            &status(200, body),
            "body.failure",
            Retryable,
            PauseWanted::None,
        );
    }
}

#[test]
fn rules_that_were_asked_in_vain_say_which_condition_failed() {
    let rules = RuleSet::built_in();
    let mut passed = Vec::new();
    let answer = answer(400, JSON, &graph(100, 2_018_001, "No matching user"));
    let judgement = judge_aloud(&rules, &answer, |rule| {
        passed.push((rule.rule, rule.condition))
    });
    assert_eq!(judgement.rule, "code.no_user");
    for expected in [
        ("transport.not_sent", "transport"),
        ("code.10010", "code"),
        ("code.window", "subcode"),
    ] {
        assert!(passed.contains(&expected), "{expected:?}: {passed:?}");
    }
    assert!(!passed.iter().any(|(rule, _)| *rule == "code.token"));
}
