//! Connections, transactions and the one way to run a statement on either engine.
//!
//! The writer is a pool of one; readers are few. On Postgres a transaction owns its connection
//! ([`super::backends`]), so a call may be left at any point. SQLite's calls run to their end. Nothing
//! here knows what a job is.

use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Sqlite, SqliteExecutor, Transaction};

use super::backends::{Backend, Backends};
use super::bind::{
    Batch, Bind, LiteQuery, PgQuery, postgres, postgres_batch, sqlite, sqlite_batches, to_postgres,
    to_sqlite,
};
use super::call::{patient, verb};
use super::file::DatabaseFile;
use super::rows::Row;
use super::sql::{Dialect, render};
use super::target::{Settings, Target};
use super::{Error, Result, words};

/// Connections to one database.
#[derive(Debug, Clone)]
pub enum Pool {
    /// PostgreSQL.
    Postgres(Backends),
    /// SQLite, and its file.
    Sqlite(SqlitePool, DatabaseFile),
}

/// How a pool will be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// One connection that writes.
    Write,
    /// A few connections that only read.
    Read,
}

/// Every statement here is a look-up by key; a plan that scans is a mistake.
const READING: Settings = &[
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];
const WRITING: Settings = &[
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    // A table analysed while empty must not be scanned later; a batch statement is planned once.
    ("enable_seqscan", "off"),
    // What it reads is in memory: a probe for each row of a batch is always cheaper than a walk through a
    // table, also one that was small when the plan was made.
    ("random_page_cost", "0.01"),
    ("seq_page_cost", "0.01"),
    ("plan_cache_mode", "force_generic_plan"),
];

impl Pool {
    /// Opens a pool; connects to the database at once, so that an error is seen here.
    pub async fn open(url: &str, purpose: Use, create: bool) -> Result<Self> {
        if url.starts_with("sqlite:") {
            Self::open_sqlite(url, purpose, create).await
        } else {
            Self::open_postgres(url, purpose).await
        }
    }

    async fn open_postgres(url: &str, purpose: Use) -> Result<Self> {
        let target = Target::parse(url).map_err(Error::Url)?;
        let (settings, most) = match purpose {
            Use::Write => (WRITING, 1),
            Use::Read => (READING, 2),
        };
        let backends = Backends::new(target, settings, most);
        backends.lend().await?.give_back();
        Ok(Self::Postgres(backends))
    }

