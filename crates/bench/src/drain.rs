//! One run over a backlog: a worker starts, and the clock stops when so many outcomes are committed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postlane::clock::BootInstant;

use crate::database::{Database, House};
use crate::fill::{self, Backlog};
use crate::measure::costs::{Costs, Meter};
use crate::receiver::{Receiver, Setup};
use crate::sql::{Engine, Safety};
use crate::worker::{Settings, Worker, beside};

/// What is there when the clock starts, and how the run is set up.
#[derive(Debug, Clone)]
pub struct Load {
    /// Copied from a template.
    pub backlog: Backlog,
    /// Inserted behind it, freshly for each run.
    pub jobs: usize,
    /// Over so many recipients of page 1.
    pub recipients: usize,
    /// Or over so many pages, if there is more than one.
    pub pages: usize,
    /// How many must be delivered.
    pub deliveries: usize,
    /// The worker's settings.
    pub settings: Settings,
    /// How many workers.
    pub workers: usize,
    /// The receiver's.
    pub receiver: Setup,
    /// Postgres writes whole pages to its log after a checkpoint: whether the run begins with one.
    pub checkpoint: bool,
}

impl Load {
    /// So many jobs over so many recipients, and nothing else.
    pub fn new(jobs: usize, recipients: usize) -> Self {
        Self {
            backlog: Backlog::Empty,
            jobs,
            recipients,
            pages: 1,
            deliveries: jobs,
            settings: Settings::new(),
            workers: 1,
            receiver: Setup::default(),
            checkpoint: false,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    /// From the start of the worker's process until enough outcomes were committed.
    pub seconds: f64,
    /// Outcomes that were committed then.
    pub deliveries: f64,
    /// Requests that the receiver had received then.
    pub requests: f64,
    /// Finished jobs that were there before and are still there at the end.
    pub old: i64,
    /// What they cost.
    pub costs: Costs,
}

impl Drained {
    /// Deliveries a second.
    pub fn rate(&self) -> f64 {
        self.deliveries / self.seconds
    }
}

/// Copies, fills and settles the database of a run.
pub async fn prepare(house: &mut House, engine: Engine, load: &Load) -> Result<Database> {
    let database = house.database(engine, load.backlog).await?;
    if load.jobs > 0 {
        let mut sql = database.open(Safety::None).await?;
        let page = match load.pages {
            1 => "'1'".to_owned(),
            pages => fill::of_pages(pages),
        };
        fill::queued(&mut sql, &page, load.jobs, load.recipients, "f").await?;
        sql.close().await?;
    }
    database.settle(load.checkpoint).await?;
    Ok(database)
}

/// One run, not longer than `limit`.
pub async fn drain(
    house: &mut House,
    engine: Engine,
    load: &Load,
    limit: Duration,
) -> Result<Drained> {
    let database = prepare(house, engine, load).await?;
    let run = run(&database, load);
    let run = tokio::time::timeout(limit, run).await;
    run.with_context(|| format!("void: not done within {limit:?}"))?
}

async fn run(database: &Database, load: &Load) -> Result<Drained> {
    let receiver = Receiver::start(&load.receiver).await?;
    let start = database.now().await? - 1000;
    let meter = Meter::begin(database, &[]).await?;
    let began = BootInstant::now();
    let mut workers = Vec::new();
    for number in 0..load.workers {
        workers.push(Worker::start(
            database,
            &receiver,
            &load.settings.of(number),
        )?);
    }
    let wanted = delivered(database, &receiver, load.deliveries, start, began);
    let (committed, own) = beside(&mut workers, wanted).await?;
    let requests = receiver.stats().await?.received;
    let counted = committed.0.unsigned_abs();
    let reading = meter.read(database, &workers, counted).await?;
    for worker in workers {
        worker.stop().await?;
    }
    let costs = reading.end(database, own).await?;
    let stats = receiver.verdict(0).await?;
    let mut sql = database.open(Safety::Full).await?;
    let delivered = sql.number(&finished_since(database.engine, start)).await?;
    let finished = sql.number(&finished_since(database.engine, 0)).await?;
    sql.close().await?;
    ensure!(
        delivered as u64 == stats.accepted,
        "void: {delivered} jobs are delivered, the receiver accepted {}",
        stats.accepted
    );
    Ok(Drained {
        seconds: committed.1.as_secs_f64(),
        deliveries: committed.0 as f64,
        requests: requests as f64,
        old: finished - delivered,
        costs,
    })
}

/// Waits until so many deliveries are committed: asks the receiver, which costs the database
/// nothing, and the database only at the end. Returns how many were and when that was seen, and how
/// many transactions the asking took.
pub async fn delivered(
    database: &Database,
    receiver: &Receiver,
    wanted: usize,
    start: i64,
    began: BootInstant,
) -> Result<((i64, Duration), i64)> {
    receiver.accepts(wanted as u64).await?;
    let mut sql = database.open(Safety::Full).await?;
    let mut own = 0;
    loop {
        own += 1;
        let asked = began.elapsed();
        let committed = sql.number(&finished_since(database.engine, start)).await?;
        if committed >= wanted as i64 {
            sql.close().await?;
            return Ok(((committed, asked), own));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Counts jobs that ended after `start`, unix milliseconds, by the index that retention uses.
pub fn finished_since(engine: Engine, start: i64) -> String {
    let start = match engine {
        Engine::Sqlite => start.to_string(),
        Engine::Postgres => format!("to_timestamp({start} / 1000.0)"),
    };
    format!("select count(*) from send_jobs where finished_at >= {start}")
}
