//! Fresh databases, and copies of big backlogs.
//!
//! A backlog is built once by SQL and copied for each run: on SQLite its file, on Postgres as the
//! template of a new database. Everything is on a real disk and gone at the end.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::fill::{self, Backlog};
use crate::server::Server;
use crate::sql::{Engine, Safety, Sql};

/// A database of one run, dropped with it.
pub struct Database {
    /// Its engine.
    pub engine: Engine,
    /// Where it is.
    pub url: String,
    /// Its name on the server; on SQLite its file.
    pub name: String,
    /// For logs, configuration and SQLite's files.
    pub folder: TempDir,
    server: Option<Arc<Server>>,
}

impl Database {
    /// Its server, on Postgres.
    pub fn server(&self) -> Option<&Server> {
        self.server.as_deref()
    }

    /// Connects.
    pub async fn open(&self, safety: Safety) -> Result<Sql> {
        Sql::open(&self.url, safety).await
    }

    /// Now, on the database's clock, unix milliseconds.
    pub async fn now(&self) -> Result<i64> {
        let mut sql = self.open(Safety::Full).await?;
        let now = sql
            .number(match self.engine {
                Engine::Sqlite => "(julianday('now') - 2440587.5) * 86400000",
                Engine::Postgres => "extract(epoch from clock_timestamp()) * 1000",
            })
            .await?;
        sql.close().await?;
        Ok(now)
    }

    /// Has everything written to the disk, so that no run pays for the preparation of its data.
    pub async fn settle(&self, checkpoint: bool) -> Result<()> {
        let mut sql = self.open(Safety::None).await?;
        match self.engine {
            Engine::Postgres => {
                sql.run("analyze").await?;
                if checkpoint {
                    sql.run("checkpoint").await?;
                }
            }
            Engine::Sqlite => sql.run("pragma wal_checkpoint(truncate)").await?,
        }
        sql.close().await?;
        let synced = tokio::task::spawn_blocking(|| Command::new("sync").status()).await??;
        ensure!(synced.success(), "sync failed");
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.drop_database(&self.name);
        }
    }
}

/// Where databases come from.
pub struct House {
    server: Option<Arc<Server>>,
    templates: HashMap<(Engine, Backlog), Rc<Database>>,
    made: usize,
}

impl House {
    /// A house with or without a Postgres server.
    pub fn new(server: Option<Server>) -> Self {
        Self {
            server: server.map(Arc::new),
            templates: HashMap::new(),
            made: 0,
        }
    }

    /// A database with this backlog, for one run.
    pub async fn database(&mut self, engine: Engine, backlog: Backlog) -> Result<Database> {
        let key = (engine, backlog);
        if !self.templates.contains_key(&key) {
            let template = self.build(engine, backlog).await?;
            self.templates.insert(key, Rc::new(template));
        }
        let template = Rc::clone(&self.templates[&key]);
        let database = self.named(engine)?;
        match (engine, self.server.as_deref()) {
            (Engine::Postgres, Some(server)) => {
                // Copied page by page through the log it would begin its run with a checkpoint.
                let strategy = match server.version >= 150_000 {
                    true => " strategy file_copy",
                    false => "",
                };
                let (copy, original) = (&database.name, &template.name);
                server
                    .run(&format!(
                        "create database {copy} template {original}{strategy}"
                    ))
                    .await?;
            }
            _ => {
                let (from, to) = (template.name.clone(), database.name.clone());
                tokio::task::spawn_blocking(move || std::fs::copy(from, to)).await??;
            }
        }
        Ok(database)
    }

    /// Drops the big backlogs, which no other scenario uses.
    pub fn forget(&mut self) {
        self.templates
            .retain(|(_, backlog), _| *backlog == Backlog::Empty);
    }

    fn named(&mut self, engine: Engine) -> Result<Database> {
        self.made += 1;
        let folder = tempfile::Builder::new()
            .prefix("postlane-bench-")
            .tempdir()
            .context("a temporary folder (TMPDIR says where)")?;
        let (url, name, server) = match engine {
            Engine::Sqlite => {
                let file = folder.path().join("bench.db").display().to_string();
                (format!("sqlite://{file}"), file, None)
            }
            Engine::Postgres => {
                let server = self.server.clone().context("there is no Postgres server")?;
                let name = format!("postlane_bench_{}_{}", std::process::id(), self.made);
                (server.url_of(&name)?, name, Some(server))
            }
        };
        Ok(Database {
            engine,
            url,
            name,
            folder,
            server,
        })
    }

    async fn build(&mut self, engine: Engine, backlog: Backlog) -> Result<Database> {
        if backlog != Backlog::Empty {
            eprintln!("  building {backlog} on {}", engine.name());
        }
        let database = self.named(engine)?;
        if let Some(server) = database.server() {
            server
                .run(&format!("create database {}", database.name))
                .await?;
        }
        postlane::store::schema::migrate(&database.url).await?;
        if backlog == Backlog::Empty {
            return Ok(database);
        }
        let mut sql = database.open(Safety::None).await?;
        fill::backlog(&mut sql, backlog).await?;
        if engine == Engine::Postgres {
            // What autovacuum has long done to a backlog that was there before.
            sql.run("vacuum analyze").await?;
        }
        sql.close().await?;
        Ok(database)
    }
}

/// The kind of memory that pretends to be a disk, if databases would be in it.
pub fn memory_disk() -> Option<String> {
    let folder = std::fs::canonicalize(std::env::temp_dir()).ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let kind = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((
                Path::new(words.next()?).to_owned(),
                words.next()?.to_owned(),
            ))
        })
        .filter(|(place, _)| folder.starts_with(place))
        .max_by_key(|(place, _)| place.components().count())?
        .1;
    matches!(kind.as_str(), "tmpfs" | "ramfs").then_some(kind)
}