    async fn open_sqlite(url: &str, purpose: Use, create: bool) -> Result<Self> {
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|error| Error::Url(format!("not a SQLite URL: {}", words::of(&error))))?;
        // Absolute, because the error may be read from another directory.
        let path = std::path::absolute(options.get_filename())
            .unwrap_or_else(|_| options.get_filename().to_path_buf());
        let cannot =
            |why: String| Error::Open(format!("{} cannot be opened: {why}", path.display()));
        if !create && !path.exists() {
            return Err(words::of_place(&path).map_or_else(|| Error::Missing(path.clone()), cannot));
        }
        let options = options
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            // What refers to a job holds here as on Postgres.
            .foreign_keys(true)
            .statement_cache_capacity(512)
            // A batch's rows in one go: else the threads take turns every 50 rows.
            .row_buffer_size(1024)
            // A batch is always the outer loop: never index it to scan the table instead.
            .pragma("automatic_index", "0")
            // 8 MB a connection; the system has the rest in its own cache, and 32 MB were no faster.
            .pragma("cache_size", "-8000")
            // A batch is worked through in tables of its own, which need no file.
            .pragma("temp_store", "memory")
            // 32 MiB of log between checkpoints: hot pages are written back once, not ten times.
            .pragma("wal_autocheckpoint", "8000")
            .pragma("journal_size_limit", "67108864")
            .read_only(false);
        let pool = SqlitePoolOptions::new()
            .max_connections(if purpose == Use::Write { 1 } else { 2 })
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            // A full disk makes SQLite roll back by itself; sqlx then sees its rollback fail and believes the
            // transaction is still open.
            .before_acquire(|connection, _| {
                let usable = !connection.is_in_transaction();
                Box::pin(async move { Ok(usable) })
            })
            .connect_with(options)
            .await
            .map_err(|error| cannot(words::of_opening(&path, &error)))?;
        let synchronous: i64 = sqlx::query_scalar("pragma synchronous")
            .fetch_one(&pool)
            .await?;
        // Reads from the file, so its log is there from now on.
        let journal: String = sqlx::query_scalar("pragma journal_mode")
            .fetch_one(&pool)
            .await?;
        if synchronous != 2 || journal != "wal" {
            return Err(Error::Pragmas {
                journal,
                synchronous,
            });
        }
        let file = DatabaseFile::opened(&path)?;
        Ok(Self::Sqlite(pool, file))
    }

    /// Which engine this is.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(..) => Dialect::Sqlite,
        }
    }

    /// The database's file, on SQLite.
    pub fn file(&self) -> Option<&DatabaseFile> {
        match self {
            Self::Postgres(_) => None,
            Self::Sqlite(_, file) => Some(file),
        }
    }

    /// The server and its database, or the file, as errors name it.
    pub fn place(&self) -> String {
        match self {
            Self::Postgres(backends) => backends.place(),
            Self::Sqlite(_, file) => file.path().display().to_string(),
        }
    }

    /// Begins a transaction that may write: SQLite takes its write lock here, not half-way.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(match self {
            Self::Postgres(backends) => Tx::Postgres(backends.begin().await?),
            Self::Sqlite(pool, file) => {
                file.check()?;
                let begin = pool.begin_with("begin immediate");
                let tx = on_file(file, "begin immediate", begin).await?;
                Tx::Sqlite(tx, file.clone())
            }
        })
    }

    /// Runs one statement outside any transaction and returns its rows.
    pub async fn rows(&self, template: &'static str, binds: &[Bind]) -> Result<Vec<Row>> {
        match self {
            Self::Postgres(backends) => {
                let query = postgres(template, binds)?;
                alone(backends, verb(template), query).await
            }
            Self::Sqlite(pool, file) => {
                let query = sqlite(template, binds)?;
                from_sqlite(file, verb(template), query, pool).await
            }
        }
    }

    /// Runs a text that is a transaction of its own, over a batch of rows, and returns its rows: one
    /// statement on Postgres, on SQLite one that reads, or several from `begin` to `commit`. After an error
    /// the outcome is unknown, unless it [is a conflict](Error::is_conflict).
    pub async fn batch<const N: usize>(
        &self,
        template: &'static str,
        binds: &[Bind],
        rows: impl Batch<N>,
    ) -> Result<Vec<Row>> {
        let mut out = Vec::new();
        match self {
            _ if rows.len() == 0 => {}
            Self::Postgres(backends) => {
                let query = postgres_batch(template, binds, rows)?;
                out = alone(backends, verb(template), query).await?;
            }
            Self::Sqlite(pool, file) => {
                for query in sqlite_batches(template, binds, rows)? {
                    file.check()?;
                    let mut connection = on_file(file, "connect", pool.acquire()).await?;
                    let done = from_sqlite(file, verb(template), query, &mut *connection);
                    match done.await {
                        Ok(rows) => out.extend(rows),
                        Err(error) => {
                            // It may have failed half-way; if not, there is nothing to roll back.
                            let _ = sqlx::raw_sql("rollback").execute(&mut *connection).await;
                            return Err(error);
                        }
                    }
                }
            }
        }
        Ok(out)
    }

    /// Runs a statement that was put together from literals and `$n` (filters of a listing).
    pub async fn rows_of(&self, template: String, binds: &[Bind]) -> Result<Vec<Row>> {
        let (text, order) = render(&template, self.dialect(), 0);
        let text = sqlx::AssertSqlSafe(text);
        match self {
            Self::Postgres(backends) => {
                let query = sqlx::query_with(text, to_postgres(binds)?);
                alone(backends, verb(&template), query).await
            }
            Self::Sqlite(pool, file) => {
                let values = to_sqlite(&order, binds, |_| None)?;
                let query = sqlx::query_with(text, values);
                from_sqlite(file, verb(&template), query, pool).await
            }
        }
    }

    /// After a failure: the next statement gets a new connection. The session may be the cause: one opened
    /// while the database was read-only stays read-only. Only idle connections are dropped.
    pub fn renew(&self) {
        if let Self::Postgres(backends) = self {
            backends.renew();
        }
    }

    /// Closes the connections; SQLite checkpoints when the last one goes, unless the file is no longer
    /// the one that has its name.
    pub async fn close(&self) {
        match self {
            Self::Postgres(backends) => backends.close().await,
            Self::Sqlite(_, file) if file.check().is_err() => self.leave_open(),
            Self::Sqlite(pool, _) => pool.close().await,
        }
    }

    /// From now on its connections end with the process, and not before.
    pub fn leave_open(&self) {
        std::mem::forget(self.clone());
    }
}

/// An open transaction. Dropped without [`Tx::commit`], it is rolled back; on Postgres by the end of its
/// connection.
#[derive(Debug)]
pub enum Tx {
    /// On PostgreSQL, READ COMMITTED: each statement sees what was committed before it began.
    Postgres(Backend),
    /// On SQLite, with the write lock held.
    Sqlite(Transaction<'static, Sqlite>, DatabaseFile),
}

impl Tx {
    /// Runs a statement and returns its rows.
    pub async fn rows(&mut self, template: &'static str, binds: &[Bind]) -> Result<Vec<Row>> {
        match self {
            Self::Postgres(tx) => {
                let query = postgres(template, binds)?;
                from_postgres(tx, verb(template), query).await
            }
            Self::Sqlite(tx, file) => {
                let query = sqlite(template, binds)?;
                from_sqlite(file, verb(template), query, &mut **tx).await
            }
        }
    }

