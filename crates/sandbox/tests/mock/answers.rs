//! Every step of a script, as a client sees it.

use std::time::Duration;

use sandbox::{Binding, MockStats, boot_ns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{LONG, answer, body, client, failure, give_up, mock, request, script, send};

const OK: &str = r#"{"success":true,"recipient_id":"7"}"#;

fn since(start: u64) -> Duration {
    Duration::from_nanos(boot_ns() - start)
}

#[tokio::test]
async fn a_signed_request_is_delivered_to_its_recipient() {
    let (mock, client) = (mock(), client());
    let response = send(&client, &mock, "7", "hello").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.text().await.unwrap(), OK);
    assert_eq!((mock.stats().accepted, mock.count()), (1, 1));
}

#[tokio::test]
async fn a_connection_is_used_again_after_every_whole_answer() {
    let (mock, client) = (mock(), client());
    mock.script(
        "7",
        script("ok x2, 500 x2, 204, 429 retry-after=1, drip every=1us"),
    );
    for number in 1..=10 {
        answer(&client, &mock, "7", &format!("#{number}")).await;
    }
    assert_eq!((mock.stats().connections, mock.count()), (1, 10));
}

#[tokio::test]
async fn statuses_are_given_in_order_and_then_ok_for_ever() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("500 x2, status 418 header=X-Why:teapot, ok"));
    for status in [500, 500, 418, 200, 200] {
        assert_eq!(send(&client, &mock, "7", "hello").await.status(), status);
    }
    let refused = r#"{"success":false,"errors":{"code":500,"msg":"Internal Server Error"}}"#;
    mock.script("7", script("500"));
    assert_eq!(
        answer(&client, &mock, "7", "hello").await,
        (500, refused.to_owned())
    );
    assert_eq!(mock.stats().accepted, 2);
}

#[tokio::test]
async fn a_star_repeats_the_last_step_for_ever() {
    let (mock, client) = (mock(), client());
    mock.set_default(script("ok, 503 *"));
    for recipient in ["7", "8"] {
        for status in [200, 503, 503, 503] {
            assert_eq!(
                send(&client, &mock, recipient, "hello").await.status(),
                status
            );
        }
    }
}

#[tokio::test]
async fn the_most_exact_target_wins_and_keeps_its_place_when_others_change() {
    let (mock, client) = (mock(), client());
    for binding in [
        "*=501 *",
        "12345/*=502 *",
        "7=503 x2, 504 *",
        "12345/8=505 *",
        "9/7=506 *",
    ] {
        mock.bind(binding.parse::<Binding>().unwrap());
    }
    for (recipient, status) in [("7", 503), ("8", 505), ("9", 502), ("7", 503)] {
        assert_eq!(
            send(&client, &mock, recipient, "hello").await.status(),
            status
        );
    }
    mock.set_default(script("ok"));
    assert_eq!(send(&client, &mock, "7", "hello").await.status(), 504);
}

#[tokio::test]
async fn headers_and_bodies_go_out_as_written() {
    let (mock, client) = (mock(), client());
    let text = r#"429 retry-after=2, 503 header="Retry-After: Wed, 21 Oct 2026 07:28:00 GMT",
        200 body={"success":false,"errors":{"code":10010,"msg":"Recipient not found, sorry"}},
        200 body="<b>\u0000" header=Content-Type:text/html, 204"#;
    mock.script("7", script(text));
    assert_eq!(
        send(&client, &mock, "7", "a").await.headers()["retry-after"],
        "2"
    );
    let dated = send(&client, &mock, "7", "b").await;
    assert_eq!(
        dated.headers()["retry-after"],
        "Wed, 21 Oct 2026 07:28:00 GMT"
    );
    let refused = r#"{"success":false,"errors":{"code":10010,"msg":"Recipient not found, sorry"}}"#;
    assert_eq!(
        answer(&client, &mock, "7", "c").await,
        (200, refused.to_owned())
    );
    assert_eq!(mock.stats().accepted, 0);
    let html = send(&client, &mock, "7", "d").await;
    assert_eq!(html.headers()["content-type"], "text/html");
    assert_eq!(html.text().await.unwrap(), "<b>\0");
    assert_eq!(answer(&client, &mock, "7", "e").await, (204, String::new()));
}

#[tokio::test]
async fn a_redirect_names_its_target_and_is_not_success() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("redirect http://127.0.0.1:1/login"));
    let response = send(&client, &mock, "7", "hello").await;
    assert_eq!(response.status(), 302);
    assert_eq!(response.headers()["location"], "http://127.0.0.1:1/login");
    assert_eq!((mock.stats().accepted, mock.count()), (0, 1));
}

