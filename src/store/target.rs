//! Which Postgres server: the URL in libpq's spelling, and the server behind it that may be written to.
//!
//! All hosts of a URL are asked at once, at the start and after each failure, and the first that is the
//! primary is taken. A parameter is honoured or refused by its name; its value is never told. Settings of the
//! session are read back: a pooler may drop them without a word.

mod passfile;
mod url;

pub(super) use url::with_schema;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sqlx::error::DatabaseError;
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
    /// User, database and TLS; no host, no password.
    base: PgConnectOptions,
    /// Files for TLS, and the parameters that name them.
    files: Vec<(&'static str, PathBuf)>,
    /// What the URL sets for the session (`options`).
    settings: Vec<(String, String)>,
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
pub struct Found {
    /// A connection with the settings that were asked for.
    pub connection: PgConnection,
    /// How to make another one to the same server, without the settings.
    pub options: PgConnectOptions,
    /// The server as errors name it.
    pub place: String,
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
    (WITNESS, "1"),
];

/// Only this program sets it: where it is missing, all that was asked for at the start was dropped.
const WITNESS: &str = "postlane.session";

/// Those of them that `postlane migrate --role` sets for good, for a pooler that keeps no settings.
pub const OF_A_ROLE: [(&str, &str); 3] = [
    ("synchronous_commit", "on"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
];

impl Target {
    /// Reads a URL; libpq's variables hold where it says nothing.
    ///
    /// # Errors
    /// What is wrong with it, without any of its values.
    pub fn parse(url: &str) -> std::result::Result<Self, String> {
        url::parse(url, &|name| std::env::var(name).ok()).map(|parsed| Self(Arc::new(parsed)))
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        let base = &self.0.base;
        base.get_database().unwrap_or(base.get_username())
    }

    /// Connects to the host that may be written to, all of them asked at once.
    ///
    /// # Errors
    /// None is there, or none is what is wanted: each with its own reason.
    pub async fn connect(&self, settings: Settings) -> Result<Found> {
        let hosts = self.0.hosts.iter();
        let asked = hosts.map(|(host, port)| self.ask_host(host, *port, settings));
        first(asked)
            .await
            .map_err(|refused| Error::Connect(refused.why))
    }

    /// Asks a host: its addresses at once, if it has several and TLS does not ask for its name.
    async fn ask_host(
        &self,
        host: &Host,
        port: u16,
        settings: Settings,
    ) -> std::result::Result<Found, Refused> {
        let place = Place(host, port).to_string();
        let password = self.password(host, port);
        let mut options = self.0.base.clone().port(port);
        if let Ok(password) = &password {
            options = options.password(password);
        }
        let no_password = password.as_ref().err().map(String::as_str);
        let ask = |place: String, options: PgConnectOptions| async move {
            let asked = self.ask(&options, settings, no_password);
            let refused = match timeout(self.0.connect, asked).await {
                Ok(Ok(connection)) => {
                    return Ok(Found {
                        connection,
                        options,
                        place,
                    });
                }
                Ok(Err(refused)) => refused,
                Err(_) => format!("no answer within {:?}", self.0.connect).into(),
            };
            Err(Refused {
                why: format!("{place}: {}", refused.why),
                ..refused
            })
        };
        let name = match host {
            // As libpq: there is no TLS on a socket.
            Host::Socket(folder) => {
                let options = options.socket(folder).ssl_mode(PgSslMode::Disable);
                return ask(place, options).await.map_err(|mut refused| {
                    if refused.why.ends_with("no such file") {
                        refused.why.push_str(": no server has its socket there");
                    }
                    refused
                });
            }
            Host::Tcp { name, address } => address.as_ref().unwrap_or(name),
        };
        for (parameter, file) in &self.0.files {
            if let Err(error) = std::fs::File::open(file) {
                let (file, why) = (file.display(), words::of_io(&error));
                return Err(format!("{place}: {parameter} {file} cannot be read: {why}").into());
            }
        }
        let by_name = options.clone().host(name);
        let addresses = match options.get_ssl_mode() {
            PgSslMode::VerifyFull => Vec::new(),
            // Connecting says why there is none.
            _ => self.addresses(name, port).await.unwrap_or_default(),
        };
        if addresses.len() < 2 {
            return ask(place, by_name).await;
        }
        let asked = addresses
            .iter()
            .map(|at| ask(format!("{place} ({at})"), options.clone().host(at)));
        match first(asked).await {
            // Where many servers share an address, TLS must say whose name is meant.
            Err(refused) if refused.at_the_door => ask(place, by_name).await.map_err(|_| refused),
            done => done,
        }
    }

    async fn addresses(&self, name: &str, port: u16) -> Option<Vec<String>> {
        let looked_up = tokio::net::lookup_host((name, port));
        let found = timeout(self.0.connect, looked_up).await.ok()?.ok()?;
        Some(found.map(|found| found.ip().to_string()).collect())
    }

    /// The URL's own, else that of the password file, read anew each time.
    fn password(&self, host: &Host, port: u16) -> std::result::Result<String, String> {
        let Parsed {
            password,
            passfile,
            base,
            ..
        } = &*self.0;
        let name = match host {
            Host::Tcp { name, .. } => Cow::Borrowed(name.as_str()),
            // As libpq: the usual folders are this machine.
            Host::Socket(folder) if url::SOCKETS.iter().any(|usual| folder == Path::new(usual)) => {
                Cow::Borrowed("localhost")
            }
            Host::Socket(folder) => folder.to_string_lossy(),
        };
        let (user, database) = (base.get_username(), self.database());
        match password {
            Some(password) => Ok(password.clone()),
            None => passfile::find(passfile.as_deref(), &name, port, database, user),
        }
    }

    /// Connects to one host, and refuses it if it is not what is wanted.
    async fn ask(
        &self,
        options: &PgConnectOptions,
        settings: Settings,
        no_password: Option<&str>,
    ) -> std::result::Result<PgConnection, Refused> {
        // The last word holds: what the promises need comes after what the URL says.
        let of_url = self.0.settings.iter().map(|(k, v)| (&**k, &**v));
        let all = of_url.chain(NEEDED.iter().chain(settings).copied());
        let with = options.clone().options(all.clone());
        let connected = match with.connect().await {
            Err(sqlx::Error::Database(error)) if takes_no_settings(&*error) => {
                options.connect().await
            }
            connected => connected,
        };
        let mut connection =
            connected.map_err(|error| Refused::at_the_door(&error, no_password))?;
        let about = About::read(&mut connection).await?;
        if let Some(why) = about.unwanted(self.0.wanted) {
            let _ = connection.close().await;
            return Err(why.to_owned().into());
        }
        if about.is_set && about.is_safe {
            return Ok(connection);
        }
        // A pooler has dropped them. In a session of our own they can be set now.
        if is_shared(options, &mut connection).await? {
            return Err(TRANSACTION_MODE.to_owned().into());
        }
        let set: Vec<String> = all
            .map(|(key, value)| format!("set_config({}, {}, false)", quoted(key), quoted(value)))
            .collect();
        sqlx::raw_sql(AssertSqlSafe(format!("select {}", set.join(", "))))
            .execute(&mut connection)
            .await?;
        match About::read(&mut connection).await? {
            About {
                is_safe: true,
                is_set: true,
                ..
            } => Ok(connection),
            About { is_set: false, .. } => Err(TRANSACTION_MODE.to_owned().into()),
            About {
                synchronous_commit, ..
            } => Err(format!(
                "synchronous_commit is {synchronous_commit} and cannot be set to on by this session: a crash \
                 could lose what was recorded; ALTER ROLE … SET synchronous_commit = on (postlane migrate --role NAME)"
            )
            .into()),
        }
    }
}

/// The first that is found; else all reasons.
async fn first(
    asked: impl Iterator<Item = impl Future<Output = std::result::Result<Found, Refused>>>,
) -> std::result::Result<Found, Refused> {
    let mut asked: FuturesUnordered<_> = asked.collect();
    let (mut whys, mut at_the_door) = (Vec::new(), false);
    while let Some(found) = asked.next().await {
        match found {
            Ok(found) => return Ok(found),
            Err(refused) => {
                whys.push(refused.why);
                at_the_door |= refused.at_the_door;
            }
        }
    }
    whys.sort_unstable();
    Err(Refused {
        why: whys.join("; "),
        at_the_door,
    })
}

/// A pooler that takes no settings at the start (PgBouncer, and those that say it is a feature they lack).
fn takes_no_settings(error: &dyn DatabaseError) -> bool {
    matches!(error.code().as_deref(), Some("08P01" | "0A000"))
}

/// True if a pooler gives each transaction another session: while another client holds the session that this
/// connection has just had, it gets another, or none.
async fn is_shared(
    options: &PgConnectOptions,
    connection: &mut PgConnection,
) -> std::result::Result<bool, Refused> {
    let asked = async {
        let before = backend(connection).await?;
        let mut other = options.connect().await?;
        match sqlx::raw_sql("begin").execute(&mut other).await {
            // It gives each statement another session.
            Err(sqlx::Error::Database(_)) => return Ok(true),
            begun => begun?,
        };
        let others = backend(&mut other).await?;
        let mut shared = before == others || before != backend(connection).await?;
        let _ = other.close().await;
        // One that gives them in turn has given this one twice only while the other was held.
        for _ in 0..3 {
            shared |= before != backend(connection).await?;
        }
        Ok::<_, sqlx::Error>(shared)
    };
    match timeout(SHARED, asked).await {
        Ok(shared) => Ok(shared?),
        Err(_) => Err(POOL_IS_FULL.to_owned().into()),
    }
}

/// How long a pooler may take to give a second session.
const SHARED: Duration = Duration::from_millis(1500);

const POOL_IS_FULL: &str = "a pooler in front of the server drops the settings that a worker needs, and has no second \
     session for it (PgBouncer: pool_mode must be session, and default_pool_size at least 8 for each worker)";

/// A literal of SQL, whatever a backslash means in the session.
fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

const TRANSACTION_MODE: &str = "a pooler in front of the server gives each transaction another session (PgBouncer: \
     pool_mode = transaction or statement), and the settings that a worker needs are gone; use pool_mode = session, or connect to \
     the server itself";

/// Why a host was not taken.
#[derive(Debug)]
struct Refused {
    why: String,
    /// Before there was a session: by TLS, or by the process that answers.
    at_the_door: bool,
}

impl Refused {
    fn at_the_door(error: &sqlx::Error, no_password: Option<&str>) -> Self {
        let mut why = words::of(error);
        let (at_the_door, about_login) = match error {
            sqlx::Error::Database(error) => {
                (true, error.code().is_some_and(|code| code == "28P01"))
            }
            sqlx::Error::Io(error) => {
                use std::io::ErrorKind::{ConnectionReset, InvalidData, UnexpectedEof};
                let kinds = [ConnectionReset, InvalidData, UnexpectedEof];
                (kinds.contains(&error.kind()), false)
            }
            error => (matches!(error, sqlx::Error::Tls(_)), false),
        };
        if let Some(no_password) = no_password.filter(|_| about_login) {
            why = format!("{why}; {no_password}");
        }
        Self { why, at_the_door }
    }
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self {
            why,
            at_the_door: false,
        }
    }
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        words::of(&error).into()
    }
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
    /// What was asked for at the start was taken.
    is_set: bool,
    /// What the promises need is set.
    is_safe: bool,
}

