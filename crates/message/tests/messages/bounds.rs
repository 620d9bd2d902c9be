//! Both sides of every bound, and each warning.

use postlane_message::validate::{self, Limits};
use serde_json::{Value, json};

use super::support::{
    NO_URLS, URL, URLS, button, generic, linked, list, receipt, text, with_message,
};
use super::{judge, rule, warnings};

/// A string of `count` characters.
fn long(count: usize) -> String {
    "订".repeat(count)
}

fn many(count: usize, item: &Value) -> Value {
    vec![item.clone(); count].into()
}

/// Both sides of a bound: `request` of each end passes, one step outside is refused by `name`.
fn ends(passes: &[usize], refused: &[(usize, &str)], request: impl Fn(usize) -> Value) {
    for size in passes {
        let judged = judge(&request(*size));
        assert!(judged.is_ok(), "{size}: {judged:?}");
    }
    for (size, name) in refused {
        assert_eq!(rule(&request(*size)), *name, "{size}");
    }
}

#[test]
fn every_length_is_accepted_at_its_bound_and_refused_one_character_beyond() {
    let link = |title: String| json!({"type": "web_url", "title": title, "url": URL});
    let postback = |payload: Value| json!({"type": "postback", "title": "Go", "payload": payload});
    ends(&[1, 640], &[(641, "text.max_640")], |n| text(long(n)));
    ends(&[1, 640], &[(641, "text.max_640")], |n| {
        with_message(json!({
            "template_type": "button", "text": long(n), "buttons": [link("Go".into())]
        }))
    });
    ends(&[1, 20], &[(21, "button.title.max_20")], |n| {
        button(link(long(n)))
    });
    ends(&[1, 1000], &[(1001, "postback.payload.max_1000")], |n| {
        button(postback(long(n).into()))
    });
    // `{"block_id":""}` around the value takes 15 characters.
    ends(&[1, 985], &[(986, "postback.payload.max_1000")], |n| {
        button(postback(json!({"block_id": long(n)})))
    });
    ends(&[1, 80], &[(81, "generic.element.title.max_80")], |n| {
        generic(json!({"title": long(n), "subtitle": "s"}))
    });
    ends(&[1, 80], &[(81, "generic.element.subtitle.max_80")], |n| {
        generic(json!({"title": "t", "subtitle": long(n)}))
    });
    ends(&[1, 80], &[(81, "list.element.title.max_80")], |n| {
        list(json!({"title": long(n), "subtitle": "s"}))
    });
    ends(&[1, 80], &[(81, "list.element.subtitle.max_80")], |n| {
        list(json!({"title": "t", "subtitle": long(n)}))
    });
}

#[test]
fn every_count_is_accepted_at_its_bounds_and_refused_outside() {
    let link = json!({"type": "web_url", "title": "Go", "url": URL});
    let element = json!({"title": "t", "subtitle": "s"});
    let line = json!({"title": "t", "price": 0});
    ends(
        &[1, 3],
        &[(0, "buttons.min_1"), (4, "buttons.max_3")],
        |n| {
            with_message(json!({"template_type": "button", "text": "t", "buttons": many(n, &link)}))
        },
    );
    let outside = [
        (0, "generic.elements.min_1"),
        (11, "generic.elements.max_10"),
    ];
    ends(&[1, 10], &outside, |n| {
        with_message(json!({"template_type": "generic", "elements": many(n, &element)}))
    });
    let outside = [
        (0, "generic.element.buttons.min_1"),
        (4, "generic.element.buttons.max_3"),
    ];
    ends(&[1, 3], &outside, |n| {
        generic(json!({"title": "t", "buttons": many(n, &link)}))
    });
    let outside = [(1, "list.elements.min_2"), (5, "list.elements.max_4")];
    ends(&[2, 4], &outside, |n| {
        with_message(json!({"template_type": "list", "elements": many(n, &element)}))
    });
    let outside = [
        (0, "list.element.buttons.min_1"),
        (2, "list.element.buttons.max_1"),
    ];
    ends(&[1], &outside, |n| {
        list(json!({"title": "t", "subtitle": "s", "buttons": many(n, &link)}))
    });
    ends(
        &[1],
        &[(0, "list.buttons.min_1"), (2, "list.buttons.max_1")],
        |n| {
            with_message(json!({
                "template_type": "list", "elements": many(2, &element), "buttons": many(n, &link)
            }))
        },
    );
    ends(&[0, 100], &[(101, "receipt.elements.max_100")], |n| {
        receipt(json!({"elements": many(n, &line)}))
    });
    ends(&[0, 300], &[], |n| {
        receipt(json!({"adjustments": many(n, &json!({"name": "n", "amount": -1}))}))
    });
}

