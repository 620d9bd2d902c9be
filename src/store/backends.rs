//! Connections to a Postgres server, each lent by value.
//!
//! Only a connection whose last call ended, and whose transaction was committed or rolled back, is given
//! back; any other is dropped and closed, so a call may be left at any point and no transaction is ever
//! found half open. What was left is ended on the server before the next connection works: from then on
//! it is known what became of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, PgSeverity};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::bind::PgQuery;
use super::call::{verb, watched};
use super::target::{Found, Settings, Target};
use super::{Error, Result};
use crate::clock::BootInstant;

/// How long connecting may take, all hosts and what follows included.
const CONNECT: Duration = Duration::from_secs(8);
/// How long to wait for a connection in use.
const LEND: Duration = Duration::from_secs(3);
/// Connections idle longer than this are pinged, with this time limit.
const IDLE: Duration = Duration::from_secs(20);
const PING: Duration = Duration::from_secs(2);
/// How long to wait for an abandoned session to end, and how long to remember it: one whose process stands
/// still never ends.
const END: Duration = Duration::from_secs(2);
const REMEMBERED: Duration = Duration::from_secs(10);
/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(1);

/// A few connections to one server. Cheap to share.
#[derive(Debug, Clone)]
pub struct Backends(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    target: Target,
    settings: Settings,
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
    /// Sessions that were left in a call or a transaction, and when.
    left: Mutex<Vec<(String, BootInstant)>>,
}

/// A connection and the name by which the server knows it.
struct Session {
    connection: PgConnection,
    /// How to connect to the same server.
    options: Box<PgConnectOptions>,
    /// The server as errors name it.
    place: String,
    name: String,
    /// When it was last used.
    used: BootInstant,
}

// Its options hold the password.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} at {})", self.name, self.place)
    }
}

/// A connection that was lent. Dropped without [`Backend::give_back`], it is closed.
#[derive(Debug)]
pub struct Backend {
    from: Arc<Shared>,
    /// None once it was left.
    session: Option<Session>,
    _slot: OwnedSemaphorePermit,
}

impl Backends {
    /// Up to `most` connections, made when they are needed.
    pub fn new(target: Target, settings: Settings, most: usize) -> Self {
        Self(Arc::new(Shared {
            target,
            settings,
            slots: Arc::new(Semaphore::new(most)),
            idle: Mutex::default(),
            left: Mutex::default(),
        }))
    }

    /// Where the server is or may be, and its database.
    pub(super) fn place(&self) -> String {
        format!("{}, database {}", self.0.target, self.0.target.database())
    }

    /// A connection of the caller's own, and how to make more to the same server.
    ///
    /// # Errors
    /// No server that may be written to.
    pub async fn connect(&self) -> Result<Found> {
        self.0.target.connect(self.0.settings).await
    }

    /// Lends a connection: one that is free, else a new one.
    ///
    /// # Errors
    /// A server that cannot be reached in 8 s or refuses; all are lent for longer than 3 s.
    pub async fn lend(&self) -> Result<Backend> {
        let slot = match timeout(LEND, Arc::clone(&self.0.slots).acquire_owned()).await {
            Ok(Ok(slot)) => slot,
            Ok(Err(_)) => {
                return Err(Error::Gone(
                    "its connections are closed: the worker is stopping",
                ));
            }
            Err(_) => return Err(Error::Busy(LEND)),
        };
        let session = loop {
            let free = lock(&self.0.idle).pop();
            match free {
                None => break self.0.open().await?,
                Some(session) if session.used.elapsed() < IDLE => break session,
                Some(mut session) => {
                    if let Ok(Ok(())) = timeout(PING, session.connection.ping()).await {
                        break session;
                    }
                }
            }
        };
        Ok(Backend {
            from: Arc::clone(&self.0),
            session: Some(session),
            _slot: slot,
        })
    }

    /// Begins a transaction on a connection of its own.
    pub(super) async fn begin(&self) -> Result<Backend> {
        let mut backend = self.lend().await?;
        backend.simple("begin").await?;
        Ok(backend)
    }

    /// Drops the connections that are free: the next one lent is new.
    pub(super) fn renew(&self) {
        lock(&self.0.idle).clear();
    }

    /// Lends nothing any more, and closes those that are free, a second for each at most.
    pub async fn close(&self) {
        self.0.slots.close();
        let idle = std::mem::take(&mut *lock(&self.0.idle));
        for session in idle {
            // It is closed either way.
            let _ = timeout(CLOSE, session.connection.close()).await;
        }
    }
}

impl Shared {
    async fn open(&self) -> Result<Session> {
        let name = name();
        let connecting = async {
            let mut found = self.target.connect(self.settings).await?;
            let rename = AssertSqlSafe(format!("set application_name = '{name}'"));
            let renamed = sqlx::raw_sql(rename).execute(&mut found.connection).await;
            renamed.map_err(|error| Error::from(error).at(&found.place))?;
            Ok::<_, Error>(found)
        };
        let Ok(found) = timeout(CONNECT, connecting).await else {
            return Err(Error::Silent {
                place: self.target.to_string(),
                verb: "connect".to_owned(),
                waited: CONNECT,
                why: "no answer".to_owned(),
            });
        };
        let Found {
            mut connection,
            options,
            place,
        } = found?;
        self.end_left(&mut connection, &place).await?;
        Ok(Session {
            connection,
            options: Box::new(options),
            place,
            name,
            used: BootInstant::now(),
        })
    }

