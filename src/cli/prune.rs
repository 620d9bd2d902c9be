//! `prune`: applies retention now.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::change::{Asking, ask};
use super::out::progress;
use super::{Failure, Globals, Out};
use crate::store::prune::{self, Kind, Place};
use crate::store::{Pool, Use, operate};
use crate::sweep::BITE;

/// Delete finished jobs that are older than retention keeps them
///
/// `postlane run` does this all the time; use this verb to make room now, or to give up more than
/// the configuration does, which it asks about (`--yes` in a script). Only delivered, dead and cancelled jobs are ever deleted.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane prune --dry-run\n  \
    postlane prune\n  \
    postlane prune --delivered 1d --dead 30d --why 'the disk is full' --yes")]
pub struct Prune {
    /// Delete delivered jobs older than this [default: retention.delivered]
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    delivered: Option<Duration>,
    /// Delete dead and cancelled jobs older than this [default: retention.dead]
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    dead: Option<Duration>,
    /// Do not ask. A script that gives up more than the configuration does has to say it
    #[arg(long)]
    yes: bool,
    /// Count, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Prune {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let (config, pool) = globals.open(Use::Write, out).await?;
        let retention = &config.retention;
        let delivered = self.delivered.unwrap_or(retention.delivered);
        let dead = self.dead.unwrap_or(retention.dead);
        let gives_up_more = delivered < retention.delivered || dead < retention.dead;
        if gives_up_more && !self.dry_run && !self.yes {
            let now = pool.now().await?;
            let of = async |kind, age| prune::count(&pool, kind, age, now).await;
            let (delivered, dead) = (
                of(Kind::Delivered, delivered).await?,
                of(Kind::Ended, dead).await?,
            );
            if delivered + dead > 0 {
                let what = format!(
                    "prune would delete {delivered} delivered and {dead} dead or cancelled jobs, for good"
                );
                ask(&what, "yes", out)?;
            }
        }
        let delivered = self.prune(&pool, Kind::Delivered, delivered).await?;
        let ended = self.prune(&pool, Kind::Ended, dead).await?;
        if self.json {
            let dry = self.dry_run;
            out.json(&json!({"delivered": delivered, "dead": ended, "dry_run": dry}))?;
        } else {
            let done = if self.dry_run {
                "would be deleted"
            } else {
                "deleted"
            };
            out.line(format_args!(
                "{delivered} delivered and {ended} dead or cancelled jobs {done}"
            ))?;
        }
        if delivered + ended == 0 {
            return Err(Failure::Nothing(String::new()));
        }
        Ok(())
    }

    /// Deletes, or counts, the jobs of one kind.
    async fn prune(&self, pool: &Pool, kind: Kind, age: Duration) -> Result<u64, Failure> {
        let now = pool.now().await?;
        let there = prune::count(pool, kind, age, now).await?;
        let there = u64::try_from(there).unwrap_or_default();
        if self.dry_run || there == 0 {
            return Ok(there);
        }
        let bar = progress(there, "prune");
        let (mut deleted, mut refused) = (0, None);
        let mut after = Some(Place::default());
        while let Some(place) = after {
            let bite = prune::prune(pool, kind, age, now, place, BITE).await?;
            deleted += bite.pruned;
            bar.inc(bite.pruned);
            refused = bite.refused.or(refused);
            after = bite.next;
        }
        bar.finish_and_clear();
        let what = format!(
            "{} older than {}",
            kind.as_str(),
            humantime::format_duration(age)
        );
        let changed = usize::try_from(deleted).unwrap_or(usize::MAX);
        let mut tx = pool.begin().await?;
        operate::audit(&mut tx, &self.asking.operator(), "prune", &what, changed).await?;
        tx.commit().await?;
        match refused {
            Some((_, error)) => Err(Failure::Failed(format!(
                "{deleted} jobs deleted ({}); of the others the database says: {error}",
                kind.as_str()
            ))),
            None => Ok(deleted),
        }
    }
}
