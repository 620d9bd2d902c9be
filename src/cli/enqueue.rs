//! `enqueue`: requests from a file or a pipe, each validated in full, inserted in one transaction.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::line::{self, LONGEST, Read};
use super::out::{progress, safe};
use super::{Failure, Globals, Out};
use crate::job::JobId;
use crate::store::enqueue::{NewJob, insert};
use crate::store::{Error, Pool, Tx, Use};
use crate::validate::Limits;

/// Validate requests and enqueue the valid ones
///
/// Reads JSON lines: {page_id, recipient, message, tag, delay}, and the columns send_at,
/// expires_at (RFC 3339 or unix milliseconds), ordering_key, idempotency_key, on_ambiguous and
/// metadata. Every line is validated in full first; then the valid ones are inserted in one
/// transaction, and their ids printed. For each invalid line the number, the rule and the place
/// are told, and the exit code is 1. Lines are at most 1 MiB long; blank ones are skipped.
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
        let (valid, invalid) = self.read(out)?;
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
        match invalid {
            0 => Ok(()),
            1 => Err(Failure::Failed("1 line is invalid".to_owned())),
            n => Err(Failure::Failed(format!("{n} lines are invalid"))),
        }
    }

    /// All valid lines, and how many are invalid, which are told.
    fn read(&self, out: &mut Out) -> Result<(Vec<Line>, usize), Failure> {
        if self.file == "-" {
            let stdin = std::io::stdin().lock();
            return lines(stdin, &ProgressBar::hidden(), out);
        }
        let path = Path::new(&self.file);
        let failed = |error| Failure::Failed(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let bar = progress(length, "read");
        let done = lines(file, &bar, out);
        bar.finish_and_clear();
        done
    }
}

fn lines(
    from: impl std::io::Read,
    bar: &ProgressBar,
    out: &mut Out,
) -> Result<(Vec<Line>, usize), Failure> {
    let mut from = BufReader::with_capacity(64 * 1024, from);
    let (limits, mut text) = (Limits::default(), Vec::new());
    let (mut valid, mut invalid, mut number) = (Vec::new(), 0, 0);
    loop {
        number += 1;
        let judged = match line::read(&mut from, &mut text)
            .map_err(|error| Failure::Failed(format!("line {number}: {error}")))?
        {
            Read::End => return Ok((valid, invalid)),
            Read::TooLong(taken) => {
                bar.inc(u64::try_from(taken).unwrap_or_default());
                Err(format!(
                    "request.max_bytes: request: is over {LONGEST} bytes"
                ))
            }
            Read::Line(taken) => {
                bar.inc(u64::try_from(taken).unwrap_or_default());
                if text.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                line::parse(&text, &limits)
            }
        };
        match judged {
            Ok((job, warnings)) => {
                for warning in warnings {
                    let warning = safe(&warning.to_string());
                    bar.suspend(|| out.note(format_args!("line {number}: warning: {warning}")));
                }
                valid.push(Line { number, job });
            }
            Err(why) => {
                invalid += 1;
                bar.suspend(|| out.note(format_args!("line {number}: {}", safe(&why))));
            }
        }
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
