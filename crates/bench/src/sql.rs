//! One connection to either engine, for the harness's own statements.
//!
//! Not the worker's connections: those have time-outs and planner settings of their own, and a judge
//! does not use the defendant's code.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Result, anyhow};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl Engine {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }

    /// The engine of a database's URL.
    pub fn of(url: &str) -> Self {
        match url.starts_with("sqlite:") {
            true => Self::Sqlite,
            false => Self::Postgres,
        }
    }
}

/// A connection.
pub enum Sql {
    /// To SQLite.
    Sqlite(SqliteConnection),
    /// To Postgres.
    Postgres(PgConnection),
}

/// What a commit must survive.
#[derive(Clone, Copy, PartialEq)]
pub enum Safety {
    /// As the README tells producers: a power cut.
    Full,
    /// Nothing: a backlog is being built.
    None,
}

impl Sql {
    /// Connects.
    pub async fn open(url: &str, safety: Safety) -> Result<Self> {
        if Engine::of(url) == Engine::Postgres {
            let options = PgConnectOptions::from_str(url)?.application_name("bench");
            return Ok(Self::Postgres(PgConnection::connect_with(&options).await?));
        }
        let options = SqliteConnectOptions::from_str(url)?
            .busy_timeout(Duration::from_secs(10))
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match safety {
                Safety::Full => SqliteSynchronous::Full,
                Safety::None => SqliteSynchronous::Off,
            });
        let connection = SqliteConnection::connect_with(&options).await?;
        Ok(Self::Sqlite(connection))
    }

    /// Runs statements without parameters.
    pub async fn run(&mut self, text: &str) -> Result<()> {
        let query = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
        let done = match self {
            Self::Sqlite(connection) => connection.execute(query).await.map(drop),
            Self::Postgres(connection) => connection.execute(query).await.map(drop),
        };
        done.map_err(|error| anyhow!("{text}: {error}"))
    }

    /// One whole number; null is 0.
    pub async fn number(&mut self, text: &str) -> Result<i64> {
        let query = AssertSqlSafe(format!("select cast(({text}) as bigint)"));
        let found = match self {
            Self::Sqlite(c) => {
                sqlx::query_scalar::<_, Option<i64>>(query)
                    .fetch_one(c)
                    .await
            }
            Self::Postgres(c) => {
                sqlx::query_scalar::<_, Option<i64>>(query)
                    .fetch_one(c)
                    .await
            }
        };
        Ok(found
            .map_err(|error| anyhow!("{text}: {error}"))?
            .unwrap_or(0))
    }

    /// The first column of every row, as text.
    pub async fn texts(&mut self, text: &str) -> Result<Vec<String>> {
        let query = AssertSqlSafe(text.to_owned());
        let found = match self {
            Self::Sqlite(c) => sqlx::query_scalar::<_, String>(query).fetch_all(c).await,
            Self::Postgres(c) => sqlx::query_scalar::<_, String>(query).fetch_all(c).await,
        };
        found.map_err(|error| anyhow!("{text}: {error}"))
    }

    /// The plain INSERT of a producer, in a transaction of its own.
    pub async fn enqueue(&mut self, page: &str, recipient: &str, message: &str) -> Result<()> {
        match self {
            Self::Sqlite(connection) => {
                sqlx::query("insert into send_jobs (page_id, recipient, message) values (?, ?, ?)")
                    .bind(page)
                    .bind(recipient)
                    .bind(message)
                    .execute(connection)
                    .await?;
            }
            Self::Postgres(connection) => {
                sqlx::query(
                    "insert into send_jobs (page_id, recipient, message) \
                     values ($1, $2::text::json, $3::text::json)",
                )
                .bind(page)
                .bind(recipient)
                .bind(message)
                .execute(connection)
                .await?;
            }
        }
        Ok(())
    }

    /// Closes it; SQLite checkpoints when the last connection goes.
    pub async fn close(self) -> Result<()> {
        match self {
            Self::Sqlite(connection) => connection.close().await?,
            Self::Postgres(connection) => connection.close().await?,
        }
        Ok(())
    }
}
