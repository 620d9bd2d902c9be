//! Which jobs are meant: ids from arguments or standard input, or a selector, in batches.
//!
//! "No ids came" and "no ids were asked for" are kept apart: an empty pipe must never mean every
//! job there is.

use std::io::{IsTerminal as _, Read as _};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::Failure;
use super::time::{Moment, local};
use crate::clock::Millis;
use crate::job::{JobId, State};
use crate::store::select::{Chosen, Selector, choose, count};
use crate::store::{Pool, read};

/// Jobs looked at, and changed, at a time.
pub const BATCH: usize = 1_000;

/// The heading of a selector's flags.
const WHICH: &str = "Which jobs";

/// What selects jobs; every part that is given must hold.
#[derive(Debug, Clone, Default, Args)]
pub struct Choice {
    /// Ids of jobs, or - to read them from standard input: separated by blanks, or JSON lines with
    /// an "id"
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// In this state; may be repeated, or several with commas
    #[arg(long, help_heading = WHICH, value_name = "STATE", value_delimiter = ',', value_parser = states())]
    pub state: Vec<State>,
    /// Of this page
    #[arg(long, help_heading = WHICH, value_name = "PAGE")]
    page: Option<String>,
    /// Of this lane, for example 12345/id:777
    #[arg(long, help_heading = WHICH, value_name = "LANE")]
    lane: Option<String>,
    /// Whose reason contains this text
    #[arg(long, help_heading = WHICH, value_name = "TEXT")]
    reason: Option<String>,
    /// In its state since: ended, held or unknown at or after an age (2h, 3d), a local date or an RFC
    /// 3339 time; what waits is in its state since it was enqueued
    #[arg(long, help_heading = WHICH, value_name = "WHEN")]
    since: Option<Moment>,
    /// In its state since before this
    #[arg(long, help_heading = WHICH, value_name = "WHEN")]
    until: Option<Moment>,
    /// Enqueued at or after
    #[arg(long, help_heading = WHICH, value_name = "WHEN")]
    enqueued_since: Option<Moment>,
    /// Enqueued before
    #[arg(long, help_heading = WHICH, value_name = "WHEN")]
    enqueued_until: Option<Moment>,
}

/// The words of the states.
fn states() -> impl TypedValueParser<Value = State> {
    PossibleValuesParser::new(State::ALL.iter().map(|state| state.as_str()))
        .try_map(|word| word.parse::<State>())
}

impl Choice {
    /// These words as ids, and nothing else.
    pub fn of(ids: &[String]) -> Self {
        Self {
            ids: ids.to_vec(),
            ..Self::default()
        }
    }

