//! The admin server: is it alive, is it ready, what does it do, and what went wrong.
//!
//! Looks and never touches: there is no route that changes anything, and no database work that
//! the worker beside it would notice. Who may look is decided in `access`, how long a client may
//! take in `listen`, how much of the database is read in `look`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::events::Events;
use crate::job::AfterUnknown;
use crate::store::Pool;

mod access;
mod dashboard;
mod job;
mod listen;
mod look;
mod metrics;
mod page;
mod ready;

use access::Access;
use look::Look;

/// Where the connections for looking are put once there are any.
pub type Readers = Arc<RwLock<Option<Pool>>>;

/// What the server shows and to whom.
pub struct Admin {
    /// Connections that only read; `None` until the database has answered for the first time.
    pub readers: Readers,
    /// What is counted.
    pub events: Arc<Events>,
    /// What callers must present; without one only loopback is served.
    pub token: Option<SecretString>,
    /// True while outcomes can be written. Must return at once.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// What the worker goes by.
    pub worker: Rules,
}

/// What the worker beside the server goes by, for the reasons why a job waits.
#[derive(Clone)]
pub struct Rules {
    /// Failures after which a job is dead.
    pub max_attempts: u32,
    /// What an unknown job does to its lane.
    pub after_unknown: AfterUnknown,
    /// True if a page can sign, now. Must return at once.
    pub has_secret: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

/// Takes the address, before anything else is started.
///
/// # Errors
/// Why the system does not give it.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Serves until `stop` says true or its sender is gone; requests in hand are finished.
pub fn serve(listener: TcpListener, admin: Admin, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    // A listener without an address is of no use to anybody; it is then treated as public.
    let local = listener.local_addr().ok();
    let access = Arc::new(Access::new(local, admin.token, Arc::clone(&admin.events)));
    let shown = Arc::new(Shown {
        look: Look::new(admin.readers, Arc::clone(&admin.worker.has_secret)),
        worker: admin.worker,
        events: admin.events,
        writable: admin.ready,
    });
    let router = router(shown, access);
    tokio::spawn(listen::accept(listener, router, stop))
}

/// What the handlers share.
struct Shown {
    look: Look,
    events: Arc<Events>,
    writable: Arc<dyn Fn() -> bool + Send + Sync>,
    worker: Rules,
}

fn router(shown: Arc<Shown>, access: Arc<Access>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready::show))
        .route("/metrics", get(metrics::show))
        .route("/", get(dashboard::show))
        .route("/jobs/{id}", get(job::show))
        .route("/style.css", get(style))
        .fallback(async || (StatusCode::NOT_FOUND, "there is no such page\n"))
        .with_state(shown)
        .layer(from_fn_with_state(access, access::guard))
        .layer(from_fn(headers))
}

async fn style() -> Response {
    let text = include_str!("admin/style.css");
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], text).into_response()
}

const HEADERS: [(header::HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The same headers on every answer, also on refusals.
async fn headers(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The connections, if there are any yet.
fn pool_of(readers: &Readers) -> Option<Pool> {
    readers
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}
