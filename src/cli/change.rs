//! What the verbs share that move jobs from one state to another: choose, move, tell.
//!
//! Ids that were named and not moved are told one by one, with the reason their state gives; of a
//! selector's jobs only the number is told. Whether a move is allowed is decided in the store.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use std::io::{BufRead as _, IsTerminal as _};

use super::choice::{Batch, Batches, Choice};
use super::out::progress;
use super::{Failure, Globals, Out};
use crate::job::{JobId, State};
use crate::store::operate::{Operator, Verb, apply};
use crate::store::select::Chosen;
use crate::store::{Pool, Use};

/// The flags of a verb that changes many jobs.
#[derive(Debug, Args)]
pub struct Change {
    #[command(flatten)]
    pub choice: Choice,
    /// Every job that the verb can change, if nothing else selects
    #[arg(long)]
    pub all: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask. A script that changes more than named ids has to say it
    #[arg(long)]
    pub yes: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub asking: Asking,
}

/// The operator and the reason, for the audit table.
#[derive(Debug, Args)]
pub struct Asking {
    /// Why, for the audit table
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Who asks, for the audit table; else USER@HOST
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
}

impl Asking {
    /// As the store takes it.
    pub fn operator(&self) -> Operator {
        let who = self.who.clone().unwrap_or_else(|| {
            let user = std::env::var("USER")
                .ok()
                .filter(|user| !user.is_empty())
                .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
            let host = rustix::system::uname();
            format!("{user}@{}", host.nodename().to_string_lossy())
        });
        Operator {
            who,
            why: self.why.clone(),
        }
    }
}

/// A verb as it is told to people.
pub struct Rule {
    /// What is done.
    pub verb: Verb,
    /// The states it takes.
    pub takes: &'static [State],
    /// What becomes of a job: `held`.
    pub done: &'static str,
    /// Why a job in another state is left as it is.
    pub refusal: fn(State) -> &'static str,
}

/// What came of it, told as it comes.
pub struct Tally {
    /// Ids were named: each of them is told of.
    pub by_id: bool,
    json: bool,
    dry_run: bool,
    /// Jobs changed.
    pub changed: usize,
    /// Jobs left as they were, by reason.
    left: BTreeMap<String, usize>,
    /// Named ids without a job.
    missing: usize,
}

impl Tally {
    /// Counts and tells a job that is left as it is.
    pub fn leave(&mut self, chosen: Chosen, why: &str, out: &mut Out) -> Result<(), Failure> {
        let Chosen { job, state } = chosen;
        if self.json {
            out.json(&json!({"id": job, "changed": false, "state": state, "why": why}))?;
        } else if self.by_id {
            out.note(format_args!("{job} is {state}: {why}"));
        }
        *self.left.entry(format!("{state}: {why}")).or_default() += 1;
        Ok(())
    }

    /// Counts and tells ids without a job.
    pub fn miss(&mut self, ids: &[JobId], out: &mut Out) {
        for id in ids {
            out.note(format_args!("{id}: no job matches"));
        }
        self.missing += ids.len();
    }

    /// The last words for people, and the exit: every named id must have been changed, or at least
    /// one job of a selector.
    pub fn end(&self, done: &str, out: &mut Out) -> Result<(), Failure> {
        if !self.json {
            self.sum(done, out)?;
        }
        let silent = String::new();
        let left = !self.left.is_empty();
        match (self.changed, left, self.missing) {
            (0, true, _) if self.by_id => Err(Failure::Failed(silent)),
            (0, _, 0) => Err(Failure::Nothing("nothing matched".to_owned())),
            (0, _, _) => Err(Failure::Nothing(silent)),
            _ if self.by_id && (left || self.missing > 0) => Err(Failure::Failed(silent)),
            _ => Ok(()),
        }
    }

    fn sum(&self, done: &str, out: &mut Out) -> Result<(), Failure> {
        if self.changed > 0 {
            let jobs = if self.changed == 1 { "job" } else { "jobs" };
            let would = if self.dry_run { "would be " } else { "" };
            out.line(format_args!("{} {jobs} {would}{done}", self.changed))?;
        }
        if !self.by_id {
            for (why, jobs) in &self.left {
                out.note(format_args!("{jobs} left as they are, {why}"));
            }
        }
        Ok(())
    }
}

impl Change {
    /// What is meant; refuses to guess.
    pub async fn batches(&self, pool: &Pool, default_states: &[State]) -> Result<Batches, Failure> {
        if self.choice.is_empty() && !self.all {
            return Err(Failure::Usage(
                "name ids, select with --state, --page, --lane, --reason, --since, --until, \
                 --enqueued-since or --enqueued-until, or say --all"
                    .to_owned(),
            ));
        }
        let ids = self.choice.ids()?;
        let mut selector = self.choice.selector(pool.now().await?)?;
        if ids.is_none() && selector.states.is_empty() {
            selector.states = default_states.to_vec();
        }
        Batches::new(pool, ids, selector).await
    }

