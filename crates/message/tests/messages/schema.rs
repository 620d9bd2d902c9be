//! The JSON Schema against the rules: what one takes the other takes, and what one refuses the
//! other refuses, but for [`EXEMPT`].

use std::sync::LazyLock;

use postlane_message::validate::{self, Limits};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::checker::Checker;
use super::damage::damages;
use super::support::breaks::breaks;
use super::support::generate::request;
use super::support::samples::{cases, requests};
use super::support::{button, receipt, text, with_message};
use super::{judge, rule};

/// What the rules refuse and the schema takes, and why it cannot say so. For each an example that
/// shows that this is still so.
fn exempt() -> Vec<(&'static str, &'static str, Value)> {
    let postback =
        |payload: Value| button(json!({"type": "postback", "title": "Go", "payload": payload}));
    let linked = |url: &str| button(json!({"type": "web_url", "title": "Go", "url": url}));
    let whole = || serde_json::from_str::<Value>("1.0").unwrap();
    let huge = || serde_json::from_str::<Value>("1e999").unwrap();
    let with = |key: &str, value: Value| {
        let mut request = text("t");
        request[key] = value;
        request
    };
    vec![
        // A schema counts characters, not bytes.
        (
            "message.max_65536_bytes",
            "bytes",
            with(
                "message",
                json!({"template_type": "text", "text": "t", "x": "a".repeat(66_000)}),
            ),
        ),
        (
            "recipient.max_1024_bytes",
            "bytes",
            with("recipient", json!({"id": "a".repeat(1025)})),
        ),
        // An object as payload is measured as the string that it becomes.
        (
            "postback.payload.max_1000",
            "objects",
            postback(json!({"block_id": "a".repeat(1000)})),
        ),
        // A pattern cannot judge hosts and ports.
        ("web_url.url.format", "hosts", linked("https://a.b:99999/")),
        // In JSON Schema 1.0 is an integer; the vendor's readers need not agree.
        ("page_id.type", "1.0", with("page_id", whole())),
        ("delay.type", "1.0", with("delay", whole())),
        (
            "postback.payload.object_values",
            "1.0",
            postback(json!({"block_id": whole()})),
        ),
        // A number that no double holds is lost before a schema sees it, in most languages.
        (
            "receipt.summary.number",
            "1e999",
            receipt(json!({"summary": {"total_cost": huge()}})),
        ),
    ]
}

/// True if the rules may refuse `request` by `rule` although the schema takes it.
fn is_exempt(rule: &str, request: &Value) -> bool {
    match rule {
        "message.max_65536_bytes" | "recipient.max_1024_bytes" => true,
        "postback.payload.max_1000" => {
            holds(request, &|key, value| key == "payload" && value.is_object())
        }
        name if name.ends_with("url.format") => holds(request, &|key, value| {
            key.ends_with("url") && value.as_str().is_some_and(|text| text.contains("://"))
        }),
        "page_id.type" | "delay.type" | "postback.payload.object_values" => {
            holds(request, &|_, value| {
                value.is_number() && value.to_string().contains(['.', 'e', 'E'])
            })
        }
        _ => holds(request, &|_, value| {
            value.is_number() && value.as_f64().is_none_or(f64::is_infinite)
        }),
    }
}

/// True if a member anywhere in `value` is as `wanted`.
fn holds(value: &Value, wanted: &dyn Fn(&str, &Value) -> bool) -> bool {
    match value {
        Value::Object(members) => members
            .iter()
            .any(|(key, value)| wanted(key, value) || holds(value, wanted)),
        Value::Array(items) => items.iter().any(|item| holds(item, wanted)),
        _ => false,
    }
}

fn checker() -> &'static Checker {
    static CHECKER: LazyLock<Checker> =
        LazyLock::new(|| Checker::new(validate::schema(&Limits::default())));
    &CHECKER
}

