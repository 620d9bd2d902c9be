//! The vendor's samples and the published cases.

use std::fs;
use std::path::{Path, PathBuf};

use postlane::message::Request;
use postlane::validate::{self, Limits};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{button, judge, rule};

#[derive(serde::Deserialize)]
pub struct Case {
    pub name: String,
    pub payload: Box<RawValue>,
    pub valid: bool,
    pub rule: String,
}

/// The published cases, each a request with its verdict.
pub fn cases() -> Vec<Case> {
    let lines = fs::read_to_string(data().join("validation-cases.jsonl")).unwrap();
    let cases: Vec<Case> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(cases.len(), 143);
    cases
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/joinchat")
}

/// The JSON files of `folder`, by name.
fn files(folder: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(data().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .filter(|path| !path.ends_with("index.json"))
        .map(|path| {
            (
                path.display().to_string(),
                fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

pub fn requests() -> Vec<(String, String)> {
    let mut requests = files("samples");
    requests.extend(files("samples/recipients"));
    for name in ["000-php-body.txt", "001-php-body.txt"] {
        let path = data().join("samples").join(name);
        requests.push((name.to_owned(), fs::read_to_string(path).unwrap()));
    }
    assert_eq!(requests.len(), 27);
    requests
}

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
