//! The vendor's samples and the published cases.

use postlane_message::Request;
use postlane_message::validate::{self, Limits};
use serde_json::{Value, json};

use super::support::button;
use super::support::samples::{cases, files, requests};
use super::{judge, rule};

#[test]
fn every_published_case_is_judged_as_it_says() {
    for case in cases() {
        let judged = validate::document(case.payload.get().as_bytes(), &[], &Limits::default());
        match judged {
            Ok(_) => assert!(case.valid, "{} passed, breaks {}", case.name, case.rule),
            Err(refusal) => {
                assert!(!case.valid, "{} is refused: {refusal}", case.name);
                assert_eq!(refusal.rule, case.rule, "{}: {refusal}", case.name);
            }
        }
    }
}

#[test]
fn every_sample_of_the_vendor_is_accepted() {
    for (name, text) in requests() {
        let judged = validate::document(text.as_bytes(), &[], &Limits::default());
        assert!(judged.is_ok(), "{name}: {judged:?}");
    }
}

#[test]
fn every_sample_can_be_built_from_the_nouns() {
    for (name, text) in requests() {
        let given: Value = serde_json::from_str(&text).unwrap();
        let built: Request = serde_json::from_str(&text).unwrap();
        let written = serde_json::to_string(&built).unwrap();
        // Compared as values, in which a number is its spelling; a page is written as a number.
        let mut wanted = given.clone();
        wanted["page_id"] = 12345.into();
        assert_eq!(
            serde_json::from_str::<Value>(&written).unwrap(),
            wanted,
            "{name}"
        );
        assert!(judge(&given).is_ok());
        assert!(built.check(&Limits::default()).is_ok(), "{name}");
    }
}

#[test]
fn the_vendors_button_formats_pass_except_for_their_placeholder_url() {
    for (name, fragment) in files("samples/fragments") {
        let fragment: Value = serde_json::from_str(&fragment).unwrap();
        if name.contains("web_url") {
            assert_eq!(rule(&button(fragment)), "web_url.url.format", "{name}");
        } else if name.contains("payload-object") {
            let postback = json!({"type": "postback", "title": "Go", "payload": fragment});
            assert!(judge(&button(postback)).is_ok(), "{name}");
        } else {
            assert!(judge(&button(fragment)).is_ok(), "{name}");
        }
    }
}
