//! A proxy before Postgres that cuts a connection at a commit: nobody learns whether it happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

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
}

/// Forwards Postgres traffic without TLS.
pub struct Proxy {
    pub url: String,
    plan: Arc<Plan>,
}

struct Plan {
    /// Commits that still pass before the cut; negative: none is cut.
    left: AtomicI64,
    before: std::sync::atomic::AtomicBool,
}

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
            before: Default::default(),
        });
        let (shared, address) = (Arc::clone(&plan), address.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
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
        self.plan
            .before
            .store(cut == Cut::BeforeCommit, Ordering::SeqCst);
        self.plan.left.store(skip, Ordering::SeqCst);
    }
}

async fn connection(
    mut from_client: OwnedReadHalf,
    mut to_client: OwnedWriteHalf,
    mut from_server: OwnedReadHalf,
    mut to_server: OwnedWriteHalf,
    plan: Arc<Plan>,
) {
    // The first message has no type byte.
    let mut head = 4;
    let mut waiting = Vec::new();
    let mut advance = Advance::default();
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = from_server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if to_client.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
            read = from_client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                waiting.extend_from_slice(&up[..read]);
                while let Some(message) = next(&mut waiting, head) {
                    head = 5;
                    let commits = message[0] == b'Q'
                        && message[5..].to_ascii_uppercase().starts_with(b"COMMIT");
                    let cut = (advance.commits(&message) || commits)
                        && plan.left.load(Ordering::SeqCst) >= 0
                        && plan.left.fetch_sub(1, Ordering::SeqCst) == 0;
                    if cut && plan.before.load(Ordering::SeqCst) {
                        return;
                    }
                    if to_server.write_all(&message).await.is_err() {
                        return;
                    }
                    if cut {
                        // The server's answer is read, so that it is done, and goes nowhere.
                        let _ = from_server.read(&mut down).await;
                        return;
                    }
                }
            }
        }
    }
}

/// The one statement that is a transaction of its own: it commits at the Sync behind its Bind.
#[derive(Default)]
struct Advance {
    name: Option<Vec<u8>>,
    is_bound: bool,
}

impl Advance {
    fn commits(&mut self, message: &[u8]) -> bool {
        let mut words = message.get(5..).unwrap_or_default().split(|b| *b == 0);
        let (first, second) = (words.next(), words.next());
        match message[0] {
            b'P' if second.is_some_and(|text| text.starts_with(b"-- advance")) => {
                self.name = first.map(<[u8]>::to_vec);
            }
            b'B' => self.is_bound = self.name.is_some() && self.name.as_deref() == second,
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
