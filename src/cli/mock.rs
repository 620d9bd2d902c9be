//! `mock`: the sandbox API, until Ctrl-C.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Failure, Out};
use crate::mock::{Binding, Mock as Sandbox, MockConfig};

/// Run the sandbox API: it checks signatures, order and duplicates, and answers by script
///
/// It stands in for JoinChat while you try things. Point the worker at it with
/// POSTLANE_API__URL=http://127.0.0.1:8080/api/send_message and the same secret. Look at what it
/// received at / (a page), /received (JSON lines) and /stats (JSON); POST /script changes a
/// script while it runs. Stop it with Ctrl-C: it ends with its counts.
#[derive(Debug, Args)]
#[command(after_long_help = "Scripts, TARGET=SCRIPT:\n  \
    A target is PAGE/VALUE, VALUE (a recipient's id, phone, email or uuid), PAGE/* or *.\n  \
    A script is a row of steps with commas between them; each request of a recipient plays the\n  \
    next step, and when none is left it is answered with ok.\n\n  \
    ok, 503, status 503        an answer with this status\n  \
    500 x2, ok                 twice, then ok\n  \
    503 *                      for ever\n  \
    429 retry-after=2          with Retry-After (seconds or a date)\n  \
    200 body={\"success\":false,\"error\":{\"code\":10010}}   with this body\n  \
    302 header=location:URL, redirect URL                 with a header\n  \
    delay 200ms ok             answers late\n  \
    hang                       never answers, the connection stays\n  \
    drop                       takes the message in, then closes without an answer\n  \
    close, reset, reset-before closes or resets without an answer\n  \
    cut, reset-mid             half an answer\n  \
    drip, drip-body every=1s   byte by byte\n  \
    endless, garbage, raw=TEXT no proper answer at all\n\n\
    Examples:\n  \
    postlane mock --secret xxxxx\n  \
    postlane mock --script '777=500 x2, ok' --script '12345/*=429 retry-after=2, ok'\n  \
    postlane mock --listen 127.0.0.1:9000 --latency 200ms --log-file received.jsonl")]
pub struct Mock {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The secret of every page without its own; for trials, never a real one
    #[arg(long, value_name = "SECRET", default_value = "sandbox")]
    secret: Vec<String>,
    /// The secret of one page; may be repeated
    #[arg(long, value_name = "PAGE=SECRET", value_parser = page_secret)]
    page_secret: Vec<(String, String)>,
    /// What to answer to whom; may be repeated
    #[arg(long, value_name = "TARGET=SCRIPT")]
    script: Vec<Binding>,
    /// Wait before every answer
    #[arg(long, value_name = "SPAN", default_value = "0s", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// Append a JSON line for each request's head, body and answer to this file
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// The address and the counts as JSON
    #[arg(long)]
    json: bool,
}

/// How many messages the page can show.
const KEEP: usize = 10_000;

fn page_secret(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((page, secret)) if !page.is_empty() && !secret.is_empty() => {
            Ok((page.to_owned(), secret.to_owned()))
        }
        _ => Err("use PAGE=SECRET".to_owned()),
    }
}

impl Mock {
    pub async fn run(&self, out: &mut Out) -> Result<(), Failure> {
        let mut config = MockConfig {
            listen: self.listen,
            default_secrets: self.secret.clone(),
            scripts: self.script.clone(),
            latency: self.latency,
            keep: KEEP,
            keep_bodies: true,
            log: self.log_file.clone(),
            ..MockConfig::default()
        };
        for (page, secret) in &self.page_secret {
            let secrets = config.secrets.entry(page.clone()).or_default();
            secrets.push(secret.clone());
        }
        let mut signals = super::run::Signals::listen()?;
        let sandbox = Sandbox::start(config)
            .map_err(|error| Failure::Failed(format!("{}: {error}", self.listen)))?;
        if self.json {
            out.json(&json!({"url": sandbox.url()}))?;
        } else {
            let (url, addr) = (sandbox.url(), sandbox.addr());
            out.line(format_args!(
                "sandbox at {url}\nlook at http://{addr}/, stop with Ctrl-C"
            ))?;
        }
        out.finish()?;
        signals.next().await;
        let stats = sandbox.stats();
        if self.json {
            out.json(&stats)?;
        } else {
            out.line(format_args!(
                "\n{} requests, {} received, {} accepted, {} bad signatures, {} repeats, \
                 {} duplicates, {} order violations, {} overlaps",
                stats.requests,
                stats.received,
                stats.accepted,
                stats.bad_signatures,
                stats.repeats,
                stats.duplicates,
                stats.order_violations,
                stats.overlaps
            ))?;
            for finding in sandbox.findings() {
                out.line(super::out::safe(&finding))?;
            }
        }
        sandbox.shutdown().await;
        Ok(())
    }
}
