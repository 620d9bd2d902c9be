//! `stats`: how many jobs there are, and what waits.

use clap::Args;
use serde_json::json;

use super::out::safe;
use super::time::{local, span, utc};
use super::{Failure, Globals, Out};
use crate::store::read::{self, Stats as Numbers};
use crate::store::waits::{Cause, Waits, verdict, waits};
use crate::store::{Pool, Use, workers};

/// Count jobs by page and state, and show what waits and what is paused
///
/// The first line says whether anybody has to do something. How long the oldest job has been waiting is
/// told by cause, since it was enqueued or its send_at came. Reads the whole of send_jobs once.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane stats\n  \
    postlane stats --json | jq .oldest_waiting_ms")]
pub struct Stats {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let (config, pool) = globals.open(Use::Read, out).await?;
        let numbers = read::stats(&pool).await?;
        let waits = waits(&pool, |page| config.names_secret(page)).await?;
        let worker = workers::seen(&pool).await?;
        let verdict = verdict(&pool, &waits, worker).await?;
        let waiting = numbers.waiting;
        if self.json {
            let pauses = numbers.pauses.iter().map(|pause| {
                let since = utc(pause.since);
                let probe_at = pause.probe_at.map(utc);
                json!({
                    "scope": pause.scope.to_string(), "since": since, "who": pause.who, "why": pause.why,
                    "rule": pause.rule, "pages": pause.pages, "waiting": pause.waiting,
                    "probe_at": probe_at,
                })
            });
            let oldest: serde_json::Map<_, _> = Cause::ALL
                .iter()
                .map(|cause| {
                    (
                        cause.as_str().to_owned(),
                        waits.oldest.get(cause).copied().into(),
                    )
                })
                .collect();
            return Ok(out.json(&json!({
                "jobs": numbers.jobs,
                "lanes": waiting.lanes,
                "leased": waiting.leased,
                "inbox": waiting.inbox,
                "scheduled": waiting.scheduled,
                "oldest_due_ms": waiting.oldest_due_ms,
                "oldest_waiting_ms": oldest,
                "worker_seen": worker,
                "is_well": verdict.is_well,
                "status": verdict.line,
                "pauses": pauses.collect::<Vec<_>>(),
            }))?);
        }
        let word = if verdict.is_well { "well" } else { "trouble" };
        out.line(format_args!("{word}: {}\n", verdict.line))?;
        self.tell(&pool, &numbers, &waits, out).await
    }

    async fn tell(
        &self,
        pool: &Pool,
        numbers: &Numbers,
        waits: &Waits,
        out: &mut Out,
    ) -> Result<(), Failure> {
        let waiting = numbers.waiting;
        let mut table = out.new_table(&["PAGE", "STATE", "JOBS"]);
        for count in &numbers.jobs {
            table.add_row([
                safe(&count.page_id).into(),
                out.word(&count.state),
                count.jobs.into(),
            ]);
        }
        if numbers.jobs.is_empty() {
            out.line("no jobs")?;
        } else {
            out.table(&table)?;
        }
        out.line(format_args!(
            "\nlanes with undelivered work: {} ({} in hand)\nchanges that no worker has looked at yet: {}\n\
             waiting for their send_at: {}",
            waiting.lanes, waiting.leased, waiting.inbox, waiting.scheduled,
        ))?;
        let oldest: Vec<String> = waits
            .oldest
            .iter()
            .map(|(cause, waited)| format!("{} {}", cause.words(), span(*waited)))
            .collect();
        out.line(format_args!(
            "oldest waiting: {}",
            match oldest.is_empty() {
                true => "none".to_owned(),
                false => oldest.join(", "),
            }
        ))?;
        let now = pool.now().await?;
        for pause in &numbers.pauses {
            let mut words = vec![safe(&pause.evidence())];
            words.extend(pause.next(|at| local(at, now)));
            words.retain(|word| !word.is_empty());
            let colon = if words.is_empty() { "" } else { ": " };
            out.line(format_args!(
                "paused: {} since {} by {}{colon}{}",
                safe(&pause.scope.to_string()),
                local(pause.since, now),
                safe(&pause.who),
                words.join("; ")
            ))?;
        }
        Ok(())
    }
}