    /// Ends the sessions that were left, and waits until they are gone: a commit of theirs has happened
    /// then, or never will.
    async fn end_left(&self, connection: &mut PgConnection, place: &str) -> Result<()> {
        lock(&self.left).retain(|(_, left)| left.elapsed() < REMEMBERED);
        let names: Vec<String> = lock(&self.left)
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let ending = async {
            let mut pause = Duration::from_millis(2);
            loop {
                let end = sqlx::query(END_LEFT).bind(&names).persistent(false);
                if end.fetch_all(&mut *connection).await?.is_empty() {
                    return Ok::<_, sqlx::Error>(());
                }
                sleep(pause).await;
                pause *= 2;
            }
        };
        match timeout(END, ending).await {
            Ok(Ok(())) => {}
            // Not permitted here: the server's time-outs end it.
            Ok(Err(sqlx::Error::Database(_))) => {}
            Ok(Err(error)) => return Err(Error::from(error).at(place)),
            Err(_) => {
                return Err(Error::Silent {
                    place: place.to_owned(),
                    verb: "end a session that was left".to_owned(),
                    waited: END,
                    why: "the server still works for it".to_owned(),
                });
            }
        }
        lock(&self.left).retain(|(name, _)| !names.contains(name));
        Ok(())
    }
}

const END_LEFT: &str = "-- call: end the sessions that were left
select pg_terminate_backend(a.pid) from pg_stat_activity a
where exists (select from unnest($1::text[]) as n(name) where starts_with(a.application_name, n.name))";

/// A name that no other connection has: a session is found by it, also behind a pooler.
fn name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    static BEGAN: std::sync::LazyLock<u64> =
        std::sync::LazyLock::new(|| BootInstant::now().nanos());
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let worker = match WORKER.load(Ordering::Relaxed) {
        true => concat!(" worker ", env!("CARGO_PKG_VERSION")),
        false => "",
    };
    format!(
        "postlane {number}/{}-{:x}{worker}",
        std::process::id(),
        *BEGAN
    )
}

/// Connections of this process are a worker's.
static WORKER: AtomicBool = AtomicBool::new(false);

/// The names of sessions say from now on that they are a worker's.
pub fn call_this_process_a_worker() {
    WORKER.store(true, Ordering::Relaxed);
}

impl Backend {
    /// The connection itself. What is done with it is not watched.
    ///
    /// # Errors
    /// It was left.
    pub fn connection(&mut self) -> Result<&mut PgConnection> {
        let session = self.session.as_mut().ok_or(GONE)?;
        Ok(&mut session.connection)
    }

    /// Runs a statement and returns its rows.
    pub(super) async fn rows(&mut self, verb: &str, query: PgQuery) -> Result<Vec<PgRow>> {
        let session = self.session.as_mut().ok_or(GONE)?;
        let call = query.fetch_all(&mut session.connection);
        let done = watched(verb, &session.place, &session.name, &session.options, call).await;
        self.keep_if_usable(done)
    }

    /// Runs a statement and returns how many rows it changed.
    pub(super) async fn change(&mut self, verb: &str, query: PgQuery) -> Result<u64> {
        let session = self.session.as_mut().ok_or(GONE)?;
        let call = query.execute(&mut session.connection);
        let done = watched(verb, &session.place, &session.name, &session.options, call).await;
        Ok(self.keep_if_usable(done)?.rows_affected())
    }

    /// Runs what has no parameters and returns no rows; a short text is its own verb.
    pub(super) async fn simple(&mut self, text: &'static str) -> Result<()> {
        let session = self.session.as_mut().ok_or(GONE)?;
        let call = sqlx::raw_sql(text).execute(&mut session.connection);
        let verb = if text.len() < 20 { text } else { verb(text) };
        let done = watched(verb, &session.place, &session.name, &session.options, call).await;
        self.keep_if_usable(done).map(drop)
    }

    /// Runs migrations.
    pub(super) async fn migrate(&mut self, migrator: &Migrator) -> Result<()> {
        let session = self.session.as_mut().ok_or(GONE)?;
        let call = migrator.run(&mut session.connection);
        let done = watched(
            "migrate",
            &session.place,
            &session.name,
            &session.options,
            call,
        )
        .await;
        self.keep_if_usable(done)
    }

    /// Gives it back; no transaction may be open.
    pub fn give_back(mut self) {
        if let Some(mut session) = self.session.take() {
            session.used = BootInstant::now();
            lock(&self.from.idle).push(session);
        }
    }

    /// Abandons the connection unless the error came from the server and the session survives.
    fn keep_if_usable<T>(&mut self, done: Result<T>) -> Result<T> {
        let goes_on = |error: &sqlx::Error| match error {
            sqlx::Error::Database(error) => error
                .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
                .is_none_or(|e| !matches!(e.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
            _ => false,
        };
        match &done {
            Ok(_) => {}
            Err(Error::Database { cause, .. }) if goes_on(cause) => {}
            Err(_) => self.leave(),
        }
        done
    }

    /// True once a call of it was given up, or failed for the connection's sake.
    pub(super) fn is_left(&self) -> bool {
        self.session.is_none()
    }

    fn leave(&mut self) {
        if let Some(session) = self.session.take() {
            lock(&self.from.left).push((session.name, BootInstant::now()));
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.leave();
    }
}

const GONE: Error = Error::Gone("the connection was given up before");

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
