//! `joinchat/spec.md` section 4, row by row, as the built-in rules judge it; and what a rule set
//! may not say.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use Outcome::{Ambiguous, Delivered, NotSent, Refused, Retryable, Throttled};

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
fn is(judgement: &Judgement<'_>, rule: &str, outcome: Outcome, scope: Scope) {
    let found = (judgement.rule, judgement.outcome, judgement.scope);
    assert_eq!(found, (rule, outcome, scope), "{judgement:?}");
}

#[test]
fn each_status_without_a_body_has_its_rule() {
    use Scope::{Endpoint, None, Page};
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
            &[404, 405, 406, 415, 501, 505],
            "status.endpoint",
            Retryable,
            Endpoint,
        ),
        (&[401, 403], "status.page", Retryable, Page),
        (
            &[408, 425, 503, 521, 522, 523, 525, 526],
            "status.retryable",
            Retryable,
            None,
        ),
        (&[429], "status.429", Throttled, Page),
        (
            &[
                400, 402, 407, 409, 410, 413, 414, 416, 422, 424, 426, 428, 430, 451, 499,
            ],
            "status.refused",
            Refused,
            None,
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
            let blameless = outcome == Throttled || scope != None;
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
        (503, "status.503", Throttled, Scope::Page),
        (429, "status.429", Throttled, Scope::Page),
        (502, "status.ambiguous", Ambiguous, Scope::None),
        (200, "status.2xx", Delivered, Scope::None),
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
            is(&lost, "transport.ambiguous", Ambiguous, Scope::None);
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
            is(&unsent, "transport.not_sent", NotSent, Scope::None);
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
        Scope::Endpoint,
    );
    is(
        &bad(Phase::Connect),
        "transport.not_sent",
        NotSent,
        Scope::None,
    );
    assert_eq!(judged(&Answer::not_sent("expired")).reason, "expired");
}

#[test]
fn a_body_is_a_failure_wherever_it_says_so() {
    for body in [
        r#"{"success":false}"#,
        r#"{"success":"false"}"#,
        r#"{"success":"FALSE"}"#,
        r#"{"success":0}"#,
        r#"{"success":true,"error":"no"}"#,
        r#"{"recipient_id":"1","errors":{"msg":"no"}}"#,
        r#"{"error":true}"#,
        r#"{"errors":["no"]}"#,
        r#"{"error":{"x":1}}"#,
        "\u{feff} {\"success\":false} \n",
    ] {
        let judgement = status(200, body);
        is(&judgement, "body.failure", Retryable, Scope::None);
        assert_eq!((judgement.cap, judgement.counts), (Some(3), true), "{body}");
        is(&status(400, body), "status.refused", Refused, Scope::None);
        is(&status(401, body), "status.page", Retryable, Scope::Page);
        // It may have come after acceptance, whatever the body says.
        is(
            &status(500, body),
            "status.ambiguous",
            Ambiguous,
            Scope::None,
        );
    }
}

#[test]
fn a_body_is_a_success_only_where_it_says_so() {
    for body in [
        r#"{"success":true,"recipient_id":"1602407863220595"}"#,
        r#"{"success":true,"error":null,"errors":{}}"#,
        r#"{"success":true,"error":false,"errors":[]}"#,
        r#"{"success":true,"error":"","errors":0}"#,
        r#"{"recipient_id":"1"}"#,
        r#"{"message_id":"mid.1"}"#,
        "ok",
        " OK\n",
        "Success",
    ] {
        is(&status(200, body), "body.success", Delivered, Scope::None);
        let torn = status(500, body);
        is(&torn, "body.contradiction", Ambiguous, Scope::None);
        assert!(
            torn.hold && status(302, body).hold && status(404, body).hold,
            "{body}"
        );
    }
    for body in [
        "",
        " ",
        "{}",
        "[]",
        "null",
        "true",
        "1",
        r#""ok""#,
        r#"{"success":null}"#,
        r#"{"success":"yes"}"#,
        r#"{"success":1}"#,
        r#"{"recipient_id":null,"message_id":""}"#,
        r#"{"status":"sent"}"#,
        r#"[{"success":false}]"#,
    ] {
        is(&status(200, body), "status.2xx", Delivered, Scope::None);
    }
}

