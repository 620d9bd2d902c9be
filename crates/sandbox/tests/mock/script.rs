//! Scripts as text: every word, what it makes the sandbox say, and what is not a script.

use std::time::{Duration, SystemTime};

use sandbox::{Binding, Script, Step};
use serde_json::{Value, json};

use crate::{answer, client, failure, get, mock, script, send};

/// Status and body of the first answer by this script.
async fn says(text: &str) -> (u16, Value) {
    let (mock, client) = (mock(), client());
    mock.script("7", script(text));
    let (status, body) = answer(&client, &mock, "7", "hello").await;
    assert_eq!(
        (mock.stats().accepted, mock.received()[0].taken),
        (0, false)
    );
    (status, serde_json::from_str(&body).expect("JSON"))
}

#[tokio::test]
async fn a_code_is_answered_as_joinchat_is_known_to_do() {
    let refused =
        |code: i64, msg: &str| json!({"success": false, "errors": {"code": code, "msg": msg}});
    let unknown = refused(10010, "Recipient not found");
    assert_eq!(says("code=10010").await, (200, unknown.clone()));
    assert_eq!(says("404 code=10010").await, (404, unknown));
    let own = refused(7, "no, sorry");
    assert_eq!(says(r#"code=7 msg="no, sorry""#).await, (200, own));
    let words = json!({"success": false, "errors": "Unknow errors"});
    assert_eq!(says(r#"errors="Unknow errors""#).await, (200, words));
}

#[tokio::test]
async fn an_error_of_the_graph_api_has_its_five_fields() {
    let (status, body) = says("graph=10/2018278").await;
    assert_eq!(status, 400);
    let error = body["error"].as_object().unwrap();
    let fields: Vec<_> = error.keys().map(String::as_str).collect();
    let known = ["message", "type", "code", "error_subcode", "fbtrace_id"];
    assert_eq!(fields, known);
    assert_eq!(
        (&error["code"], &error["error_subcode"]),
        (&json!(10), &json!(2_018_278))
    );
    assert_eq!(
        error["message"],
        "(#10) This message is sent outside of allowed window."
    );
    let (status, body) = says("500 graph=-1 msg=Oops").await;
    assert_eq!((status, &body["error"]["code"]), (500, &json!(-1)));
    assert_eq!(body["error"]["message"], "Oops");
    assert_eq!(body["error"].get("error_subcode"), None);
}

#[tokio::test]
async fn retry_after_is_a_number_of_seconds_or_a_date_from_then_on() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("429 retry-after=2, 503 retry-date=30s"));
    let seconds = send(&client, &mock, "7", "hello").await;
    assert_eq!(seconds.headers()["retry-after"], "2");
    let before = SystemTime::from(jiff::Timestamp::now());
    let dated = send(&client, &mock, "7", "hello").await;
    let date = dated.headers()["retry-after"].to_str().unwrap();
    let wait = httpdate::parse_http_date(date)
        .unwrap()
        .duration_since(before)
        .unwrap();
    assert!(
        wait >= Duration::from_secs(30) && wait < Duration::from_secs(40),
        "{wait:?}"
    );
}

#[tokio::test]
async fn a_redirect_may_have_any_status() {
    let (mock, client) = (mock(), client());
    mock.script(
        "7",
        script("307 redirect http://127.0.0.1:1/, redirect http://127.0.0.1:1/"),
    );
    for status in [307, 302] {
        let response = send(&client, &mock, "7", "hello").await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["location"], "http://127.0.0.1:1/");
    }
}

#[tokio::test]
async fn a_message_that_was_taken_is_a_duplicate_the_next_time_whatever_was_answered() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("500 taken, reset taken, 500"));
    send(&client, &mock, "7", "#1").await;
    failure(&client, &mock, "7", "#2").await;
    send(&client, &mock, "7", "#3").await;
    assert_eq!((mock.stats().accepted, mock.stats().dropped), (0, 1));
    for text in ["#1", "#2", "#3"] {
        send(&client, &mock, "7", text).await;
    }
    let received = mock.received();
    let taken: Vec<_> = received.iter().map(|r| (r.taken, r.duplicate)).collect();
    let first = [(true, false), (true, false), (false, false)];
    let second = [(true, true), (true, true), (true, false)];
    assert_eq!(taken, [first, second].concat());
}

#[tokio::test]
async fn scripts_can_be_posted_but_not_by_a_web_page() {
    let (mock, client) = (mock(), client());
    let url = format!("http://{}/script", mock.addr());
    let post = |text: &'static str| client.post(&url).body(text);
    let status =
        async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(post("recipient=7\n503 x2, ok")).await, 200);
    assert_eq!(send(&client, &mock, "7", "hello").await.status(), 503);
    assert_eq!(send(&client, &mock, "8", "hello").await.status(), 200);
    let file = "# two at once\n\"8\" = \"501\"\n\"12345/9\" = \"502\"\n";
    assert_eq!(status(post(file)).await, 200);
    assert_eq!(send(&client, &mock, "8", "hello").await.status(), 501);
    assert_eq!(send(&client, &mock, "9", "hello").await.status(), 502);
    let forged = post("recipient=*\n500 *").header("origin", "http://evil.example");
    assert_eq!(status(forged).await, 403);
    let wrong = post("recipient=7\nexplode").send().await.unwrap();
    assert_eq!(wrong.status(), 400);
    assert!(wrong.text().await.unwrap().contains("unknown word"));
    assert_eq!(status(post("7: ok")).await, 400);
    assert_eq!(send(&client, &mock, "8", "hello").await.status(), 200);
    assert_eq!(get(&client, &mock, "/script").await.status(), 405);
}

#[test]
fn a_script_with_a_wrong_word_names_it_and_what_is_allowed() {
    for (text, word) in [
        ("ok, explode", "step 2: unknown word \"explode\"; use ok, "),
        ("50", "\"50\" is not a status"),
        ("500 hang 501", "\"501\" contradicts"),
        ("hang drop", "\"drop\" contradicts"),
        ("delay soon", "\"soon\" is not a duration"),
        ("delay", "\"delay\" needs a duration"),
        ("ok x0", "\"x0\" is not within"),
        ("500 *, ok", "\"*\" ends a script"),
        ("500,, ok", "step 2: it is empty"),
        ("header=nocolon", "no colon"),
        ("body={", "never closed"),
        ("colour=red", "unknown word \"colour=red\""),
        ("code=x", "\"x\" is not a code"),
        ("graph=1/", "\"\" is not a code"),
        ("code=1 graph=1", "\"graph=1\" contradicts"),
        ("code=1 body={}", "\"code= or graph=\" contradicts"),
        ("msg=Hi", "\"msg=\" needs code= or graph="),
        ("retry-date=2y", "more than a year away"),
        ("close taken", "\"taken\" contradicts"),
    ] {
        let error = text.parse::<Script>().unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn scripts_are_read_from_text_and_from_a_file() {
    assert_eq!(
        script("500 x2, 503 *"),
        Script::new([500, 500, 503].map(Step::answer)).forever()
    );
    assert_eq!(script("503, *"), script("503 *"));
    let file = "\"*\" = \"ok\"\n\"12345/7\" = \"500 x2, ok\"\n";
    let bindings = Binding::from_toml(file).unwrap();
    assert_eq!(
        bindings,
        [
            "*=ok".parse().unwrap(),
            "12345/7=500 x2, ok".parse().unwrap()
        ]
    );
    let error = Binding::from_toml("\"7\" = \"bang\"")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("7: step 1: unknown word \"bang\""),
        "{error}"
    );
}
