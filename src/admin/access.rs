//! Who may look.
//!
//! On loopback the Host header decides, because a page that a browser has open may point a name of
//! its own at 127.0.0.1 (DNS rebinding). A token, where one is set, decides everywhere but for the
//! two probes. An address that others can reach is never served without a token.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use super::listen::Connection;
use crate::events::{Event, Events};

/// Bodies are never read; one that is announced larger is refused.
const MAX_BODY: u64 = 64 * 1024;
/// How long a wrong token waits for its answer: guessing is slow, also over many connections.
const WRONG: Duration = Duration::from_millis(200);

/// What is asked of a request before anything is shown.
pub(super) struct Access {
    /// The address listened on, if only this machine can reach it.
    loopback: Option<SocketAddr>,
    token: Option<[u8; 32]>,
    /// Wrong tokens are answered one after the other.
    wrong: Semaphore,
    events: Arc<Events>,
}

impl Access {
    pub(super) fn new(
        local: Option<SocketAddr>,
        token: Option<SecretString>,
        events: Arc<Events>,
    ) -> Self {
        Self {
            loopback: local.filter(|local| local.ip().to_canonical().is_loopback()),
            token: token.map(|token| digest(token.expose_secret().as_bytes())),
            wrong: Semaphore::new(1),
            events,
        }
    }

    /// True if the request names this machine; only asked where others cannot reach it.
    fn host_is_known(&self, request: &Request) -> bool {
        let Some(local) = self.loopback else {
            return true;
        };
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        let authority = request.uri().authority().map(|named| named.as_str());
        host.to_str().is_ok_and(|host| names(host, local))
            && authority.is_none_or(|named| names(named, local))
    }

    fn token_is_right(&self, headers: &HeaderMap) -> Token {
        let Some(token) = &self.token else {
            // Only this machine, if there is no token.
            return if self.loopback.is_some() {
                Token::Right
            } else {
                Token::Missing
            };
        };
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        match (given.next(), given.next()) {
            (None, _) => Token::Missing,
            (Some(given), None)
                if bool::from(digest(&presented(given.as_bytes())).ct_eq(token)) =>
            {
                Token::Right
            }
            _ => Token::Wrong,
        }
    }
}

enum Token {
    Right,
    Missing,
    Wrong,
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// True if `host` (with or without a port) is this machine as its own programs call it.
fn names(host: &str, local: SocketAddr) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name);
    bare.parse::<IpAddr>()
        .is_ok_and(|ip| ip.to_canonical().is_loopback() || ip == local.ip())
}

/// The secret in an `Authorization` header; nothing a token could be if there is none.
fn presented(given: &[u8]) -> Vec<u8> {
    let Some(space) = given.iter().position(|byte| *byte == b' ') else {
        return Vec::new();
    };
    let (scheme, rest) = (&given[..space], given[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return rest.to_vec();
    }
    if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = STANDARD.decode(rest).unwrap_or_default();
        let colon = pair.iter().position(|byte| *byte == b':');
        return colon.map_or_else(Vec::new, |colon| pair[colon + 1..].to_vec());
    }
    Vec::new()
}

/// Stands before every route, also before those that do not exist.
pub(super) async fn guard(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    if !access.host_is_known(&request) {
        let text = "this server answers to localhost and its own address only\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    if !matches!(request.uri().path(), "/healthz" | "/readyz") {
        match access.token_is_right(request.headers()) {
            Token::Right => {}
            Token::Missing => return unauthorized(),
            Token::Wrong => {
                access.events.emit(&Event::WrongToken);
                if let Some(connection) = request.extensions().get::<Arc<Connection>>() {
                    connection.set_spare(true);
                }
                // One at a time, however many connections guess; who waits too long is answered with 503.
                let turn = access.wrong.acquire().await;
                tokio::time::sleep(WRONG).await;
                drop(turn);
                return unauthorized();
            }
        }
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allow = [(header::ALLOW, "GET, HEAD")];
        let text = "nothing here changes anything: use GET\n";
        return (StatusCode::METHOD_NOT_ALLOWED, allow, text).into_response();
    }
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY) {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    next.run(request).await
}

fn unauthorized() -> Response {
    let ask = [(
        header::WWW_AUTHENTICATE,
        "Basic realm=\"postlane\", charset=\"UTF-8\"",
    )];
    (StatusCode::UNAUTHORIZED, ask, "a token is needed\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_taken_for_it() {
        let local = "127.0.0.1:9464".parse().expect("address");
        for host in [
            "localhost",
            "LocalHost:9464",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]",
            "[::1]:9464",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(names(host, local), "{host}");
        }
        for host in [
            "",
            ":9464",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9464",
            "localhost:evil",
            "localhost@evil.example",
            "0.0.0.0",
            "10.0.0.1",
            "[::2]",
            "localhost:",
        ] {
            assert!(!names(host, local), "{host}");
        }
    }

    #[test]
    fn a_token_is_found_in_both_schemes_and_nowhere_else() {
        assert_eq!(presented(b"Bearer abc"), b"abc");
        assert_eq!(presented(b"bearer  a b "), b"a b");
        assert_eq!(presented(b"Basic dTphYmM6ZA=="), b"abc:d");
        for other in [&b"abc"[..], b"", b"Basic !!!", b"Basic YWJj", b"Digest abc"] {
            assert_eq!(presented(other), b"", "{other:?}");
        }
    }

    #[test]
    fn an_address_that_others_reach_is_closed_without_a_token() {
        let access = Access::new(
            Some("0.0.0.0:1".parse().expect("address")),
            None,
            Arc::new(Events::new()),
        );
        assert!(matches!(
            access.token_is_right(&HeaderMap::new()),
            Token::Missing
        ));
    }
}
