//! What a ledger looks at before a cycle: the clock, what is paused, and which pages have work.
//!
//! A survey costs what it returns, not what there is. It walks over some pages by name, from where the last walk
//! ended, and looks at those that it is asked for and at those of new jobs.

use std::collections::HashMap;

use super::{Dialect, Pool, Result};
use crate::clock::Millis;
use crate::job::{JobId, PageId};
use crate::scope::{Pause, Scope};

/// Most pages that one survey walks over.
pub const WALK: usize = 128;

/// What is asked of a survey.
#[derive(Debug, Clone)]
pub struct Question {
    /// The walk goes on behind this page; empty at its beginning.
    pub from: PageId,
    /// Most pages that it walks over.
    pub walk: usize,
    /// Jobs behind this one are new.
    pub newer_than: JobId,
    /// Further pages to look at, and from where.
    pub pages: Vec<(PageId, From)>,
}

/// From where to look at a page: what is before was there once, and is gone. While a transaction is open anywhere,
/// Postgres keeps what was deleted, and a look from the front passes over all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct From {
    /// Its marks up to this one were taken.
    pub mark: i64,
    /// None of its lanes was due before.
    pub due: Millis,
}

impl Question {
    /// A walk alone.
    pub fn walk(from: &PageId) -> Self {
        Self {
            from: from.clone(),
            walk: WALK,
            newer_than: JobId::MAX,
            pages: Vec::new(),
        }
    }
}

/// A page that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The page.
    pub page: PageId,
    /// When the first of its lanes may be touched; none if it has no lane that waits for a time.
    pub due: Option<Millis>,
    /// It has marks.
    pub has_marks: bool,
    /// It has a job that is new.
    pub is_new: bool,
}

impl Page {
    /// True if it has something to do, now or later.
    pub fn has_work(&self) -> bool {
        self.due.is_some() || self.has_marks
    }
}

/// What a survey saw.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The database's clock.
    pub now: Millis,
    /// What is paused: everything, the endpoint, and pages that were looked at.
    pub pauses: HashMap<Scope, Pause>,
    /// Pages that were looked at.
    pub pages: Vec<Page>,
    /// The last page that the walk has seen; none if it has come to the end.
    pub walked_to: Option<PageId>,
    /// When the next `send_at` comes.
    pub timer: Option<Millis>,
    /// The newest job.
    pub newest: JobId,
    /// There are more new jobs behind this one than were looked at.
    pub more_behind: Option<JobId>,
    /// The breaker's ticket, drawn before the survey was read.
    pub ticket: u64,
}

/// Reads the clock, the pauses, and which pages have work.
pub async fn survey(pool: &Pool, question: &Question) -> Result<Survey> {
    let text = match pool.dialect() {
        Dialect::Postgres => include_str!("postgres/survey.sql"),
        Dialect::Sqlite => include_str!("sqlite/survey.sql"),
    };
    let walk = i64::try_from(question.walk).unwrap_or(i64::MAX);
    let binds = [
        (&question.from).into(),
        walk.into(),
        question.newer_than.into(),
    ];
    // A page that is none: the list is never empty.
    let none = (PageId::default(), From::default());
    let pages = question.pages.iter().chain([&none]);
    let row = |(page, from): &(PageId, From)| [page.into(), from.mark.into(), from.due.into()];
    let pages: Vec<_> = pages.map(row).collect();
    let mut survey = Survey::default();
    let mut ends: Vec<PageId> = Vec::new();
    for row in pool.batch(text, &binds, pages.into_iter()).await? {
        let (kind, name, at) = (row.str(0)?, row.str(1)?, row.int_opt(2)?);
        let pause = row.int_opt(4)?.map(|probe_at| match probe_at {
            0.. => Pause::Worker { probe_at },
            _ => Pause::Operator,
        });
        match kind.as_ref() {
            "now" => survey.now = row.int(2)?,
            "timer" => survey.timer = at,
            "more" => survey.more_behind = at.map(JobId),
            "newest" => survey.newest = JobId(at.unwrap_or_default()),
            // Where one of the walks has come to its end, the other says how far both are.
            "lanes" | "marks" => ends.extend((!name.is_empty()).then(|| PageId::from(&*name))),
            "pause" => {
                let scope = row.scope(1)?;
                survey.pauses.extend(pause.map(|pause| (scope, pause)));
            }
            _ => {
                let page = PageId::from(name);
                if let Some(pause) = pause {
                    survey.pauses.insert(Scope::Page(page.clone()), pause);
                }
                survey.pages.push(Page {
                    page,
                    due: at,
                    has_marks: row.int_opt(3)?.is_some(),
                    is_new: row.flag(5)?,
                });
            }
        }
    }
    survey.pages.retain(|page| !page.page.is_empty());
    survey.walked_to = ends.into_iter().min();
    Ok(survey)
}
