//! Generates valid requests of all five types, their fields in any order.

use std::ops::RangeInclusive;

use postlane_message::Tag;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

fn words(max: usize) -> impl Strategy<Value = String> {
    let pieces = select(vec![
        "a", "Z", "7", "\"", "\\", "/", "\n", "订", "é", "📦", " ",
    ]);
    // The first is never blank, so that the whole is not.
    prop::collection::vec(pieces, 0..max).prop_map(|pieces| format!("x{}", pieces.concat()))
}

fn url() -> impl Strategy<Value = String> {
    select(vec![
        "https://shop.example",
        "http://shop.example/订单?a=1&b=2#c",
        "HTTPS://a.b:8443/",
    ])
    .prop_map(str::to_owned)
}

/// An object of the fields that must be there and some of those that may.
fn object(
    required: Vec<(&'static str, BoxedStrategy<Value>)>,
    optional: Vec<(&'static str, BoxedStrategy<Value>)>,
) -> BoxedStrategy<Value> {
    let required = required
        .into_iter()
        .map(|(key, value)| (Just(key), value.prop_map(Some)).boxed());
    let optional = optional
        .into_iter()
        .map(|(key, value)| (Just(key), prop::option::of(value)).boxed());
    let fields: Vec<_> = required.chain(optional).collect();
    let fields = fields.prop_shuffle();
    fields
        .prop_map(|fields| {
            fields
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?)))
                .collect()
        })
        .boxed()
}

fn value<T: Into<Value> + std::fmt::Debug + 'static>(
    strategy: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Value> {
    strategy.prop_map(Into::into).boxed()
}

fn array(item: BoxedStrategy<Value>, count: RangeInclusive<usize>) -> BoxedStrategy<Value> {
    value(prop::collection::vec(item, count))
}

fn one_of(words: &[&'static str]) -> BoxedStrategy<Value> {
    value(select(words.to_vec()))
}

fn flag() -> BoxedStrategy<Value> {
    value(any::<bool>())
}

fn amount() -> BoxedStrategy<Value> {
    let spelt = select(vec![
        "0",
        "75.00",
        "4.95",
        "1e2",
        "12345678901234567890.123",
    ]);
    spelt
        .prop_map(|text| Value::Number(serde_json::from_str(text).unwrap()))
        .boxed()
}

fn target() -> Vec<(&'static str, BoxedStrategy<Value>)> {
    vec![
        ("webview_height_ratio", one_of(&["compact", "tall", "full"])),
        ("messenger_extensions", flag()),
        ("fallback_url", value(url())),
    ]
}

fn button() -> BoxedStrategy<Value> {
    let link = vec![
        ("type", one_of(&["web_url"])),
        ("title", value(words(19))),
        ("url", value(url())),
    ];
    let ids = prop_oneof![value(words(9)), value(any::<i64>())];
    let block = object(
        vec![("block_id", ids.clone().boxed())],
        vec![("flow_id", ids.boxed())],
    );
    let payload = prop_oneof![value(words(300)), block].boxed();
    let postback = vec![
        ("type", one_of(&["postback"])),
        ("title", value(words(19))),
        ("payload", payload),
    ];
    prop_oneof![object(link, target()), object(postback, vec![])].boxed()
}

fn element(with: &'static str, buttons: usize) -> BoxedStrategy<Value> {
    let with_value = if with == "subtitle" {
        value(words(79))
    } else {
        value(url())
    };
    let action = object(
        vec![("type", one_of(&["web_url"])), ("url", value(url()))],
        target(),
    );
    let mut optional = vec![
        ("default_action", action),
        ("buttons", array(button(), 1..=buttons)),
    ];
    if with != "subtitle" {
        optional.push(("subtitle", value(words(79))));
    }
    object(
        vec![("title", value(words(79))), (with, with_value)],
        optional,
    )
}

fn elements(count: RangeInclusive<usize>, buttons: usize) -> BoxedStrategy<Value> {
    let element = prop_oneof![element("subtitle", buttons), element("image_url", buttons)];
    array(element.boxed(), count)
}

fn receipt() -> BoxedStrategy<Value> {
    let text = || value(words(30));
    let summary = object(
        vec![("total_cost", amount())],
        vec![
            ("subtotal", amount()),
            ("shipping_cost", amount()),
            ("total_tax", amount()),
        ],
    );
    let line = object(
        vec![("title", value(words(200))), ("price", amount())],
        vec![
            ("subtitle", text()),
            ("quantity", amount()),
            ("currency", text()),
            ("image_url", value(url())),
        ],
    );
    let address = ["street_1", "city", "postal_code", "state"].map(|key| (key, text()));
    let mut address = address.to_vec();
    address.push(("country", one_of(&["US", "de"])));
    let address = object(address, vec![("street_2", one_of(&["", "b"]))]);
    let adjustment = object(vec![("name", text()), ("amount", amount())], vec![]);
    let mut required = [
        "recipient_name",
        "order_number",
        "currency",
        "payment_method",
    ]
    .map(|key| (key, text()))
    .to_vec();
    required.push(("template_type", one_of(&["receipt"])));
    required.push(("summary", summary));
    object(
        required,
        vec![
            ("timestamp", one_of(&["0", "1428444852"])),
            ("order_url", value(url())),
            ("elements", array(line, 0..=4)),
            ("address", address),
            ("adjustments", array(adjustment, 0..=3)),
            ("sharable", flag()),
        ],
    )
}

fn message() -> BoxedStrategy<Value> {
    let text = vec![
        ("template_type", one_of(&["text"])),
        ("text", value(words(639))),
    ];
    let with_buttons = vec![
        ("template_type", one_of(&["button"])),
        ("text", value(words(639))),
        ("buttons", array(button(), 1..=3)),
    ];
    let generic = vec![
        ("template_type", one_of(&["generic"])),
        ("elements", elements(1..=10, 3)),
    ];
    let list = vec![
        ("template_type", one_of(&["list"])),
        ("elements", elements(2..=4, 1)),
    ];
    prop_oneof![
        object(text, vec![]),
        object(with_buttons, vec![("sharable", flag())]),
        object(
            generic,
            vec![
                ("sharable", flag()),
                ("image_aspect_ratio", one_of(&["horizontal", "square"])),
            ]
        ),
        object(
            list,
            vec![
                ("sharable", flag()),
                ("top_element_style", one_of(&["compact", "large"])),
                ("buttons", array(button(), 1..=1)),
            ]
        ),
        receipt(),
    ]
    .boxed()
}

/// A valid request with a message of any type.
pub fn request() -> BoxedStrategy<Value> {
    let kind = select(vec!["id", "phone", "email", "uuid"]);
    let recipient = (kind, words(40)).prop_map(|(kind, text)| json!({ kind: text }));
    let page = prop_oneof![
        value(1..=u64::MAX),
        value((1..=u64::MAX).prop_map(|id| id.to_string()))
    ];
    let tags = Tag::ALL
        .iter()
        .map(|tag| Value::from(tag.as_str()))
        .chain([Value::Null]);
    object(
        vec![
            ("page_id", page.boxed()),
            ("recipient", recipient.boxed()),
            ("message", message()),
        ],
        vec![
            ("tag", select(tags.collect::<Vec<_>>()).boxed()),
            (
                "delay",
                prop_oneof![value(0..=10), Just(Value::Null)].boxed(),
            ),
        ],
    )
}
