//! One connection of the sandbox: read a request, look it up, act out its step.
//!
//! Works on the bare socket, because half of the steps are things that no HTTP server would do.
//! What is counted is decided by the board; this file only does what a turn says.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::act::act;
use crate::board::{Arrival, Board};
use crate::clock::boot_ns;
use crate::inspect;
use crate::keyring::Keyring;
use crate::order::Order;
use crate::record::Seen;
use crate::rules::{self, Breach, Rules};
use crate::script::Step;
use crate::wire::{self, Head, Length, MAX_BODY, Method, Route};

/// How long a refused body may go on before the connection is closed under it.
const DRAIN: Duration = Duration::from_secs(1);

/// What all connections share.
pub(crate) struct Core {
    pub path: String,
    pub signature_header: String,
    pub idle_close: Option<Duration>,
    pub rules: Rules,
    pub keyring: RwLock<Keyring>,
    pub board: Board,
}

/// What becomes of the connection after a request.
pub(crate) enum Next {
    /// The next request; this one had so many bytes.
    Keep(usize),
    Close,
    /// FIN, and the rest of what the client sends is thrown away first.
    Drain,
    Reset,
}

struct Connection {
    core: Arc<Core>,
    stream: TcpStream,
    peer: SocketAddr,
    buffer: Vec<u8>,
    out: Vec<u8>,
    key: String,
}

/// Serves a connection until one side closes it.
pub(crate) async fn serve(core: Arc<Core>, stream: TcpStream, peer: SocketAddr) {
    core.board.count(|stats| stats.connections += 1);
    _ = stream.set_nodelay(true);
    let (buffer, out) = (Vec::with_capacity(4096), Vec::with_capacity(512));
    let mut connection = Connection {
        core,
        stream,
        peer,
        buffer,
        out,
        key: String::new(),
    };
    loop {
        match connection.request().await {
            Ok(Next::Keep(bytes)) => drop(connection.buffer.drain(..bytes)),
            Ok(Next::Close) | Err(_) => return,
            Ok(Next::Drain) => return connection.drain().await,
            Ok(Next::Reset) => {
                _ = connection.stream.set_zero_linger();
                return;
            }
        }
    }
}

impl Connection {
    async fn request(&mut self) -> io::Result<Next> {
        self.out.clear();
        let head = loop {
            let Core {
                path,
                signature_header,
                ..
            } = &*self.core;
            if !self.buffer.is_empty() {
                match Head::parse(&self.buffer, path, signature_header) {
                    Ok(Some(head)) => break head,
                    Ok(None) => {}
                    Err(status) => return self.refuse(None, status, "bad request head", "").await,
                }
            }
            if !self.read().await? {
                return Ok(Next::Close);
            }
        };
        match (&head.route, head.method) {
            (Route::Send, Method::Post) => return self.send(&head).await,
            (Route::Script, Method::Post) => return self.script(&head).await,
            (Route::Unknown, _) => return self.refuse(Some(&head), 404, "no such path", "").await,
            (Route::Send | Route::Script, _) => {
                return self
                    .refuse(Some(&head), 405, "use POST", "allow: POST\r\n")
                    .await;
            }
            (_, Method::Get) => inspect::show(&mut self.out, &self.core.board, &head),
            _ => {
                return self
                    .refuse(Some(&head), 405, "use GET", "allow: GET\r\n")
                    .await;
            }
        }
        self.stream.write_all(&self.out).await?;
        Ok(after(&head))
    }

