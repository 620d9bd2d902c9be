//! The bare loop: signs and posts the same bodies with the same client, without a database.
//!
//! What this machine can do at most, and so the measure of everything else. Like the worker it is a
//! process of its own beside the receiver's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use postlane::clock::BootInstant;
use postlane::http::{Endpoint, Http};
use postlane::sign::signature;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::process::{self, Process};
use crate::receiver::{Receiver, SECRET, Setup};

/// What to post.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    url: String,
    jobs: usize,
    in_flight: usize,
}

/// The role: posts everything, says so, ends.
pub async fn post() -> Result<()> {
    let task: Task = process::task()?;
    process::raise_open_files()?;
    let http = Http::new(Endpoint {
        url: task.url.parse()?,
        signature_header: "x-joinchat-signature".parse()?,
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        tcp_user_timeout: Duration::from_secs(10),
        max_retry_after: Duration::from_secs(3600),
        keep_alive: Duration::from_secs(1),
        connections: task.in_flight,
    })?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..task.in_flight {
        let (http, next, jobs) = (http.clone(), Arc::clone(&next), task.jobs);
        senders.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= jobs {
                    return;
                }
                let body = body(n);
                let signed = signature(SECRET.as_bytes(), body.as_bytes());
                http.post(Bytes::from(body), &signed, 0, Box::new(|| None))
                    .await;
            }
        });
    }
    while senders.join_next().await.is_some() {}
    println!("done");
    Ok(())
}

/// What the worker makes of the jobs that `fill` inserts.
fn body(n: usize) -> String {
    format!(
        "{{\"page_id\":1,\"recipient\":{{\"id\":\"r{n}\"}},\"message\":\
         {{\"template_type\":\"text\",\"text\":\"Hello World #1\"}}}}"
    )
}

/// Requests a second, counted from the start of the process as a worker's are.
pub async fn rate(jobs: usize, in_flight: usize, latency_ms: u64) -> Result<f64> {
    let setup = Setup {
        latency_ms,
        ..Setup::default()
    };
    let receiver = Receiver::start(&setup).await?;
    let task = Task {
        url: receiver.url.clone(),
        jobs,
        in_flight,
    };
    let began = BootInstant::now();
    let mut bare = Process::role("bare", &task, None)?;
    bare.line().await?;
    let seconds = began.elapsed().as_secs_f64();
    let accepted = receiver.verdict(0).await?.accepted;
    ensure!(
        accepted == jobs as u64,
        "the bare loop got {accepted} of {jobs} answered"
    );
    Ok(jobs as f64 / seconds)
}
