//! What is in the tables before the clock starts, by plain SQL.
//!
//! Queued jobs come by the INSERT that producers use. Finished ones are written as the worker would
//! have left them, with the triggers off; that is the only place that knows columns of the worker.

use std::fmt;

use anyhow::Result;

use crate::sql::{Engine, Sql};

/// Something big, built once and copied for each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backlog {
    /// Only the schema.
    Empty,
    /// One recipient of page 1 with so many jobs, which a worker has taken in before.
    Deep(usize),
    /// So many jobs of as many recipients of page 1.
    Queued(usize),
    /// So many jobs of as many recipients of page 2.
    Sick(usize),
    /// A job for each of so many pages, none of which is page 1.
    Pages(usize),
    /// So many delivered jobs with an attempt each, finished so many days ago.
    Finished(usize, u32),
}

/// The recipient of [`Backlog::Deep`].
pub const DEEP: &str = "deep0";

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "nothing"),
            Self::Deep(jobs) => write!(f, "a lane of {jobs} jobs"),
            Self::Queued(jobs) => write!(f, "{jobs} queued jobs"),
            Self::Sick(jobs) => write!(f, "{jobs} jobs of another page"),
            Self::Pages(pages) => write!(f, "a job for each of {pages} pages"),
            Self::Finished(jobs, days) => write!(f, "{jobs} jobs delivered {days} days ago"),
        }
    }
}

/// Writes a backlog.
pub async fn backlog(sql: &mut Sql, backlog: Backlog) -> Result<()> {
    match backlog {
        Backlog::Empty => Ok(()),
        Backlog::Deep(jobs) => {
            queued(sql, "'1'", jobs, 1, "deep").await?;
            sql.run("delete from send_inbox").await?;
            let lane = format!(
                "insert into send_lanes (lane, page_id, due_at) values ('1/id:{DEEP}', '1', 0)"
            );
            sql.run(&lane).await
        }
        Backlog::Queued(jobs) => queued(sql, "'1'", jobs, jobs, "r").await,
        Backlog::Sick(jobs) => queued(sql, "'2'", jobs, jobs, "s").await,
        Backlog::Pages(pages) => queued(sql, &of_pages(pages), pages, pages, "p").await,
        Backlog::Finished(jobs, days) => finished(sql, jobs, days).await,
    }
}

/// An expression that spreads jobs over so many pages, none of which is page 1.
pub fn of_pages(pages: usize) -> String {
    format!("cast(n % {pages} + 2 as text)")
}

/// `jobs` jobs over `recipients` recipients of a page, an expression; each recipient's are numbered from 1.
pub async fn queued(
    sql: &mut Sql,
    page: &str,
    jobs: usize,
    recipients: usize,
    prefix: &str,
) -> Result<()> {
    let engine = engine(sql);
    let recipient = json(
        engine,
        &format!("'{{\"id\":\"{prefix}' || (n % {recipients}) || '\"}}'"),
    );
    let message = json(
        engine,
        &format!(
            "'{{\"template_type\":\"text\",\"text\":\"Hello World #' || (n / {recipients} + 1) || '\"}}'"
        ),
    );
    let numbers = numbers(engine, jobs);
    sql.run(&format!(
        "insert into send_jobs (page_id, recipient, message) \
         select {page}, {recipient}, {message} from {numbers}"
    ))
    .await
}

/// `jobs` delivered jobs of as many recipients, and the attempt of each.
async fn finished(sql: &mut Sql, jobs: usize, days: u32) -> Result<()> {
    let engine = engine(sql);
    let recipient = json(engine, "'{\"id\":\"h' || n || '\"}'");
    let message = json(
        engine,
        "'{\"template_type\":\"text\",\"text\":\"Hello World #1\"}'",
    );
    let then = match engine {
        Engine::Sqlite => format!(
            "cast((julianday('now') - 2440587.5 - {days}) * 86400000 as integer) + n % 3600000"
        ),
        Engine::Postgres => {
            format!("now() - interval '{days} days' + (n % 3600000) * interval '1 millisecond'")
        }
    };
    let triggers = without_triggers(sql).await?;
    let numbers = numbers(engine, jobs);
    sql.run(&format!(
        "insert into send_jobs (page_id, recipient, message, state, attempts, last_status, due_at, \
         created_at, finished_at) \
         select '1', {recipient}, {message}, 'delivered', 1, 200, {then}, {then}, {then} from {numbers}"
    ))
    .await?;
    sql.run(
        "insert into send_attempts (job_id, number, started_at, finished_at, outcome, http_status, \
         rule, worker) \
         select id, 1, created_at, finished_at, 'delivered', 200, 'body.success', 'bench-1-1' \
         from send_jobs where state = 'delivered'",
    )
    .await?;
    for text in triggers {
        sql.run(&text).await?;
    }
    Ok(())
}

/// Takes the triggers of `send_jobs` away; returns what brings them back.
async fn without_triggers(sql: &mut Sql) -> Result<Vec<String>> {
    if engine(sql) == Engine::Postgres {
        sql.run("alter table send_jobs disable trigger user")
            .await?;
        return Ok(vec!["alter table send_jobs enable trigger user".to_owned()]);
    }
    let of = "from sqlite_master where type = 'trigger' and tbl_name = 'send_jobs'";
    let texts = sql.texts(&format!("select sql {of}")).await?;
    for name in sql.texts(&format!("select name {of}")).await? {
        sql.run(&format!("drop trigger {name}")).await?;
    }
    Ok(texts)
}

fn engine(sql: &Sql) -> Engine {
    match sql {
        Sql::Sqlite(_) => Engine::Sqlite,
        Sql::Postgres(_) => Engine::Postgres,
    }
}

/// The numbers from 0 as the column `n`.
fn numbers(engine: Engine, count: usize) -> String {
    match engine {
        Engine::Sqlite => format!(
            "(with recursive g (n) as (select 0 union all select n + 1 from g where n + 1 < {count}) \
             select n from g) as g"
        ),
        Engine::Postgres => format!("generate_series(0, {count} - 1) as g (n)"),
    }
}

fn json(engine: Engine, text: &str) -> String {
    match engine {
        Engine::Sqlite => text.to_owned(),
        Engine::Postgres => format!("({text})::json"),
    }
}
