//! Section 4.5: what a body says.

use super::*;
use crate::job::Outcome::{Ambiguous, Delivered, Refused, Retryable};

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
        r#"{"success":"0"}"#,
        r#"{"success":"no"}"#,
        r#"{"success":" Failed "}"#,
        r#"{"success":null}"#,
        r#"{"success":""}"#,
        r#"{"success":0.0}"#,
        r#"{"Success":false}"#,
        r#"{"isSuccess":false}"#,
        r#"{"ok":false,"description":"x"}"#,
        r#"{"status":"error"}"#,
        r#"{"status":"FAILED"}"#,
        r#"{"status":false}"#,
        r#"{"result":"fail","msg":"x"}"#,
        r#"[{"success":false}]"#,
        r#"[{"success":true},{"success":false}]"#,
        r#"{"data":{"error":"x"}}"#,
        r#"{"data":{"items":[{"status":"rejected"}]}}"#,
        r#"{"errors":{"code":0,"msg":"x"}}"#,
        r#"{"error_message":"x"}"#,
        r#""{\"success\":false}""#,
        ")]}',\n{\"success\":false}",
        "<br />\n<b>Notice</b>: Undefined index in <b>/w/a.php</b> on line <b>3</b><br />\n{\"success\":false}",
        "{\"success\":false}<!-- 3 ms -->",
        r#"{"error":{"x":1}}"#,
        "\u{feff} {\"success\":false} \n",
    ] {
        let judgement = status(200, body);
        is(&judgement, "body.failure", Retryable, PauseWanted::None);
        assert_eq!((judgement.cap, judgement.counts), (Some(3), true), "{body}");
        is(
            &status(400, body),
            "status.refused",
            Refused,
            PauseWanted::Page,
        );
        is(
            &status(401, body),
            "status.page",
            Retryable,
            PauseWanted::Page,
        );
        // It may have come after acceptance, whatever the body says.
        is(
            &status(500, body),
            "status.ambiguous",
            Ambiguous,
            PauseWanted::None,
        );
    }
    // Its code and words are those of the part that says no.
    let within = r#"{"id":7,"data":{"error":{"code":10010,"message":"Recipient"}}}"#;
    is(
        &status(200, within),
        "code.10010",
        Refused,
        PauseWanted::None,
    );
    let signed = r#"{"result":"fail","msg":"sign error"}"#;
    is(
        &status(200, signed),
        "body.signature",
        Retryable,
        PauseWanted::Page,
    );
}

