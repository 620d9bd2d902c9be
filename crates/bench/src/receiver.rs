//! The receiver: the project's sandbox in a process of its own.
//!
//! It verifies every signature, and counts what arrives twice, out of order or at the same time as
//! another request of its recipient. A run in which that happened is void.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sandbox::{Binding, Mock, MockConfig, MockStats};
use serde::{Deserialize, Serialize};

use crate::process::{self, Process};

/// The secret of every page.
pub const SECRET: &str = "xxxxx";

/// How it answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Setup {
    /// Waited before every answer, in milliseconds.
    pub latency_ms: u64,
    /// `TARGET=SCRIPT`, see `postlane mock --help`; everybody else gets `ok`.
    pub scripts: Vec<String>,
    /// How many requests are remembered with the moment of their arrival.
    pub keep: usize,
}

/// The role: serves until its standard input ends.
pub async fn serve() -> Result<()> {
    let setup: Setup = process::task()?;
    process::raise_open_files()?;
    let scripts = setup.scripts.iter().map(|script| script.parse());
    let mock = Mock::start(MockConfig {
        default_secrets: vec![SECRET.to_owned()],
        scripts: scripts.collect::<Result<Vec<Binding>, _>>()?,
        latency: Duration::from_millis(setup.latency_ms),
        keep: setup.keep,
        ..MockConfig::default()
    })?;
    println!("{}", mock.url());
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await?;
    Ok(())
}

/// A running receiver.
pub struct Receiver {
    process: Process,
    /// Where requests go.
    pub url: String,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Arrival {
    recipient: String,
    number: Option<u64>,
    head_ns: u64,
}

/// When the first byte for each recipient and number arrived, nanoseconds of the boot clock.
pub type Arrivals = HashMap<(String, u64), u64>;

impl Receiver {
    /// Starts one and waits until it listens.
    pub async fn start(setup: &Setup) -> Result<Self> {
        let mut process = Process::role("receiver", setup, None)?;
        let url = process.line().await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { process, url, http })
    }

    async fn get(&self, path: &str) -> Result<String> {
        let url = self.url.replace("/api/send_message", path);
        Ok(self.http.get(url).send().await?.text().await?)
    }

    /// The counts so far.
    pub async fn stats(&self) -> Result<MockStats> {
        let text = self.get("/stats").await?;
        serde_json::from_str(&text).context("the receiver's counts")
    }

    /// Waits until so many requests were answered with a success.
    pub async fn accepts(&self, wanted: u64) -> Result<()> {
        while self.stats().await?.accepted < wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// What has arrived, of what is kept.
    pub async fn arrivals(&self) -> Result<Arrivals> {
        let mut arrivals = Arrivals::new();
        for line in self.get("/received").await?.lines() {
            let arrival: Arrival = serde_json::from_str(line)?;
            let key = (arrival.recipient, arrival.number.unwrap_or_default());
            arrivals.entry(key).or_insert(arrival.head_ns);
        }
        Ok(arrivals)
    }

    /// Ends it. An error if a promise was broken: more than `duplicates` messages twice, or any out
    /// of order, overlapping, or with a bad signature.
    pub async fn verdict(mut self, duplicates: u64) -> Result<MockStats> {
        let stats = self.stats().await?;
        let broken = stats.order_violations
            + stats.overlaps
            + stats.bad_signatures
            + stats.bad_requests
            + stats.duplicates.saturating_sub(duplicates);
        ensure!(
            broken == 0,
            "void, a promise was broken: {} order violations, {} duplicates, {} overlaps, \
             {} bad signatures, {} bad requests",
            stats.order_violations,
            stats.duplicates,
            stats.overlaps,
            stats.bad_signatures,
            stats.bad_requests
        );
        self.process.close();
        self.process.ends(Duration::from_secs(20)).await?;
        Ok(stats)
    }
}
