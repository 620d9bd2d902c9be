//! What the sandbox shows to a browser and to scripts.

use serde_json::Value;

use crate::{client, mock, send};

#[tokio::test]
async fn the_page_lists_messages_escaped_and_may_run_nothing() {
    let (mock, client) = (mock(), client());
    send(
        &client,
        &mock,
        "<script>alert(1)</script>",
        "<img src=x> #1",
    )
    .await;
    let page = client
        .get(format!("http://{}/", mock.addr()))
        .send()
        .await
        .unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert_eq!(policy, "default-src 'none'; style-src 'unsafe-inline'");
    let page = page.text().await.unwrap();
    assert!(
        page.contains("id: &lt;script&gt;alert(1)&lt;/script&gt;"),
        "{page}"
    );
    assert!(
        !page.contains("<script") && !page.contains("<img"),
        "{page}"
    );
}

#[tokio::test]
async fn the_record_and_the_counts_are_served_as_json() {
    let (mock, client) = (mock(), client());
    for text in ["#1", "#2"] {
        send(&client, &mock, "7", text).await;
    }
    let base = format!("http://{}", mock.addr());
    let lines = client
        .get(format!("{base}/received"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (lines.len(), &lines[1]["number"], &lines[1]["status"]),
        (2, &2.into(), &200.into())
    );
    assert!(lines[0]["body"].as_str().unwrap().ends_with("#1\"}}"));
    let stats = client
        .get(format!("{base}/stats"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(
        serde_json::from_str::<postlane::mock::MockStats>(&stats).unwrap(),
        mock.stats()
    );
}

#[tokio::test]
async fn a_script_can_be_posted_but_not_by_a_web_page() {
    let (mock, client) = (mock(), client());
    let url = format!("http://{}/script", mock.addr());
    let post = |text: &'static str| client.post(&url).body(text);
    assert_eq!(
        post("recipient=7\n503 x2, ok")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(send(&client, &mock, "7", "hello").await.status(), 503);
    assert_eq!(send(&client, &mock, "8", "hello").await.status(), 200);
    let forged = post("recipient=*\n500 *").header("origin", "http://evil.example");
    assert_eq!(forged.send().await.unwrap().status(), 403);
    let wrong = post("recipient=7\nexplode").send().await.unwrap();
    assert_eq!(wrong.status(), 400);
    assert!(wrong.text().await.unwrap().contains("unknown word"));
    assert_eq!(post("7: ok").send().await.unwrap().status(), 400);
    assert_eq!(send(&client, &mock, "8", "hello").await.status(), 200);
}
