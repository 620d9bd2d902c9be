//! Generated messages: valid ones pass, one broken rule is the one that is named, and no bytes
//! at all make the rules panic.

use postlane_message::validate::{self, Limits, Request, WireForm};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::judge;
use super::support::breaks::breaks;
use super::support::generate::request;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_valid_request_of_any_type_passes_and_its_body_says_the_same(request in request()) {
        let text = request.to_string();
        let document = validate::document(text.as_bytes(), &[], &Limits::default());
        let document = document.map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        let row = document.request();
        let body = validate::body(&row, WireForm::default());
        prop_assert_eq!(&body, &validate::body(&row, WireForm::default()));
        // The body is a valid request too, and nothing in it is left to turn into a string.
        let again = validate::document(&body, &[], &Limits::default());
        let again = again.map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        let row = Request { message: again.message.as_bytes(), ..row };
        let sent = validate::body(&row, WireForm::default());
        prop_assert_eq!(sent, body);
    }

    #[test]
    fn a_request_that_breaks_one_rule_is_refused_by_that_rule(
        request in request(), pick in any::<Index>(),
    ) {
        let mut broken_by = 0;
        for broken in breaks() {
            let mut request = request.clone();
            if broken.apply(&mut request, pick) {
                let judged = judge(&request).map_err(|refusal| refusal.rule.into_owned());
                let line = broken.line;
                prop_assert_eq!(judged, Err(broken.rule), "{}: {}", line, request);
                broken_by += 1;
            }
        }
        prop_assert!(broken_by > 20);
    }

    #[test]
    fn no_bytes_make_the_rules_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        pieces in prop::collection::vec(select(PIECES.to_vec()), 0..60),
    ) {
        let joined = pieces.concat();
        for bytes in [bytes.as_slice(), joined.as_bytes()] {
            survives(bytes);
        }
    }

    #[test]
    fn no_damage_to_a_valid_request_makes_the_rules_panic(
        request in request(), at in any::<Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut bytes = request.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        survives(if cut { &bytes[..at] } else { &bytes });
    }
}

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u",
    "\\ud83d",
    "\"a\"",
    "1",
    "-",
    "0",
    "e9",
    ".",
    "null",
    "true",
    "\"template_type\":",
    "\"button\"",
    "\"text\":",
    "\"buttons\":",
    "\"payload\":",
    "\"type\":\"postback\"",
    "{\"block_id\":1}",
    "\"elements\":",
    " ",
    "订",
    "\0",
    "\"$serde_json::private::Number\":",
    "\"$serde_json::private::RawValue\":",
];

fn survives(bytes: &[u8]) {
    let limits = Limits::default();
    let text = String::from_utf8_lossy(bytes);
    let request = Request {
        page_id: &text,
        recipient: bytes,
        message: bytes,
        tag: Some(&text),
        delay: Some(i64::MIN),
    };
    let good = Request {
        page_id: "1",
        recipient: br#"{"id":"1"}"#,
        tag: None,
        delay: None,
        ..request
    };
    let _ = validate::request(&request, &limits);
    let _ = validate::request(&good, &limits);
    let _ = validate::recipient(bytes);
    let _ = validate::document(bytes, &["a"], &limits);
    assert!(!validate::body(&request, WireForm::default()).is_empty());
    assert!(!validate::body(&good, WireForm::default()).is_empty());
}

#[test]
fn every_rule_in_the_list_is_broken_by_a_break() {
    let mut left = validate::rules(&Limits::default());
    assert_eq!(left.len(), 143);
    for broken in breaks() {
        left.retain(|rule| *rule != broken.rule);
    }
    // What is not a JSON value at all is broken as text.
    let texts = [
        ("json.utf8", b"\"\xff\"".as_slice()),
        ("json.syntax", b"{"),
        ("json.lone_surrogate", br#"{"page_id":"\ud83d"}"#),
        ("json.duplicate_key", br#"{"tag":1,"tag":1}"#),
        ("request.object", b"[]"),
    ];
    let depth = [b"[".repeat(200), b"]".repeat(200)].concat();
    let depth = [
        br#"{"page_id":1,"recipient":{"id":"1"},"message":"#,
        depth.as_slice(),
        b"}",
    ]
    .concat();
    for (rule, text) in texts.into_iter().chain([("json.depth", depth.as_slice())]) {
        let judged = validate::document(text, &[], &Limits::default());
        let refusal = judged.expect_err("refused");
        left.retain(|left| left != rule || refusal.rule != rule);
    }
    assert!(left.is_empty(), "nothing breaks {left:?}");
}

#[test]
fn every_break_is_possible_in_a_message_of_its_type() {
    // Otherwise the property above would pass over it in silence.
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut left = breaks();
    for _ in 0..400 {
        let request = request().new_tree(&mut runner).unwrap().current();
        let pick = any::<Index>().new_tree(&mut runner).unwrap().current();
        left.retain(|broken| !broken.apply(&mut request.clone(), pick));
    }
    let left: Vec<_> = left
        .iter()
        .map(|broken| (&broken.types, &broken.place))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
