//! The pages: what a recipient would see, and what is wrong with it.

use reqwest::Client;
use sandbox::{Mock, MockConfig, Rules};

use crate::{body, client, config, data, get, give_up, mock, request, script, send, text};

/// A request with one of the vendor's samples in it.
async fn send_sample(client: &Client, mock: &Mock, name: &str) {
    let body = data(&format!("samples/{name}.json"));
    let response = request(client, mock, body).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
}

/// All of these, in this order.
fn shows(page: &str, parts: &[&str]) {
    let mut rest = page;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            panic!("{part:?} is missing in {page}");
        };
        rest = after;
    }
}

#[tokio::test]
async fn pages_list_messages_escaped_and_may_load_and_run_nothing() {
    let (mock, client) = (mock(), client());
    let evil = "<script>alert(1)</script>";
    send(&client, &mock, evil, "<img src=x> #1").await;
    let chat = "/chat/12345/id:%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    for path in ["/", chat] {
        let page = get(&client, &mock, path).await;
        assert_eq!(page.status(), 200);
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert_eq!(
            policy,
            "default-src 'none'; style-src 'self'; img-src 'none'; form-action 'none'; \
             base-uri 'none'; frame-ancestors 'none'"
        );
        let page = page.text().await.unwrap();
        assert!(
            page.contains("id: &lt;script&gt;alert(1)&lt;/script&gt;"),
            "{page}"
        );
        assert!(page.contains("&lt;img src=x&gt; #1"), "{page}");
        assert!(
            !page.contains("<script") && !page.contains("<img"),
            "{page}"
        );
    }
    let inbox = text(&client, &mock, "/").await;
    let link = "/chat/12345/id:%3Cscript%3Ealert%281%29%3C%2Fscript%3E#newest";
    assert!(inbox.contains(link), "{inbox}");
    let style = get(&client, &mock, "/style.css").await;
    assert_eq!(style.headers()["content-type"], "text/css; charset=utf-8");
}

#[tokio::test]
async fn nothing_in_a_page_leads_elsewhere() {
    let (mock, client) = (mock(), client());
    for sample in ["001-button", "001-generic", "001-list"] {
        send_sample(&client, &mock, sample).await;
    }
    let page = text(&client, &mock, "/chat/12345/id:123456").await;
    let addresses: Vec<_> = ["href=\"", "src=\"", "url("]
        .iter()
        .flat_map(|start| page.split(start).skip(1))
        .filter(|address| !address.starts_with(['/', '?']))
        .collect();
    assert!(addresses.is_empty(), "{addresses:?}");
}

#[tokio::test]
async fn a_text_and_a_button_message_are_bubbles() {
    let (mock, client) = (mock(), client());
    send_sample(&client, &mock, "000-text").await;
    send_sample(&client, &mock, "001-button").await;
    let page = text(&client, &mock, "/chat/12345/id:123456").await;
    shows(
        &page,
        &[
            "Hello World",
            "ACCOUNT_UPDATE",
            "no. 1",
            "signature ok",
            "answered 200",
            "What do you want to do next?",
            "Visit Messenger",
            "opens https://www.messenger.com",
            "no. 2",
        ],
    );
    assert!(!page.contains("class=\"marks\""), "all is well: {page}");
}

#[tokio::test]
async fn a_generic_message_is_a_carousel_of_cards_with_boxes_for_images() {
    let (mock, client) = (mock(), client());
    send_sample(&client, &mock, "001-generic").await;
    let page = text(&client, &mock, "/chat/12345/id:123456").await;
    shows(
        &page,
        &[
            "class=\"carousel\"",
            "class=\"image\"",
            "https://petersfancybrownhats.com/company_image.png",
            "Welcome!",
            "We have the right hat for everyone.",
            "tap: https://petersfancybrownhats.com/view?item=103",
            "View Website",
            "opens https://petersfancybrownhats.com",
            "Start Chatting",
            "sends DEVELOPER_DEFINED_PAYLOAD",
        ],
    );
}

#[tokio::test]
async fn a_list_has_its_rows_and_its_button_at_the_end() {
    let (mock, client) = (mock(), client());
    send_sample(&client, &mock, "001-list").await;
    let page = text(&client, &mock, "/chat/12345/id:123456").await;
    shows(
        &page,
        &[
            "Classic T-Shirt Collection",
            "See all our colors",
            "Classic White T-Shirt",
            "Classic Blue T-Shirt",
            "Shop Now",
            "View More",
            "sends payload",
        ],
    );
}

