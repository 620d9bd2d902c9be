//! `[api]`: where requests go, in which form, and how long they may take.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use postlane_message::validate::{PageForm, PayloadForm};
use reqwest::Url;
use reqwest::header::{self, HeaderName};

use super::layers::Form;
use super::read::Reader;
use super::sections::SHORTEST;
use super::{database_url, keys};

/// Headers that the request itself needs.
const RESERVED: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::TRANSFER_ENCODING,
];

/// No common server keeps an idle connection longer.
const LONGEST_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// `[api]`: the receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct Api {
    /// The document of the vendor that presets `url` and `signature_header`: `2020-11` or `2019-07`.
    pub version: &'static str,
    /// Where requests go. https, except to loopback or with `allow_http`.
    pub url: Url,
    /// Lets `url` be plain http to another machine, as between containers.
    pub allow_http: bool,
    /// The header that carries the signature.
    pub signature_header: HeaderName,
    /// The hard end of one whole attempt: connect, write, answer. At least 1 ms.
    pub timeout: Duration,
    /// The end of connecting. More than `timeout` has no effect.
    pub connect_timeout: Duration,
    /// How long written bytes may stay unacknowledged.
    pub tcp_user_timeout: Duration,
    /// How long an idle connection may be reused, at most a minute; zero: never. A receiver that closes
    /// sooner makes ambiguous attempts of requests that it never read.
    pub keep_alive: Duration,
    /// Who waits for a job's delay.
    pub delay: Delay,
    /// How `page_id` goes out.
    pub page_id: PageForm,
    /// How an object as postback payload goes out.
    pub payload: PayloadForm,
}

/// Who waits for a job's `delay` (`api.delay`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// The worker waits; the request has no `delay`.
    Worker,
    /// The request carries `delay`, and the receiver waits.
    Api,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("url", &database_url::redacted(self.url.as_str(), false))
            .field("signature_header", &self.signature_header)
            .field("timeout", &self.timeout)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

impl Api {
    /// The shortest lease that outlives an attempt: `timeout`, `tcp_user_timeout` and a tenth of
    /// `timeout` (not under 100 ms) on top.
    pub fn shortest_lease(&self) -> Duration {
        let margin = (self.timeout / 10).max(Duration::from_millis(100));
        self.timeout
            .saturating_add(self.tcp_user_timeout)
            .saturating_add(margin)
    }
}

impl Reader {
    pub(super) fn api(&mut self) -> Api {
        let version = self.version();
        let allow_http = self.truth("api.allow_http");
        Api {
            version,
            url: self.value("api.url", Form::Text, |url| receiver(url, allow_http)),
            allow_http,
            signature_header: self.value("api.signature_header", Form::Text, |name| {
                match name.parse() {
                    Ok(name) if RESERVED.contains(&name) => {
                        Err("the request needs this header itself".to_owned())
                    }
                    Ok(name) => Ok(name),
                    Err(_) => Err("use a header name: letters, digits and hyphens".to_owned()),
                }
            }),
            timeout: self.span("api.timeout", SHORTEST),
            connect_timeout: self.span("api.connect_timeout", SHORTEST),
            tcp_user_timeout: self.span("api.tcp_user_timeout", SHORTEST),
            keep_alive: self.keep_alive(),
            delay: self.choice(
                "api.delay",
                &[("worker", Delay::Worker), ("api", Delay::Api)],
            ),
            page_id: self.choice(
                "api.page_id",
                &[("number", PageForm::Number), ("string", PageForm::String)],
            ),
            payload: self.choice(
                "api.payload",
                &[
                    ("string", PayloadForm::String),
                    ("as_given", PayloadForm::AsGiven),
                ],
            ),
        }
    }

    fn keep_alive(&mut self) -> Duration {
        let span = self.span("api.keep_alive", Duration::ZERO);
        if span > LONGEST_KEEP_ALIVE {
            self.refuse("api.keep_alive", "must not be over 1m");
        }
        span
    }

    /// The version of the API, with what it presets laid under what is set.
    fn version(&mut self) -> &'static str {
        let words = keys::VERSIONS.map(|(version, _)| (version, version));
        let version = self.choice("api.version", &words);
        let chosen = self.layers.settings.contains_key("api.version");
        let preset = keys::VERSIONS.iter().find(|(name, _)| *name == version);
        if let Some((_, values)) = preset.filter(|_| chosen) {
            self.layers.preset(version, values);
        }
        version
    }
}

/// The receiver's URL: https, or http where the connection is local or the configuration allows it.
fn receiver(url: &str, allow_http: bool) -> Result<Url, String> {
    let url = Url::parse(url).map_err(|error| format!("not a URL: {error}"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback());
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must have no user name and no password in it".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback || allow_http => Ok(url),
        "http" => {
            Err("use https; plain http only to loopback, or with api.allow_http = true".to_owned())
        }
        _ => Err("use https".to_owned()),
    }
}
