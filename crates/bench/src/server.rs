//! The Postgres server: the one that POSTLANE_TEST_POSTGRES_URL names, or one of our own.
//!
//! One of our own is made of the binaries that the system has, in a temporary folder, with default
//! settings except for the port and the folder of its socket. Nothing is installed.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::measure::proc;
use crate::sql::{Safety, Sql};

#[path = "../../../tests/rig/cluster.rs"]
#[expect(dead_code, reason = "tests also crash it")]
mod cluster;

/// What `cluster` looks for in its parent.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("bound").port()
}

/// A running server.
pub struct Server {
    url: String,
    /// Its first process, if it runs on this machine.
    pub postmaster: Option<u32>,
    /// Its major version times 10,000.
    pub version: i64,
    /// Ours ends with us.
    _cluster: Option<cluster::Cluster>,
}

impl Server {
    /// The server to measure on; none if there is none.
    pub async fn find() -> Result<Option<Self>> {
        let named = std::env::var("POSTLANE_TEST_POSTGRES_URL").ok();
        let (url, cluster) = match named.filter(|url| !url.is_empty()) {
            Some(url) => (url, None),
            None => {
                let Some(cluster) = cluster::Cluster::new() else {
                    return Ok(None);
                };
                cluster.start_with("");
                (cluster.url("postgres"), Some(cluster))
            }
        };
        let mut sql = Sql::open(&url, Safety::Full)
            .await
            .context("the server of POSTLANE_TEST_POSTGRES_URL")?;
        let version = sql
            .number("current_setting('server_version_num')::bigint")
            .await?;
        let backend = sql.number("pg_backend_pid()").await?;
        let postmaster = proc::postmaster_of(backend);
        sql.close().await?;
        Ok(Some(Self {
            url,
            postmaster,
            version,
            _cluster: cluster,
        }))
    }

    /// The URL of one of its databases.
    pub fn url_of(&self, database: &str) -> Result<String> {
        let mut url = reqwest::Url::parse(&self.url).context("POSTLANE_TEST_POSTGRES_URL")?;
        url.set_path(database);
        Ok(url.into())
    }

    /// A connection to the database that everything else is made from.
    pub async fn admin(&self) -> Result<Sql> {
        Sql::open(&self.url, Safety::Full).await
    }

    /// Runs a statement there.
    pub async fn run(&self, text: &str) -> Result<()> {
        let mut sql = self.admin().await?;
        sql.run(text).await?;
        sql.close().await
    }

    /// Drops a database without an async caller: for `Drop`, also while panicking.
    pub fn drop_database(&self, name: &str) {
        let (url, text) = (
            self.url.clone(),
            format!("drop database if exists {name} with (force)"),
        );
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let drop = async { Sql::open(&url, Safety::Full).await?.run(&text).await };
                tokio::time::timeout(Duration::from_secs(30), drop).await?
            })
        });
        match dropped.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("database {name} was left behind: {error:#}"),
            Err(_) => eprintln!("database {name} was left behind"),
        }
    }
}
