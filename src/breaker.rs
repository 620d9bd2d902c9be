//! When a page or the whole endpoint pauses by itself, and what lets it go on.
//!
//! Pure: told of each judgement and the time. A wrong secret, a wrong URL or an endpoint that is
//! down is not the fault of the jobs that meet it: what is paused waits, uses up no attempts, and is
//! probed with real jobs until an answer says that it is well.
//!
//! * A page pauses by its own history alone: two recipients were refused for its sake, or most of its
//!   attempts over several recipients failed. One bad job never stops a page.
//! * The endpoint pauses when several pages fail and none has passed meanwhile. Even then each page
//!   without a pause of its own sends one job at once ([`Breaker::tries`]): if that fails, the page pauses;
//!   if it passes, the endpoint goes on, and what is left are the pauses of the pages that fail.

mod paused;
#[cfg(test)]
mod simulation;
mod standing;
#[cfg(test)]
mod tests;
mod tries;
mod window;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::clock::BootInstant;
use crate::job::{Lane, Outcome, PageId, PauseWanted};
use crate::judge::Judgement;
use crate::scope::Scope;
use paused::Paused;
use standing::{Endpoint, Standing};
use tries::Budget;
pub use tries::{Tries, breadth, probe_order};

/// Recipients that must have been refused before a page pauses.
const WITNESSES: usize = 2;
/// Most recipients that are told apart for a rule that wants many in a row.
const MOST_WITNESSES: usize = 64;
/// Pages that must fail, with none passing, before it is the endpoint.
const PAGES: usize = 3;
/// Most pages that the pause of the endpoint names.
const NAMED: usize = 8;
/// What has not been seen for this long is forgotten; failures this far apart are not a series.
const FORGOTTEN: Duration = Duration::from_secs(15 * 60);
/// Most pages without a secret that are named in the log; `stats` shows all.
const NAMED_SILENT: usize = 20;
/// How often the forgotten are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// The `[circuit]` part of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Fewest attempts that can pause.
    pub attempts: usize,
    /// Fewest recipients among them.
    pub recipients: usize,
    /// How far back it looks.
    pub window: Duration,
    /// The part of a page's attempts that must fail, 0 to 1.
    pub failing: f64,
    /// From the pause to its first probe; each further wait is twice as long.
    pub probe: Duration,
    /// The longest wait between two probes.
    pub max_probe: Duration,
}

/// What may be to blame for a pause; decides how it is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspect {
    /// The page: its secret, its token, its rate.
    Page,
    /// The people who were refused: each probe asks more of them.
    People,
    /// The endpoint as well: the page is probed at once when that goes on.
    Endpoint,
}

impl Suspect {
    /// As it stands in `send_pauses`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::People => "people",
            Self::Endpoint => "endpoint",
        }
    }
}

/// What should become of a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `scope` (a page or the endpoint) must wait.
    Open {
        /// Which.
        scope: Scope,
        /// The rule that judged the last answer.
        rule: String,
        /// What that answer said.
        why: String,
        /// The first pages that failed, if it is the endpoint.
        pages: Vec<PageId>,
        /// Who may be to blame.
        suspect: Suspect,
        /// Before the first probe.
        wait: Duration,
    },
    /// `scope` is still not well, for another reason.
    Renew {
        /// Which.
        scope: Scope,
        /// The rule that judged the last answer.
        rule: String,
        /// What that answer said.
        why: String,
    },
    /// `scope` is well again.
    Close {
        /// Which.
        scope: Scope,
    },
}

impl Change {
    /// What it changes.
    pub fn scope(&self) -> &Scope {
        match self {
            Self::Open { scope, .. } | Self::Renew { scope, .. } | Self::Close { scope } => scope,
        }
    }
}

/// Watches the judgements of one worker. It sees each delivery.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    hasher: RandomState,
    pages: HashMap<PageId, Standing>,
    endpoint: Endpoint,
    paused: Paused,
    changes: Vec<Change>,
    /// Pages known to have no secret.
    silent: HashSet<PageId>,
    budget: Budget,
    /// How often the endpoint has paused: trials are of one pause.
    epoch: u64,
    swept: Option<BootInstant>,
}

