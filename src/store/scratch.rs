//! A queue of its own beside the configured one, for the time of a measurement: on SQLite a file in the
//! same folder, on Postgres a schema in the same database.

use super::target::with_schema;
use super::{Error, Pool, Result, Use, schema};

const SCHEMA: &str = "-- scratch: where tables are made
select current_schema()::text as schema";

/// Tables that nobody else uses; gone with [`Scratch::remove`].
pub struct Scratch {
    url: String,
    name: String,
    of: String,
}

impl Scratch {
    /// Makes one beside the database of this URL.
    ///
    /// # Errors
    /// The database is away, or its role may not create schemas; the folder cannot be written.
    pub async fn create(of: &str) -> Result<Self> {
        let id = std::process::id();
        let scratch = match of.split_once("://") {
            Some(("sqlite", file)) => {
                let file = file.split('?').next().unwrap_or_default();
                let name = format!("{file}.bench-{id}");
                Self {
                    url: format!("sqlite://{name}"),
                    name,
                    of: of.to_owned(),
                }
            }
            _ => {
                let name = format!("postlane_bench_{id}");
                let pool = Pool::open(of, Use::Read, false).await?;
                let made = pool.rows_of(format!("create schema {name}"), &[]).await;
                pool.close().await;
                made?;
                Self {
                    url: with_schema(of, &name),
                    name,
                    of: of.to_owned(),
                }
            }
        };
        match scratch.fill().await {
            Ok(()) => Ok(scratch),
            Err(error) => {
                // The first error says more.
                let _ = scratch.remove().await;
                Err(error)
            }
        }
    }

    /// Makes its tables, where nobody else has any.
    async fn fill(&self) -> Result<()> {
        if !self.of.starts_with("sqlite:") {
            let pool = Pool::open(&self.url, Use::Read, false).await?;
            let rows = pool.rows(SCHEMA, &[]).await;
            pool.close().await;
            let found = super::one(rows?)?.text_opt("schema")?;
            if found.as_deref() != Some(&*self.name) {
                return Err(Error::Url(
                    "its options set another search_path than the one asked for: leave it out to measure".to_owned(),
                ));
            }
        }
        schema::migrate(&self.url).await.map(drop)
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its file or its schema.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Drops it. Its connections are closed.
    ///
    /// # Errors
    /// It is still there; says its name.
    pub async fn remove(self) -> Result<()> {
        if self.of.starts_with("sqlite:") {
            for end in ["", "-wal", "-shm"] {
                let file = percent_encoding::percent_decode_str(&self.name).decode_utf8_lossy();
                match std::fs::remove_file(format!("{file}{end}")) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::Open(format!("{file}{end} is left behind: {error}")));
                    }
                    _ => {}
                }
            }
            return Ok(());
        }
        let pool = Pool::open(&self.of, Use::Read, false).await?;
        let dropped = pool
            .rows_of(format!("drop schema {} cascade", self.name), &[])
            .await;
        pool.close().await;
        dropped.map(drop)
    }
}
