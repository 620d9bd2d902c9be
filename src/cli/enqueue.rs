//! `enqueue`: requests from a file or a pipe, each validated in full, inserted in one transaction.

use clap::Args;
use postlane_message::validate::Limits;
use serde_json::json;

use super::out::{progress, safe};
use super::{Failure, Globals, Out, line, requests};
use crate::job::JobId;
use crate::store::enqueue::{NewJob, insert};
use crate::store::{Error, Pool, Tx, Use};

/// Validate requests and enqueue the valid ones
///
/// Reads what `check-message` reads, one request a line or a single one on several lines: {page_id, recipient, message, tag, delay}, and the columns send_at,
/// expires_at (RFC 3339 or unix milliseconds), ordering_key, idempotency_key, on_ambiguous and
/// metadata. Every line is validated in full first; then the valid ones are inserted in one
/// transaction, and their ids printed. For each invalid line the number, the rule and the place
/// are told, and the exit code is 1; an input without any request ends with 3. Lines are at most 1 MiB long; blank ones are skipped.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane enqueue requests.jsonl\n  \
    postlane enqueue requests.jsonl --dry-run      needs no database\n  \
    echo '{\"page_id\":12345,\"recipient\":{\"id\":\"777\"},\"message\":{\"template_type\":\"text\",\"text\":\"Hi\"}}' \
    | postlane enqueue -")]
pub struct Enqueue {
    /// The file, or - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
    /// Only validate
    #[arg(long)]
    dry_run: bool,
    /// Ids as JSON lines: {"line":1,"id":7}
    #[arg(long)]
    json: bool,
}

/// Rows of one statement.
const BATCH: usize = 500;

struct Line {
    number: usize,
    job: NewJob,
}

impl Enqueue {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let limits = globals.load()?.message;
        let (valid, invalid) = self.read(&limits, out)?;
        if valid.is_empty() && invalid == 0 {
            return Err(Failure::Nothing("there is nothing to enqueue".to_owned()));
        }
        if self.dry_run {
            out.note(format_args!("{} valid, {invalid} invalid", valid.len()));
        } else if !valid.is_empty() {
            let (_, pool) = globals.open(Use::Write, out).await?;
            let ids = enqueue(&pool, &valid).await?;
            for (line, id) in valid.iter().zip(ids) {
                match self.json {
                    true => out.json(&json!({"line": line.number, "id": id}))?,
                    false => out.line(id)?,
                }
            }
        }
        Failure::of_invalid(invalid)
    }

    /// All valid lines, and how many are invalid, which are told.
    fn read(&self, limits: &Limits, out: &mut Out) -> Result<(Vec<Line>, usize), Failure> {
        let (mut valid, mut invalid) = (Vec::new(), 0);
        let judge = |text: &[u8]| line::parse(text, limits);
        requests::each(&self.file, out, judge, |out, number, judged| {
            match judged {
                Ok((job, warnings)) => {
                    for warning in warnings {
                        let warning = safe(&warning.to_string());
                        out.note(format_args!("line {number}: warning: {warning}"));
                    }
                    valid.push(Line { number, job });
                }
                Err(why) => {
                    invalid += 1;
                    out.note(format_args!("line {number}: {}", safe(&why.to_string())));
                }
            }
            Ok(())
        })?;
        Ok((valid, invalid))
    }
}

/// Inserts all or none.
async fn enqueue(pool: &Pool, lines: &[Line]) -> Result<Vec<JobId>, Failure> {
    let bar = progress(u64::try_from(lines.len()).unwrap_or_default(), "insert");
    let mut tx = pool.begin().await?;
    let mut ids = Vec::with_capacity(lines.len());
    for batch in lines.chunks(BATCH) {
        match put(&mut tx, batch).await {
            Ok(new) => ids.extend(new),
            Err(error) => {
                tx.rollback().await?;
                return Err(blame(pool, lines, ids.len(), error).await);
            }
        }
        bar.inc(u64::try_from(batch.len()).unwrap_or_default());
    }
    tx.commit().await.map_err(|error| {
        Failure::Failed(format!(
            "{error}; whether the jobs were enqueued is not known"
        ))
    })?;
    bar.finish_and_clear();
    Ok(ids)
}

async fn put(tx: &mut Tx, lines: &[Line]) -> Result<Vec<JobId>, Error> {
    let jobs: Vec<NewJob> = lines.iter().map(|line| line.job.clone()).collect();
    insert(tx, &jobs).await
}

/// Finds the line that the database refuses: does all of it again up to there, and nothing stays.
async fn blame(pool: &Pool, lines: &[Line], done: usize, error: Error) -> Failure {
    let unknown = Failure::Failed(format!("{error}; nothing was inserted"));
    let Ok(mut tx) = pool.begin().await else {
        return unknown;
    };
    for batch in lines[..done].chunks(BATCH) {
        if put(&mut tx, batch).await.is_err() {
            return unknown;
        }
    }
    for line in lines[done..].iter().take(BATCH) {
        let Err(error) = put(&mut tx, std::slice::from_ref(line)).await else {
            continue;
        };
        let (number, job) = (line.number, &line.job);
        return Failure::Failed(match &job.idempotency_key {
            Some(key) if error.is_unique_violation() => format!(
                "line {number}: the idempotency_key \"{}\" of page {} is taken; nothing was inserted",
                safe(key),
                job.page_id
            ),
            _ => format!(
                "line {number}: {}; nothing was inserted",
                safe(&error.to_string())
            ),
        });
    }
    unknown
}