#[test]
fn a_body_is_a_success_only_where_it_says_so() {
    for body in [
        r#"{"success":true,"recipient_id":"1602407863220595"}"#,
        r#"{"success":true,"error":null,"errors":{}}"#,
        r#"{"success":true,"error":false,"errors":[]}"#,
        r#"{"success":true,"error":"","errors":0}"#,
        r#"{"success":true,"errors":{"code":0,"msg":""}}"#,
        r#"{"success":true,"errors":{"code":"0","message":"ok","trace":"7f"}}"#,
        r#"{"success":true,"errors":[{"code":0}],"error":"none"}"#,
        r#"{"success":true,"error":{"code":0,"message":"Success"}}"#,
        r#"{"recipient_id":"1"}"#,
        r#"{"message_id":"mid.1"}"#,
        r#""{\"success\":true}""#,
        "\u{feff}\u{feff}{\"success\":true}",
        "ok.{\"success\":true}",
        "/* cached */{\"success\":true}",
        "while(1);{\"success\":true}",
        "<br />\n<b>Warning</b>: x in <b>/w/a[0].php</b> on line <b>3</b><br />\n{\"success\":true}",
        "done({\"success\":true});",
        "ok.",
        "成功",
        "ok",
        " OK\n",
        "Success",
    ] {
        is(
            &status(200, body),
            "body.success",
            Delivered,
            PauseWanted::None,
        );
        let torn = status(500, body);
        is(&torn, "body.contradiction", Ambiguous, PauseWanted::None);
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
        r#"{"success":"yes"}"#,
        r#"{"success":1}"#,
        r#"{"recipient_id":null,"message_id":""}"#,
        r#"{"status":"sent"}"#,
        r#"{"status":1}"#,
        r#"{"data":{"success":true}}"#,
        r#"{"errors":{"code":0,"msg":""}}"#,
        r#"{"a":{"b":{"c":{"d":{"error":"too deep"}}}}}"#,
    ] {
        is(
            &status(200, body),
            "status.2xx",
            Delivered,
            PauseWanted::None,
        );
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
        r#"{"status":500,"msg":"x"}"#,
        r#"{"statusCode":"503"}"#,
        r#"{"success":true,"results":[{"success":false}]}"#,
        "sent",
        "okay",
        r#"{"text":"\ud83d"}"#,
        "<html><script>state = {\"success\":true}</script></html>",
    ] {
        let judgement = status(200, body);
        is(&judgement, "body.suspicious", Ambiguous, PauseWanted::None);
        assert!(judgement.hold, "{body}");
        let cut = judged(&cut(200, body));
        is(&cut, "body.suspicious", Ambiguous, PauseWanted::None);
    }
    for body in [
        "{",
        r#"{"success":true"#,
        "ok.{\"id\":1}",
        "{\"a\":1} {\"success\":true}",
        "{\"success\":false} {\"success\":true}",
    ] {
        is(
            &status(200, body),
            "body.suspicious",
            Ambiguous,
            PauseWanted::None,
        );
    }
    let mut zipped = answer(200, JSON, "");
    if let Answer::Status { body, .. } = &mut zipped {
        *body = vec![0x1f, 0x8b, 8, 0, 0];
    }
    let judgement = judged(&zipped);
    is(&judgement, "body.suspicious", Ambiguous, PauseWanted::None);
    assert!(judgement.reason.contains("gzip"), "{}", judgement.reason);
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
        is(
            &status(200, body),
            "status.2xx",
            Delivered,
            PauseWanted::None,
        );
    }
    let html = |body| judged(&answer(200, Some("text/html; charset=utf-8"), body));
    for body in ["<html>login</html>", "{}", "ok"] {
        is(&html(body), "body.suspicious", Ambiguous, PauseWanted::None);
    }
    is(&html(""), "status.2xx", Delivered, PauseWanted::None);
    is(
        &html(r#"{"success":true}"#),
        "body.success",
        Delivered,
        PauseWanted::None,
    );
    is(
        &html(r#"{"success":false}"#),
        "body.failure",
        Retryable,
        PauseWanted::None,
    );
}

#[test]
fn a_2xx_that_is_not_read_whole_is_delivered_unless_what_was_read_says_no() {
    for (body, rule) in [
        ("", "status.2xx"),
        (r#"{"succ"#, "status.2xx"),
        ("<html>", "body.suspicious"),
        ("xxxx", "body.suspicious"),
        ("not f", "body.suspicious"),
        ("{xxxx", "body.suspicious"),
        (r#"{"a":1,xxxx"#, "body.suspicious"),
        (r#"{"x":["#, "status.2xx"),
        (r#"{"x":[1,2,"#, "status.2xx"),
        ("nul", "status.2xx"),
        (r#"{"code":401,"msg":"si"#, "body.suspicious"),
        (r#"{"data":{"error":"no"},"x":"#, "body.failure"),
        (r#"{"success":true,"x":""#, "body.success"),
        (r#"{"success":false,"x":""#, "body.failure"),
        (r#"{"success":false,"error":"no"}"#, "body.failure"),
        (r#"{"error":{"code":10010,"message":"Recipi"#, "code.10010"),
        (r#"{"x":[1,2],"success":false,"y":["#, "body.failure"),
    ] {
        assert_eq!(judged(&cut(200, body)).rule, rule, "{body}");
    }
    let page = |body: &str| {
        let mut page = cut(200, body);
        if let Answer::Status { content_type, .. } = &mut page {
            *content_type = Some("text/html".to_owned());
        }
        judged(&page).rule
    };
    for body in ["", "<html>", "{", r#"{"x":1,"#] {
        assert_eq!(page(body), "body.suspicious", "{body}");
    }
    assert_eq!(page(r#"{"success":true,"x":"#), "body.success");
    assert_eq!(
        judged(&cut(500, "x")).reason,
        "HTTP 500, cut: longer",
        "a failed attempt says that its answer was cut"
    );
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
            is(&judgement, "body.signature", Retryable, PauseWanted::Page);
            assert!(!judgement.counts, "a wrong secret must not use up attempts");
        }
        for body in [words.to_owned(), format!(r#"{{"code":7,"msg":"{words}"}}"#)] {
            is(
                &status(400, &body),
                "text.signature",
                Retryable,
                PauseWanted::Page,
            );
            is(
                &status(500, &body),
                "status.ambiguous",
                Ambiguous,
                PauseWanted::None,
            );
        }
    }
    // A path that does not exist is the endpoint's, whatever its page says.
    is(
        &judged(&answer(404, Some("text/html"), "page not found")),
        "status.endpoint",
        Retryable,
        PauseWanted::Endpoint,
    );
    let unknown = r#"{"success":false,"code":1,"msg":"sign error"}"#;
    is(
        &status(200, unknown),
        "body.signature",
        Retryable,
        PauseWanted::Page,
    );
    for words in ["assigned", "sign", "authorized", "not found", "bound"] {
        let failure = format!(r#"{{"success":false,"errors":"{words}"}}"#);
        is(
            &status(200, &failure),
            "body.failure",
            Retryable,
            PauseWanted::None,
        );
        is(
            &status(400, words),
            "status.refused",
            Refused,
            PauseWanted::Page,
        );
    }
}

#[test]
fn a_reason_names_status_code_and_words() {
    for (code, body, reason) in [
        (503, "", "HTTP 503"),
        (
            503,
            r#"{"error":{"code":503,"message":"Service Unavailable"}}"#,
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
fn a_reason_is_one_line_whatever_the_answer_says() {
    let body = r#"{"errors":{"msg":"one\r\ntwo\u0000\u001b[31m\u009b three"}}"#;
    assert_eq!(status(400, body).reason, "HTTP 400: one  two  [31m  three");
}
