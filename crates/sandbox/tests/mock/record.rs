//! Signatures, refusals and the record of what was received.

use sandbox::{Mock, MockConfig};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{LONG, SECRET, body, client, config, mock, request, script, send, sign, text};

#[tokio::test]
async fn a_bad_or_missing_signature_is_refused_and_not_received() {
    let (mock, client) = (mock(), client());
    let body = body("7", "hello");
    let signatures = [
        None,
        Some(sign(&body, "wrong")),
        Some("%%%".into()),
        Some(String::new()),
    ];
    for signature in signatures {
        let request = client.post(mock.url()).body(body.clone());
        let request = match signature {
            Some(signature) => request.header("x-joinchat-signature", signature),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        let refused = r#"{"success":false,"errors":{"code":401,"msg":"sign error"}}"#;
        assert_eq!(response.text().await.unwrap(), refused);
    }
    let good = sign(&body, SECRET);
    let twice = client
        .post(mock.url())
        .header("X-Joinchat-Signature", good.clone());
    let twice = twice.header("x-joinchat-signature", good).body(body);
    assert_eq!(twice.send().await.unwrap().status(), 401);
    assert_eq!((mock.stats().bad_signatures, mock.count()), (5, 0));
}

#[tokio::test]
async fn each_page_has_its_secrets_and_they_can_be_changed() {
    let secrets = [("12345".to_owned(), vec!["old".to_owned(), "new".to_owned()])].into();
    let mock = Mock::start(MockConfig {
        secrets,
        ..config()
    })
    .unwrap();
    let (client, body) = (client(), body("7", "hello"));
    let post = |secret: &str| {
        let request = client
            .post(mock.url())
            .header("x-joinchat-signature", sign(&body, secret));
        let request = request.body(body.clone()).send();
        async { request.await.unwrap().status().as_u16() }
    };
    assert_eq!(
        (post("old").await, post("new").await, post(SECRET).await),
        (200, 200, 401)
    );
    mock.set_secrets(Some("12345"), &["newer".to_owned()]);
    assert_eq!((post("old").await, post("newer").await), (401, 200));
}

#[tokio::test]
async fn what_is_no_send_request_is_refused_with_its_status() {
    let (mock, client) = (mock(), client());
    for text in [
        " ",
        "hello",
        "{}",
        r#"{"page_id":1,"recipient":{"id":"7"}}"#,
    ] {
        let response = request(&client, &mock, text.to_owned())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 400);
        assert!(
            response
                .text()
                .await
                .unwrap()
                .starts_with(r#"{"success":false,"errors":{"code":400,"#)
        );
    }
    let post = async |path: &str| {
        let url = format!("http://{}{path}", mock.addr());
        client.post(url).send().await.unwrap().status()
    };
    assert_eq!(post("/api/other").await, 404);
    assert_eq!(client.get(mock.url()).send().await.unwrap().status(), 405);
    assert_eq!(post("/stats").await, 405);
    assert_eq!(
        (
            mock.stats().bad_requests,
            mock.stats().requests,
            mock.count()
        ),
        (4, 4, 0)
    );
}

#[tokio::test]
async fn heads_and_bodies_without_measure_are_refused() {
    let mock = mock();
    let post = "POST /api/send_message HTTP/1.1\r\nhost: x\r\n";
    for (request, status) in [
        (
            format!("{post}transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            "411",
        ),
        (format!("{post}\r\n"), "411"),
        (format!("{post}content-length: 1048577\r\n\r\n"), "413"),
        (format!("{post}content-length: -1\r\n\r\n"), "400"),
        (
            format!("{post}content-length: 1\r\ncontent-length: 2\r\n\r\n"),
            "400",
        ),
        (format!("{post}a: {}\r\n\r\n", "b".repeat(70_000)), "431"),
        (format!("{post}{}\r\n", "a: b\r\n".repeat(100)), "431"),
        ("not http at all\r\n\r\n".to_owned(), "400"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(mock.addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(
            std::str::from_utf8(&answer).unwrap(),
            format!("HTTP/1.1 {status}")
        );
    }
}

#[tokio::test]
async fn a_body_in_pieces_and_two_requests_in_one_write_are_read() {
    let mock = mock();
    let mut stream = tokio::net::TcpStream::connect(mock.addr()).await.unwrap();
    let mut both = String::new();
    for text in ["#1", "#2"] {
        let body = body("7", text);
        let (length, signature) = (body.len(), sign(&body, SECRET));
        both +=
            &format!("POST /api/send_message?x HTTP/1.1\r\nX-JOINCHAT-SIGNATURE: {signature}\r\n");
        both += &format!("Content-Length: {length}\r\n\r\n{body}");
    }
    let (start, rest) = both.split_at(20);
    let (middle, rest) = rest.split_at(150);
    for piece in [start, middle, rest] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(mock.wait_for(2, LONG).await);
    assert_eq!(
        mock.received()[1].body.as_deref(),
        Some(body("7", "#2").as_bytes())
    );
    assert_eq!(
        (mock.stats().connections, mock.stats().order_violations),
        (1, 0)
    );
}

#[tokio::test]
async fn a_connection_that_is_idle_for_too_long_is_closed() {
    let idle_close = Some(std::time::Duration::from_millis(30));
    let mock = Mock::start(MockConfig {
        idle_close,
        ..config()
    })
    .unwrap();
    let mut stream = tokio::net::TcpStream::connect(mock.addr()).await.unwrap();
    let read = tokio::time::timeout(LONG, stream.read(&mut [0])).await;
    assert_eq!(read.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn every_received_request_is_remembered_with_its_times_and_answer() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("500"));
    send(&client, &mock, "7", "a #4").await;
    send(&client, &mock, "7", "a #4").await;
    let received = mock.received();
    let statuses: Vec<_> = received
        .iter()
        .map(|message| (message.seq, message.status))
        .collect();
    assert_eq!(statuses, [(1, Some(500)), (2, Some(200))]);
    let first = &received[0];
    assert_eq!(
        (first.page_id.as_str(), first.kind, first.recipient.as_str()),
        ("12345", "id", "7")
    );
    assert_eq!(
        (first.number, first.body.as_deref()),
        (Some(4), Some(body("7", "a #4").as_bytes()))
    );
    assert!(first.head_ns <= first.body_ns && first.body_ns <= first.answer_ns.unwrap());
    assert!(first.answer_ns.unwrap() <= received[1].head_ns);
}

#[tokio::test]
async fn the_record_and_the_counts_are_served_as_json() {
    let (mock, client) = (mock(), client());
    for text in ["#1", "#2"] {
        send(&client, &mock, "7", text).await;
    }
    let lines = text(&client, &mock, "/received").await;
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (lines.len(), &lines[1]["number"], &lines[1]["status"]),
        (2, &2.into(), &200.into())
    );
    assert!(lines[0]["body"].as_str().unwrap().ends_with("#1\"}}"));
    let stats = text(&client, &mock, "/stats").await;
    assert_eq!(
        serde_json::from_str::<sandbox::MockStats>(&stats).unwrap(),
        mock.stats()
    );
}

#[tokio::test]
async fn only_the_newest_are_kept_and_the_counts_cover_all() {
    let mock = Mock::start(MockConfig {
        keep: 2,
        keep_bodies: false,
        ..config()
    })
    .unwrap();
    let client = client();
    for text in ["#1", "#2", "#3"] {
        send(&client, &mock, "7", text).await;
    }
    let kept: Vec<_> = mock
        .received()
        .into_iter()
        .map(|m| (m.seq, m.status, m.body))
        .collect();
    assert_eq!(kept, [(2, Some(200), None), (3, Some(200), None)]);
    assert_eq!(mock.count(), 3);
}

#[tokio::test]
async fn the_oldest_bodies_make_room_for_the_newest() {
    let size = body("7", "#1").len();
    let keep_bytes = 2 * size + size / 2;
    let mock = Mock::start(MockConfig {
        keep_bytes,
        ..config()
    })
    .unwrap();
    let client = client();
    mock.script("7", script("ok x3, 500"));
    for text in ["#1", "#2", "#3", "#4"] {
        send(&client, &mock, "7", text).await;
    }
    let kept: Vec<_> = mock
        .received()
        .into_iter()
        .map(|m| (m.seq, m.status, m.body.map(|body| body.len())))
        .collect();
    let sizes = Some(size);
    assert_eq!(kept, [(3, Some(200), sizes), (4, Some(500), sizes)]);
}

#[tokio::test]
async fn waiting_ends_with_the_request_or_with_the_limit() {
    let (mock, client) = (mock(), client());
    assert!(mock.wait_for(0, LONG).await);
    assert!(!mock.wait_for(1, std::time::Duration::from_millis(20)).await);
    let both = futures_util::future::join(mock.wait_for(1, LONG), send(&client, &mock, "7", "a"));
    assert!(both.await.0);
}

#[tokio::test]
async fn the_log_has_a_line_for_each_event_before_the_client_knows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mock.log");
    let log = Some(path.clone());
    let mock = Mock::start(MockConfig {
        log,
        log_sync: true,
        ..config()
    })
    .unwrap();
    let client = client();
    mock.script("7", script("500, drop"));
    send(&client, &mock, "7", "a #1").await;
    crate::failure(&client, &mock, "7", "a #1").await;
    let unsigned = client
        .post(mock.url())
        .body(body("7", "a #1"))
        .send()
        .await
        .unwrap();
    assert_eq!(unsigned.status(), 401);

    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let events: Vec<_> = lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    let whole = ["head", "body", "answer"];
    assert_eq!(events, [&whole[..], &whole[..], &whole[..2]].concat());
    assert_eq!(
        (&lines[1]["recipient"], &lines[1]["signature"]),
        (&"7".into(), &true.into())
    );
    assert_eq!(
        (&lines[2]["status"], &lines[5]["status"]),
        (&500.into(), &Value::Null)
    );
    assert_eq!(
        (&lines[7]["request"], &lines[7]["signature"]),
        (&3.into(), &false.into())
    );
    assert_eq!(mock.stats().log_errors, 0);
}

#[tokio::test]
async fn a_sandbox_that_is_shut_down_or_dropped_answers_nobody() {
    let (first, second, client) = (mock(), mock(), client());
    send(&client, &first, "7", "hello").await;
    let (url, other) = (first.url(), second.url());
    let addr = first.addr();
    first.shutdown().await;
    assert!(client.post(url).send().await.unwrap_err().is_connect());
    let again = Mock::start(MockConfig {
        listen: addr,
        ..config()
    });
    assert!(again.is_ok(), "the address is free");
    drop(second);
    tokio::task::yield_now().await;
    assert!(client.post(other).send().await.is_err());
}
