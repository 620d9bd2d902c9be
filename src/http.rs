//! One request to the configured URL: a hard deadline, no redirects, no hidden retries, a bounded
//! answer.
//!
//! The only place that talks to the receiver. It refuses to choose a destination (there is one,
//! from the configuration), to follow one, and to say what an answer means ([`crate::judge`]).

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Url};

use crate::judge::{Answer, retry_after};

/// How much of an answer is read.
pub const BODY_LIMIT: usize = 64 * 1024;

/// What the client needs to know.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where requests go.
    pub url: Url,
    /// The header that carries the signature.
    pub signature_header: HeaderName,
    /// Hard end of a whole attempt.
    pub timeout: Duration,
    /// Hard end of connecting.
    pub connect_timeout: Duration,
    /// How long sent bytes may stay unacknowledged.
    pub tcp_user_timeout: Duration,
    /// The most that `Retry-After` is believed.
    pub max_retry_after: Duration,
    /// Idle connections kept for reuse; about the number of requests in flight.
    pub connections: usize,
}

/// A client that cannot be built: no CA certificates, or no TLS provider.
#[derive(Debug, thiserror::Error)]
#[error(
    "http client: {0} (an https URL needs the system's CA certificates: install ca-certificates)"
)]
pub struct BuildError(String);

/// The client for one endpoint.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    endpoint: Endpoint,
}

impl Http {
    /// Builds the client.
    pub fn new(endpoint: Endpoint) -> Result<Self, BuildError> {
        // Fails only if a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .timeout(endpoint.timeout)
            .connect_timeout(endpoint.connect_timeout)
            .pool_idle_timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(endpoint.connections)
            .tcp_nodelay(true)
            .user_agent(concat!("postlane/", env!("CARGO_PKG_VERSION")));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        let builder = builder.tcp_user_timeout(endpoint.tcp_user_timeout);
        let client = builder.build().map_err(|error| BuildError(words(error)))?;
        Ok(Self { client, endpoint })
    }

    /// Sends exactly `body` with its signature. `now_unix_secs` reads dates in `Retry-After`.
    pub async fn post(&self, body: Bytes, signature: &str, now_unix_secs: i64) -> Answer {
        let Ok(signature) = HeaderValue::from_str(signature) else {
            return Answer::NotSent {
                error: "the signature is no header value".to_owned(),
            };
        };
        let request = self
            .client
            .post(self.endpoint.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(self.endpoint.signature_header.clone(), signature)
            .body(body);
        match request.send().await {
            Err(error) if error.is_connect() || error.is_builder() => Answer::NotSent {
                error: words(error),
            },
            Err(error) => Answer::Lost {
                error: words(error),
            },
            Ok(response) => self.read(response, now_unix_secs).await,
        }
    }

    async fn read(&self, mut response: reqwest::Response, now_unix_secs: i64) -> Answer {
        let headers = response.headers();
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(str::to_ascii_lowercase);
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|v| retry_after(v.as_bytes(), now_unix_secs, self.endpoint.max_retry_after));
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let cut = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let room = BODY_LIMIT - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    if chunk.len() > room {
                        break true;
                    }
                }
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        Answer::Status {
            status,
            content_type,
            retry_after,
            body,
            cut,
        }
    }
}

/// The error and its causes in one line, without the URL.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