#[test]
fn the_delay_is_zero_to_ten_whole_seconds() {
    let delayed = |delay: &str| {
        let text = format!(
            r#"{{"page_id":1,"recipient":{{"id":"1"}},"message":{{"template_type":"text","text":"t"}},"delay":{delay}}}"#
        );
        validate::document(text.as_bytes(), &[], &Limits::default())
            .map(|document| document.delay)
            .map_err(|refusal| refusal.rule.into_owned())
    };
    assert_eq!(delayed("0"), Ok(0));
    assert_eq!(delayed("10"), Ok(10));
    assert_eq!(delayed("null"), Ok(0));
    for outside in ["-1", "11", "99999999999999999999"] {
        assert_eq!(
            delayed(outside),
            Err("delay.range_0_10".to_owned()),
            "{outside}"
        );
    }
    for kind in ["1.0", "1e0", "\"1\"", "false", "[1]", "{}"] {
        assert_eq!(delayed(kind), Err("delay.type".to_owned()), "{kind}");
    }
}

#[test]
fn a_message_may_be_64_kib_long_and_no_byte_longer() {
    // The longest valid one holds an undocumented field.
    let message = |bytes: usize| {
        let frame = r#"{"template_type":"text","text":"t","x":""}"#.len();
        json!({"template_type": "text", "text": "t", "x": "a".repeat(bytes - frame)})
    };
    ends(&[65_536], &[(65_537, "message.max_65536_bytes")], |n| {
        with_message(message(n))
    });
}

#[test]
fn a_price_may_be_zero_but_not_less_however_it_is_spelt() {
    let priced = |price: &str| {
        let price: serde_json::Number = serde_json::from_str(price).unwrap();
        receipt(json!({"elements": [{"title": "t", "price": price}]}))
    };
    for price in ["0", "-0", "-0.00e5", "0.01", "1e2"] {
        assert!(judge(&priced(price)).is_ok(), "{price}");
    }
    for price in ["-0.01", "-1e-999", "-1"] {
        assert_eq!(
            rule(&priced(price)),
            "receipt.element.price.non_negative",
            "{price}"
        );
    }
    assert_eq!(rule(&priced("1e999")), "receipt.element.price.type");
}

#[test]
fn a_url_is_absolute_and_http_or_https() {
    for url in URLS {
        assert!(judge(&linked(url)).is_ok(), "{url}");
    }
    for url in NO_URLS {
        assert_eq!(rule(&linked(url)), "web_url.url.format", "{url:?}");
    }
}

#[test]
fn a_blank_is_as_bad_as_nothing_where_words_must_be() {
    for blank in ["", " ", "\t\n", "\u{3000}", "\u{a0}"] {
        let postback = |title: &str, payload: &str| {
            button(json!({"type": "postback", "title": title, "payload": payload}))
        };
        assert_eq!(rule(&text(blank)), "text.nonempty");
        assert_eq!(rule(&postback(blank, "p")), "button.title.nonempty");
        assert_eq!(rule(&postback("t", blank)), "postback.payload.nonempty");
        let element = json!({"title": blank, "subtitle": "s"});
        assert_eq!(
            rule(&generic(element.clone())),
            "generic.element.title.nonempty"
        );
        assert_eq!(rule(&list(element)), "list.element.title.nonempty");
        let line = json!({"elements": [{"title": blank, "price": 1}]});
        assert_eq!(rule(&receipt(line)), "receipt.element.title.nonempty");
        // An invisible subtitle is not a second property.
        let element = json!({"title": "t", "subtitle": blank});
        assert_eq!(
            rule(&generic(element.clone())),
            "generic.element.one_more_property"
        );
        assert_eq!(rule(&list(element)), "list.element.image_or_subtitle");
    }
}

