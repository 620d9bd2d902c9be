//! One request to the configured URL: a hard deadline, no redirects, no hidden retries, a bounded
//! answer.
//!
//! The only place that talks to the receiver. It refuses to choose a destination (there is one,
//! from the configuration), to follow one, and to say what an answer means ([`crate::judge`]).

mod evidence;

use std::time::Duration;

use bytes::Bytes;
use evidence::{Noted, Refused};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Body, Client, Url};

use crate::judge::{Answer, BODY_LIMIT, Evidence, Phase};

/// The most headers of an answer; the client's own bound on their bytes stands beside it.
const MAX_HEADERS: usize = 1024;

/// The last look before the first byte: why the request must not go out any more, if so. Asked when
/// there is a connection, which may be seconds after the attempt began.
pub type Gate = Box<dyn Fn() -> Option<String> + Send + Sync>;

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
    /// How long an idle connection may be reused; zero: never.
    pub keep_alive: Duration,
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
            .pool_idle_timeout(endpoint.keep_alive)
            .pool_max_idle_per_host(match endpoint.keep_alive.is_zero() {
                true => 0,
                false => endpoint.connections,
            })
            // An answer that is nearly HTTP is an answer: unread, it would be asked for again.
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_max_headers(MAX_HEADERS)
            .tcp_nodelay(true)
            .user_agent(concat!("postlane/", env!("CARGO_PKG_VERSION")));
        let builder = match endpoint.url.scheme() {
            // Nothing is verified there: a system without CA certificates will do.
            "http" => builder.tls_certs_only([]),
            _ => builder,
        };
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        let builder = builder.tcp_user_timeout(endpoint.tcp_user_timeout);
        let client = builder.build().map_err(|error| BuildError(words(error)))?;
        Ok(Self { client, endpoint })
    }

    /// Sends exactly `body` with its signature, unless `gate` says otherwise once there is a connection.
    /// `now_unix_secs` reads dates in `Retry-After`.
    pub async fn post(
        &self,
        body: Bytes,
        signature: &str,
        now_unix_secs: i64,
        gate: Gate,
    ) -> Answer {
        let Ok(signature) = HeaderValue::from_str(signature) else {
            return Answer::not_sent("the signature is no header value");
        };
        let (body, asked) = Noted::new(body, gate);
        let request = self
            .client
            .post(self.endpoint.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            // Without it any encoding would be allowed.
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .header(self.endpoint.signature_header.clone(), signature)
            .body(Body::wrap(body));
        let error = match request.send().await {
            Ok(response) => return self.read(response, now_unix_secs).await,
            Err(error) => error,
        };
        // The head stands before the body in the same buffer, and both are dropped with it.
        if let Some(Refused(why)) = evidence::causes(&error).find_map(|cause| cause.downcast_ref())
        {
            return Answer::not_sent(why.clone());
        }
        // Nothing was tried: there is nothing to tell of it.
        if error.is_builder() {
            return Answer::not_sent(words(error));
        }
        let is_https = self.endpoint.url.scheme() == "https";
        let evidence = Some(evidence::of(&error, &asked, is_https));
        let is_proof = error.is_connect();
        let error = words(error);
        match is_proof {
            true => Answer::NotSent { error, evidence },
            false => Answer::Lost { error, evidence },
        }
    }

    async fn read(&self, mut response: reqwest::Response, now_unix_secs: i64) -> Answer {
        let mut body = Vec::new();
        let cut = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let room = BODY_LIMIT - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    if chunk.len() > room {
                        break Some(format!("longer than {BODY_LIMIT} bytes"));
                    }
                }
                Ok(None) => break None,
                Err(error) => {
                    let evidence = Evidence {
                        phase: Phase::Body,
                        body_sent: true,
                    };
                    break Some(format!("{evidence}: {}", words(error)));
                }
            }
        };
        let headers = response.headers();
        Answer::status(
            response.status().as_u16(),
            |name| headers.get(name).map(HeaderValue::as_bytes),
            (body, cut),
            now_unix_secs,
            self.endpoint.max_retry_after,
        )
    }
}

/// The error and its causes in one line, without the URL.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    for cause in evidence::causes(&error) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}
