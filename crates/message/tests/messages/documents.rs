//! Whole documents: how they split, and what is refused before a field is looked at.

use postlane_message::validate::{self, Document, Limits, Request, recipient};

const MESSAGE: &str = r#"{ "template_type":"text", "text":"a\/b" }"#;

fn document<'a>(line: &'a str, extra: &[&str]) -> Result<Document<'a>, String> {
    validate::document(line.as_bytes(), extra, &Limits::default())
        .map_err(|refusal| refusal.to_string())
}

fn rule(line: &str) -> String {
    let refusal = document(line, &["send_at"]).expect_err("refused");
    refusal.split(": ").next().unwrap().to_owned()
}

#[test]
fn a_document_splits_without_a_touch_to_the_bytes_of_its_parts() {
    let line = format!(
        r#" {{"send_at":"2026-01-01T00:00:00Z","message":{MESSAGE},"tag":"HUMAN_\u0041GENT","page_id":"12345",  "recipient" : {{ "id":"\u0031" }} }} "#
    );
    let document = document(&line, &["send_at"]).unwrap();
    assert_eq!(document.page_id, "12345");
    assert_eq!(document.recipient, r#"{ "id":"\u0031" }"#);
    assert_eq!(document.message, MESSAGE);
    assert_eq!(document.tag.as_deref(), Some("HUMAN_AGENT"));
    assert_eq!(document.delay, 0);
    let extras: Vec<_> = document
        .extras
        .iter()
        .map(|(key, value)| (key.as_str(), value.get()))
        .collect();
    assert_eq!(extras, [("send_at", "\"2026-01-01T00:00:00Z\"")]);
}

#[test]
fn a_refusal_names_the_rule_the_place_and_the_measure() {
    let line = r#"{"page_id":1,"recipient":{"id":"1"},"message":{"template_type":"button","text":"t","buttons":[{"type":"postback","title":"aaaaaaaaaaaaaaaaaaaaa","payload":"p"}]}}"#;
    assert_eq!(
        document(line, &[]).expect_err("21 characters"),
        "button.title.max_20: message.buttons[0].title: is 21 characters, at most 20"
    );
}

#[test]
fn a_refusal_stays_one_short_line_whatever_the_producer_wrote() {
    let key = "k\n".repeat(5000);
    let line = serde_json::json!({ key: 1 }).to_string();
    let refusal = document(&line, &[]).expect_err("unknown key");
    assert!(
        refusal.starts_with("request.unknown_key: request["),
        "{refusal}"
    );
    assert!(refusal.len() < 300 && !refusal.contains('\n'), "{refusal}");
    let line = format!(
        r#"{{"page_id":1,"recipient":{{"id":"1"}},"message":{MESSAGE},"tag":"{}"}}"#,
        "x\\n".repeat(5000)
    );
    let refusal = document(&line, &[]).expect_err("unknown tag");
    assert!(refusal.len() < 700 && !refusal.contains('\n'), "{refusal}");
    let deep = format!(
        "{}{{\"a\":1,\"a\":2}}{}",
        "{\"kkkkkkkkk\":".repeat(100),
        "}".repeat(100)
    );
    let line = format!(
        r#"{{"page_id":1,"recipient":{{"id":"1"}},"message":{{"template_type":"text","text":"t","x":{deep}}}}}"#
    );
    let refusal = document(&line, &[]).expect_err("a key twice");
    assert!(
        refusal.starts_with("json.duplicate_key: message.x.kkk"),
        "{refusal}"
    );
    assert!(refusal.len() < 300, "{refusal}");
}

#[test]
fn what_cannot_be_split_is_refused_by_name() {
    assert_eq!(rule(""), "json.syntax");
    assert_eq!(rule("\u{feff}{}"), "json.syntax");
    assert_eq!(rule("[]"), "request.object");
    assert_eq!(rule("null"), "request.object");
    assert_eq!(rule("{}"), "page_id.required");
    assert_eq!(rule(r#"{"page_id":1,"page_id":1}"#), "json.duplicate_key");
    assert_eq!(
        rule(r#"{"page_id":1,"Recipient":{}}"#),
        "request.unknown_key"
    );
    assert_eq!(
        rule(r#"{"page_id":1,"recipient":null,"message":null}"#),
        "recipient.required"
    );
    for page in [
        "0", "\"0\"", "\"007\"", "\"\"", "-1", "1e3", "12.0", "\" 1\"", "\"１\"", "{}",
    ] {
        assert_eq!(
            rule(&format!(
                r#"{{"page_id":{page},"recipient":1,"message":1}}"#
            )),
            "page_id.type"
        );
    }
    let bytes = b"{\"page_id\":1,\"recipient\":{\"id\":\"\xff\"}}";
    let refusal = validate::document(bytes, &[], &Limits::default()).expect_err("not UTF-8");
    assert_eq!(refusal.rule, "json.utf8");
    let rest =
        |message: &str| format!(r#"{{"page_id":1,"recipient":{{"id":"1"}},"message":{message}}}"#);
    assert_eq!(rule(&rest("null")), "message.required");
    assert_eq!(rule(&rest("[]")), "message.object");
    assert_eq!(
        rule(&rest(r#"{"template_type":"text","text":"\ud83d"}"#)),
        "json.lone_surrogate"
    );
    assert_eq!(
        rule(&rest(
            r#"{"template_type":"text","text":"t","x":{"a":1,"a":2}}"#
        )),
        "json.duplicate_key"
    );
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(200), "]".repeat(200));
    assert_eq!(rule(&rest(&deep)), "json.depth");
}

#[test]
fn a_row_is_judged_like_a_document() {
    let request = Request {
        page_id: "12345",
        recipient: br#"{"id":"1"}"#,
        message: MESSAGE.as_bytes(),
        tag: None,
        delay: Some(10),
    };
    let judge = |request: &Request<'_>| {
        validate::request(request, &Limits::default()).map_err(|refusal| refusal.rule.into_owned())
    };
    assert_eq!(judge(&request), Ok(vec![]));
    assert_eq!(
        judge(&Request {
            delay: Some(-1),
            ..request
        }),
        Err("delay.range_0_10".to_owned())
    );
    assert_eq!(
        judge(&Request {
            page_id: "0",
            ..request
        }),
        Err("page_id.type".to_owned())
    );
    assert_eq!(
        judge(&Request {
            tag: Some(""),
            ..request
        }),
        Err("tag.enum".to_owned())
    );
    assert_eq!(
        judge(&Request {
            message: b"{}",
            ..request
        }),
        Err("template_type.required".to_owned())
    );
    assert_eq!(
        judge(&Request {
            recipient: b"[]",
            ..request
        }),
        Err("recipient.object".to_owned())
    );
}

#[test]
fn a_recipient_is_its_kind_and_its_decoded_value() {
    let lane = |json: &str| recipient(json.as_bytes()).map_err(|refusal| refusal.rule.into_owned());
    assert_eq!(lane(r#"{"id":"123456"}"#), Ok(("id", "123456".to_owned())));
    assert_eq!(
        lane(r#"{"em\u0061il":" A\u0042@x "}"#),
        Ok(("email", " AB@x ".to_owned()))
    );
    assert_eq!(
        lane(r#"{"id":"a\u0000b"}"#),
        Err("recipient.value.no_nul".to_owned())
    );
    assert_eq!(
        lane(r#"{"id":" \u3000"}"#),
        Err("recipient.value.nonempty".to_owned())
    );
    assert_eq!(
        lane(r#"{"id":null}"#),
        Err("recipient.value.string".to_owned())
    );
    assert_eq!(
        lane(r#"{"id":"1","id":"2"}"#),
        Err("json.duplicate_key".to_owned())
    );
    assert_eq!(
        lane(r#"{"id":"1","psid":"2"}"#),
        Err("recipient.unknown_key".to_owned())
    );
    assert_eq!(
        lane(r#"{"id":"1","phone":null}"#),
        Err("recipient.exactly_one".to_owned())
    );
}
