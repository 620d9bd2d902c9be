//! What deliveries cost: processor time of worker and database, log, commits, memory.

use anyhow::Result;
use serde::Serialize;

use super::log::LogWatch;
use super::proc;
use crate::database::Database;
use crate::server::Server;
use crate::sql::{Engine, Sql};
use crate::worker::Worker;

/// The cost of one run.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Costs {
    /// Processor seconds of the worker for 1,000 deliveries (on SQLite with the database in it).
    pub worker_cpu_s_per_1000: f64,
    /// Processor seconds of all processes of the Postgres server; none on SQLite, or if the server
    /// is elsewhere.
    pub database_cpu_s_per_1000: Option<f64>,
    /// Bytes of write-ahead log for one delivery.
    pub wal_bytes_per_delivery: f64,
    /// Transactions for one delivery: on Postgres all that committed in the database
    /// (`pg_stat_database`), on SQLite those that wrote.
    pub commits_per_delivery: f64,
    /// The most memory of one worker's process, bytes.
    pub worker_peak_memory: u64,
}

/// What there was before a run.
#[derive(Default)]
pub struct Meter {
    log: Option<LogWatch>,
    worker_cpu: f64,
    server_cpu: f64,
    wal: i64,
    commits: i64,
}

impl Meter {
    /// Reads what there is before the run. What workers that run already have spent does not count.
    pub async fn begin(database: &Database, workers: &[Worker]) -> Result<Self> {
        let worker_cpu = cpu(workers);
        let Some(server) = database.server() else {
            return Ok(Self {
                log: Some(LogWatch::begin(&database.name)),
                worker_cpu,
                ..Self::default()
            });
        };
        let mut sql = server.admin().await?;
        let meter = Self {
            log: None,
            worker_cpu,
            wal: wal(&mut sql).await?,
            commits: commits(&mut sql, &database.name).await?,
            server_cpu: server_cpu(server),
        };
        sql.close().await?;
        Ok(meter)
    }

    /// Reads what `deliveries` have cost so far, while the workers still run. The caller has closed
    /// its own connections to the database.
    pub async fn read(
        self,
        database: &Database,
        workers: &[Worker],
        deliveries: u64,
    ) -> Result<Reading> {
        let each = |sum: f64| sum / deliveries as f64;
        let memory = workers.iter().map(|worker| proc::peak_memory(worker.pid()));
        let mut costs = Costs {
            worker_cpu_s_per_1000: each(cpu(workers) - self.worker_cpu) * 1000.0,
            worker_peak_memory: memory.max().unwrap_or(0),
            ..Costs::default()
        };
        if let Some(server) = database.server() {
            if server.postmaster.is_some() {
                let spent = server_cpu(server) - self.server_cpu;
                costs.database_cpu_s_per_1000 = Some(each(spent) * 1000.0);
            }
            let mut sql = server.admin().await?;
            costs.wal_bytes_per_delivery = each((wal(&mut sql).await? - self.wal) as f64);
            sql.close().await?;
        }
        Ok(Reading {
            costs,
            meter: self,
            deliveries,
        })
    }
}

/// Costs that are complete once the workers have ended.
pub struct Reading {
    costs: Costs,
    meter: Meter,
    deliveries: u64,
}

impl Reading {
    /// What the workers tell only at their end: a session of Postgres keeps its counts for a second.
    /// `own` commits were the harness's.
    pub async fn end(mut self, database: &Database, own: i64) -> Result<Costs> {
        let deliveries = self.deliveries as f64;
        if let Some(log) = self.meter.log {
            let log = log.end().await?;
            self.costs.wal_bytes_per_delivery = log.bytes as f64 / deliveries;
            self.costs.commits_per_delivery = log.commits as f64 / deliveries;
        } else if let Some(server) = database.server() {
            let mut sql = server.admin().await?;
            let made = commits(&mut sql, &database.name).await? - self.meter.commits - own;
            self.costs.commits_per_delivery = made as f64 / deliveries;
            sql.close().await?;
        }
        Ok(self.costs)
    }
}

fn cpu(workers: &[Worker]) -> f64 {
    let each = |worker: &Worker| proc::cpu_seconds(worker.pid());
    workers.iter().map(each).sum()
}

fn server_cpu(server: &Server) -> f64 {
    server.postmaster.map_or(0.0, proc::tree_cpu_seconds)
}

async fn wal(sql: &mut Sql) -> Result<i64> {
    sql.number("pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
        .await
}

/// Transactions that were committed in a database, of either kind.
pub async fn commits(sql: &mut Sql, database: &str) -> Result<i64> {
    debug_assert!(Engine::of(database) == Engine::Postgres);
    sql.number(&format!(
        "select xact_commit + xact_rollback from pg_stat_database where datname = '{database}'"
    ))
    .await
}
