//! `mock`: the sandbox API, until Ctrl-C.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sandbox::{Binding, Mock as Sandbox, MockConfig, Rules};
use serde_json::json;

use super::{Failure, Out};

/// Run the sandbox API: it checks signatures, order, duplicates and messages, and answers by script
///
/// It stands in for JoinChat while you try things. Point the worker at it with
/// POSTLANE_API__URL=http://127.0.0.1:8080/api/send_message and the same secret. Its page / shows
/// what each recipient's phone would show, and what is wrong with it; /received (JSON lines) and
/// /stats (JSON) are for scripts. It holds every request against the API's rules, by a reading of
/// its own. Stop it with Ctrl-C: it ends with its counts.
#[derive(Debug, Args)]
#[command(after_long_help = "Scripts, TARGET=SCRIPT:\n  \
    A target is PAGE/VALUE, VALUE (a recipient's id, phone, email or uuid), PAGE/* or *; the most\n  \
    exact one counts. A script is a row of steps with commas between them; each request of a\n  \
    recipient plays the next step, and when none is left it is answered with ok. The words of a\n  \
    step may be combined: 500 delay 2s taken x3.\n\n  \
    What is answered\n  \
    ok, 503, status 503        this status, and what JoinChat says with it\n  \
    code=10010                 200 {\"success\":false,\"errors\":{\"code\":10010,\"msg\":…}}\n  \
    graph=10/2018278           400, an error of Meta's with code and subcode: {\"error\":{…}}\n  \
    404 code=10010 msg=\"Nobody\"   the same with a status and a text of your own\n  \
    errors=\"Unknow errors\"     200 {\"success\":false,\"errors\":\"Unknow errors\"}\n  \
    200 body={\"code\":401}      a body of your own\n  \
    429 retry-after=2          Retry-After in seconds, or any value\n  \
    503 retry-date=30s         Retry-After with the date 30 seconds from then\n  \
    302 header=location:URL, redirect URL, 307 redirect URL\n\n  \
    How it is answered\n  \
    delay 200ms                late\n  \
    hang                       never, and the connection stays\n  \
    drop                       never: takes the message in, then closes\n  \
    reset                      never: reads the message, then resets the connection\n  \
    close, reset-before        never, and the message counts as not received\n  \
    cut, reset-mid             the head and half of the body, then the end\n  \
    drip, drip-body every=1s   byte by byte: all of it, or the body\n  \
    endless                    a body without end\n  \
    garbage, raw=TEXT          no HTTP; these bytes\n  \
    taken                      whatever it says, the person got the message: 500 taken\n\n  \
    How often\n  \
    500 x2, ok                 twice, then ok\n  \
    503 *                      for ever\n\n\
    Scripts while it runs, from this machine:\n  \
    printf 'recipient=777\\n500 x2, ok' | curl --data-binary @- http://127.0.0.1:8080/script\n  \
    curl --data-binary @scripts.toml http://127.0.0.1:8080/script\n\n\
    Examples:\n  \
    postlane mock --secret xxxxx\n  \
    postlane mock --script '777=500 x2, ok' --script '12345/*=429 retry-after=2, ok'\n  \
    postlane mock --script-file scripts.toml      with lines like \"777\" = \"500 x2, ok\"\n  \
    postlane mock --rules note                    invalid requests pass, and are shown as such\n  \
    postlane mock --listen 127.0.0.1:9000 --latency 200ms --log-file received.jsonl")]
pub struct Mock {
    /// Where to listen: an address, or a port on this machine (8081, :8081); port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
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
    /// A TOML file of scripts, "TARGET" = "SCRIPT"; --script comes after it
    #[arg(long, value_name = "FILE")]
    script_file: Option<PathBuf>,
    /// What becomes of requests that break the API's rules
    #[arg(long, value_enum, default_value_t = Rules::Enforce)]
    rules: Rules,
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

/// How many messages are remembered, and how many bytes of them.
const KEEP: usize = 10_000;
const KEEP_BYTES: usize = 64 * 1024 * 1024;

/// An address, or a port on loopback.
fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>();
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    port.map(local).or_else(|_| text.parse()).map_err(|_| {
        "use a port such as 8081, or an IP address and a port such as 127.0.0.1:8081".to_owned()
    })
}

fn page_secret(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((page, secret)) if !page.is_empty() && !secret.is_empty() => {
            Ok((page.to_owned(), secret.to_owned()))
        }
        _ => Err("use PAGE=SECRET".to_owned()),
    }
}

impl Mock {
    /// Those of the file, then those of the command line: the later one counts.
    fn scripts(&self) -> Result<Vec<Binding>, Failure> {
        let mut scripts = Vec::new();
        if let Some(file) = &self.script_file {
            let wrong = |why: &dyn std::fmt::Display| {
                Failure::Usage(format!("--script-file {}: {why}", file.display()))
            };
            let text = std::fs::read_to_string(file).map_err(|why| wrong(&why))?;
            scripts = Binding::from_toml(&text).map_err(|why| wrong(&why))?;
        }
        scripts.extend_from_slice(&self.script);
        Ok(scripts)
    }

    pub async fn run(&self, out: &mut Out) -> Result<(), Failure> {
        let mut config = MockConfig {
            listen: self.listen,
            default_secrets: self.secret.clone(),
            scripts: self.scripts()?,
            rules: self.rules,
            latency: self.latency,
            keep: KEEP,
            keep_bodies: true,
            keep_bytes: KEEP_BYTES,
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
                "\n{} requests, {} received, {} accepted, {} invalid, {} bad signatures, \
                 {} repeats, {} duplicates, {} order violations, {} overlaps",
                stats.requests,
                stats.received,
                stats.accepted,
                stats.invalid,
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