impl About {
    async fn read(connection: &mut PgConnection) -> sqlx::Result<Self> {
        const ASK: &str = "select pg_is_in_recovery() as in_recovery, \
             current_setting('transaction_read_only') = 'on' as read_only, \
             current_setting('synchronous_commit') as synchronous_commit, \
             current_setting('default_transaction_isolation') = 'read committed' \
             and current_setting('standard_conforming_strings') = 'on' as is_ours, \
             coalesce(current_setting('postlane.session', true), '') = '1' as is_set";
        let row = sqlx::raw_sql(ASK).fetch_one(connection).await?;
        let synchronous_commit: String = row.try_get("synchronous_commit")?;
        let is_durable = matches!(&*synchronous_commit, "on" | "remote_apply");
        Ok(Self {
            in_recovery: row.try_get("in_recovery")?,
            read_only: row.try_get("read_only")?,
            is_safe: is_durable && row.try_get::<bool, _>("is_ours")?,
            is_set: row.try_get("is_set")?,
            synchronous_commit,
        })
    }

    fn unwanted(&self, wanted: Wanted) -> Option<&'static str> {
        match wanted {
            _ if self.in_recovery => Some("is a standby"),
            Wanted::ReadWrite if self.read_only => {
                Some("is read-only (default_transaction_read_only is on)")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_means_its_text_whatever_a_backslash_is_taken_for() {
        assert_eq!(quoted("a'b\\c"), "E'a''b\\\\c'");
    }
}