#[tokio::test]
async fn a_delay_and_the_latency_are_waited_before_the_answer() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("delay 60ms 500"));
    let start = boot_ns();
    assert_eq!(send(&client, &mock, "7", "hello").await.status(), 500);
    assert!(since(start) >= Duration::from_millis(60));
    mock.set_latency(Duration::from_millis(40));
    let start = boot_ns();
    assert_eq!(
        answer(&client, &mock, "7", "hello").await,
        (200, OK.to_owned())
    );
    assert!(since(start) >= Duration::from_millis(40));
}

#[tokio::test]
async fn hang_gives_no_answer_and_counts_as_received() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("hang"));
    give_up(&client, &mock, "7", "hello").await;
    assert_eq!((mock.count(), mock.stats().accepted), (1, 0));
    assert_eq!(
        answer(&client, &mock, "7", "hello").await,
        (200, OK.to_owned())
    );
    assert_eq!(
        mock.stats().overlaps,
        0,
        "the client had given up the first"
    );
}

#[tokio::test]
async fn resets_are_seen_as_resets_and_only_the_late_one_counts_as_received() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("reset, reset-before"));
    assert!(
        failure(&client, &mock, "7", "a")
            .await
            .contains("ConnectionReset")
    );
    assert_eq!(mock.count(), 1);
    assert!(
        failure(&client, &mock, "7", "b")
            .await
            .contains("ConnectionReset")
    );
    let stats = mock.stats();
    assert_eq!((stats.requests, stats.received, stats.accepted), (2, 1, 0));
}

#[tokio::test]
async fn reset_before_for_everybody_does_not_wait_for_the_body() {
    let mock = mock();
    mock.set_default(script("reset-before *"));
    let mut stream = tokio::net::TcpStream::connect(mock.addr()).await.unwrap();
    let head = b"POST /api/send_message HTTP/1.1\r\ncontent-length: 100\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let read = tokio::time::timeout(LONG, stream.read(&mut [0])).await;
    let error = read.expect("closed at once").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!((mock.stats().requests, mock.stats().lanes), (1, 0));
}

#[tokio::test]
async fn drop_takes_the_message_in_and_close_does_not() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("drop, close"));
    assert!(
        failure(&client, &mock, "7", "#1")
            .await
            .contains("IncompleteMessage")
    );
    let stats = mock.stats();
    assert_eq!((stats.received, stats.dropped, stats.accepted), (1, 1, 0));
    assert_eq!(
        (mock.received()[0].status, mock.received()[0].number),
        (None, Some(1))
    );
    assert!(
        failure(&client, &mock, "7", "#2")
            .await
            .contains("IncompleteMessage")
    );
    assert_eq!(
        mock.stats(),
        MockStats {
            requests: 2,
            connections: 2,
            ..stats
        }
    );
    send(&client, &mock, "7", "#1").await;
    assert_eq!(mock.stats().duplicates, 1, "what was dropped had arrived");
}

#[tokio::test]
async fn drip_sends_an_answer_byte_by_byte() {
    let (mock, client) = (mock(), client());
    mock.script(
        "7",
        script("drip every=1ms, drip-body every=1ms, drip-body every=1h"),
    );
    let start = boot_ns();
    assert_eq!(answer(&client, &mock, "7", "a").await, (200, OK.to_owned()));
    assert!(since(start) >= Duration::from_millis(100));
    assert_eq!(answer(&client, &mock, "7", "b").await, (200, OK.to_owned()));
    let request = request(&client, &mock, body("7", "c")).timeout(Duration::from_secs(1));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "the head comes at once");
    assert!(response.text().await.unwrap_err().is_timeout());
}

#[tokio::test]
async fn cut_and_reset_mid_lose_half_of_the_body_and_endless_never_ends() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("cut, reset-mid, endless"));
    for text in ["a", "b"] {
        let response = send(&client, &mock, "7", text).await;
        assert_eq!(response.status(), 200);
        assert!(response.text().await.is_err());
    }
    let mut response = send(&client, &mock, "7", "c").await;
    let mut read = Vec::new();
    while read.len() < 1_000_000 {
        read.extend_from_slice(&response.chunk().await.unwrap().unwrap());
    }
    assert!(read.starts_with(OK.as_bytes()));
    assert_eq!(mock.stats().accepted, 3, "the status line said so");
}

#[tokio::test]
async fn garbage_is_no_http_and_raw_is_whatever_it_says() {
    let (mock, client) = (mock(), client());
    mock.script(
        "7",
        script(r#"garbage, raw="HTTP/1.1 201 Fine\r\n\r\nyes""#),
    );
    assert!(failure(&client, &mock, "7", "a").await.contains("Parse"));
    assert_eq!(
        answer(&client, &mock, "7", "b").await,
        (201, "yes".to_owned())
    );
    let received = mock.received();
    assert_eq!((received[0].status, received[1].status), (None, Some(201)));
}
