//! Every verb on the database, batch first. The hot statements are twin files, `postgres/` and `sqlite/`; the
//! others are written once and spelled for each engine by [`sql`].
//!
//! A verb is one function with its SQL beside it; what the engines spell differently is in
//! [`sql`]. Nothing here decides anything: rules are in
//! [`crate::turn`] and [`crate::retry`], the order of the verbs in [`crate::ledger`].

use std::path::PathBuf;

pub mod backends;
pub mod bind;
pub mod call;
pub mod complete;
pub mod enqueue;
pub mod file;
pub mod heal;
pub mod intake;
pub mod lanes;
pub mod look;
pub mod operate;
pub mod pauses;
pub mod pool;
pub mod prune;
pub mod rates;
pub mod read;
pub mod rows;
pub mod schema;
pub mod scratch;
pub mod select;
pub mod sql;
pub mod survey;
pub mod take;
pub mod target;
pub mod waits;
pub mod wake;
pub mod watch;
mod words;
pub mod work;
pub mod workers;

pub use bind::{Batch, Bind};
pub use pool::{Pool, Tx, Use};
pub use rows::Row;
pub use sql::Dialect;

use crate::clock::Millis;
use crate::job::State;

/// A failure of our own side: the database's, not the receiver's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused, is away, or answered with something unexpected.
    #[error("database: {}{}", words::before(.place.as_deref()), words::of(.cause))]
    Database {
        /// The server or the file, where it is known.
        place: Option<Box<str>>,
        /// What the driver says.
        cause: sqlx::Error,
    },
    /// No server that may be written to; each host with its own reason.
    #[error("database: {0}")]
    Connect(String),
    /// The SQLite file cannot be opened; says why.
    #[error("database: {0}")]
    Open(String),
    /// All connections that this process may have are in use.
    #[error("database: no connection became free within {} s: all connections of this process are in use", .0.as_secs())]
    Busy(std::time::Duration),
    /// A connection or thread of this process that is gone: it was abandoned, or the process is stopping.
    #[error("database: {0}")]
    Gone(&'static str),
    /// A call was abandoned: no answer will come, and its effect is unknown.
    #[error("database: {place}: no answer to `{verb}` in {} s: {why}", .waited.as_secs())]
    Silent {
        /// The server.
        place: String,
        /// The verb of the statement.
        verb: String,
        /// How long it was waited for.
        waited: std::time::Duration,
        /// What the server said of it, or that it says nothing.
        why: String,
    },
    /// The database URL is not supported.
    #[error("database_url: {0}")]
    Url(String),
    /// The SQLite file is not there.
    #[error("database_url: {} does not exist; create it with `postlane migrate`", .0.display())]
    Missing(PathBuf),
    /// The SQLite file has been replaced or removed since it was opened.
    #[error(
        "database_url: {} was replaced or removed while it was open; start again to use what is there now",
        .0.display()
    )]
    Replaced(PathBuf),
    /// SQLite did not take the settings durability needs.
    #[error(
        "sqlite: journal_mode is {journal} and synchronous is {synchronous}; wal and 2 (full) are needed"
    )]
    Pragmas {
        /// What `pragma journal_mode` answered.
        journal: String,
        /// What `pragma synchronous` answered.
        synchronous: i64,
    },
    /// A stored value that nothing but a change by hand can have left there.
    #[error(
        "database: {table}.{column} of {row} is \"{value}\", which postlane never writes: correct it by hand"
    )]
    Corrupt {
        /// Where.
        table: &'static str,
        /// Which column.
        column: &'static str,
        /// Which row, in words.
        row: String,
        /// What stands there.
        value: String,
    },
    /// The schema is not one this binary can work on.
    #[error("schema: {0}")]
    Schema(String),
    /// A migration failed.
    #[error("migrate: {0}")]
    Migrate(sqlx::migrate::MigrateError),
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        Self::Database { place: None, cause }
    }
}

impl From<sqlx::migrate::MigrateError> for Error {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};
        match error {
            Execute(cause) | ExecuteMigration(cause, _) => cause.into(),
            error => Self::Migrate(error),
        }
    }
}

impl Error {
    /// The same, of a server or a file that it does not name yet.
    pub(crate) fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Self::Database { place: None, cause } => Self::Database {
                place: Some(place.to_string().into()),
                cause,
            },
            error => error,
        }
    }

    /// The database's own error, if it is one.
    pub(crate) fn said(&self) -> Option<&dyn sqlx::error::DatabaseError> {
        match self {
            Self::Database {
                cause: sqlx::Error::Database(said),
                ..
            } => Some(said.as_ref()),
            _ => None,
        }
    }

    /// True if the same transaction may succeed when it is tried again at once: a deadlock, a
    /// serialisation failure, or a lock that was not had in time.
    pub fn is_conflict(&self) -> bool {
        let Some(error) = self.said() else {
            return false;
        };
        matches!(
            error.code().as_deref(),
            Some("40P01" | "40001" | "55P03" | "5" | "6" | "517")
        )
    }

    /// True if the database rejects a row: a constraint, a trigger, a value out of range. Another row may pass.
    pub fn is_refusal(&self) -> bool {
        let Some(error) = self.said() else {
            return false;
        };
        // Postgres: all but what is the server's own: connections (08), statements prepared for a table that was changed
        // since (0A, 26), the transaction's state (25), deadlocks (40),
        // resources (53), locks (55), an end from outside (57), its disk (58) and rights (42501). What a trigger of the
        // user's raises has any code. SQLite: constraints (19), and what a trigger may meet: an error (1), what is
        // too big (18), a type that does not fit (20). The kind stands in the upper bytes.
        match (
            error.code().as_deref(),
            error.try_downcast_ref::<sqlx::sqlite::SqliteError>(),
        ) {
            (Some(code), Some(_)) => code
                .parse()
                .is_ok_and(|code: i32| matches!(code & 0xff, 1 | 18 | 19 | 20)),
            (Some(code), None) => {
                let others = [
                    "08", "0A", "25", "26", "40", "53", "55", "57", "58", "XX", "42501",
                ];
                !others.iter().any(|class| code.starts_with(class))
            }
            (None, _) => false,
        }
    }

    /// True if a unique index refused the row.
    pub fn is_unique_violation(&self) -> bool {
        self.said().is_some_and(|said| said.is_unique_violation())
    }
}

/// Whether a lane has the job of a row of `send_jobs` in hand.
macro_rules! in_hand {
    () => {
        "coalesce((select l.job from send_lanes l where l.lane = send_jobs.lane and l.worker is not null) = send_jobs.id, false)"
    };
}
use in_hand;

/// The state of a row of `send_jobs` as people see it.
macro_rules! shown_state {
    () => {
        concat!(
            "case when state = 'queued' and ",
            $crate::store::in_hand!(),
            " then 'sending' else state end"
        )
    };
}
use shown_state;

/// What a verb returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Pool {
    /// The database's clock.
    pub async fn now(&self) -> Result<Millis> {
        Ok(one(self.rows("-- now\nselect {now} as now", &[]).await?)?.int("now")?)
    }
}

/// The state of a job, or of some jobs, in the column `state` of a row.
pub(crate) fn state(row: &Row, of: impl Fn() -> String) -> Result<State> {
    let word = row.str("state")?;
    word.parse().map_err(|_| Error::Corrupt {
        table: "send_jobs",
        column: "state",
        row: of(),
        value: word.into_owned(),
    })
}

/// The only row of a result.
pub(crate) fn one(rows: Vec<Row>) -> Result<Row> {
    rows.into_iter()
        .next()
        .ok_or_else(|| sqlx::Error::RowNotFound.into())
}
