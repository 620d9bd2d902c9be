//! `list`: jobs, newest first.

use clap::Args;

use super::choice::Choice;
use super::out::safe;
use super::time::local;
use super::view::JobView;
use super::{Failure, Globals, Out};
use crate::store::read::{self, Job};
use crate::store::{Pool, Use};

/// List jobs, newest first
///
/// Messages, recipients and metadata are hidden without --show-payload; the lane, which names the
/// recipient, is shown. With --json, one
/// object a line with the column names of send_jobs; times are in UTC. --since and --until ask when a
/// job came into the state it is in; --enqueued-since and --enqueued-until when it was enqueued.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane list\n  \
    postlane list --state dead,unknown --since 2h\n  \
    postlane list --page 12345 --reason 'HTTP 403' --all-rows --json | jq .id")]
pub struct List {
    #[command(flatten)]
    choice: Choice,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Without a limit
    #[arg(long, conflicts_with = "limit")]
    all_rows: bool,
    /// Show messages and recipients, with --json also metadata
    #[arg(long)]
    show_payload: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Rows read, and shown in one table, at a time.
const PAGE: u64 = 500;

impl List {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let (_, pool) = globals.open(Use::Read, out).await?;
        let ids = self.choice.ids()?;
        let now = pool.now().await?;
        let chosen = self.choice.selector(now)?;
        let clock = self.choice.clock(now).filter(|_| !self.json);
        if let Some(clock) = &clock {
            out.note(clock);
        }
        let mut left = if self.all_rows { u64::MAX } else { self.limit };
        let mut shown = 0;
        // Named ids go as parameters, which are limited; newest first all the same.
        let named = ids.map(|ids| {
            ids.rchunks(super::choice::BATCH)
                .map(<[_]>::to_vec)
                .collect()
        });
        for ids in named.unwrap_or_else(|| vec![Vec::new()]) {
            let mut selector = chosen.clone();
            selector.ids = ids;
            let mut before = None;
            while left > 0 && !out.is_gone() {
                let limit = i64::try_from(left.min(PAGE)).unwrap_or(i64::MAX);
                let jobs = read::list(&pool, &selector, before, limit).await?;
                let Some(last) = jobs.last() else { break };
                before = Some(last.id);
                let rows = u64::try_from(jobs.len()).unwrap_or_default();
                (left, shown) = (left - rows, shown + rows);
                self.show(&pool, &jobs, out).await?;
            }
        }
        if shown == 0 {
            return Err(Failure::Nothing(match self.json {
                true => String::new(),
                false => "no job matches".to_owned(),
            }));
        }
        if left == 0 && !self.all_rows && !self.json && shown == self.limit {
            out.note(format_args!(
                "{shown} shown; more with --limit N or --all-rows"
            ));
        }
        Ok(())
    }

    async fn show(&self, pool: &Pool, jobs: &[Job], out: &mut Out) -> Result<(), Failure> {
        if self.json {
            for job in jobs {
                out.json(&JobView::new(job, self.show_payload))?;
            }
            return Ok(());
        }
        let now = pool.now().await?;
        let mut headings = vec!["ID", "STATE", "LANE", "TRIES", "ENQUEUED", "REASON"];
        if self.show_payload {
            headings.extend(["RECIPIENT", "MESSAGE"]);
        }
        let mut table = out.new_table(&headings);
        for job in jobs {
            let mut cells = vec![
                job.id.to_string().into(),
                out.word(&job.state),
                safe(&job.lane).into(),
                job.attempts.to_string().into(),
                local(job.created_at, now).into(),
                safe(job.reason.as_deref().unwrap_or_default()).into(),
            ];
            if self.show_payload {
                cells.extend([safe(&job.recipient).into(), safe(&job.message).into()]);
            }
            table.add_row(cells);
        }
        Ok(out.table(&table)?)
    }
}
