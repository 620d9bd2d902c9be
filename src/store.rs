//! Every verb on the database, batch first, written once for both engines.
//!
//! A verb is one function with its SQL beside it; what the engines spell differently is in
//! [`sql`]. Nothing here decides anything: rules are in
//! [`crate::turn`] and [`crate::retry`], the order of the verbs in [`crate::ledger`].

use std::path::PathBuf;

pub mod advance;
pub mod backends;
pub mod bind;
pub mod call;
pub mod enqueue;
pub mod file;
pub mod heal;
pub mod intake;
pub mod lanes;
pub mod line;
pub mod look;
pub mod operate;
pub mod pauses;
pub mod pool;
pub mod prune;
pub mod rates;
pub mod read;
pub mod record;
pub mod rows;
pub mod schema;
pub mod select;
pub mod sql;
pub mod target;
pub mod waits;
pub mod wake;
pub mod watch;
mod words;
pub mod workers;

pub use bind::Bind;
pub use pool::{Pool, Tx, Use};
pub use rows::Row;

use crate::clock::Millis;

/// A failure of our own side: the database's, not the receiver's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused, is away, or answered with something unexpected.
    #[error("database: {}", words::of(.0))]
    Database(#[from] sqlx::Error),
    /// No server that may be written to; each host with its own reason.
    #[error("database: {0}")]
    Connect(String),
    /// A server that is not fit, whoever connects.
    #[error("database: {0}")]
    Server(String),
    /// The SQLite file cannot be opened; says why.
    #[error("database: {0}")]
    Open(String),
    /// A call was given up: no answer will come. Nobody knows what became of it.
    #[error("database: no answer to `{verb}` in {} s: {why}", .waited.as_secs())]
    Silent {
        /// The verb of the statement.
        verb: String,
        /// How long it was waited for.
        waited: std::time::Duration,
        /// What the server said of it, or that it says nothing.
        why: String,
    },
    /// The URL of the database is none of those supported.
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
    /// The schema is not one this binary can work on.
    #[error("schema: {0}")]
    Schema(String),
    /// A migration failed.
    #[error("migrate: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

impl Error {
    /// True if the same transaction may succeed when it is tried again at once: a deadlock, a
    /// serialisation failure, or a lock that was not had in time.
    pub fn is_conflict(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else {
            return false;
        };
        matches!(
            error.code().as_deref(),
            Some("40P01" | "40001" | "55P03" | "5" | "6" | "517")
        )
    }

    /// True if it is a row that the database refuses, for whatever it says or means: a constraint, a trigger, a
    /// value that does not fit. Another row may pass.
    pub fn is_refusal(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else {
            return false;
        };
        // Postgres: data (22), constraints (23), raised by a function (P0), row level security (42501 says more
        // than that). SQLite: constraints (19), with their kind in the upper bytes; an abort is one of them.
        match (
            error.code().as_deref(),
            error.try_downcast_ref::<sqlx::sqlite::SqliteError>(),
        ) {
            (Some(code), Some(_)) => code.parse().is_ok_and(|code: i32| code & 0xff == 19),
            (Some(code), None) => ["22", "23", "P0"]
                .iter()
                .any(|class| code.starts_with(class)),
            (None, _) => false,
        }
    }

    /// True if a unique index refused the row.
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

/// What a verb returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Pool {
    /// The database's clock.
    pub async fn now(&self) -> Result<Millis> {
        Ok(one(self.rows("-- now\nselect {now} as now", &[]).await?)?.int("now")?)
    }
}

/// The only row of a result.
pub(crate) fn one(rows: Vec<Row>) -> Result<Row> {
    rows.into_iter()
        .next()
        .ok_or(Error::Database(sqlx::Error::RowNotFound))
}
