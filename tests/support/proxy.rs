//! A proxy before Postgres that cuts a connection at a commit, or lets it fall silent as a host does
//! that vanishes: nobody learns whether it happened.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// When the proxy cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The commit reaches the server and its answer is lost.
    AfterCommit,
    /// The commit never reaches the server, which rolls back.
    BeforeCommit,
    /// The client's connection is cut, and the commit reaches the server a second later.
    LateCommit,
    /// The commit and all that follows is swallowed; nothing is closed.
    SwallowCommit,
    /// The commit reaches the server; its answer and all that follows is swallowed.
    SwallowAnswer,
}

/// Forwards Postgres traffic without TLS.
pub struct Proxy {
    pub url: String,
    plan: Arc<Plan>,
}

struct Plan {
    /// Commits that still pass before the cut; negative: none is cut.
    left: AtomicI64,
    cut: std::sync::Mutex<Cut>,
    /// Connections that were made so far.
    made: AtomicI64,
    /// Those up to this one are silent.
    silent: AtomicI64,
    /// What is swallowed of them.
    ways: AtomicU8,
    /// New connections are accepted and get no answer.
    deaf: AtomicBool,
}

/// Towards the server, and towards the client.
pub const UP: u8 = 1;
pub const DOWN: u8 = 2;

impl Proxy {
    /// Listens before the server of `url`.
    pub async fn before(url: &str) -> Self {
        let (address, name) = url
            .rsplit_once('@')
            .map_or(url, |(_, rest)| rest)
            .split_once('/')
            .expect("a URL with a database");
        let user = url
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('@'))
            .map_or("postgres", |(user, _)| user);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("address").port();
        let plan = Arc::new(Plan {
            left: AtomicI64::new(-1),
            cut: std::sync::Mutex::new(Cut::BeforeCommit),
            made: AtomicI64::new(0),
            silent: AtomicI64::new(-1),
            ways: AtomicU8::new(0),
            deaf: AtomicBool::new(false),
        });
        let (shared, address) = (Arc::clone(&plan), address.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = shared.made.fetch_add(1, Ordering::SeqCst);
                if shared.deaf.load(Ordering::SeqCst) {
                    // Open for as long as the test runs.
                    tokio::spawn(async move {
                        let _client = client;
                        std::future::pending::<()>().await;
                    });
                    continue;
                }
                let Ok(server) = TcpStream::connect(&address).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(connection(
                    from_client,
                    to_client,
                    from_server,
                    to_server,
                    Arc::clone(&shared),
                    number,
                ));
            }
        });
        Self {
            url: format!("postgres://{user}@127.0.0.1:{port}/{name}?sslmode=disable"),
            plan,
        }
    }

    /// Cuts at the next commit but `skip`.
    pub fn cut(&self, cut: Cut, skip: i64) {
        *self.plan.cut.lock().expect("not poisoned") = cut;
        self.plan.left.store(skip, Ordering::SeqCst);
    }

    /// From now on what the connections that there are send these ways vanishes. New ones work.
    pub fn silence(&self, ways: u8) {
        self.plan.ways.store(ways, Ordering::SeqCst);
        let last = self.plan.made.load(Ordering::SeqCst) - 1;
        self.plan.silent.store(last, Ordering::SeqCst);
    }

    /// Whether new connections are accepted and get no answer.
    pub fn set_deaf(&self, deaf: bool) {
        self.plan.deaf.store(deaf, Ordering::SeqCst);
    }

    /// Connections that were made so far.
    pub fn made(&self) -> i64 {
        self.plan.made.load(Ordering::SeqCst)
    }
}

