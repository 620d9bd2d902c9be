//! The rules over HTTP: refused, noted, or not looked at. The rules themselves are tried in
//! the product's `tests/sandbox.rs`, beside its own.

use sandbox::{Mock, MockConfig, Rules};
use serde_json::Value;

use crate::{answer, client, config, data, request, script};

const TOO_LONG: &str = "(#100) message.text is 641 characters, at most 640";

fn mock(rules: Rules) -> Mock {
    let config = MockConfig { rules, ..config() };
    Mock::start(config).expect("a free port on loopback")
}

#[tokio::test]
async fn an_invalid_request_is_refused_in_the_vendors_words_and_its_script_waits() {
    let (mock, client) = (mock(Rules::Enforce), client());
    mock.script("7", script("503, ok"));
    let (status, body) = answer(&client, &mock, "7", &"x".repeat(641)).await;
    let refused = format!(r#"{{"success":false,"errors":{{"code":100,"msg":"{TOO_LONG}"}}}}"#);
    assert_eq!((status, body), (400, refused));
    for status in [503, 200] {
        assert_eq!(answer(&client, &mock, "7", "hello #1").await.0, status);
    }
    let stats = mock.stats();
    assert_eq!((stats.invalid, stats.received, stats.accepted), (1, 3, 1));
    assert_eq!(stats.duplicates, 0);
    let first = &mock.received()[0];
    assert_eq!(
        (first.taken, first.invalid.as_deref()),
        (false, Some(TOO_LONG))
    );
    let finding = format!("12345/id:7 (received 1): a message is invalid: {TOO_LONG}");
    assert_eq!(mock.findings(), [finding]);
}

#[tokio::test]
async fn with_note_it_is_answered_as_if_it_were_valid_and_with_off_nobody_looks() {
    let long = "x".repeat(641);
    for (rules, invalid) in [(Rules::Note, Some(TOO_LONG)), (Rules::Off, None)] {
        let (mock, client) = (mock(rules), client());
        assert_eq!(answer(&client, &mock, "7", &long).await.0, 200, "{rules:?}");
        let received = &mock.received()[0];
        assert_eq!(
            (received.taken, received.invalid.as_deref()),
            (true, invalid)
        );
        assert_eq!(mock.stats().invalid, u64::from(invalid.is_some()));
        assert_eq!(mock.stats().accepted, 1);
    }
}

#[tokio::test]
async fn every_published_case_is_answered_as_its_verdict_says() {
    let (mock, client) = (mock(Rules::Enforce), client());
    for line in data("validation-cases.jsonl").lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let body = case["payload"].to_string();
        let response = request(&client, &mock, body)
            .send()
            .await
            .expect("an answer");
        let status = if case["valid"] == true { 200 } else { 400 };
        assert_eq!(response.status(), status, "{}", case["name"]);
        let answer = response.text().await.expect("a whole body");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["success"], case["valid"], "{}", case["name"]);
    }
    assert_eq!(mock.stats().requests, 143);
}
