//! The referee finds what is planted, and nothing else.

use std::io::Write;

use futures_util::future::{join, join_all};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{LONG, client, give_up, mock, raw, script, send};

#[tokio::test]
async fn numbers_in_order_with_retries_are_clean() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("500 x2, hang"));
    send(&client, &mock, "7", "a #1").await;
    send(&client, &mock, "7", "a #1").await;
    give_up(&client, &mock, "7", "a #1").await;
    for text in ["a #1", "b #2", "c #5"] {
        send(&client, &mock, "7", text).await;
    }
    let stats = mock.stats();
    assert_eq!(
        (stats.order_violations, stats.late_echoes, stats.duplicates),
        (0, 0, 0)
    );
    assert_eq!((stats.overlaps, stats.repeats, stats.received), (0, 3, 6));
    assert!(mock.findings().is_empty());
}

#[tokio::test]
async fn a_first_receipt_after_a_higher_number_is_an_order_violation() {
    let (mock, client) = (mock(), client());
    for (recipient, text) in [("7", "#1"), ("7", "#3"), ("8", "#1"), ("7", "#2")] {
        send(&client, &mock, recipient, text).await;
    }
    let stats = mock.stats();
    assert_eq!(
        (stats.order_violations, stats.late_echoes, stats.duplicates),
        (1, 0, 0)
    );
    assert_eq!(mock.findings(), ["12345/id:7 (received 4): #2 after #3"]);
}

#[tokio::test]
async fn a_repeat_after_a_higher_number_is_a_late_echo() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("500"));
    for text in ["#1", "#2", "#1"] {
        send(&client, &mock, "7", text).await;
    }
    let stats = mock.stats();
    assert_eq!(
        (stats.order_violations, stats.late_echoes, stats.duplicates),
        (0, 1, 0)
    );
}

#[tokio::test]
async fn the_same_message_accepted_twice_is_a_duplicate_with_or_without_a_number() {
    let (mock, client) = (mock(), client());
    for text in ["#1", "#1", "hello", "hello", "hello again"] {
        send(&client, &mock, "7", text).await;
    }
    send(&client, &mock, "8", "hello").await;
    assert_eq!(
        (mock.stats().duplicates, mock.stats().order_violations),
        (2, 0)
    );
    assert!(mock.findings()[0].ends_with("#1 was taken in before"));
}

#[tokio::test]
async fn two_requests_of_one_recipient_in_flight_at_once_overlap() {
    let (mock, client) = (mock(), client());
    mock.set_default(script("delay 100ms *"));
    let two = join(
        send(&client, &mock, "7", "#1"),
        send(&client, &mock, "7", "#2"),
    )
    .await;
    assert_eq!(
        (two.0.status(), two.1.status()),
        (200.try_into().unwrap(), 200.try_into().unwrap())
    );
    assert_eq!(mock.stats().overlaps, 1);
    join(
        send(&client, &mock, "8", "#1"),
        send(&client, &mock, "9", "#1"),
    )
    .await;
    assert_eq!(mock.stats().overlaps, 1, "others may be in flight");
}

#[tokio::test]
async fn an_overlap_is_seen_even_if_the_answers_take_no_time() {
    let (mock, client) = (mock(), client());
    // The body of the second is sent late: its head comes before the answer to the first.
    let slow = slow_body(&mock, "7", "#2", async {
        send(&client, &mock, "7", "#1").await;
    });
    slow.await;
    assert_eq!((mock.count(), mock.stats().overlaps), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_one_after_the_other_never_overlap_however_fast() {
    let (mock, client) = (mock(), client());
    let lanes = (0..8).map(|lane| {
        let (mock, client) = (&mock, &client);
        async move {
            for number in 1..=100 {
                send(client, mock, &lane.to_string(), &format!("#{number}")).await;
            }
        }
    });
    join_all(lanes).await;
    let stats = mock.stats();
    assert_eq!((stats.received, stats.accepted, stats.lanes), (800, 800, 8));
    assert_eq!(
        (stats.overlaps, stats.order_violations, stats.duplicates),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn a_request_whose_client_gave_up_is_no_longer_in_flight() {
    let (mock, client) = (mock(), client());
    mock.script("7", script("delay 10s x20"));
    for _ in 0..20 {
        give_up(&client, &mock, "7", "#1").await;
        tokio::task::yield_now().await; // to the task that closes the client's connection
    }
    assert_eq!(mock.count(), 20);
    assert_eq!(mock.stats().overlaps, 0);
}

#[tokio::test]
async fn a_retry_that_is_read_before_the_end_of_the_given_up_one_does_not_overlap() {
    let mock = mock();
    mock.script("7", script("hang"));
    let connect = || std::net::TcpStream::connect(mock.addr()).unwrap();
    let (mut first, mut second) = (connect(), connect());
    let (head, body) = raw("7", "#1");
    write!(first, "{head}{body}").unwrap();
    assert!(mock.wait_for(1, LONG).await);
    // Without an await the server cannot run: it finds the retry first and the end second.
    write!(second, "{head}").unwrap();
    drop(first);
    write!(second, "{body}").unwrap();
    assert!(mock.wait_for(2, LONG).await);
    assert_eq!((mock.stats().overlaps, mock.stats().repeats), (0, 1));
}

/// Sends a head, waits for `meanwhile`, then sends the body and reads the answer.
async fn slow_body(
    mock: &sandbox::Mock,
    recipient: &str,
    text: &str,
    meanwhile: impl Future<Output = ()>,
) {
    let (head, body) = raw(recipient, text);
    let mut stream = tokio::net::TcpStream::connect(mock.addr())
        .await
        .expect("a connection");
    stream.write_all(head.as_bytes()).await.expect("written");
    let seen = mock.wait_until(|stats| stats.requests >= 1, LONG).await;
    assert!(seen, "the head was not counted");
    meanwhile.await;
    stream.write_all(body.as_bytes()).await.expect("written");
    stream.read_exact(&mut [0; 12]).await.expect("an answer");
}