#[tokio::test]
async fn a_receipt_has_its_lines_and_totals_as_they_were_spelt() {
    let (mock, client) = (mock(), client());
    send_sample(&client, &mock, "001-receipt").await;
    let page = text(&client, &mock, "/chat/12345/uuid:123456").await;
    shows(
        &page,
        &[
            "Order 12345678902",
            "Classic White T-Shirt",
            "Qty. 2",
            "50 USD",
            "Classic Gray T-Shirt",
            "25 USD",
            "Stephane Crozatier",
            "Visa 2345",
            "2015-04-07 22:14 UTC",
            "1 Hacker Way, 94025, Menlo Park, CA, US",
            "75.00 USD",
            "4.95 USD",
            "6.19 USD",
            "New Customer Discount",
            "−20 USD",
            "Total",
            "56.14 USD",
        ],
    );
    assert!(
        text(&client, &mock, "/")
            .await
            .contains("Receipt 12345678902")
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_message_stands_below_it() {
    let mock = Mock::start(MockConfig {
        rules: Rules::Enforce,
        ..config()
    })
    .unwrap();
    let client = client();
    mock.script("7", script("500 taken, ok x3, hang"));
    for text in ["#1", "#1", "#3", "#2", &"y".repeat(641)] {
        send(&client, &mock, "7", text).await;
    }
    give_up(&client, &mock, "7", "#4").await;
    let unsigned = client.post(mock.url()).body(body("7", "forged"));
    assert_eq!(unsigned.send().await.unwrap().status(), 401);
    let page = text(&client, &mock, "/chat/12345/id:7").await;
    shows(
        &page,
        &[
            "answered 500",
            "duplicate: they had it already",
            "out of order: after #3",
            "not shown to them",
            "invalid: (#100) message.text is 641 characters, at most 640",
            "answered 400",
            "not shown to them",
            "no answer",
            "forged",
            "not shown: bad signature",
            "signature wrong or missing",
            "answered 401",
        ],
    );
    let inbox = text(&client, &mock, "/").await;
    shows(
        &inbox,
        &[
            "The referee has 3 findings",
            "3 in trouble",
            "Turned away",
            "forged",
        ],
    );
}

#[tokio::test]
async fn the_conversation_with_the_newest_message_comes_first() {
    let (mock, client) = (mock(), client());
    for (recipient, text) in [("7", "hidden"), ("8", "two"), ("9", "three"), ("7", "four")] {
        send(&client, &mock, recipient, text).await;
    }
    let inbox = text(&client, &mock, "/").await;
    shows(&inbox, &["id: 7", "four", "id: 9", "three", "id: 8", "two"]);
    assert!(!inbox.contains("hidden"), "{inbox}");
}

#[tokio::test]
async fn what_is_no_message_is_shown_as_it_came() {
    let (mock, client) = (mock(), client());
    for message in [
        r#"{"template_type":"video","url":"x"}"#,
        r#"{"template_type":"generic","elements":{"title":7}}"#,
        r#"{"template_type":"list","elements":[1,{"title":["odd"]}],"buttons":["b",{"type":9}]}"#,
        r#"{"template_type":"receipt","summary":[],"elements":[{"price":"1,5"}],"address":3}"#,
        r#"{"text":{"a":1}}"#,
    ] {
        let body = format!(r#"{{"page_id":1,"recipient":{{"id":"7"}},"message":{message}}}"#);
        let response = request(&client, &mock, body).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    let page = text(&client, &mock, "/chat/1/id:7").await;
    let parts = ["video", "[&quot;odd&quot;]", "no type?", "1,5", "no. 5"];
    shows(&page, &parts);
    assert!(text(&client, &mock, "/").await.contains("id: 7"));
}

#[tokio::test]
async fn a_page_loads_itself_again_if_asked_and_unknown_ones_are_said_so() {
    let (mock, client) = (mock(), client());
    let refresh = "http-equiv=\"refresh\"";
    let empty = "Nothing was received";
    for path in ["/", "/chat/1/phone:+49%20170"] {
        let still = text(&client, &mock, path).await;
        assert!(still.contains(empty) && !still.contains(refresh), "{still}");
        let follows = text(&client, &mock, &format!("{path}?follow")).await;
        assert!(follows.contains(refresh), "{follows}");
    }
    for path in [
        "/chat/",
        "/chat/1",
        "/chat/1/fax:7",
        "/chat/%ff/id:7",
        "/phone",
    ] {
        assert_eq!(get(&client, &mock, path).await.status(), 404, "{path}");
    }
}