    /// Confirms a change of more than the ids that were named: on a terminal it shows what would be changed
    /// and asks, `--all` wants the word typed; a script says `--yes`.
    pub async fn confirm(
        &self,
        pool: &Pool,
        batches: &Batches,
        what: &str,
        out: &mut Out,
    ) -> Result<(), Failure> {
        if batches.by_id() {
            return Ok(());
        }
        let clock = self.choice.clock(pool.now().await?);
        if let Some(clock) = clock.filter(|_| !self.json) {
            out.note(clock);
        }
        if self.dry_run || self.yes {
            return Ok(());
        }
        let counts = batches.count(pool).await?;
        let total: i64 = counts.iter().map(|(_, jobs)| jobs).sum();
        if total == 0 {
            return Ok(());
        }
        let states: Vec<String> = counts
            .iter()
            .map(|(state, jobs)| format!("{jobs} {state}"))
            .collect();
        let jobs = if total == 1 { "job" } else { "jobs" };
        let is_all = self.choice.is_empty();
        ask(
            &format!("{what} would change {total} {jobs} ({})", states.join(", ")),
            if is_all { "all" } else { "yes" },
            out,
        )
    }

    /// Nothing done yet.
    pub fn tally(&self, by_id: bool) -> Tally {
        Tally {
            by_id,
            json: self.json,
            dry_run: self.dry_run,
            changed: 0,
            left: BTreeMap::new(),
            missing: 0,
        }
    }

    /// Moves what is meant by `rule`, and tells.
    pub async fn run(&self, globals: &Globals, rule: &Rule, out: &mut Out) -> Result<(), Failure> {
        let (_, pool) = globals.open(Use::Write, out).await?;
        let mut batches = self.batches(&pool, rule.takes).await?;
        self.confirm(&pool, &batches, rule.verb.as_str(), out)
            .await?;
        let operator = self.asking.operator();
        let bar = progress(batches.total, rule.verb.as_str());
        let mut tally = self.tally(batches.by_id());
        while let Some(batch) = batches.next(&pool).await? {
            let moved = self.apply(&pool, rule, &batch, &operator).await?;
            bar.inc(batch.jobs());
            bar.suspend(|| self.tell(rule, &batch, &moved, &mut tally, out))?;
        }
        bar.finish_and_clear();
        tally.end(rule.done, out)
    }

    async fn apply(
        &self,
        pool: &Pool,
        rule: &Rule,
        batch: &Batch,
        operator: &Operator,
    ) -> Result<Vec<JobId>, Failure> {
        let takes = batch
            .chosen
            .iter()
            .filter(|c| rule.takes.contains(&c.state));
        let ids: Vec<JobId> = takes.map(|chosen| chosen.job).collect();
        if self.dry_run || ids.is_empty() {
            return Ok(ids);
        }
        Ok(apply(pool, rule.verb, &ids, operator).await?)
    }

    fn tell(
        &self,
        rule: &Rule,
        batch: &Batch,
        moved: &[JobId],
        tally: &mut Tally,
        out: &mut Out,
    ) -> Result<(), Failure> {
        tally.miss(&batch.missing, out);
        for &chosen in &batch.chosen {
            let Chosen { job, state } = chosen;
            if moved.binary_search(&job).is_err() {
                let why = match rule.takes.contains(&state) {
                    // Only a second cancel of a job in flight finds it so without a race.
                    true if state == State::Sending => {
                        "it is marked already and ends after its attempt"
                    }
                    true => "its state changed at this very moment; try again",
                    false => (rule.refusal)(state),
                };
                tally.leave(chosen, why, out)?;
                continue;
            }
            tally.changed += 1;
            let marked = rule.verb == Verb::Cancel && state == State::Sending;
            let would = if self.dry_run { " would be" } else { "" };
            if self.json {
                let becomes = if marked {
                    "sending"
                } else {
                    becomes(rule.verb)
                };
                let mut told = json!({"id": job, "changed": true, "state": becomes, "was": state});
                if self.dry_run {
                    told["changed"] = false.into();
                    told["dry_run"] = true.into();
                }
                out.json(&told)?;
            } else if marked {
                let marked = if self.dry_run { "would be" } else { "is" };
                let text =
                    format!("{job} is being sent: it {marked} marked, and ends after this attempt");
                match tally.by_id {
                    true => out.line(text)?,
                    false => out.note(text),
                }
            } else if tally.by_id {
                out.line(format_args!("{job}{would} {}", rule.done))?;
            }
        }
        Ok(())
    }
}

/// Says what would be done, and goes on only if `word` is typed. Without a terminal it refuses.
pub fn ask(what: &str, word: &str, out: &mut Out) -> Result<(), Failure> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Failure::Usage(format!(
            "{what}: say --yes to do it, or --dry-run to see more"
        )));
    }
    out.note(format_args!("{what}. Type {word} to go on:"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    let answer = answer.trim();
    let means =
        answer.eq_ignore_ascii_case(word) || word == "yes" && answer.eq_ignore_ascii_case("y");
    match means {
        true => Ok(()),
        false => Err(Failure::Failed("nothing was changed".to_owned())),
    }
}

/// The state that a verb leads to.
const fn becomes(verb: Verb) -> &'static str {
    match verb {
        Verb::Hold => "held",
        Verb::Release | Verb::ResolveResend => "queued",
        Verb::Cancel => "cancelled",
        Verb::ResolveDelivered => "delivered",
        Verb::ResolveDead => "dead",
    }
}