async fn connection(
    mut from_client: OwnedReadHalf,
    mut to_client: OwnedWriteHalf,
    mut from_server: OwnedReadHalf,
    mut to_server: OwnedWriteHalf,
    plan: Arc<Plan>,
    number: i64,
) {
    // The first message has no type byte.
    let mut head = 4;
    let mut waiting = Vec::new();
    let mut alone = Alone::default();
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    // What this connection swallows, by itself or with the others.
    let mut own = 0;
    let (mut hung_up, mut gone) = (false, false);
    while !(hung_up && gone) {
        let with_others = |plan: &Plan| match plan.silent.load(Ordering::SeqCst) >= number {
            true => plan.ways.load(Ordering::SeqCst),
            false => 0,
        };
        tokio::select! {
            read = from_server.read(&mut down), if !gone => {
                let Ok(read @ 1..) = read else {
                    if (own | with_others(&plan)) & DOWN != 0 {
                        gone = true;
                        continue;
                    }
                    return;
                };
                if (own | with_others(&plan)) & DOWN != 0 {
                    continue;
                }
                if to_client.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
            read = from_client.read(&mut up), if !hung_up => {
                let silent = (own | with_others(&plan)) & UP != 0;
                let Ok(read @ 1..) = read else {
                    // Across a silent network nobody hears that either.
                    if silent {
                        hung_up = true;
                        continue;
                    }
                    return;
                };
                if silent {
                    continue;
                }
                waiting.extend_from_slice(&up[..read]);
                while let Some(message) = next(&mut waiting, head) {
                    head = 5;
                    let commits = message[0] == b'Q'
                        && message[5..].to_ascii_uppercase().starts_with(b"COMMIT");
                    let cut = (alone.commits(&message) || commits)
                        && plan.left.load(Ordering::SeqCst) >= 0
                        && plan.left.fetch_sub(1, Ordering::SeqCst) == 0;
                    let how = cut.then(|| *plan.cut.lock().expect("not poisoned"));
                    match how {
                        Some(Cut::BeforeCommit) => return,
                        Some(Cut::LateCommit) => {
                            tokio::spawn(async move {
                                tokio::time::sleep(Duration::from_secs(1)).await;
                                let _ = to_server.write_all(&message).await;
                                let _ = from_server.read(&mut down).await;
                            });
                            return;
                        }
                        Some(Cut::SwallowCommit) => {
                            own = UP | DOWN;
                            waiting.clear();
                            break;
                        }
                        Some(Cut::SwallowAnswer) => own = UP | DOWN,
                        Some(Cut::AfterCommit) | None => {}
                    }
                    if to_server.write_all(&message).await.is_err() {
                        return;
                    }
                    if how == Some(Cut::AfterCommit) {
                        // The server's answer is read, so that it is done, and goes nowhere.
                        let _ = from_server.read(&mut down).await;
                        return;
                    }
                }
            }
        }
    }
}

/// The statements that are transactions of their own: each commits at the Sync behind its Bind.
#[derive(Default)]
struct Alone {
    names: HashSet<Vec<u8>>,
    is_bound: bool,
}

const ALONE: [&[u8]; 4] = [b"-- intake: marks", b"-- take", b"-- complete", b"-- late"];

impl Alone {
    fn commits(&mut self, message: &[u8]) -> bool {
        let mut words = message.get(5..).unwrap_or_default().split(|b| *b == 0);
        let (first, second) = (words.next(), words.next());
        match message[0] {
            b'P' if second.is_some_and(|text| ALONE.iter().any(|name| text.starts_with(name))) => {
                self.names.extend(first.map(<[u8]>::to_vec));
            }
            b'B' => self.is_bound = second.is_some_and(|name| self.names.contains(name)),
            b'S' => return std::mem::take(&mut self.is_bound),
            _ => {}
        }
        false
    }
}

/// Splits off the first message, if it is whole.
fn next(waiting: &mut Vec<u8>, head: usize) -> Option<Vec<u8>> {
    let length = waiting.get(head - 4..head)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let whole = head - 4 + usize::try_from(length).ok()?;
    (waiting.len() >= whole).then(|| waiting.drain(..whole).collect())
}