    /// A send request: the one thing this server is for.
    async fn send(&mut self, head: &Head) -> io::Result<Next> {
        let head_ns = boot_ns();
        let core = Arc::clone(&self.core);
        let board = &core.board;
        let request = board.request();
        if let Some(journal) = &board.journal
            && let Err(why) = journal.head(request, head_ns, self.peer)
        {
            board.log_failed(&why);
        }
        if board.resets_unread() {
            return Ok(Next::Reset);
        }
        let end = match self.body(head).await? {
            Ok(end) => end,
            Err(next) => return Ok(next),
        };

        let seen = Seen {
            request,
            head_ns,
            body_ns: boot_ns(),
        };
        let body = &self.buffer[head.size..end];
        let order = Order::parse(body);
        let signed = order.as_ref().is_ok_and(|order| {
            let keyring = core.keyring.read().unwrap_or_else(PoisonError::into_inner);
            keyring.verify(&order.page_id, body, head.signature.as_ref())
        });
        if let Some(journal) = &board.journal
            && let Err(why) = journal.body(seen, order.as_ref().ok(), body, signed)
        {
            board.log_failed(&why);
        }
        let order = match order {
            Ok(order) if signed => order,
            Ok(order) => {
                board.turn_away(&order, seen, body);
                return self.refuse(Some(head), 401, "sign error", "").await;
            }
            Err(why) => {
                board.count(|stats| stats.bad_requests += 1);
                return self.refuse(Some(head), 400, &why, "").await;
            }
        };
        let breach = match core.rules {
            Rules::Off => None,
            Rules::Note | Rules::Enforce => rules::check(body).err(),
        };
        let refuse = |breach: &Breach| Arc::new(Step::refusal(breach.code, &breach.to_string()));
        let refused = breach.as_ref().filter(|_| core.rules == Rules::Enforce);
        let recipient = order.recipient_json;
        let arrival = Arrival {
            order,
            body,
            seen,
            refusal: refused.map(refuse),
            breach,
        };
        let turn = board.begin(arrival, &self.stream, &mut self.key);
        let keep = act(board, &mut self.stream, &mut self.out, &turn, recipient).await?;
        Ok(match keep {
            Next::Keep(_) if head.keep_alive => Next::Keep(end),
            Next::Keep(_) => Next::Close,
            other => other,
        })
    }

    /// `POST /script`: one script or a file of them. For this machine only, and not for a web page
    /// that happens to be open on it.
    async fn script(&mut self, head: &Head) -> io::Result<Next> {
        if !self.peer.ip().is_loopback() || head.has_origin {
            return self
                .refuse(Some(head), 403, "only from this machine", "")
                .await;
        }
        let end = match self.body(head).await? {
            Ok(end) => end,
            Err(next) => return Ok(next),
        };
        match inspect::read_bindings(&self.buffer[head.size..end]) {
            Ok(bindings) => bindings.into_iter().for_each(|b| self.core.board.bind(b)),
            Err(why) => return self.refuse(Some(head), 400, &why, "").await,
        }
        wire::answer(&mut self.out, 200, "text/plain", "", b"ok\n");
        self.stream.write_all(&self.out).await?;
        Ok(Next::Keep(end))
    }

    /// Reads the body; says where in the buffer it ends.
    async fn body(&mut self, head: &Head) -> io::Result<Result<usize, Next>> {
        let (status, message) = match head.length {
            Length::Bytes(bytes) if bytes <= MAX_BODY => {
                let end = head.size + bytes;
                self.buffer.reserve(end.saturating_sub(self.buffer.len()));
                while self.buffer.len() < end {
                    if !self.read().await? {
                        return Ok(Err(Next::Close));
                    }
                }
                return Ok(Ok(end));
            }
            Length::Bytes(_) => (413, "more than 1 MiB"),
            Length::Absent | Length::Chunked => (411, "content-length is needed"),
            Length::Bad => (400, "bad content-length"),
        };
        self.core.board.count(|stats| stats.bad_requests += 1);
        Ok(Err(self.refuse(None, status, message, "").await?))
    }

    /// Answers an error; the connection stays open if `head` leads to the end of the request.
    async fn refuse(
        &mut self,
        head: Option<&Head>,
        status: u16,
        message: &str,
        headers: &str,
    ) -> io::Result<Next> {
        wire::refuse(&mut self.out, status, message, headers);
        self.stream.write_all(&self.out).await?;
        let end = head.map(after);
        let here = |end: &Next| matches!(end, Next::Keep(bytes) if *bytes <= self.buffer.len());
        Ok(end.filter(here).unwrap_or(Next::Drain))
    }

    /// Reads on; false if the client is done, or idle for too long between two requests.
    async fn read(&mut self) -> io::Result<bool> {
        let idle = self.core.idle_close.filter(|_| self.buffer.is_empty());
        let more = self.stream.read_buf(&mut self.buffer);
        match idle {
            None => Ok(more.await? > 0),
            Some(limit) => timeout(limit, more)
                .await
                .map_or(Ok(false), |read| Ok(read? > 0)),
        }
    }

    async fn drain(mut self) {
        _ = self.stream.shutdown().await;
        let mut rest = [0; 4096];
        let read_all = async { while matches!(self.stream.read(&mut rest).await, Ok(1..)) {} };
        _ = timeout(DRAIN, read_all).await;
    }
}

/// Where the request with this head ends, if it is known.
fn after(head: &Head) -> Next {
    match head.length {
        _ if !head.keep_alive => Next::Drain,
        Length::Absent => Next::Keep(head.size),
        Length::Bytes(bytes) => Next::Keep(head.size.saturating_add(bytes)),
        Length::Chunked | Length::Bad => Next::Drain,
    }
}
