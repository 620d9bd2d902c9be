//! How far a request came, told from what the client says: each phase that can be forced on
//! loopback, by a receiver of raw TCP.
//!
//! "write" cannot be forced: the bodies of this API fit into the buffers of any socket, so a
//! connection that fails then looks like one that fails while it waits.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use postlane::http::{Endpoint, Http};
use postlane::job::{Outcome, PauseWanted};
use postlane::judge::{Answer, BODY_LIMIT, Evidence, Judgement, Phase, RuleSet, judge};

const BODY: &[u8] = br#"{"page_id":1}"#;

/// A client whose idle connections may be reused for so long.
fn client(url: &str, keep_alive: Duration) -> Http {
    Http::new(Endpoint {
        url: url.parse().expect("a URL"),
        signature_header: "x-joinchat-signature".parse().expect("a header"),
        timeout: Duration::from_millis(800),
        connect_timeout: Duration::from_millis(400),
        tcp_user_timeout: Duration::from_secs(1),
        max_retry_after: Duration::from_secs(3600),
        keep_alive,
        connections: 4,
    })
    .expect("a client")
}

/// Posts to a URL once.
async fn post(url: &str) -> Answer {
    post_with(&client(url, Duration::from_secs(1))).await
}

async fn post_with(http: &Http) -> Answer {
    let open = Box::new(|| None);
    http.post(Bytes::from_static(BODY), "sig", 0, open).await
}

/// A receiver that does this to each connection; its port.
fn receiver(each: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(each));
    port
}

async fn to(each: impl Fn(TcpStream) + Send + 'static) -> Answer {
    post(&format!("http://127.0.0.1:{}/", receiver(each))).await
}

/// Reads a whole request.
fn read(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    let mut buffer = [0; 1024];
    while !got.ends_with(BODY) {
        let length = stream.read(&mut buffer).expect("a request");
        assert!(length > 0, "it ended early");
        got.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(got).expect("UTF-8")
}

fn hang() {
    std::thread::sleep(Duration::from_secs(3));
}

fn judged(answer: &Answer) -> Judgement<'static> {
    static RULES: std::sync::LazyLock<Arc<RuleSet>> = std::sync::LazyLock::new(RuleSet::built_in);
    judge(&RULES, answer)
}

#[track_caller]
fn unsent(answer: &Answer, phase: Phase) -> Judgement<'static> {
    let Answer::NotSent { evidence, .. } = answer else {
        panic!("it is certain that nothing left: {answer:?}");
    };
    let body_sent = false;
    assert_eq!(*evidence, Some(Evidence { phase, body_sent }), "{answer:?}");
    let judgement = judged(answer);
    assert_eq!(judgement.outcome, Outcome::NotSent);
    let form = format!("phase={phase} body_sent=no: ");
    assert!(judgement.reason.starts_with(&form), "{}", judgement.reason);
    judgement
}

#[track_caller]
fn lost(answer: &Answer, phase: Phase) {
    let Answer::Lost { evidence, .. } = answer else {
        panic!("it may have arrived: {answer:?}");
    };
    let body_sent = true;
    assert_eq!(*evidence, Some(Evidence { phase, body_sent }), "{answer:?}");
    let judgement = judged(answer);
    assert_eq!(judgement.outcome, Outcome::Ambiguous);
    let form = format!("phase={phase} body_sent=yes: ");
    assert!(judgement.reason.starts_with(&form), "{}", judgement.reason);
}

#[tokio::test]
async fn a_name_that_has_no_address_is_not_sent() {
    // Too long for DNS: refused without asking any server.
    let url = format!("http://{}.invalid/", "a".repeat(64));
    unsent(&post(&url).await, Phase::Resolve);
}

#[tokio::test]
async fn a_refused_port_is_not_sent() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound").port()
    };
    for scheme in ["http", "https"] {
        let answer = post(&format!("{scheme}://127.0.0.1:{port}/")).await;
        let judgement = unsent(&answer, Phase::Connect);
        assert!(judgement.reason.contains("refused"), "{}", judgement.reason);
        assert!(!judgement.reason.contains("127.0.0.1"), "no URL");
    }
}

#[tokio::test]
async fn tls_to_a_plain_port_is_not_sent() {
    let plain = receiver(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        hang();
    });
    unsent(
        &post(&format!("https://127.0.0.1:{plain}/")).await,
        Phase::Tls,
    );
    let closing = receiver(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
    });
    unsent(
        &post(&format!("https://127.0.0.1:{closing}/")).await,
        Phase::Tls,
    );
}