#[test]
fn what_is_legal_but_doubtful_gets_a_warning_and_passes() {
    let link = |more: Value| {
        let mut link = json!({"type": "web_url", "title": "Go", "url": URL});
        link.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        button(link)
    };
    assert_eq!(warnings(&text("t")), [""; 0]);
    assert_eq!(warnings(&text("📦".repeat(320))), [""; 0]);
    assert_eq!(warnings(&text("📦".repeat(321))), ["text.utf16"]);
    assert_eq!(
        warnings(&link(
            json!({"messenger_extensions": true, "fallback_url": URL})
        )),
        [""; 0]
    );
    assert_eq!(
        warnings(&link(json!({"fallback_url": URL}))),
        ["fallback_url.messenger_extensions"]
    );
    assert_eq!(
        warnings(&link(
            json!({"messenger_extensions": true, "fallback_url": "http://a.example"})
        )),
        ["fallback_url.https"]
    );
    assert_eq!(
        warnings(&link(json!({"webview_share_button": "hide"}))),
        ["unknown_field"]
    );
    assert_eq!(
        warnings(&receipt(json!({"merchant_name": "M"}))),
        ["unknown_field"]
    );
    assert_eq!(
        warnings(&receipt(json!({"order_number": ""}))),
        ["receipt.order_number.blank"]
    );
    assert_eq!(
        warnings(&list(json!({
            "title": "t", "subtitle": "s", "default_action": {"type": "web_url", "url": URL}
        }))),
        [
            "list.deprecated",
            "list.default_action.messenger_extensions"
        ]
    );
    let element = json!({"title": "t", "subtitle": "s"});
    let large = json!({"template_type": "list", "elements": many(2, &element)});
    assert_eq!(
        warnings(&with_message(large)),
        ["list.deprecated", "list.first_element.image_url"]
    );
    let mut tagged = text("t");
    tagged["tag"] = "ACCOUNT_UPDATE".into();
    assert_eq!(warnings(&tagged), ["tag.retired"]);
    tagged["tag"] = "HUMAN_AGENT".into();
    assert_eq!(warnings(&tagged), [""; 0]);
}

#[test]
fn a_flood_of_unknown_fields_gives_a_bounded_list_of_warnings() {
    let mut message = json!({"template_type": "text", "text": "t"});
    for number in 0..5000 {
        message[format!("x{number}")] = number.into();
    }
    assert_eq!(warnings(&with_message(message)).len(), 32);
}

#[test]
fn other_bounds_give_other_names_to_the_same_rules() {
    let limits = Limits {
        text_max: 2000,
        tags: vec!["MINE".to_owned()],
        ..Limits::default()
    };
    let judge = |request: &Value| {
        validate::document(request.to_string().as_bytes(), &[], &limits)
            .map(|document| document.tag)
            .map_err(|refusal| refusal.rule.into_owned())
    };
    assert_eq!(judge(&text(long(2000))), Ok(None));
    assert_eq!(judge(&text(long(2001))), Err("text.max_2000".to_owned()));
    let mut tagged = text("t");
    tagged["tag"] = "MINE".into();
    assert_eq!(judge(&tagged), Ok(Some("MINE".to_owned())));
    tagged["tag"] = "HUMAN_AGENT".into();
    assert_eq!(judge(&tagged), Err("tag.enum".to_owned()));
}
