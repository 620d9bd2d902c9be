//! The sandbox API: JoinChat's send endpoint as we understand it, on this machine.
//!
//! It checks signatures and messages, answers by script, misbehaves on demand, shows people what
//! they would see on a phone, and keeps the record that tests are judged by: order, duplicates, and
//! requests of one recipient that overlap. The verb `mock`, the demo, the tests and the benchmark
//! all talk to this one. It is a crate of its own, which does not depend on the worker's: a judge that
//! used the defendant's code would repeat its mistakes.

mod act;
mod board;
mod clock;
mod history;
mod inspect;
mod journal;
mod keyring;
mod lane;
mod order;
mod phone;
mod playbook;
mod record;
mod referee;
mod rules;
mod script;
mod serve;
mod vendor;
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use board::Board;
use history::History;
use journal::Journal;
use keyring::Keyring;
use serve::Core;

pub use clock::boot_ns;
pub use playbook::{Binding, Target};
pub use record::{MockStats, Received};
pub use rules::{Breach, Rules, check};
pub use script::{Manner, Script, ScriptError, Step, WORDS};

/// How long to wait when the system has no socket left to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a sandbox needs to know before it starts.
#[derive(Clone)]
pub struct MockConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The path of the endpoint.
    pub path: String,
    /// The header that carries the signature, in any case.
    pub signature_header: String,
    /// The secrets of each page; any of them will do.
    pub secrets: HashMap<String, Vec<String>>,
    /// The secrets of every page that is not in `secrets`. Without any, nothing is accepted.
    pub default_secrets: Vec<String>,
    /// What to do with whose requests; everything else is a plain `ok`.
    pub scripts: Vec<Binding>,
    /// Waited before every whole answer.
    pub latency: Duration,
    /// Closes a connection that brings no request for so long; `None` never does.
    pub idle_close: Option<Duration>,
    /// How many received requests are remembered, the newest; the counts cover all.
    pub keep: usize,
    /// Whether their bodies are remembered, too.
    pub keep_bodies: bool,
    /// How many bytes of bodies are remembered: what is older is forgotten whole.
    pub keep_bytes: usize,
    /// Whether requests are held against the vendor's rules, see [`check`].
    pub rules: Rules,
    /// Appends one JSON line per event to this file.
    pub log: Option<PathBuf>,
    /// Whether each of these lines is forced to disk before the server goes on.
    pub log_sync: bool,
}

impl Default for MockConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            path: "/api/send_message".to_owned(),
            signature_header: "x-joinchat-signature".to_owned(),
            secrets: HashMap::new(),
            default_secrets: Vec::new(),
            scripts: Vec::new(),
            latency: Duration::ZERO,
            idle_close: None,
            keep: usize::MAX,
            keep_bodies: false,
            keep_bytes: usize::MAX,
            rules: Rules::Off,
            log: None,
            log_sync: false,
        }
    }
}

/// A running sandbox; it stops when dropped.
pub struct Mock {
    core: Arc<Core>,
    addr: SocketAddr,
    accepting: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Mock {
    /// Binds and starts to serve, on the current Tokio runtime. Fails if the address is taken or
    /// the log file cannot be opened.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn start(config: MockConfig) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let addr = listener.local_addr()?;
        let open = |path: PathBuf| Journal::open(&path, config.log_sync);
        let journal = config.log.map(open).transpose()?;
        let bytes = config.keep_bodies.then_some(config.keep_bytes);
        let board = Board::new(History::new(config.keep, bytes), journal);
        board.set_latency(config.latency);
        config
            .scripts
            .into_iter()
            .for_each(|binding| board.bind(binding));
        let mut keyring = Keyring::default();
        keyring.set(None, &config.default_secrets);
        config
            .secrets
            .iter()
            .for_each(|(page, secrets)| keyring.set(Some(page), secrets));
        let core = Arc::new(Core {
            path: config.path,
            signature_header: config.signature_header,
            idle_close: config.idle_close,
            rules: config.rules,
            keyring: RwLock::new(keyring),
            board,
        });
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&core), stopped));
        Ok(Self {
            core,
            addr,
            accepting,
            stop,
        })
    }

    /// The URL of the endpoint, as the worker is told.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.addr, self.core.path)
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes the listener and every connection, and waits until that is done.
    pub async fn shutdown(self) {
        drop(self.stop);
        _ = self.accepting.await;
    }

    /// Sets the script that each recipient without its own plays, from its start.
    pub fn set_default(&self, script: Script) {
        self.bind(Binding {
            target: Target::ALL,
            script,
        });
    }

    /// Sets the script of a recipient, by its value, on whatever page.
    pub fn script(&self, recipient: &str, script: Script) {
        let target = Target {
            page: None,
            recipient: Some(recipient.to_owned()),
        };
        self.bind(Binding { target, script });
    }

    /// Sets the script of a target.
    pub fn bind(&self, binding: Binding) {
        self.core.board.bind(binding);
    }

    /// Changes the wait before every whole answer.
    pub fn set_latency(&self, latency: Duration) {
        self.core.board.set_latency(latency);
    }

    /// Replaces the secrets of a page, or with `None` those of all pages without their own.
    pub fn set_secrets(&self, page: Option<&str>, secrets: &[String]) {
        let mut keyring = self
            .core
            .keyring
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        keyring.set(page, secrets);
    }

    /// The remembered requests that were read whole with a good signature, whatever was answered.
    pub fn received(&self) -> Vec<Received> {
        self.core.board.received()
    }

    /// How many requests were read whole with a good signature.
    pub fn count(&self) -> u64 {
        self.stats().received
    }

    /// All counts.
    pub fn stats(&self) -> MockStats {
        self.core.board.stats()
    }

    /// The first hundred order violations, duplicates and overlaps, in words.
    pub fn findings(&self) -> Vec<String> {
        self.core.board.findings()
    }

    /// Waits until at least `n` requests were received; false if `limit` passed first.
    pub async fn wait_for(&self, n: u64, limit: Duration) -> bool {
        self.wait_until(|stats| stats.received >= n, limit).await
    }

    /// Waits until the counts are as `wanted`; false if `limit` passed first.
    pub async fn wait_until(
        &self,
        wanted: impl FnMut(&MockStats) -> bool,
        limit: Duration,
    ) -> bool {
        tokio::time::timeout(limit, self.core.board.wait_until(wanted))
            .await
            .is_ok()
    }
}

/// Accepts until `stopped`, which is when the [`Mock`] goes; the connections end with it.
async fn accept(listener: TcpListener, core: Arc<Core>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(serve::serve(Arc::clone(&core), stream, peer));
                }
                Err(why) => {
                    tracing::warn!(error = %why, "the sandbox cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}