impl Breaker {
    /// One that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            hasher: RandomState::new(),
            pages: HashMap::new(),
            endpoint: Endpoint::default(),
            paused: Paused::default(),
            changes: Vec::new(),
            silent: HashSet::new(),
            budget: Budget::default(),
            epoch: 0,
            swept: None,
        }
    }

    /// How it waits between probes.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes a judgement, and says in it whether the attempt counts towards `max_attempts`. A paused page
    /// never ends a job.
    pub fn saw(
        &mut self,
        now: BootInstant,
        page: &PageId,
        lane: &Lane,
        judgement: &mut Judgement<'_>,
    ) {
        let lane = self.hasher.hash_one(lane);
        self.standing(page).seen = Some(now);
        let alone = judgement.scope != PauseWanted::None && self.refuse(now, page, lane, judgement);
        self.close(now, page, judgement);
        self.watch(now, page, lane, judgement);
        let paused = self.paused.stops(page);
        judgement.counts = !paused && (judgement.counts || alone);
        if paused && judgement.scope != PauseWanted::None && judgement.outcome == Outcome::Refused {
            judgement.outcome = Outcome::Retryable;
        }
    }

    /// Draw it before reading the pauses: what is written after it is newer.
    pub fn ticket(&mut self) -> u64 {
        self.paused.ticket()
    }

    /// What is paused now, of the pages that were looked at, according to the survey that drew `ticket`.
    pub fn set_paused<'s>(
        &mut self,
        now: BootInstant,
        ticket: u64,
        scopes: impl Iterator<Item = &'s Scope>,
        looked_at: impl Fn(&str) -> bool,
    ) {
        let before = self.paused.update(ticket, scopes, looked_at);
        for ended in before.pages.difference(self.paused.pages()) {
            if let Some(standing) = self.pages.get_mut(ended) {
                standing.begin_anew();
            }
        }
        if before.endpoint && !self.paused.endpoint() {
            self.endpoint.begin_anew();
        }
        if !before.endpoint && self.paused.endpoint() {
            self.epoch += 1;
        }
        self.sweep(now);
    }

    /// What must become of the pauses in the database; each is returned once.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// True if there are such changes.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// A change is in the database.
    pub fn written(&mut self, change: &Change) {
        self.paused.written(change.scope());
    }

    /// Changes that could not be written are told again.
    pub fn keep(&mut self, changes: Vec<Change>) {
        self.changes.splice(0..0, changes);
    }

    /// A page, or `default` for all but those that `has_own` names, has another secret: what was
    /// refused before is no longer worth anything.
    pub fn secret_changed(&mut self, page: &str, has_own: impl Fn(&str) -> bool) {
        let means = |other: &str| other == page || page == "default" && !has_own(other);
        let mut ended: Vec<PageId> = self.paused.pages().iter().cloned().collect();
        ended.retain(|other| means(other));
        for (other, standing) in &mut self.pages {
            if means(other) {
                standing.refused.clear();
            }
        }
        for page in ended {
            self.paused.remove(&page);
            self.tell(Change::Close {
                scope: Scope::Page(page),
            });
        }
        self.silent.retain(|other| !means(other));
    }

    /// A page has work and no secret. True if that is new, of the first pages.
    pub fn lacks_secret(&mut self, page: &PageId) -> bool {
        self.silent.len() < NAMED_SILENT
            && !self.silent.contains(page)
            && self.silent.insert(page.clone())
    }

    fn tell(&mut self, change: Change) {
        match &change {
            Change::Open { scope, .. } => self.paused.news(scope, true),
            Change::Close { scope } => self.paused.news(scope, false),
            Change::Renew { .. } => {}
        }
        self.changes.push(change);
    }

    fn standing(&mut self, page: &PageId) -> &mut Standing {
        self.pages.entry(page.clone()).or_default()
    }

    /// A refusal that asks for a pause. True if other jobs pass, so that only this job is at fault.
    fn refuse(
        &mut self,
        now: BootInstant,
        page: &PageId,
        lane: u64,
        judgement: &Judgement<'_>,
    ) -> bool {
        let at_endpoint = judgement.scope == PauseWanted::Endpoint;
        let others_pass = at_endpoint && std::mem::take(&mut self.endpoint.well);
        let wanted = judgement.pause_after.unwrap_or_default() as usize;
        let witnesses = wanted.clamp(WITNESSES, MOST_WITNESSES);
        let Standing { well, refused, .. } = self.standing(page);
        refused.count(now, lane, witnesses);
        if refused.lanes.len() < WITNESSES {
            // Another job has passed since the last refusal.
            let alone = std::mem::take(well) || others_pass;
            return alone && judgement.outcome != Outcome::Throttled;
        }
        if refused.lanes.len() >= witnesses && refused.attempts >= wanted {
            let suspect = match judgement.outcome {
                _ if at_endpoint => Suspect::Endpoint,
                Outcome::Refused => Suspect::People,
                _ => Suspect::Page,
            };
            self.open_page(page, judgement.reason.clone(), suspect, judgement);
        }
        false
    }

    fn open_page(
        &mut self,
        page: &PageId,
        why: String,
        suspect: Suspect,
        judgement: &Judgement<'_>,
    ) {
        if !self.paused.insert(page) {
            return;
        }
        let rule = judgement.rule.to_owned();
        let standing = self.standing(page);
        standing.rule = Some(rule.clone());
        // What comes after the pause is judged by what comes from then on.
        standing.window.clear();
        let wait = judgement.retry_after.unwrap_or_default();
        let wait = match judgement.scope {
            PauseWanted::None => self.settings.probe,
            _ => wait.max(self.settings.probe),
        };
        self.tell(Change::Open {
            scope: Scope::Page(page.clone()),
            rule,
            why,
            pages: Vec::new(),
            suspect,
            wait,
        });
    }

    /// An answer that only a well page, or a well endpoint, gives.
    fn close(&mut self, now: BootInstant, page: &PageId, judgement: &Judgement<'_>) {
        let delivered = judgement.outcome == Outcome::Delivered;
        let judged = delivered
            || judgement.scope != PauseWanted::Endpoint
                && matches!(judgement.outcome, Outcome::Refused | Outcome::Throttled);
        if judged || judgement.scope == PauseWanted::Page {
            self.endpoint.passes(now);
            if self.paused.end_endpoint() {
                let scope = Scope::Endpoint;
                self.tell(Change::Close { scope });
            }
        }
        if delivered
            || judgement.scope == PauseWanted::None && judgement.outcome == Outcome::Refused
        {
            let ended = self.paused.remove(page);
            let standing = self.standing(page);
            standing.passes(now);
            if ended {
                standing.window.clear();
                let scope = Scope::Page(page.clone());
                self.tell(Change::Close { scope });
            }
        }
    }

    /// What failed, whatever it was told: of a page, and of all of them.
    fn watch(&mut self, now: BootInstant, page: &PageId, lane: u64, judgement: &Judgement<'_>) {
        // Failures of a page's own do not count against the endpoint.
        let astray = judgement.scope == PauseWanted::Endpoint;
        let failed = astray
            || match judgement.outcome {
                Outcome::Retryable | Outcome::Ambiguous => judgement.counts,
                outcome => outcome == Outcome::NotSent,
            };
        if self.paused.has(page) {
            // What was on its way when its page paused tells nothing new, unless it fails differently.
            if failed || judgement.scope != PauseWanted::None {
                self.renew(page, judgement);
            }
            return;
        }
        let settings = self.settings.clone();
        let standing = self.standing(page);
        standing.window.count(&settings, now, lane, failed);
        if !failed {
            return;
        }
        standing.failed.count(now, lane, settings.recipients);
        let fails = standing.window.trips(&settings) || standing.fails(&settings, now);
        self.endpoint.fails(&settings, now, page, lane, astray);
        let why = || match astray {
            true => judgement.reason.clone(),
            false => format!("most attempts fail: {}", judgement.reason),
        };
        if fails || self.paused.endpoint() {
            self.open_page(page, why(), Suspect::Endpoint, judgement);
        }
        if self.endpoint.is_down(&settings, now) && self.paused.begin_endpoint() {
            self.epoch += 1;
            let rule = judgement.rule.to_owned();
            self.endpoint.rule = Some(rule.clone());
            let pages = self.endpoint.pages.clone();
            self.tell(Change::Open {
                scope: Scope::Endpoint,
                rule,
                why: why(),
                pages,
                suspect: Suspect::Endpoint,
                wait: settings.probe,
            });
        }
    }

    /// The pause of a page, and with it that of the endpoint, says what the newest answer said.
    fn renew(&mut self, page: &PageId, judgement: &Judgement<'_>) {
        let rule = judgement.rule;
        let standing = self.standing(page);
        if standing.rule.as_deref() == Some(rule) {
            return;
        }
        standing.rule = Some(rule.to_owned());
        let mut scopes = vec![Scope::Page(page.clone())];
        if self.paused.endpoint() && self.endpoint.rule.as_deref() != Some(rule) {
            self.endpoint.rule = Some(rule.to_owned());
            scopes.push(Scope::Endpoint);
        }
        for scope in scopes {
            self.tell(Change::Renew {
                scope,
                rule: rule.to_owned(),
                why: judgement.reason.clone(),
            });
        }
    }

    /// Forgets pages that were not heard of for long.
    fn sweep(&mut self, now: BootInstant) {
        if self.swept.is_some_and(|swept| now.since(swept) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.pages.retain(|_, standing| standing.is_fresh(now));
        if self.pages.capacity() > 1024 && self.pages.capacity() / 4 > self.pages.len() {
            self.pages.shrink_to_fit();
        }
    }
}