#[tokio::test]
async fn a_handshake_that_hangs_is_not_sent() {
    // The client says that connecting took too long, and not which part of it.
    let port = receiver(|_stream| hang());
    unsent(
        &post(&format!("https://127.0.0.1:{port}/")).await,
        Phase::Connect,
    );
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_the_endpoints_fault() {
    let certificate = include_bytes!("data/tls/certificate.der").to_vec().into();
    let key =
        rustls::pki_types::PrivatePkcs8KeyDer::from(include_bytes!("data/tls/key.der").to_vec());
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .expect("a certificate");
    let config = Arc::new(config);
    let port = receiver(move |mut stream| {
        let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
        let _ = tls.complete_io(&mut stream);
    });
    let answer = post(&format!("https://127.0.0.1:{port}/")).await;
    let judgement = unsent(&answer, Phase::Tls);
    assert_eq!(judgement.rule, "transport.certificate");
    assert_eq!(judgement.scope, PauseWanted::Endpoint);
}

#[tokio::test]
async fn an_answer_that_does_not_come_may_have_been_sent() {
    // Closed after the request was read.
    let answer = to(|mut stream| drop(read(&mut stream))).await;
    lost(&answer, Phase::Wait);
    // Reset: closed with the rest of the request unread.
    let answer = to(|mut stream| {
        let _ = stream.read(&mut [0; 8]);
    })
    .await;
    lost(&answer, Phase::Wait);
    assert!(judged(&answer).reason.contains("reset"), "{answer:?}");
    // Silence.
    let answer = to(|mut stream| {
        read(&mut stream);
        hang();
    })
    .await;
    lost(&answer, Phase::Wait);
    // Half a head.
    let answer = to(|mut stream| {
        read(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconte");
    })
    .await;
    lost(&answer, Phase::Wait);
}

#[tokio::test]
async fn a_connection_closed_before_the_head_is_ambiguous_whatever_is_known() {
    for _ in 0..20 {
        let answer = to(drop).await;
        let Answer::Lost { evidence, .. } = &answer else {
            panic!("no proof: {answer:?}");
        };
        // Whether the client had begun is a race; that it says one of these is not.
        let Evidence { phase, body_sent } = evidence.expect("evidence");
        assert!(
            body_sent && phase == Phase::Wait || matches!(phase, Phase::Write | Phase::Unknown),
            "{answer:?}"
        );
        assert_eq!(judged(&answer).outcome, Outcome::Ambiguous);
    }
}

#[tokio::test]
async fn what_is_not_http_fails_in_the_head() {
    let answer = to(|mut stream| {
        read(&mut stream);
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
        hang();
    })
    .await;
    lost(&answer, Phase::Head);
}

/// The status, what was read, and why not more.
#[track_caller]
fn answered(answer: &Answer) -> (u16, usize, Option<&str>) {
    let Answer::Status {
        status, body, cut, ..
    } = answer
    else {
        panic!("a status came: {answer:?}");
    };
    (*status, body.len(), cut.as_deref())
}

#[tokio::test]
async fn a_body_that_breaks_off_keeps_its_status_and_says_why() {
    let half = |status: &'static str, end: fn()| {
        move |mut stream: TcpStream| {
            // The last byte stays unread, so that closing resets.
            let mut head = [0; 20];
            stream.read_exact(&mut head).expect("a request");
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: 100\r\n\r\n{{\"a\"");
            let _ = stream.write_all(head.as_bytes());
            std::thread::sleep(Duration::from_millis(100));
            end();
        }
    };
    for (status, end, told) in [
        (200, (|| {}) as fn(), "reset"),
        (500, || {}, "reset"),
        (200, hang, "timed out"),
    ] {
        let line = if status == 200 { "200 OK" } else { "500 Oh" };
        let answer = to(half(line, end)).await;
        let (found, length, cut) = answered(&answer);
        assert_eq!((found, length), (status, 4));
        let cut = cut.expect("cut");
        assert!(cut.starts_with("phase=body body_sent=yes: "), "{cut}");
        assert!(cut.contains(told), "{cut}");
        let judgement = judged(&answer);
        let delivered = status == 200;
        assert_eq!(judgement.outcome == Outcome::Delivered, delivered);
        assert!(
            delivered || judgement.reason.contains("cut: phase=body"),
            "{}",
            judgement.reason
        );
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_at_its_bound() {
    let answer = to(|mut stream| {
        read(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    })
    .await;
    let (status, length, cut) = answered(&answer);
    assert_eq!((status, length), (200, BODY_LIMIT));
    assert_eq!(cut, Some("longer than 65536 bytes"));
    assert_eq!(judged(&answer).rule, "body.suspicious");
}

#[tokio::test]
async fn an_answer_that_is_nearly_http_is_read() {
    let many: String = (0..500).map(|n| format!("x-{n}: {n}\r\n")).collect();
    for head in [
        "HTTP/1.1 200 OK\r\nServer : IIS\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nServer: a\r\n\tb\r\n  c\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nno colon here\r\nX(y): z\r\n: empty\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX-Naïve: é\r\n".to_owned(),
        "HTTP/1.1 200\r\n".to_owned(),
        "HTTP/1.1 200 OK\nServer: line feeds alone\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{many}"),
    ] {
        let text = format!("{head}Content-Length: 16\r\n\r\n{{\"success\":true}}");
        let answer = to(move |mut stream| {
            read(&mut stream);
            let _ = stream.write_all(text.as_bytes());
            hang();
        })
        .await;
        assert_eq!(answered(&answer), (200, 16, None), "{head}");
        assert_eq!(judged(&answer).rule, "body.success", "{head}");
    }
}

/// Answers each request of each connection, and closes what is idle for so long. Counts connections.
fn impatient(idle: Duration) -> (u16, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let port = receiver(move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            stream.set_read_timeout(Some(idle)).expect("a timeout");
            let (mut got, mut buffer) = (Vec::new(), [0; 1024]);
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                got.extend_from_slice(&buffer[..length]);
                if got.ends_with(BODY) {
                    got.clear();
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                }
            }
        });
    });
    (port, connections)
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_not_reused() {
    let (port, connections) = impatient(Duration::from_millis(300));
    let http = client(
        &format!("http://127.0.0.1:{port}/"),
        Duration::from_millis(100),
    );
    // As far apart as the receiver waits: each reuse would meet its end.
    for _ in 0..8 {
        assert_eq!(answered(&post_with(&http).await).0, 200);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 8);
    // Busy connections are reused at once.
    for _ in 0..50 {
        assert_eq!(answered(&post_with(&http).await).0, 200);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 9);
}

#[tokio::test]
async fn no_connection_is_reused_without_keep_alive() {
    let (port, connections) = impatient(Duration::from_secs(5));
    let http = client(&format!("http://127.0.0.1:{port}/"), Duration::ZERO);
    for _ in 0..5 {
        assert_eq!(answered(&post_with(&http).await).0, 200);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn nothing_is_sent_once_its_time_is_over_however_long_connecting_took() {
    // A backlog that is full: the next connection is made when there is room, at the second try of
    // the kernel after a second.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    let any = "127.0.0.1:0".parse().expect("an address");
    socket.bind(any).expect("a free port");
    let listener = socket.listen(1).and_then(tokio::net::TcpListener::into_std);
    let listener = listener.expect("listens");
    let address = listener.local_addr().expect("bound");
    let fill = || TcpStream::connect_timeout(&address, Duration::from_millis(100));
    let full: Vec<_> = std::iter::from_fn(|| fill().ok()).take(16).collect();
    assert!(full.len() < 16, "the backlog is full at some time");
    let accepting = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        drop(full);
        listener.set_nonblocking(true).expect("set");
        let began = postlane::clock::BootInstant::now();
        let mut got = Vec::new();
        let mut streams = Vec::new();
        while began.elapsed() < Duration::from_secs(4) {
            streams.extend(listener.accept().map(|(stream, _)| stream));
            for stream in &mut streams {
                let _ = stream.set_nonblocking(true);
                let mut buffer = [0; 1024];
                let length = stream.read(&mut buffer).unwrap_or(0);
                got.extend_from_slice(&buffer[..length]);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        (streams.len(), got)
    });
    let http = Http::new(Endpoint {
        url: format!("http://{address}/").parse().expect("a URL"),
        signature_header: "x-joinchat-signature".parse().expect("a header"),
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
        tcp_user_timeout: Duration::from_secs(1),
        max_retry_after: Duration::from_secs(3600),
        keep_alive: Duration::from_secs(1),
        connections: 4,
    })
    .expect("a client");
    let began = postlane::clock::BootInstant::now();
    let over = move || {
        let is_over = began.elapsed() > Duration::from_millis(400);
        is_over.then(|| "expired".to_owned())
    };
    let answer = http
        .post(Bytes::from_static(BODY), "sig", 0, Box::new(over))
        .await;
    assert_eq!(answer, Answer::not_sent("expired"));
    assert!(began.elapsed() > Duration::from_millis(500), "it connected");
    let (connections, got) = accepting.join().expect("counted");
    assert!(connections > 0);
    assert_eq!(String::from_utf8_lossy(&got), "", "not one byte");
}

#[tokio::test]
async fn a_body_of_exactly_the_bound_is_whole() {
    for (length, whole) in [(BODY_LIMIT, true), (BODY_LIMIT + 1, false)] {
        let answer = to(move |mut stream| {
            read(&mut stream);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&vec![b' '; length]);
            hang();
        })
        .await;
        let (_, read, cut) = answered(&answer);
        assert_eq!((read, cut.is_none()), (BODY_LIMIT, whole), "{cut:?}");
    }
}

#[tokio::test]
async fn the_body_goes_out_with_its_length_in_one_piece() {
    let (told, heard) = std::sync::mpsc::channel();
    let answer = to(move |mut stream| {
        told.send(read(&mut stream)).expect("heard");
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
    })
    .await;
    assert_eq!(answered(&answer), (204, 0, None));
    let request = heard.recv().expect("a request");
    let head = request
        .strip_suffix(std::str::from_utf8(BODY).expect("UTF-8"))
        .expect("the body");
    assert!(
        head.contains(&format!("content-length: {}\r\n", BODY.len())),
        "{head}"
    );
    assert!(!head.contains("transfer-encoding"), "{head}");
}
