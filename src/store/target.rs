//! Which Postgres server: the URL in libpq's spelling, and the server behind it that may be written to.
//!
//! All hosts of a URL are asked at once, at the start and after each failure, and the first that is the
//! primary is taken. A parameter is honoured or refused by its name; its value is never told. Settings of the
//! session are read back: a pooler may drop them without a word.

mod passfile;
mod url;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use tokio::time::timeout;

use super::words;
use super::{Error, Result};

/// How long a host may take to answer, unless the URL says otherwise (`connect_timeout`).
const CONNECT: Duration = Duration::from_secs(5);

/// Where a server may be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// A name or an address, and the address to use for it if the URL says one.
    Tcp {
        name: String,
        address: Option<String>,
    },
    /// The folder of a Unix socket.
    Socket(PathBuf),
}

/// What the server that is taken must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Transactions may write (`read-write`, also `any`: a worker writes).
    ReadWrite,
    /// No standby (`primary`).
    Primary,
}

/// What a URL says. `Debug` and `Display` name the hosts alone.
#[derive(Clone)]
pub struct Target(Arc<Parsed>);

struct Parsed {
    hosts: Vec<(Host, u16)>,
    /// User, database, TLS and options of the session; no host, no password.
    base: PgConnectOptions,
    password: Option<String>,
    passfile: Option<PathBuf>,
    wanted: Wanted,
    connect: Duration,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (host, port)) in self.0.hosts.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}", Place(host, *port))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// A host as errors name it.
struct Place<'a>(&'a Host, u16);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Host::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.1),
            Host::Tcp { name, .. } => write!(f, "{name}:{}", self.1),
            Host::Socket(folder) => write!(f, "{}/.s.PGSQL.{}", folder.display(), self.1),
        }
    }
}

/// A server that was found.
#[derive(Debug)]
pub struct Found {
    /// A connection with the settings that were asked for.
    pub connection: PgConnection,
    /// How to make another one to the same server.
    pub options: PgConnectOptions,
}

/// What a session shall be set to, beyond what every session is.
pub type Settings = &'static [(&'static str, &'static str)];

