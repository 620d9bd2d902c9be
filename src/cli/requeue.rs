//! `requeue`: sends finished jobs again, as new rows at the ends of their lanes.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use super::change::{Change, Tally};
use super::choice::Batch;
use super::out::progress;
use super::{Failure, Globals, Out};
use crate::job::{JobId, State};
use crate::store::operate::{Requeued, requeue};
use crate::store::select::requeued;
use crate::store::{Pool, Use};

/// Send dead, cancelled or delivered jobs again
///
/// Each becomes a new job at the end of its lane, with fresh attempts and without delay, send_at,
/// expires_at and idempotency_key; the old one stays as it ended. Delivered jobs go only by id or
/// with --state delivered. Jobs that were requeued before are skipped without --again.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane requeue 12 13\n  \
    postlane requeue --state dead --reason 'HTTP 403' --since 2h --why 'token renewed' --dry-run\n  \
    postlane list --state dead --json | postlane requeue -")]
pub struct Requeue {
    #[command(flatten)]
    change: Change,
    /// Also those that were requeued before
    #[arg(long)]
    again: bool,
}

const TAKES: [State; 3] = [State::Dead, State::Cancelled, State::Delivered];

impl Requeue {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let (_, pool) = globals.open(Use::Write, out).await?;
        let default = [State::Dead, State::Cancelled];
        let mut batches = self.change.batches(&pool, &default).await?;
        self.change.confirm(&pool, &batches, "requeue", out).await?;
        let operator = self.change.asking.operator();
        let bar = progress(batches.total, "requeue");
        let mut tally = self.change.tally(batches.by_id());
        while let Some(batch) = batches.next(&pool).await? {
            let (goes, before) = self.sort(&pool, &batch).await?;
            let new = match self.change.dry_run || goes.is_empty() {
                true => Vec::new(),
                false => requeue(&pool, &goes, self.again, &operator).await?,
            };
            bar.inc(batch.jobs());
            bar.suspend(|| -> Result<(), Failure> {
                tally.miss(&batch.missing, out);
                self.tell_left(&batch, &goes, &before, &mut tally, out)?;
                self.tell_new(&goes, &new, &mut tally, out)
            })?;
        }
        bar.finish_and_clear();
        tally.end("requeued", out)
    }

    /// Those that go, and those that went before with their copies.
    async fn sort(
        &self,
        pool: &Pool,
        batch: &Batch,
    ) -> Result<(Vec<JobId>, BTreeMap<JobId, JobId>), Failure> {
        let over = batch.chosen.iter().filter(|c| TAKES.contains(&c.state));
        let over: Vec<JobId> = over.map(|chosen| chosen.job).collect();
        let before: BTreeMap<JobId, JobId> = match self.again || over.is_empty() {
            true => BTreeMap::new(),
            false => requeued(pool, &over).await?.into_iter().collect(),
        };
        let goes = over.into_iter().filter(|job| !before.contains_key(job));
        Ok((goes.collect(), before))
    }

    fn tell_left(
        &self,
        batch: &Batch,
        goes: &[JobId],
        before: &BTreeMap<JobId, JobId>,
        tally: &mut Tally,
        out: &mut Out,
    ) -> Result<(), Failure> {
        for &chosen in &batch.chosen {
            if goes.binary_search(&chosen.job).is_ok() {
                continue;
            }
            if let Some(copy) = before.get(&chosen.job).filter(|_| tally.by_id) {
                let why = format!("it was requeued as {copy} already; --again does it once more");
                tally.leave(chosen, &why, out)?;
                continue;
            }
            let why = match chosen.state {
                State::Dead | State::Cancelled | State::Delivered => {
                    "requeued already; --again does it once more"
                }
                State::Unknown => "`postlane resolve --resend` sends it again",
                State::Held => "`postlane release` puts it back",
                State::Queued | State::Sending => "it is not over yet",
            };
            tally.leave(chosen, why, out)?;
        }
        Ok(())
    }

    fn tell_new(
        &self,
        goes: &[JobId],
        new: &[Requeued],
        tally: &mut Tally,
        out: &mut Out,
    ) -> Result<(), Failure> {
        if self.change.dry_run {
            tally.changed += goes.len();
            for job in goes {
                match self.change.json {
                    true => out.json(&json!({"id": null, "requeued_from": job}))?,
                    false => out.line(format_args!("{job} would be requeued"))?,
                }
            }
            return Ok(());
        }
        tally.changed += new.len();
        for Requeued { id, requeued_from } in new {
            match self.change.json {
                true => out.json(&json!({"id": id, "requeued_from": requeued_from}))?,
                false => out.line(format_args!("{requeued_from} → {id}"))?,
            }
        }
        Ok(())
    }
}
