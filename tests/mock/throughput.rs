//! How much the sandbox takes: run with `--ignored --nocapture`.

use postlane::clock::BootInstant;
use postlane::mock::{Mock, MockConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{config, raw};

const CONNECTIONS: usize = 64;
const REQUESTS: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn requests_per_second_over_64_connections() {
    let mock = Mock::start(MockConfig {
        keep: 0,
        keep_bodies: false,
        ..config()
    })
    .unwrap();
    let addr = mock.addr();
    // Signed beforehand: the client's work is not what is measured.
    let prepared: Vec<Vec<Vec<u8>>> = (0..CONNECTIONS)
        .map(|lane| (0..REQUESTS).map(|number| request(lane, number)).collect())
        .collect();
    let start = BootInstant::now();
    let clients: Vec<_> = prepared
        .into_iter()
        .map(|requests| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(addr).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut answer = [0; 1024];
                for request in requests {
                    stream.write_all(&request).await.unwrap();
                    let read = stream.read(&mut answer).await.unwrap();
                    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let took = start.elapsed();
    let stats = mock.stats();
    assert_eq!(stats.accepted, (CONNECTIONS * REQUESTS) as u64);
    assert_eq!(
        (stats.overlaps, stats.order_violations, stats.duplicates),
        (0, 0, 0)
    );
    println!(
        "{:.0} requests/s",
        stats.accepted as f64 / took.as_secs_f64()
    );
}

fn request(lane: usize, number: usize) -> Vec<u8> {
    let (head, body) = raw(&format!("lane-{lane}"), &format!("hello #{number}"));
    (head + &body).into_bytes()
}
