//! `show`: everything about a job: its columns, its attempts, and what it waits for.

use clap::Args;
use comfy_table::Cell;

use super::choice::Choice;
use super::out::safe;
use super::time::{local, span};
use super::view::JobView;
use super::{Failure, Globals, Out};
use crate::clock::Millis;
use crate::config::Config;
use crate::job::JobId;
use crate::store::read::{self, Attempt, Job};
use crate::store::{Pool, Use, workers};
use crate::why::{self, Known, Secret};

/// Show jobs with their attempts and what they wait for: why has it not gone out?
///
/// Messages, metadata and answers are hidden without --show-payload, and recipients but for the lane's name. With --json, one object a
/// line: the columns of send_jobs, waits_for, and attempts_log with the columns of send_attempts.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane show 12\n  \
    postlane show 12 13 --show-payload\n  \
    postlane list --state dead --json | postlane show - --json | jq '.attempts_log[-1]'")]
pub struct Show {
    /// Ids of jobs, or - to read them from standard input
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Show messages, recipients, metadata and answers
    #[arg(long)]
    show_payload: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Show {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let (config, pool) = globals.open(Use::Read, out).await?;
        let ids = Choice::of(&self.ids).ids()?.unwrap_or_default();
        let (mut shown, mut missing) = (0, 0);
        for id in ids {
            if out.is_gone() {
                break;
            }
            if self.one(&config, &pool, id, out).await? {
                shown += 1;
            } else {
                missing += 1;
                out.note(format_args!("{id}: no such job"));
            }
        }
        match (shown, missing) {
            (0, 0) => Err(Failure::Nothing("no ids came".to_owned())),
            (0, _) => Err(Failure::Nothing(String::new())),
            (_, 0) => Ok(()),
            _ => Err(Failure::Failed(String::new())),
        }
    }

    async fn one(
        &self,
        config: &Config,
        pool: &Pool,
        id: JobId,
        out: &mut Out,
    ) -> Result<bool, Failure> {
        let Some(job) = read::find(pool, id).await? else {
            return Ok(false);
        };
        let attempts = read::attempts(pool, id, i64::MAX).await?;
        let ahead = read::ahead(pool, &job).await?;
        let now = pool.now().await?;
        let known = Known {
            max_attempts: config.retry.max_attempts,
            after_unknown: config.lanes.after_unknown,
            secret: match config.names_secret(&job.page_id) {
                true => Secret::There,
                false => Secret::NotHere,
            },
            worker: workers::seen(pool).await?,
            now,
            at: &|at| local(at, now),
        };
        let waits_for: Vec<String> = why::reasons(&job, &ahead, &known)
            .iter()
            .map(|reason| safe(reason))
            .collect();
        if self.json {
            let view = JobView::new(&job, self.show_payload);
            out.json(&view.with(&attempts, waits_for, self.show_payload))?;
            return Ok(true);
        }
        self.columns(&job, now, out)?;
        self.timeline(&attempts, now, out)?;
        if let Some(late) = why::late(&job, &attempts) {
            out.line(format_args!("\n{late}"))?;
        }
        if !waits_for.is_empty() {
            out.line("\nwaits")?;
            for reason in waits_for {
                out.line(format_args!("  {reason}"))?;
            }
        }
        out.line("")?;
        Ok(true)
    }

    fn columns(&self, job: &Job, now: Millis, out: &mut Out) -> Result<(), Failure> {
        let mut table = out.new_table(&["job", &job.id.to_string()]);
        let hidden = || "hidden; --show-payload shows it".to_owned();
        // A line of their own name, kind and value of the recipient; a key of the producer's does not.
        let recipient = match (&job.ordering_key, self.show_payload) {
            (None, false) => "in the lane's name; --show-payload shows all of it".to_owned(),
            (Some(_), false) => hidden(),
            (_, true) => safe(&job.recipient),
        };
        let text = |text: &Option<String>| text.as_deref().map(safe);
        let at = |at: Option<Millis>| at.map(|at| local(at, now));
        let payload = |text: &str| {
            if self.show_payload {
                safe(text)
            } else {
                hidden()
            }
        };
        let rows = [
            ("reason", text(&job.reason)),
            ("lane", Some(safe(&job.lane))),
            ("page_id", Some(safe(&job.page_id))),
            ("recipient", Some(recipient)),
            ("message", Some(payload(&job.message))),
            ("tag", text(&job.tag)),
            ("delay", (job.delay > 0).then(|| format!("{}s", job.delay))),
            ("send_at", at(job.send_at)),
            ("expires_at", at(job.expires_at)),
            ("ordering_key", text(&job.ordering_key)),
            ("idempotency_key", text(&job.idempotency_key)),
            ("on_ambiguous", text(&job.on_ambiguous)),
            ("metadata", job.metadata.as_deref().map(payload)),
            ("attempts", Some(job.attempts.to_string())),
            ("failures", Some(job.failures.to_string())),
            (
                "possible_duplicate",
                job.possible_duplicate.then(|| "yes".to_owned()),
            ),
            ("requeued_from", job.requeued_from.map(|id| id.to_string())),
            (
                "last_status",
                job.last_status.map(|status| status.to_string()),
            ),
            ("last_rule", job.last_rule.clone()),
            ("created_at", at(Some(job.created_at))),
            ("due_at", at(Some(job.due_at))),
            ("finished_at", at(job.finished_at)),
        ];
        table.add_row([Cell::new("state"), out.word(&job.state)]);
        for (name, value) in rows {
            if let Some(value) = value {
                table.add_row([name.to_owned(), value]);
            }
        }
        Ok(out.table(&table)?)
    }

    fn timeline(&self, attempts: &[Attempt], now: Millis, out: &mut Out) -> Result<(), Failure> {
        if attempts.is_empty() {
            return Ok(out.line("\nno attempts yet")?);
        }
        let mut headings = vec![
            "ATTEMPT", "STARTED", "TOOK", "OUTCOME", "STATUS", "RULE", "WORKER", "ERROR",
        ];
        if self.show_payload {
            headings.push("RESPONSE");
        }
        let mut table = out.new_table(&headings);
        let text = |text: &Option<String>| Cell::new(text.as_deref().map(safe).unwrap_or_default());
        for attempt in attempts {
            let took = attempt.finished_at.map(|at| span(at - attempt.started_at));
            let mut cells = vec![
                Cell::new(attempt.number),
                Cell::new(local(attempt.started_at, now)),
                Cell::new(took.unwrap_or_else(|| "runs".to_owned())),
                out.word(attempt.outcome.as_deref().unwrap_or("–")),
                Cell::new(attempt.http_status.map_or(String::new(), |s| s.to_string())),
                text(&attempt.rule),
                Cell::new(safe(&attempt.worker)),
                text(&attempt.error),
            ];
            if self.show_payload {
                cells.push(text(&attempt.response));
            }
            table.add_row(cells);
        }
        out.line("")?;
        Ok(out.table(&table)?)
    }
}