/// What every session is set to.
const NEEDED: Settings = &[
    ("synchronous_commit", "on"),
    // Whatever the database's or the role's default is: a worker's conflicts are not to become
    // producers' errors, and the reasoning of the ledger is that of this level.
    ("default_transaction_isolation", "read committed"),
    // A backslash in a text of ours is a backslash.
    ("standard_conforming_strings", "on"),
    // The server ends what this process can no longer reach or wait for. Between two statements of a
    // transaction there are never seconds; if there are, this process stands still, and others want the lanes.
    ("statement_timeout", "60s"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("tcp_user_timeout", "10s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// Those of them that `postlane migrate --role` sets for good, for a pooler that keeps no settings.
pub const OF_A_ROLE: [(&str, &str); 3] = [
    ("synchronous_commit", "on"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
];

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, without any of its values.
    pub fn parse(url: &str) -> std::result::Result<Self, String> {
        url::parse(url).map(|parsed| Self(Arc::new(parsed)))
    }

    /// Connects to the host that may be written to, all of them asked at once.
    ///
    /// # Errors
    /// None is there, or none is what is wanted: each with its own reason.
    pub async fn connect(&self, settings: Settings) -> Result<Found> {
        let hosts = self.0.hosts.iter();
        let mut asked: FuturesUnordered<_> = hosts
            .map(|(host, port)| self.ask_host(host, *port, settings))
            .collect();
        let mut refused = Vec::new();
        while let Some(found) = asked.next().await {
            match found {
                Ok(found) => return Ok(found),
                // The same for all hosts, and nothing to try again.
                Err(Refused::Fatal(why)) => return Err(Error::Server(why)),
                Err(Refused::Plain(why)) => refused.push(why),
            }
        }
        refused.sort_unstable();
        Err(Error::Connect(refused.join("; ")))
    }

    /// Asks a host: its addresses at once, if it has several and TLS does not ask for its name.
    async fn ask_host(
        &self,
        host: &Host,
        port: u16,
        settings: Settings,
    ) -> std::result::Result<Found, Refused> {
        let base = &self.0.base;
        let place = Place(host, port).to_string();
        let mut options = base.clone().port(port);
        if let Some(password) = self.password(host, port) {
            options = options.password(&password);
        }
        let candidates = match host {
            Host::Socket(folder) => vec![(place, options.socket(folder))],
            Host::Tcp { name, address } => {
                let name = address.as_ref().unwrap_or(name);
                let looked_up = async {
                    let found = tokio::net::lookup_host((name.as_str(), port)).await.ok()?;
                    Some(
                        found
                            .map(|found| found.ip().to_string())
                            .collect::<Vec<_>>(),
                    )
                };
                let addresses = match base.get_ssl_mode() {
                    PgSslMode::VerifyFull => None,
                    // Connecting says why there is none.
                    _ => timeout(self.0.connect, looked_up).await.ok().flatten(),
                };
                match addresses.filter(|addresses| addresses.len() > 1) {
                    None => vec![(place, options.host(name))],
                    Some(addresses) => addresses
                        .iter()
                        .map(|at| (format!("{place} ({at})"), options.clone().host(at)))
                        .collect(),
                }
            }
        };
        let ask = |(place, options): (String, PgConnectOptions)| async move {
            match timeout(self.0.connect, self.ask(&options, settings)).await {
                Ok(Ok(connection)) => Ok(Found {
                    connection,
                    options,
                }),
                Ok(Err(Refused::Plain(why))) => Err(Refused::Plain(format!("{place}: {why}"))),
                Ok(Err(fatal)) => Err(fatal),
                Err(_) => {
                    let waited = self.0.connect;
                    Err(Refused::Plain(format!(
                        "{place}: no answer within {waited:?}"
                    )))
                }
            }
        };
        let mut asked: FuturesUnordered<_> = candidates.into_iter().map(ask).collect();
        let mut refused = Vec::new();
        while let Some(found) = asked.next().await {
            match found {
                Err(Refused::Plain(why)) => refused.push(why),
                done => return done,
            }
        }
        Err(Refused::Plain(refused.join("; ")))
    }

    /// The URL's own, else that of the password file, read anew each time.
    fn password(&self, host: &Host, port: u16) -> Option<String> {
        let Parsed {
            password,
            passfile,
            base,
            ..
        } = &*self.0;
        let name = match host {
            Host::Tcp { name, .. } => name.as_str(),
            Host::Socket(_) => "localhost",
        };
        password.clone().or_else(|| {
            let (user, database) = (base.get_username(), base.get_database());
            passfile::find(
                passfile.as_deref(),
                name,
                port,
                database.unwrap_or(user),
                user,
            )
        })
    }

    /// Connects to one host, and refuses it if it is not what is wanted.
    async fn ask(
        &self,
        options: &PgConnectOptions,
        settings: Settings,
    ) -> std::result::Result<PgConnection, Refused> {
        let all = NEEDED.iter().chain(settings);
        let with = options.clone().options(all.clone().copied());
        let connected = match with.connect().await {
            // A pooler that takes no settings at the start.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("08P01") => {
                options.connect().await
            }
            connected => connected,
        };
        let mut connection = connected.map_err(|error| Refused::Plain(words::of(&error)))?;
        let about = About::read(&mut connection).await?;
        if let Some(why) = about.unwanted(self.0.wanted) {
            let _ = connection.close().await;
            return Err(Refused::Plain(why));
        }
        if about.is_set {
            return Ok(connection);
        }
        // A pooler has dropped them. In a session of our own they can be set now.
        if self.is_shared(options, &mut connection).await? {
            return Err(Refused::Fatal(TRANSACTION_MODE.to_owned()));
        }
        let set: Vec<String> = all
            .map(|(key, value)| format!("set {key} = '{value}'"))
            .collect();
        sqlx::raw_sql(AssertSqlSafe(set.join("; ")))
            .execute(&mut connection)
            .await
            .map_err(|error| Refused::Plain(words::of(&error)))?;
        match About::read(&mut connection).await? {
            About { is_safe: true, .. } => Ok(connection),
            About {
                synchronous_commit, ..
            } => Err(Refused::Fatal(format!(
                "synchronous_commit is {synchronous_commit} and cannot be set to on by this session: a crash \
                 could lose what was recorded; ALTER ROLE … SET synchronous_commit = on (postlane migrate --role NAME)"
            ))),
        }
    }

    /// True if a pooler gives each transaction another session: while somebody else holds the one that this
    /// connection has just had, it gets another.
    async fn is_shared(
        &self,
        options: &PgConnectOptions,
        connection: &mut PgConnection,
    ) -> std::result::Result<bool, Refused> {
        let asked = async {
            let before = backend(connection).await?;
            let mut other = options.connect().await?;
            sqlx::raw_sql("begin").execute(&mut other).await?;
            let others = backend(&mut other).await?;
            let after = backend(connection).await?;
            let _ = other.close().await;
            Ok::<_, sqlx::Error>(before != after || before == others)
        };
        asked
            .await
            .map_err(|error| Refused::Plain(words::of(&error)))
    }
}

const TRANSACTION_MODE: &str = "a pooler in front of the server gives each transaction another session (PgBouncer: \
     pool_mode = transaction), and the settings that a worker needs are gone; use pool_mode = session, or connect to \
     the server itself";

/// Why a host was not taken.
enum Refused {
    /// Another host may be.
    Plain(String),
    /// None will be until somebody changes something.
    Fatal(String),
}

/// The process of the server that this connection has now. By the simple protocol, which leaves nothing behind.
async fn backend(connection: &mut PgConnection) -> sqlx::Result<i32> {
    let rows = sqlx::raw_sql("select pg_backend_pid() as pid");
    rows.fetch_one(connection).await?.try_get("pid")
}

/// What a session says of itself.
struct About {
    in_recovery: bool,
    read_only: bool,
    synchronous_commit: String,
    /// All that was asked for is set.
    is_set: bool,
    /// What the promises need is set.
    is_safe: bool,
}

impl About {
    async fn read(connection: &mut PgConnection) -> std::result::Result<Self, Refused> {
        const ASK: &str = "select pg_is_in_recovery() as in_recovery, \
             current_setting('transaction_read_only') = 'on' as read_only, \
             current_setting('synchronous_commit') as synchronous_commit, \
             current_setting('default_transaction_isolation') = 'read committed' \
             and current_setting('standard_conforming_strings') = 'on' as is_ours, \
             current_setting('lock_timeout') = '10s' and current_setting('statement_timeout') = '1min' as is_timed";
        let read = async {
            let row = sqlx::raw_sql(ASK).fetch_one(connection).await?;
            let synchronous_commit: String = row.try_get("synchronous_commit")?;
            let is_safe = matches!(&*synchronous_commit, "on" | "remote_apply")
                && row.try_get::<bool, _>("is_ours")?;
            Ok::<_, sqlx::Error>(Self {
                in_recovery: row.try_get("in_recovery")?,
                read_only: row.try_get("read_only")?,
                synchronous_commit,
                is_set: is_safe && row.try_get::<bool, _>("is_timed")?,
                is_safe,
            })
        };
        read.await
            .map_err(|error| Refused::Plain(words::of(&error)))
    }

    fn unwanted(&self, wanted: Wanted) -> Option<String> {
        match wanted {
            _ if self.in_recovery => Some("is a standby".to_owned()),
            Wanted::ReadWrite if self.read_only => Some(
                "is read-only (default_transaction_read_only); it is written to when it allows that".to_owned(),
            ),
            _ => None,
        }
    }
}