#[test]
fn a_suspicious_2xx_is_held_for_an_operator() {
    for body in [
        r#"{"code":401,"msg":"sign error"}"#,
        r#"{"code":1,"msg":"…"}"#,
        r#"{"code":"1"}"#,
        r#"{"errcode":40001,"errmsg":"invalid"}"#,
        r#"{"error_code":-1}"#,
        r#"{"code":201,"message":"okay"}"#,
        r#"{"code":0,"errcode":7}"#,
        "sent",
        "okay",
        "{",
        r#"{"success":true"#,
        r#"{"text":"\ud83d"}"#,
    ] {
        let judgement = status(200, body);
        is(&judgement, "body.suspicious", Ambiguous, Scope::None);
        assert!(judgement.hold, "{body}");
        is(
            &judged(&cut(200, body)),
            "status.2xx",
            Delivered,
            Scope::None,
        );
    }
    for body in [
        r#"{"code":0}"#,
        r#"{"code":200,"msg":"whatever"}"#,
        r#"{"code":"200"}"#,
        r#"{"code":1,"msg":"OK"}"#,
        r#"{"code":1,"message":"success"}"#,
        r#"{"code":1,"msg":"成功"}"#,
        r#"{"code":"E1"}"#,
        r#"{"data":{"code":7}}"#,
    ] {
        is(&status(200, body), "status.2xx", Delivered, Scope::None);
    }
    let html = |body| judged(&answer(200, Some("text/html; charset=utf-8"), body));
    for body in ["<html>login</html>", "{}", "ok"] {
        is(&html(body), "body.suspicious", Ambiguous, Scope::None);
    }
    is(&html(""), "status.2xx", Delivered, Scope::None);
    is(
        &html(r#"{"success":true}"#),
        "body.success",
        Delivered,
        Scope::None,
    );
    is(
        &html(r#"{"success":false}"#),
        "body.failure",
        Retryable,
        Scope::None,
    );
}

#[test]
fn a_2xx_that_is_not_read_whole_is_delivered_unless_what_was_read_says_no() {
    for (body, rule) in [
        ("", "status.2xx"),
        (r#"{"succ"#, "status.2xx"),
        ("<html>", "status.2xx"),
        (r#"{"x":["#, "status.2xx"),
        (r#"{"code":401,"msg":"si"#, "status.2xx"),
        (r#"{"success":true,"x":""#, "body.success"),
        (r#"{"success":false,"x":""#, "body.failure"),
        (r#"{"success":false,"error":"no"}"#, "body.failure"),
        (r#"{"error":{"code":10010,"message":"Recipi"#, "code.10010"),
        (r#"{"x":[1,2],"success":false,"y":["#, "body.failure"),
    ] {
        assert_eq!(judged(&cut(200, body)).rule, rule, "{body}");
    }
    assert_eq!(
        judged(&cut(500, "x")).reason,
        "HTTP 500, cut: longer",
        "a failed attempt says that its answer was cut"
    );
}

/// A relayed Graph error.
fn graph(code: i64, subcode: i64, message: &str) -> String {
    format!(
        r#"{{"error":{{"message":"{message}","type":"OAuthException","code":{code},"error_subcode":{subcode},"fbtrace_id":"x"}}}}"#
    )
}

#[test]
fn each_code_has_its_rule_on_any_failed_answer() {
    use Scope::{None, Page};
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
fn a_code_next_to_a_known_one_is_judged_by_text_or_status() {
    for code in [
        10009, 10011, 0, 5, 16, 33, 99, 189, 191, 369, 550, 552, 612, 614, 1199, 1201,
    ] {
        is(
            &status(200, &graph(code, 0, "x")),
            "body.failure",
            Retryable,
            Scope::None,
        );
        is(
            &status(422, &graph(code, 0, "x")),
            "status.refused",
            Refused,
            Scope::None,
        );
    }
    is(
        &status(200, &graph(100, 2_018_002, "x")),
        "body.failure",
        Retryable,
        Scope::None,
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
        is(&status(200, body), "code.10010", Refused, Scope::None);
        is(&status(404, body), "code.10010", Refused, Scope::None);
    }
    is(
        &status(404, r#"{"code":10010}"#),
        "code.10010",
        Refused,
        Scope::None,
    );
    for body in [
        r#"{"success":false,"errors":{"code":10010.5}}"#,
        r#"{"success":false,"errors":{"code":1e400}}"#,
        r#"{"success":false,"errors":{"code":99999999999999999999}}"#,
        r#"{"success":false,"errors":{"id":10010}}"#,
    ] {
        is(&status(200, body), "body.failure", Retryable, Scope::None);
    }
}

#[test]
fn words_about_signature_secret_or_page_pause_the_page() {
    for words in [
        "Invalid SIGNATURE",
        "sign error",
        "invalid sign",
        "签名错误",
        "秘钥",
        "密钥",
        "私钥",
        "Unauthorized",
        "unauthorised",
        "page 12345 not found",
        "Page is not bound",
        "the page was unbound",
    ] {
        let failure = format!(r#"{{"success":false,"errors":{{"msg":"{words}"}}}}"#);
        for http in [200, 400, 404, 422, 500] {
            let judgement = status(http, &failure);
            is(&judgement, "body.signature", Retryable, Scope::Page);
            assert!(!judgement.counts, "a wrong secret must not use up attempts");
        }
        for body in [words.to_owned(), format!(r#"{{"code":7,"msg":"{words}"}}"#)] {
            is(
                &status(400, &body),
                "text.signature",
                Retryable,
                Scope::Page,
            );
            is(
                &status(500, &body),
                "status.ambiguous",
                Ambiguous,
                Scope::None,
            );
        }
    }
    // A path that does not exist is the endpoint's, whatever its page says.
    is(
        &judged(&answer(404, Some("text/html"), "page not found")),
        "status.endpoint",
        Retryable,
        Scope::Endpoint,
    );
    let unknown = r#"{"success":false,"code":1,"msg":"sign error"}"#;
    is(
        &status(200, unknown),
        "body.signature",
        Retryable,
        Scope::Page,
    );
    for words in ["assigned", "sign", "authorized", "not found", "bound"] {
        let failure = format!(r#"{{"success":false,"errors":"{words}"}}"#);
        is(
            &status(200, &failure),
            "body.failure",
            Retryable,
            Scope::None,
        );
        is(&status(400, words), "status.refused", Refused, Scope::None);
    }
}

#[test]
fn a_reason_names_status_code_and_words() {
    for (code, body, reason) in [
        (503, "", "HTTP 503"),
        (
            503,
            r#"{"message":"Service Unavailable"}"#,
            "HTTP 503: Service Unavailable",
        ),
        (
            200,
            r#"{"success":false,"errors":"Unknow errors"}"#,
            "refused (HTTP 200): Unknow errors",
        ),
        (
            400,
            r#"{"errors":{"message":"Order not found"}}"#,
            "HTTP 400: Order not found",
        ),
        (
            200,
            "<p>",
            "HTTP 200, but the body is text that is not JSON",
        ),
        (
            200,
            r#"{"code":401,"msg":"sign error"}"#,
            "HTTP 200, code 401, but the body is JSON with a code that is no success: sign error",
        ),
    ] {
        assert_eq!(status(code, body).reason, reason, "{body}");
    }
    assert_eq!(
        status(400, &graph(100, 2_018_001, "No matching user found")).reason,
        "no such person (HTTP 400, code 100/2018001): No matching user found"
    );
    let long = format!(r#"{{"error":"{}"}}"#, "é".repeat(5000));
    assert_eq!(
        status(400, &long).reason.chars().count(),
        "HTTP 400: ".len() + 200
    );
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
        ("code.window", "code"),
    ] {
        assert!(passed.contains(&expected), "{expected:?}: {passed:?}");
    }
    assert!(!passed.iter().any(|(rule, _)| *rule == "code.token"));
}

const SMALL: &str = r#"
version = 1
[body]
failure = [{ at = "/success", is = [false] }]
success = [{ at = "/success", is = [true] }]
success_text = []
status_code = []
fine_code = []
fine_text = []
code = ["/code"]
subcode = []
text = ["/msg"]
"#;

fn set(rules: &str) -> Result<RuleSet, RulesError> {
    RuleSet::parse(&format!("{SMALL}{rules}"))
}

const REST: &str = "\n[[rule]]\nname = \"rest\"\noutcome = \"ambiguous\"\n";

#[test]
fn a_rule_set_that_cannot_be_used_is_refused_with_its_line_and_what_is_allowed() {
    let rule = |lines: &str| format!("[[rule]]\nname = \"a\"\n{lines}\n{REST}");
    let lines = |lines: &str| (rule(lines), 14);
    for ((rules, line), told) in [
        (
            lines("outcome = \"refussed\""),
            "unknown variant `refussed`, expected one of `delivered`, `refused`",
        ),
        (
            lines("outcom = \"refused\""),
            "unknown field `outcom`, expected one of `name`, `when`, `outcome`",
        ),
        (
            lines("outcome = \"refused\"\nwhen.statuss = [1]"),
            "unknown field `statuss`, expected one of `transport`",
        ),
        (
            lines("outcome = \"refused\"\nwhen.body = [\"bad\"]"),
            "unknown variant `bad`, expected one of `failure`",
        ),
        (
            lines("outcome = \"refused\"\nwhen.status = [99]"),
            "99: use a status from 100 to 999, or a range",
        ),
        (
            lines("outcome = \"refused\"\nwhen.status = [1000]"),
            "1000: use a status",
        ),
        (
            lines("outcome = \"refused\"\nwhen.status = [\"500-400\"]"),
            "use a status",
        ),
        (
            lines("outcome = \"refused\"\nwhen.status = []"),
            "when.status = [] can never be true",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwhen.text = '('"),
            "no regular expression: error: unclosed group",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwhen.text = ''"),
            "text is 0 bytes: use 1 to 1000",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwhen.text = '\\w{1000}{1000}'"),
            "no regular expression",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwhen.field = [{ at = \"x\" }]"),
            "is no pointer",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwait = \"0s\""),
            "use a duration from \"1s\" to \"24h\"",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nwait = \"25h\""),
            "use a duration from",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\nhold = true"),
            "hold = true is for",
        ),
        (
            lines("outcome = \"throttled\"\nwhen.failed = true\ncounts = true"),
            "counts = true",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\ncap = 3"),
            "cap is for",
        ),
        (
            lines("outcome = \"retryable\"\nwhen.failed = true\ncap = 0"),
            "cap = 0",
        ),
        (
            lines("outcome = \"delivered\"\nwhen.failed = true\npause = \"page\""),
            "pause is not for",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = true\npause_after = 3"),
            "pause_after needs a pause",
        ),
        // What may have arrived is never called anything else, by no rule set.
        (
            lines("outcome = \"retryable\"\nwhen.transport = [\"lost\"]"),
            "for transport lost in phase resolve: use ambiguous",
        ),
        (
            lines("outcome = \"not_sent\"\nwhen.transport = [\"lost\"]"),
            "use ambiguous",
        ),
        (
            lines("outcome = \"delivered\"\nwhen.transport = [\"not_sent\"]"),
            "use not_sent or ambiguous",
        ),
        (
            lines("outcome = \"not_sent\"\nwhen.status = [503]"),
            "use any other",
        ),
        (
            lines("outcome = \"retryable\""),
            "for transport not_sent in phase resolve: use not_sent or ambiguous",
        ),
        // What is never reached.
        (
            lines("outcome = \"refused\"\nwhen.status = [400]\nwhen.phase = [\"wait\"]"),
            "its conditions exclude each other",
        ),
        (
            lines("outcome = \"refused\"\nwhen.failed = false\nwhen.body = [\"failure\"]"),
            "exclude each other",
        ),
        (
            lines("outcome = \"refused\"\nwhen.transport = [\"lost\"]\nwhen.code = [1]"),
            "exclude each other",
        ),
    ] {
        let error = set(&rules).expect_err(&rules);
        assert!(error.what.contains(told), "{rules}\n{error}");
        assert!((line..line + 6).contains(&error.line), "{rules}\n{error}");
    }
}

#[test]
fn rules_that_others_hide_are_refused() {
    let two = |first: &str, second: &str| {
        set(&format!(
            "[[rule]]\nname = \"a\"\noutcome = \"refused\"\n{first}\n[[rule]]\nname = \"b\"\noutcome = \"refused\"\n{second}\n{REST}"
        ))
    };
    for (first, second) in [
        ("when.status = [\"400-499\"]", "when.status = [404]"),
        (
            "when.status = [\"400-499\"]",
            "when.status = [404]\nwhen.code = [1]",
        ),
        ("when.failed = true", "when.status = [300, 999]"),
        ("when.failed = true", "when.body = [\"failure\"]"),
        (
            "when.failed = true\nwhen.code = [1, 2]",
            "when.failed = true\nwhen.code = [2]\nwhen.text = 'x'",
        ),
        (
            "when.failed = true\nwhen.text = 'x'",
            "when.failed = true\nwhen.text = 'x'\nwhen.code = [2]",
        ),
        (
            "when.failed = true\nwhen.field = [{at=\"/a\"}]",
            "when.failed = true\nwhen.field = [{at=\"/a\"}, {at=\"/b\"}]",
        ),
    ] {
        let error = two(first, second).expect_err(second);
        assert!(
            error
                .what
                .starts_with("rule \"b\": can never be reached: \"a\" (line 14)"),
            "{error}"
        );
    }
    for (first, second) in [
        ("when.status = [404]", "when.status = [\"400-499\"]"),
        ("when.status = [\"400-499\"]", "when.status = [\"499-500\"]"),
        (
            "when.failed = true\nwhen.code = [1]",
            "when.failed = true\nwhen.code = [1, 2]",
        ),
        (
            "when.failed = true\nwhen.text = 'x'",
            "when.failed = true\nwhen.text = 'y'",
        ),
        ("when.failed = true\nwhen.code = [1]", "when.failed = true"),
    ] {
        two(first, second).expect(second);
    }
    // Two together hide a third.
    let three = "[[rule]]\nname = \"a\"\noutcome = \"refused\"\nwhen.status = [\"400-449\"]\n\
                 [[rule]]\nname = \"b\"\noutcome = \"refused\"\nwhen.status = [\"450-499\"]\n\
                 [[rule]]\nname = \"c\"\noutcome = \"refused\"\nwhen.status = [\"400-499\"]\n";
    let error = set(&format!("{three}{REST}")).expect_err("hidden");
    assert_eq!(
        error.to_string(),
        "line 22: rule \"c\": can never be reached: rules before it take all of it"
    );
}

#[test]
fn a_rule_set_is_whole_versioned_and_bounded() {
    let error = set("[[rule]]\nname = \"a\"\noutcome = \"refused\"\nwhen.failed = true\n")
        .expect_err("gaps");
    assert!(
        error
            .what
            .starts_with("no rule takes transport not_sent in phase resolve: end with"),
        "{error}"
    );
    let error = set(&format!("{REST}{REST}")).expect_err("twice");
    assert_eq!(
        error.to_string(),
        "line 19: rule \"rest\": line 15 has a rule of this name"
    );
    for (name, told) in [
        ("", "use a name"),
        ("A", "use a name"),
        ("ledger.lost", "the ledger's own"),
    ] {
        let error = set(&REST.replace("rest", name)).expect_err(name);
        assert!(error.what.contains(told), "{error}");
    }
    for (text, told) in [
        (
            "version = 2\nnew_key = 1".to_owned(),
            "line 1: version = 2: this postlane reads version 1",
        ),
        ("\nversion = 0".to_owned(), "line 2: version = 0"),
        ("".to_owned(), "missing field `version`"),
        ("version = 1".to_owned(), "missing field `body`"),
        ("version = \"1\"".to_owned(), "invalid type: string"),
        ("version = ".to_owned(), "line 1: "),
        (
            format!("{SMALL}{REST}").replace("\"/code\"", "\"code\""),
            "[body]: \"code\" is no pointer",
        ),
        (
            format!("{SMALL}{REST}").replace("is = [false]", "is = [1.5]"),
            "use true, false, whole numbers",
        ),
        (
            format!("{SMALL}{REST}").replace("subcode = []\n", ""),
            "missing field `subcode`",
        ),
        (
            format!("{SMALL}{REST}").replace("subcode", "sub"),
            "unknown field `sub`, expected one of",
        ),
        (" ".repeat(RULES_LIMIT + 1), "longer than 262144 bytes"),
    ] {
        let error = RuleSet::parse(&text).expect_err(told).to_string();
        assert!(error.contains(told), "{told}: {error}");
    }
    let many: String = (0..301).map(|n| format!("[[rule]]\nname = \"r{n}\"\noutcome = \"refused\"\nwhen.failed = true\nwhen.code = [{n}]\n")).collect();
    let error = set(&format!("{many}{REST}")).expect_err("many");
    assert!(error.what.contains("at most 300 rules"), "{error}");
}

#[test]
fn the_built_in_rules_are_read_in_order_and_have_the_names_that_are_recorded() {
    let rules = RuleSet::parse(BUILT_IN).expect("reads");
    let names: Vec<&str> = rules.names().collect();
    assert_eq!(names.len(), BUILT_IN.matches("\n[[rule]]\n").count());
    for name in [
        "transport.not_sent",
        "transport.ambiguous",
        "body.failure",
        "body.success",
        "body.suspicious",
        "body.signature",
        "code.10010",
        "status.2xx",
        "status.page",
        "status.endpoint",
        "status.429",
        "status.503",
        "status.retryable",
        "status.refused",
        "status.ambiguous",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    for crlf in [BUILT_IN.replace('\n', "\r\n"), BUILT_IN.to_owned()] {
        assert_eq!(
            RuleSet::parse(&crlf)
                .expect("reads")
                .names()
                .collect::<Vec<_>>(),
            names
        );
    }
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("null".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        Just("1e999".to_owned()),
        Just("-0.0".to_owned()),
        "\\PC{0,12}".prop_map(|text| serde_json::Value::String(text).to_string()),
    ];
    let key = prop_oneof![
        "success",
        "errors?",
        "code",
        "msg",
        "message",
        "recipient_id",
        "error_subcode",
        "[a-z]{0,3}"
    ];
    let json = scalar.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("\"{key}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    prop_oneof![
        4 => (json, any::<prop::sample::Index>()).prop_map(|(text, at)| {
            let mut bytes = text.into_bytes();
            let keep = at.index(bytes.len() * 2 + 1);
            bytes.truncate(keep);
            bytes
        }),
        1 => prop::collection::vec(any::<u8>(), 0..300),
        1 => ("[\\[{\"a:,\\\\]{1,4}", 1..BODY_LIMIT / 4).prop_map(|(text, times)| {
            let mut bytes = text.repeat(times).into_bytes();
            bytes.truncate(BODY_LIMIT);
            bytes
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_makes_the_judge_panic_or_take_long(
        status in 100_u16..=999,
        body in bodies(),
        content_type in prop::collection::vec(any::<u8>(), 0..20),
        retry_after in prop::collection::vec(any::<u8>(), 0..20),
        cut in any::<bool>(),
        now in any::<i64>(),
    ) {
        let header = |name: &str| match name {
            "content-type" => Some(content_type.as_slice()),
            _ => Some(retry_after.as_slice()),
        };
        let cut = cut.then(|| "cut".to_owned());
        let answer = Answer::status(status, header, (body, cut), now, HOUR);
        let began = crate::clock::BootInstant::now();
        let judgement = judged(&answer);
        // Far beyond what it takes, far below what would matter to others.
        prop_assert!(began.elapsed() < Duration::from_secs(2));
        prop_assert_ne!(judgement.rule, "rules.none");
        prop_assert_ne!(judgement.outcome, NotSent);
        prop_assert!(judgement.reason.chars().count() < 600);
        let failed = !(200..=299).contains(&status);
        prop_assert!(!failed || judgement.outcome != Delivered, "{:?}", judgement);
    }
}
