//! The accept loop, and how long a client may take.
//!
//! A loop of our own, because a server without a timer waits for ever for a slow client: at most
//! [`CONNECTIONS`] at a time, an end for the request's head, for the answer, for an answer that is not read,
//! and for the connection as a whole. A further one takes the place of the oldest idle one: the
//! probes come through however many connections lie there and say nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tower::ServiceExt as _;

/// Connections at a time.
pub(super) const CONNECTIONS: usize = 64;
/// From the start of a connection, or the end of the last answer, to the end of a request's head.
const HEAD: Duration = Duration::from_secs(5);
/// From the head to the answer, and again from the answer until the client has taken it.
const REQUEST: Duration = Duration::from_secs(10);
/// How long a connection is kept. Idle ones end after [`HEAD`] already.
const CONNECTION: Duration = Duration::from_secs(60);
/// Largest head of a request.
const MAX_HEAD: usize = 16 * 1024;

/// A connection as the accept loop knows it.
pub(super) struct Connection {
    /// Idle: it has sent no head yet, waits for the next, or presented a wrong token.
    spare: AtomicBool,
    /// Its place is needed.
    close: Notify,
}

impl Connection {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            spare: AtomicBool::new(true),
            close: Notify::new(),
        })
    }

    /// Says whether it is in use.
    pub(super) fn set_spare(&self, spare: bool) {
        self.spare.store(spare, Ordering::Relaxed);
    }
}

/// The connections there are, oldest first.
#[derive(Default)]
struct Open(VecDeque<Weak<Connection>>);

impl Open {
    fn add(&mut self, connection: &Arc<Connection>) {
        self.0.retain(|open| open.strong_count() > 0);
        self.0.push_back(Arc::downgrade(connection));
    }

    /// Tells the oldest idle one to go.
    fn close_a_spare_one(&mut self) {
        let spare = |open: &Weak<Connection>| {
            let open = open.upgrade();
            open.is_some_and(|open| open.spare.load(Ordering::Relaxed))
        };
        let oldest = self.0.iter().position(spare);
        let oldest = oldest.and_then(|at| self.0.remove(at)?.upgrade());
        if let Some(oldest) = oldest {
            oldest.close.notify_one();
        }
    }
}

/// Accepts until `stop` says true, then finishes what is in hand.
pub(super) async fn accept(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let stopped = stop.clone();
    let accepting = async {
        let mut open = Open::default();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if slots.available_permits() == 0 {
                        open.close_a_spare_one();
                    }
                    let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                        return;
                    };
                    let (router, stopped) = (router.clone(), stopped.clone());
                    let connection = Connection::new();
                    open.add(&connection);
                    connections.spawn(async move {
                        let _slot = slot;
                        tokio::select! {
                            () = serve(stream, router, stopped, &connection) => {}
                            () = connection.close.notified() => {}
                        }
                    });
                    while connections.try_join_next().is_some() {}
                }
                // Out of files, or a client that has left already.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        // Also if the sender is gone.
        _ = stop.wait_for(|stop| *stop) => {}
    }
    drop(listener);
    let _ = timeout(REQUEST, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    // What is left is dropped with the set.
}

async fn serve(
    stream: TcpStream,
    router: Router,
    mut stop: watch::Receiver<bool>,
    connection: &Arc<Connection>,
) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (router, connection) = (router.clone(), Arc::clone(connection));
        connection.set_spare(false);
        request.extensions_mut().insert(Arc::clone(&connection));
        async move {
            let answer = timeout(REQUEST, router.oneshot(request.map(Body::new))).await;
            connection.set_spare(true);
            answer.unwrap_or_else(|_| {
                Ok::<_, Infallible>(
                    (StatusCode::SERVICE_UNAVAILABLE, "this took too long\n").into_response(),
                )
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .max_headers(64)
        .half_close(false)
        .serve_connection(TokioIo::new(Unread::new(stream)), service);
    tokio::pin!(connection);
    tokio::select! {
        // Its errors are the client's affair.
        _ = connection.as_mut() => return,
        () = sleep(CONNECTION) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(REQUEST, connection).await;
}

/// A stream that fails if what was written is not taken within [`REQUEST`].
struct Unread {
    stream: TcpStream,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Unread {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            deadline: None,
        }
    }

    fn writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_pending() {
            let deadline = self
                .deadline
                .get_or_insert_with(|| Box::pin(sleep(REQUEST)));
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }
}

impl AsyncRead for Unread {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Unread {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.writing(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            // Flushed only once all was written: a client that takes a byte now and then does not
            // move the deadline.
            self.deadline = None;
        }
        self.writing(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