    /// The ids that were named, once each; none if no ids were asked for. Reads standard input
    /// for `-`.
    pub fn ids(&self) -> Result<Option<Vec<JobId>>, Failure> {
        if self.ids.is_empty() {
            return Ok(None);
        }
        let mut ids = Vec::new();
        for word in &self.ids {
            if word == "-" {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
                for line in text.lines() {
                    read_ids(line, &mut ids)?;
                }
            } else {
                ids.push(id(word)?);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(Some(ids))
    }

    /// The selector without its ids.
    ///
    /// # Errors
    /// A page or a lane that cannot be one: it would match nothing, and look like good news.
    pub fn selector(&self, now: Millis) -> Result<Selector, Failure> {
        if let Some(page) = &self.page {
            check_page(page)?;
        }
        if let Some(lane) = &self.lane {
            check_lane(lane)?;
        }
        Ok(Selector {
            ids: Vec::new(),
            states: self.state.clone(),
            page: self.page.clone(),
            lane: self.lane.clone(),
            reason: self.reason.clone(),
            since: self.since.map(|moment| moment.resolve(now)),
            until: self.until.map(|moment| moment.resolve(now)),
            enqueued_since: self.enqueued_since.map(|moment| moment.resolve(now)),
            enqueued_until: self.enqueued_until.map(|moment| moment.resolve(now)),
        })
    }

    /// Which clock was asked, and for what, in words; none if none was.
    pub fn clock(&self, now: Millis) -> Option<String> {
        let mut words = Vec::new();
        for (what, moment) in [
            ("came into their state at or after", self.since),
            ("came into their state before", self.until),
            ("were enqueued at or after", self.enqueued_since),
            ("were enqueued before", self.enqueued_until),
        ] {
            words.extend(moment.map(|at| format!("{what} {}", local(at.resolve(now), now))));
        }
        (!words.is_empty()).then(|| format!("jobs that {}", words.join(" and ")))
    }

    /// True if neither ids nor a selector are given.
    pub fn is_empty(&self) -> bool {
        let Self {
            ids,
            state,
            page,
            lane,
            reason,
            since,
            until,
            enqueued_since,
            enqueued_until,
        } = self;
        let moments = [since, until, enqueued_since, enqueued_until];
        let texts = [page, lane, reason];
        ids.is_empty()
            && state.is_empty()
            && moments.iter().all(|moment| moment.is_none())
            && texts.iter().all(|text| text.is_none())
    }
}

/// Refuses what is not a page's id.
pub fn check_page(page: &str) -> Result<(), Failure> {
    match is_page(page) {
        true => Ok(()),
        false => Err(Failure::Usage(format!("{page:?} is not the id of a page"))),
    }
}

/// Refuses what is not a lane.
pub fn check_lane(lane: &str) -> Result<(), Failure> {
    match lane.split_once('/') {
        Some((page, key)) if is_page(page) && key.contains(':') => Ok(()),
        _ => Err(Failure::Usage(format!(
            "{lane:?} is not a lane: they look like 12345/id:777 or 12345/key:ORDER"
        ))),
    }
}

fn is_page(page: &str) -> bool {
    !page.is_empty() && !page.starts_with('0') && page.bytes().all(|b| b.is_ascii_digit())
}

fn id(word: &str) -> Result<JobId, Failure> {
    word.parse().map_err(|_| {
        let shown: String = word.chars().take(40).collect();
        Failure::Usage(format!("{shown:?} is not the id of a job"))
    })
}

/// The ids in a line: blank-separated, or one JSON object with an `id`.
fn read_ids(line: &str, ids: &mut Vec<JobId>) -> Result<(), Failure> {
    if !line.trim_start().starts_with('{') {
        for word in line.split_whitespace() {
            ids.push(id(word)?);
        }
        return Ok(());
    }
    let row: serde_json::Value = serde_json::from_str(line)
        .map_err(|error| Failure::Usage(format!("standard input: not JSON: {error}")))?;
    match row.get("id") {
        Some(serde_json::Value::String(word)) => ids.push(id(word)?),
        Some(number) => ids.push(id(&number.to_string())?),
        None => {
            return Err(Failure::Usage(
                "standard input: a JSON line without \"id\"".into(),
            ));
        }
    }
    Ok(())
}

/// Some of the jobs that are meant.
pub struct Batch {
    /// Ids that were named and that no job matches.
    pub missing: Vec<JobId>,
    /// Those that match, in the order of ids.
    pub chosen: Vec<Chosen>,
}

impl Batch {
    /// How many, for a progress bar.
    pub fn jobs(&self) -> u64 {
        u64::try_from(self.chosen.len() + self.missing.len()).unwrap_or_default()
    }
}

/// All that is meant, a batch at a time. What is enqueued meanwhile is not meant.
pub struct Batches {
    selector: Selector,
    named: Option<std::vec::IntoIter<JobId>>,
    after: JobId,
    last: JobId,
    /// About how many there are, for a progress bar; 0 where none is shown.
    pub total: u64,
}

impl Batches {
    /// Looks how far what is meant goes.
    pub async fn new(
        pool: &Pool,
        named: Option<Vec<JobId>>,
        selector: Selector,
    ) -> Result<Self, Failure> {
        let (mut last, mut total) = (JobId::MAX, 0);
        if let Some(ids) = &named {
            total = u64::try_from(ids.len()).unwrap_or_default();
        } else {
            let newest = read::list(pool, &Selector::default(), None, 1).await?;
            last = newest.first().map_or(JobId::default(), |job| job.id);
            // Only a progress bar needs to know, and counting reads them all.
            if std::io::stderr().is_terminal() {
                for (_, jobs) in count(pool, &selector).await? {
                    total += u64::try_from(jobs).unwrap_or_default();
                }
            }
        }
        Ok(Self {
            selector,
            named: named.map(Vec::into_iter),
            after: JobId::default(),
            last,
            total,
        })
    }

    /// How many jobs of each state are meant, where no ids were named.
    pub async fn count(&self, pool: &Pool) -> Result<Vec<(State, i64)>, Failure> {
        Ok(count(pool, &self.selector).await?)
    }

    /// True if ids were named.
    pub fn by_id(&self) -> bool {
        self.named.is_some()
    }

    /// The next batch; none at the end.
    pub async fn next(&mut self, pool: &Pool) -> Result<Option<Batch>, Failure> {
        let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
        if let Some(named) = &mut self.named {
            let ids: Vec<JobId> = named.take(BATCH).collect();
            if ids.is_empty() {
                return Ok(None);
            }
            let selector = Selector {
                ids: ids.clone(),
                ..self.selector.clone()
            };
            let chosen = choose(pool, &selector, JobId::MIN, limit).await?;
            let found: Vec<JobId> = chosen.iter().map(|chosen| chosen.job).collect();
            let missing = ids
                .into_iter()
                .filter(|id| found.binary_search(id).is_err())
                .collect();
            return Ok(Some(Batch { missing, chosen }));
        }
        let mut chosen = choose(pool, &self.selector, self.after, limit).await?;
        chosen.retain(|chosen| chosen.job <= self.last);
        let Some(last) = chosen.last() else {
            return Ok(None);
        };
        self.after = last.job;
        Ok(Some(Batch {
            missing: Vec::new(),
            chosen,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_words_and_from_json_lines() {
        let mut ids = Vec::new();
        read_ids("1 2\t3", &mut ids).unwrap();
        read_ids(r#"{"id":4,"state":"dead"}"#, &mut ids).unwrap();
        read_ids(r#" {"id":"5"}"#, &mut ids).unwrap();
        assert_eq!(ids, [1, 2, 3, 4, 5].map(JobId));
        for wrong in ["x", "1.5", r#"{"ID":1}"#, r#"{"id":"x"}"#, "{"] {
            assert!(
                matches!(read_ids(wrong, &mut ids), Err(Failure::Usage(_))),
                "{wrong}"
            );
        }
    }
}
