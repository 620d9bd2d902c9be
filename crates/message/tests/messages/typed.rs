//! Requests built in Rust: what they look like, and that they are judged like text.

use postlane_message::validate::Limits;
use postlane_message::{
    Address, AtLeast, BlockId, Button, Card, DefaultAction, Message, PageId, Payload, Receipt,
    Recipient, Request, Row, Summary, Tag,
};
use serde_json::json;

fn request(message: Message) -> Request {
    Request::new(PageId::new(12345).unwrap(), Recipient::id("1"), message)
}

/// The message as a value, once it has been judged.
fn sent(message: Message) -> serde_json::Value {
    let columns = request(message.clone()).check(&Limits::default()).unwrap();
    let (text, warnings) = message.check(&Limits::default()).unwrap();
    assert_eq!(
        (text.as_str(), &*warnings),
        (columns.message(), columns.warnings())
    );
    serde_json::from_str(&text).unwrap()
}

/// The refusal of a message, by rule and place.
fn refused(message: Message) -> (String, String) {
    let refusal = request(message.clone())
        .check(&Limits::default())
        .unwrap_err();
    assert_eq!(message.check(&Limits::default()).unwrap_err(), refusal);
    (refusal.rule.into_owned(), refusal.place)
}

#[test]
fn a_request_in_code_is_the_documented_example() {
    let page = PageId::new(12345).unwrap();
    let request = Request::new(page, Recipient::id("123456"), Message::text("Hello World"))
        .tag(Tag::AccountUpdate)
        .delay(1);
    let example = include_str!("../../../../tests/data/joinchat/samples/000-php-body.txt");
    assert_eq!(serde_json::to_string(&request).unwrap(), example);
}

#[test]
fn every_message_is_built_in_the_vendors_shape() {
    assert_eq!(
        sent(Message::text("Hi")),
        json!({"template_type": "text", "text": "Hi"})
    );
    let buttons = [
        Button::web_url("Shop", "https://shop.example"),
        Button::postback("Buy", "buy-7"),
        Button::postback(
            "More",
            Payload::Block {
                block_id: BlockId::from("1"),
                flow_id: Some(2.into()),
            },
        ),
    ];
    assert_eq!(
        sent(Message::buttons("Next?", buttons)),
        json!({"template_type": "button", "text": "Next?", "buttons": [
            {"type": "web_url", "title": "Shop", "url": "https://shop.example"},
            {"type": "postback", "title": "Buy", "payload": "buy-7"},
            {"type": "postback", "title": "More", "payload": {"block_id": "1", "flow_id": 2}}
        ]})
    );
    let card = Card::new("Hat")
        .subtitle("Warm")
        .image("https://shop.example/hat.png")
        .default_action(DefaultAction::web_url("https://shop.example/hat"))
        .button(Button::postback("Buy", "hat"));
    assert_eq!(
        sent(Message::generic([card])),
        json!({"template_type": "generic", "elements": [{
            "title": "Hat", "subtitle": "Warm", "image_url": "https://shop.example/hat.png",
            "default_action": {"type": "web_url", "url": "https://shop.example/hat"},
            "buttons": [{"type": "postback", "title": "Buy", "payload": "hat"}]
        }]})
    );
    let mut first = Row::with_image("Hat", "https://shop.example/hat.png");
    first.button = Some(Button::postback("Buy", "hat"));
    assert_eq!(
        sent(Message::list([first, Row::with_subtitle("Scarf", "Warm")])),
        json!({"template_type": "list", "elements": [
            {"title": "Hat", "image_url": "https://shop.example/hat.png",
             "buttons": [{"type": "postback", "title": "Buy", "payload": "hat"}]},
            {"title": "Scarf", "subtitle": "Warm"}
        ]})
    );
    assert_eq!(sent(receipt("US").into())["address"]["country"], "US");
}

fn receipt(country: &str) -> Receipt {
    let address = Address {
        street_1: "1 Hacker Way".to_owned(),
        street_2: Some(String::new()),
        city: "Menlo Park".to_owned(),
        postal_code: "94025".to_owned(),
        state: "CA".to_owned(),
        country: country.to_owned(),
    };
    Receipt {
        recipient_name: "Ann".to_owned(),
        order_number: "1".to_owned(),
        currency: "USD".to_owned(),
        payment_method: "cash".to_owned(),
        order_url: None,
        timestamp: None,
        address: Some(address),
        summary: Summary {
            subtotal: None,
            shipping_cost: None,
            total_tax: None,
            total_cost: serde_json::from_str("75.00").unwrap(),
        },
        adjustments: Vec::new(),
        elements: Vec::new(),
        sharable: None,
    }
}

#[test]
fn what_no_type_can_rule_out_is_refused_by_rule_and_place() {
    let at = |rule: &str, place: &str| (rule.to_owned(), place.to_owned());
    assert_eq!(
        refused(Message::text(" ")),
        at("text.nonempty", "message.text")
    );
    assert_eq!(
        refused(Message::generic([Card::new("alone")])),
        at("generic.element.one_more_property", "message.elements[0]")
    );
    let many = vec![Button::postback("t", "p"); 4];
    assert_eq!(
        refused(Message::buttons("t", AtLeast::try_from(many).unwrap())),
        at("buttons.max_3", "message.buttons")
    );
    assert_eq!(
        refused(receipt("USA").into()),
        at(
            "receipt.address.country.two_letter",
            "message.address.country"
        )
    );
    let late = request(Message::text("t")).delay(11);
    assert_eq!(
        late.check(&Limits::default()).unwrap_err().to_string(),
        "delay.range_0_10: delay: is 11 seconds, must be 0 to 10"
    );
}

#[test]
fn numbers_keep_their_spelling_and_warnings_come_along() {
    let columns = request(receipt("US").into())
        .tag(Tag::AccountUpdate)
        .delay(3)
        .check(&Limits::default())
        .unwrap();
    assert!(
        columns.message().contains(r#""total_cost":75.00"#),
        "{}",
        columns.message()
    );
    assert_eq!(
        (columns.page_id(), columns.recipient()),
        ("12345", r#"{"id":"1"}"#)
    );
    assert_eq!(
        (columns.tag(), columns.delay()),
        (Some("ACCOUNT_UPDATE"), 3)
    );
    let warned: Vec<_> = columns.warnings().iter().map(|w| w.rule.as_ref()).collect();
    assert_eq!(warned, ["tag.retired"]);
}
