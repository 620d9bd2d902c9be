//! The sandbox's own rules and the product's agree, though neither knows the other's.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

#[path = "../crates/message/tests/support/mod.rs"]
mod support;

use postlane_message::validate::{self, Limits};
use proptest::prelude::*;
use proptest::sample::Index;
use sandbox::{Breach, check};
use serde_json::{Value, json};

use support::breaks::breaks;
use support::generate::request;
use support::samples::{Case, cases, requests};
use support::{NO_URLS, URLS, button, generic, linked, list, receipt, text, with_message};

/// Rules of Postlane alone: the vendor has none of them, so the sandbox lets these pass.
const OURS: [&str; 5] = [
    // No column holds it; the vendor does not forbid it.
    "request.unknown_key",
    // The sizes of the columns; spec sections 1.2, 1.3 and 1.5 bound none of the three.
    "page_id.max_40",
    "recipient.max_1024_bytes",
    "message.max_65536_bytes",
    // Postgres cannot store it in the lane.
    "recipient.value.no_nul",
];

fn look(request: &Value) -> Result<(), Breach> {
    check(request.to_string().as_bytes())
}

#[test]
fn every_published_case_gets_the_verdict_that_it_says() {
    for case in cases() {
        let looked = check(case.payload.get().as_bytes());
        let Case { name, rule, .. } = &case;
        assert_eq!(looked.is_ok(), case.valid, "{name}: {rule}: {looked:?}");
    }
}

#[test]
fn every_sample_of_the_vendor_passes() {
    for (name, text) in requests() {
        assert_eq!(check(text.as_bytes()), Ok(()), "{name}");
    }
}

#[test]
fn every_bound_holds_on_both_sides_with_the_figures_and_the_code() {
    let link = json!({"type": "web_url", "title": "Go", "url": "http://a.b"});
    let element = json!({"title": "t", "subtitle": "s", "price": 0});
    let long = |n: usize| "订".repeat(n);
    let many = |n: usize, item: &Value| Value::from(vec![item.clone(); n]);
    let titled = |n| button(json!({"type": "web_url", "title": long(n), "url": "http://a.b"}));
    let paid = |n| button(json!({"type": "postback", "title": "t", "payload": long(n)}));
    let buttons = |n| {
        with_message(json!({"template_type": "button", "text": "t", "buttons": many(n, &link)}))
    };
    let cards =
        |n| with_message(json!({"template_type": "generic", "elements": many(n, &element)}));
    let rows = |n| with_message(json!({"template_type": "list", "elements": many(n, &element)}));
    type Bound<'b> = (&'b dyn Fn(usize) -> Value, usize, &'b str);
    let bounds: [Bound<'_>; 9] = [
        (
            &|n| text(long(n)),
            640,
            "(#100) message.text is 641 characters, at most 640",
        ),
        (
            &titled,
            20,
            "(#100) message.buttons[0].title is 21 characters, at most 20",
        ),
        (
            &paid,
            1000,
            "(#100) message.buttons[0].payload is 1001 characters, at most 1000",
        ),
        (
            &buttons,
            3,
            "(#105) message.buttons has 4 items, from 1 to 3",
        ),
        (
            &cards,
            10,
            "(#105) message.elements has 11 items, from 1 to 10",
        ),
        (&rows, 4, "(#105) message.elements has 5 items, from 2 to 4"),
        (
            &|n| generic(json!({"title": long(n), "subtitle": "s"})),
            80,
            "(#100) message.elements[0].title is 81 characters, at most 80",
        ),
        (
            &|n| list(json!({"title": "t", "subtitle": long(n)})),
            80,
            "(#100) message.elements[0].subtitle is 81 characters, at most 80",
        ),
        (
            &|n| receipt(json!({"elements": many(n, &element)})),
            100,
            "(#105) message.elements has 101 items, from 0 to 100",
        ),
    ];
    for (request, most, words) in bounds {
        assert_eq!(look(&request(most)), Ok(()), "{most}");
        assert_eq!(look(&request(most + 1)).unwrap_err().to_string(), words);
    }
    assert!(look(&rows(1)).is_err() && look(&buttons(0)).is_err());
}

#[test]
fn the_same_urls_are_absolute_to_both() {
    for url in URLS {
        assert_eq!(look(&linked(url)), Ok(()), "{url}");
    }
    for url in NO_URLS {
        let breach = look(&linked(url)).expect_err(url);
        assert_eq!(breach.place, "message.buttons[0].url", "{url:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_generated_request_passes_and_so_does_the_body_that_the_worker_makes_of_it(
        request in request(),
    ) {
        let text = request.to_string();
        prop_assert_eq!(check(text.as_bytes()), Ok(()));
        let document = validate::document(text.as_bytes(), &[], &Limits::default());
        let document = document.map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
        let body = validate::body(&document.request(), validate::WireForm::default());
        prop_assert_eq!(check(&body), Ok(()));
    }

    #[test]
    fn a_request_that_breaks_one_rule_is_refused_by_both_at_the_same_place(
        request in request(), pick in any::<Index>(),
    ) {
        let mut broken_by = 0;
        for broken in breaks() {
            let mut request = request.clone();
            if !broken.apply(&mut request, pick) {
                continue;
            }
            let text = request.to_string();
            let ours = validate::document(text.as_bytes(), &[], &Limits::default());
            let theirs = check(text.as_bytes());
            let Err(ours) = ours else {
                return Err(TestCaseError::fail(format!("the product takes: {}", broken.line)));
            };
            match theirs {
                theirs if OURS.contains(&broken.rule.as_str()) => {
                    prop_assert_eq!(theirs, Ok(()), "the sandbox refuses: {}", broken.line);
                }
                // Of a missing field the product names the object, sometimes.
                Err(Breach { place, .. }) => prop_assert!(
                    place.starts_with(&ours.place),
                    "{}: {}, not {}: {}", broken.line, place, ours, request
                ),
                Ok(()) => {
                    let words = format!("the sandbox takes: {}: {request}", broken.line);
                    return Err(TestCaseError::fail(words));
                }
            }
            broken_by += 1;
        }
        prop_assert!(broken_by > 20);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = check(&bytes);
    }
}