    /// Runs a statement over a batch of rows and returns its rows.
    pub async fn batch<const N: usize>(
        &mut self,
        template: &'static str,
        binds: &[Bind],
        rows: impl Batch<N>,
    ) -> Result<Vec<Row>> {
        let mut out = Vec::new();
        match self {
            _ if rows.len() == 0 => {}
            Self::Postgres(tx) => {
                let query = postgres_batch(template, binds, rows)?;
                out = from_postgres(tx, verb(template), query).await?;
            }
            Self::Sqlite(tx, file) => {
                for query in sqlite_batches(template, binds, rows)? {
                    out.extend(from_sqlite(file, verb(template), query, &mut **tx).await?);
                }
            }
        }
        Ok(out)
    }

    /// Runs a statement over a batch of rows and returns how many rows it changed.
    pub async fn change<const N: usize>(
        &mut self,
        template: &'static str,
        binds: &[Bind],
        rows: impl Batch<N>,
    ) -> Result<u64> {
        let mut changed = 0;
        match self {
            _ if rows.len() == 0 => {}
            Self::Postgres(tx) => {
                let query = postgres_batch(template, binds, rows)?;
                changed += tx.change(verb(template), query).await?;
            }
            Self::Sqlite(tx, file) => {
                for query in sqlite_batches(template, binds, rows)? {
                    let done = on_file(file, verb(template), query.execute(&mut **tx)).await?;
                    changed += done.rows_affected();
                }
            }
        }
        Ok(changed)
    }

    /// Runs a statement that was put together from literals and `$n`.
    pub async fn rows_of(&mut self, template: String, binds: &[Bind]) -> Result<Vec<Row>> {
        match self {
            Self::Postgres(tx) => {
                let text = sqlx::AssertSqlSafe(render(&template, Dialect::Postgres, 0).0);
                let query = sqlx::query_with(text, to_postgres(binds)?);
                from_postgres(tx, verb(&template), query).await
            }
            Self::Sqlite(tx, file) => {
                let (text, order) = render(&template, Dialect::Sqlite, 0);
                let text = sqlx::AssertSqlSafe(text);
                let values = to_sqlite(&order, binds, |_| None)?;
                let query = sqlx::query_with(text, values);
                from_sqlite(file, verb(&template), query, &mut **tx).await
            }
        }
    }

    /// Runs a statement and returns how many rows it changed.
    pub async fn run(&mut self, template: &'static str, binds: &[Bind]) -> Result<u64> {
        match self {
            Self::Postgres(tx) => tx.change(verb(template), postgres(template, binds)?).await,
            Self::Sqlite(tx, file) => {
                let query = sqlite(template, binds)?;
                let done = on_file(file, verb(template), query.execute(&mut **tx)).await?;
                Ok(done.rows_affected())
            }
        }
    }

    /// Which engine this is.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(..) => Dialect::Sqlite,
        }
    }

    /// Commits. After an error the outcome is unknown.
    pub async fn commit(self) -> Result<()> {
        match self {
            Self::Postgres(tx) => end(tx, "commit").await,
            Self::Sqlite(tx, file) => on_file(&file, "commit", tx.commit()).await,
        }
    }

    /// Rolls back.
    pub async fn rollback(self) -> Result<()> {
        match self {
            // A connection that was left is closed, and rolled back by that.
            Self::Postgres(tx) if tx.is_left() => Ok(()),
            Self::Postgres(tx) => end(tx, "rollback").await,
            Self::Sqlite(tx, file) => on_file(&file, "rollback", tx.rollback()).await,
        }
    }
}

/// Only a confirmed end makes a connection fit for others.
async fn end(mut tx: Backend, how: &'static str) -> Result<()> {
    tx.simple(how).await?;
    tx.give_back();
    Ok(())
}

/// One statement that is a transaction of its own.
async fn alone(backends: &Backends, verb: &str, query: PgQuery) -> Result<Vec<Row>> {
    let mut backend = backends.lend().await?;
    let rows = from_postgres(&mut backend, verb, query).await;
    // One that was left is not: there is nothing to give back then.
    backend.give_back();
    rows
}

async fn from_postgres(on: &mut Backend, verb: &str, query: PgQuery) -> Result<Vec<Row>> {
    let rows = on.rows(verb, query).await?;
    Ok(rows.into_iter().map(Row::Postgres).collect())
}

async fn from_sqlite<'e>(
    file: &DatabaseFile,
    verb: &str,
    query: LiteQuery,
    on: impl SqliteExecutor<'e>,
) -> Result<Vec<Row>> {
    let rows = on_file(file, verb, query.fetch_all(on)).await?;
    Ok(rows.into_iter().map(Row::Sqlite).collect())
}

/// Waits for a call, and says of an error which file it is about.
async fn on_file<T>(
    file: &DatabaseFile,
    verb: &str,
    call: impl Future<Output = sqlx::Result<T>>,
) -> Result<T> {
    let done = patient(verb, call).await;
    done.map_err(|error| Error::from(error).at(file.path().display()))
}