/// Both judge `request`, and agree.
fn agree(checker: &Checker, request: &Value) -> Result<(), String> {
    let schema = checker.check(request);
    match (judge(request), schema) {
        (Ok(_), Ok(())) | (Err(_), Err(_)) => Ok(()),
        (Ok(_), Err(why)) => Err(format!("only the schema refuses: {why}: {request}")),
        (Err(refusal), Ok(())) if is_exempt(&refusal.rule, request) => Ok(()),
        (Err(refusal), Ok(())) => Err(format!("only the rules refuse: {refusal}: {request}")),
    }
}

#[test]
fn the_shipped_schema_is_the_one_that_the_types_and_the_defaults_make() {
    let shipped = include_str!("../../../../schema/request.schema.json");
    let made = validate::schema_text(&Limits::default());
    assert!(
        shipped == made,
        "write it anew: postlane check-message --schema > schema/request.schema.json"
    );
    assert!(made.is_ascii());
    let read: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(read, validate::schema(&Limits::default()));
    assert_eq!(
        read["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
}

#[test]
fn rules_and_schema_agree_about_every_published_case_and_sample() {
    let checker = checker();
    for case in cases() {
        let payload = serde_json::from_str(case.payload.get()).unwrap();
        assert_eq!(checker.check(&payload).is_ok(), case.valid, "{}", case.name);
    }
    for (name, text) in requests() {
        let request = serde_json::from_str(&text).unwrap();
        assert_eq!(checker.check(&request), Ok(()), "{name}");
    }
}

#[test]
fn every_exemption_is_needed() {
    let checker = checker();
    for (name, why, request) in exempt() {
        assert_eq!(rule(&request), name, "{why}");
        assert!(is_exempt(name, &request), "{name}: {why}");
        assert_eq!(
            checker.check(&request),
            Ok(()),
            "{name}: {why}: no longer needed"
        );
    }
    let names: Vec<_> = exempt().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), 8);
}

#[test]
fn other_bounds_and_tags_stand_in_the_schema_too() {
    let limits = Limits {
        text_max: 3,
        buttons_max: 4,
        tags: vec!["MINE".to_owned()],
        ..Limits::default()
    };
    let checker = Checker::new(validate::schema(&limits));
    let mut tagged = text("abc");
    tagged["tag"] = "MINE".into();
    assert_eq!(checker.check(&tagged), Ok(()));
    tagged["tag"] = "HUMAN_AGENT".into();
    assert!(checker.check(&tagged).is_err());
    assert!(checker.check(&text("abcd")).is_err());
    let link = json!({"type": "web_url", "title": "t", "url": "http://a.b"});
    let buttons = |count| {
        with_message(
            json!({"template_type": "button", "text": "t", "buttons": vec![link.clone(); count]}),
        )
    };
    assert_eq!(checker.check(&buttons(4)), Ok(()));
    assert!(checker.check(&buttons(5)).is_err());
}

#[test]
fn the_blanks_of_the_schema_are_those_of_the_rules() {
    let checker = checker();
    for c in ('\0'..='\u{ffff}').filter(|c| c.is_whitespace() || c.is_control()) {
        for word in [c.to_string(), format!("x{c}")] {
            agree(checker, &text(word.clone())).unwrap();
            let mut request = text("t");
            request["recipient"] = json!({ "id": word });
            agree(checker, &request).unwrap();
            let link = json!({"type": "web_url", "title": "t", "url": format!("http://{word}")});
            agree(checker, &button(link)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_and_schema_agree_about_valid_requests_and_about_each_way_to_break_one(
        request in request(), pick in any::<Index>(),
    ) {
        let checker = checker();
        prop_assert_eq!(checker.check(&request), Ok(()));
        for broken in breaks() {
            let mut request = request.clone();
            if broken.apply(&mut request, pick) {
                agree(checker, &request).map_err(TestCaseError::fail)?;
            }
        }
    }
}

proptest! {
    // Each case is hundreds of requests.
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_and_schema_agree_about_any_damage_anywhere(request in request()) {
        for damaged in damages(&request) {
            agree(checker(), &damaged).map_err(TestCaseError::fail)?;
        }
    }
}
