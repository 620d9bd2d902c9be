//! The sandbox seen from outside: by an HTTP client, and where that hides too much, by a socket.

mod answers;
mod phone;
mod record;
mod referee;
mod rules;
mod script;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, RequestBuilder, Response};
use sandbox::{Mock, MockConfig, Script};
use sha2::Sha256;

/// Longer than anything here takes; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(10);
/// What a client waits for an answer that does not come.
const SHORT: Duration = Duration::from_millis(20);
const SECRET: &str = "xxxxx";

/// What the vendor has published, shared with the product's tests.
fn data(file: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/joinchat/");
    std::fs::read_to_string(format!("{folder}{file}")).expect("a file of the vendor's")
}

fn config() -> MockConfig {
    MockConfig {
        default_secrets: vec![SECRET.to_owned()],
        keep_bodies: true,
        ..Default::default()
    }
}

fn mock() -> Mock {
    Mock::start(config()).expect("a free port on loopback")
}

fn script(text: &str) -> Script {
    text.parse().expect("a script")
}

fn client() -> Client {
    _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    builder.build().expect("a client")
}

fn body(recipient: &str, text: &str) -> String {
    format!(
        r#"{{"page_id":12345,"recipient":{{"id":"{recipient}"}},"message":{{"template_type":"text","text":"{text}"}}}}"#
    )
}

fn sign(body: &str, secret: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key will do");
    STANDARD.encode(mac.chain_update(body).finalize().into_bytes())
}

/// A signed request as bytes on the wire: its head and its body.
fn raw(recipient: &str, text: &str) -> (String, String) {
    let body = body(recipient, text);
    let (length, signature) = (body.len(), sign(&body, SECRET));
    let head = format!(
        "POST /api/send_message HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         x-joinchat-signature: {signature}\r\ncontent-length: {length}\r\n\r\n"
    );
    (head, body)
}

/// A signed request, ready to go.
fn request(client: &Client, mock: &Mock, body: String) -> RequestBuilder {
    let signature = sign(&body, SECRET);
    client
        .post(mock.url())
        .header("x-joinchat-signature", signature)
        .body(body)
}

async fn send(client: &Client, mock: &Mock, recipient: &str, text: &str) -> Response {
    request(client, mock, body(recipient, text))
        .send()
        .await
        .expect("an answer")
}

/// The status and body of an answer that must come.
async fn answer(client: &Client, mock: &Mock, recipient: &str, text: &str) -> (u16, String) {
    let response = send(client, mock, recipient, text).await;
    (
        response.status().as_u16(),
        response.text().await.expect("a whole body"),
    )
}

/// What the sandbox shows under a path.
async fn get(client: &Client, mock: &Mock, path: &str) -> Response {
    let url = format!("http://{}{path}", mock.addr());
    client.get(url).send().await.expect("an answer")
}

async fn text(client: &Client, mock: &Mock, path: &str) -> String {
    get(client, mock, path)
        .await
        .text()
        .await
        .expect("a whole body")
}

/// The error of a request that must get no answer, with all its causes.
async fn failure(client: &Client, mock: &Mock, recipient: &str, text: &str) -> String {
    let request = request(client, mock, body(recipient, text)).timeout(LONG);
    format!("{:?}", request.send().await.expect_err("no answer"))
}

/// Sends a request that is not answered, and gives up a moment after it was received.
async fn give_up(client: &Client, mock: &Mock, recipient: &str, text: &str) {
    let next = mock.count() + 1;
    let patience = async {
        assert!(mock.wait_for(next, LONG).await);
        tokio::time::sleep(SHORT).await;
    };
    tokio::select! {
        answer = request(client, mock, body(recipient, text)).send() => panic!("{answer:?}"),
        () = patience => {}
    }
}
