//! When a page or the whole endpoint pauses by itself, and what lets it go on.
//!
//! Pure: told of each judgement and the time. A wrong secret, a wrong URL or an endpoint that is
//! down is no fault of the jobs that meet it: what is paused waits, uses up no attempts, and is
//! probed with one real job until an answer says that it is well.
//!
//! * A page or the endpoint pauses when two recipients in a row were refused that way, with no
//!   success between them: one bad job never stops a page.
//! * The circuit of the endpoint opens when most attempts over several recipients fail in a short
//!   time, whatever the answers say. If all that fail are one page's and others have work, or if most
//!   of one page's fail and others pass, only that page pauses.

mod paused;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::clock::BootInstant;
use crate::job::{Outcome, Scope};
use crate::judge::Judgement;
use paused::Paused;
use window::{Attempt, Window};

/// Recipients that must have been refused before a page or the endpoint pauses.
const WITNESSES: usize = 2;

/// The `[circuit]` part of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Fewest attempts in the window.
    pub attempts: usize,
    /// Fewest recipients in the window.
    pub recipients: usize,
    /// How far back it looks.
    pub window: Duration,
    /// The part of the attempts that must fail, 0 to 1.
    pub failing: f64,
    /// From the pause to its first probe; each further wait is twice as long.
    pub probe: Duration,
    /// The longest wait between two probes.
    pub max_probe: Duration,
}

/// What should become of a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `scope` (`page:ID` or `endpoint`) must wait.
    Open {
        /// As it stands in `send_pauses`.
        scope: String,
        /// What the answer said.
        why: String,
        /// Before the first probe.
        wait: Duration,
    },
    /// `scope` is well again.
    Close {
        /// As it stands in `send_pauses`.
        scope: String,
    },
}

/// The scope of the whole endpoint.
pub const ENDPOINT: &str = "endpoint";

/// The scope of a page.
pub fn page_scope(page: &str) -> String {
    format!("page:{page}")
}

/// A page or the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom<'a> {
    Page(&'a str),
    Endpoint,
}

impl Whom<'_> {
    /// As it stands in `send_pauses`.
    fn scope(self) -> String {
        match self {
            Self::Page(page) => page_scope(page),
            Self::Endpoint => ENDPOINT.to_owned(),
        }
    }
}

/// Watches the judgements of one worker. It sees each delivery.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    hasher: RandomState,
    pages: HashMap<String, Standing>,
    endpoint: Standing,
    paused: Paused,
    window: Window,
    changes: Vec<Change>,
    /// Several pages have work.
    several: bool,
    /// Pages known to have no secret.
    silent: HashSet<String>,
}

/// What was last seen of a page or of the endpoint.
#[derive(Debug, Default)]
struct Standing {
    /// It has answered well since it was last refused.
    well: bool,
    refused: Refusals,
    /// Its attempts (a page's only).
    window: Window,
}

/// Refusals since the last success.
#[derive(Debug, Default)]
struct Refusals {
    judgements: u32,
    /// As many recipients as must be told apart.
    lanes: Vec<u64>,
}

impl Breaker {
    /// One that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            hasher: RandomState::new(),
            pages: HashMap::new(),
            endpoint: Standing::default(),
            paused: Paused::default(),
            window: Window::default(),
            changes: Vec::new(),
            several: false,
            silent: HashSet::new(),
        }
    }

    /// How it waits between probes.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes a judgement, and says in it whether the attempt counts towards `max_attempts`. What is
    /// paused kills no job.
    pub fn saw(&mut self, now: BootInstant, page: &str, lane: &str, judgement: &mut Judgement<'_>) {
        let lane = self.hasher.hash_one(lane);
        let alone = match judgement.scope {
            Scope::None => false,
            Scope::Page => self.refuse(Whom::Page(page), lane, judgement),
            Scope::Endpoint => self.refuse(Whom::Endpoint, lane, judgement),
        };
        self.close(page, judgement);
        self.watch(now, page, lane, judgement);
        let paused = self.paused.stops(page);
        judgement.counts = !paused && (judgement.counts || alone);
        if paused && judgement.scope != Scope::None && judgement.outcome == Outcome::Refused {
            judgement.outcome = Outcome::Retryable;
        }
    }

    /// What is paused now, as the database says.
    pub fn set_paused<'s>(&mut self, scopes: impl Iterator<Item = &'s String>) {
        let mut paused = Paused::default();
        for scope in scopes {
            paused.set(scope, true);
        }
        // What the senders saw since the last changes were written.
        for change in &self.changes {
            match change {
                Change::Open { scope, .. } => paused.set(scope, true),
                Change::Close { scope } => paused.set(scope, false),
            }
        }
        for ended in self.paused.pages().difference(paused.pages()) {
            if let Some(standing) = self.pages.get_mut(ended) {
                standing.refused = Refusals::default();
            }
        }
        if self.paused.endpoint() && !paused.endpoint() {
            self.endpoint.refused = Refusals::default();
            self.window.clear();
        }
        self.paused = paused;
    }

    /// Whether several pages have work.
    pub fn set_several(&mut self, several: bool) {
        self.several = several;
    }

    /// What must become of the pauses in the database; each is told once.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// A change that could not be written is told again.
    pub fn keep(&mut self, changes: Vec<Change>) {
        self.changes.splice(0..0, changes);
    }

    /// A page, or `default` for all but those that `has_own` names, has another secret: what was
    /// refused before is no longer worth anything.
    pub fn secret_changed(&mut self, page: &str, has_own: impl Fn(&str) -> bool) {
        let means = |other: &str| other == page || page == "default" && !has_own(other);
        for (other, standing) in &mut self.pages {
            if means(other) {
                standing.refused = Refusals::default();
            }
        }
        let paused = self.paused.pages().iter().filter(|other| means(other));
        self.changes.extend(paused.map(|other| Change::Close {
            scope: page_scope(other),
        }));
        self.silent.retain(|other| !means(other));
    }

    /// A page has work and no secret. True if that is new.
    pub fn lacks_secret(&mut self, page: &str) -> bool {
        !self.silent.contains(page) && self.silent.insert(page.to_owned())
    }

    /// A refusal that asks for a pause. True if others pass, so that the job is judged alone.
    fn refuse(&mut self, whom: Whom<'_>, lane: u64, judgement: &Judgement<'_>) -> bool {
        let Standing { well, refused, .. } = self.standing(whom);
        refused.judgements = refused.judgements.saturating_add(1);
        if refused.lanes.len() < WITNESSES && !refused.lanes.contains(&lane) {
            refused.lanes.push(lane);
        }
        if refused.lanes.len() < WITNESSES {
            // Somebody has passed since it was refused last.
            return std::mem::take(well) && judgement.outcome != Outcome::Throttled;
        }
        if refused.judgements >= judgement.pause_after.unwrap_or_default() {
            let wait = judgement.retry_after.unwrap_or_default();
            self.open(whom, &judgement.reason, wait);
        }
        false
    }

    fn standing(&mut self, whom: Whom<'_>) -> &mut Standing {
        match whom {
            Whom::Page(page) => self.pages.entry(page.to_owned()).or_default(),
            Whom::Endpoint => &mut self.endpoint,
        }
    }

    fn open(&mut self, whom: Whom<'_>, why: &str, wait: Duration) {
        if self.paused.insert(whom) {
            self.changes.push(Change::Open {
                scope: whom.scope(),
                why: why.to_owned(),
                wait: wait.max(self.settings.probe),
            });
        }
    }

    /// An answer that only a well page, or a well endpoint, gives.
    fn close(&mut self, page: &str, judgement: &Judgement<'_>) {
        let delivered = judgement.outcome == Outcome::Delivered;
        let judged = delivered
            || judgement.scope != Scope::Endpoint
                && matches!(judgement.outcome, Outcome::Refused | Outcome::Throttled);
        if judged || judgement.scope == Scope::Page {
            self.is_well(Whom::Endpoint);
        }
        if delivered || judgement.scope == Scope::None && judgement.outcome == Outcome::Refused {
            self.is_well(Whom::Page(page));
        }
    }

    fn is_well(&mut self, whom: Whom<'_>) {
        let ended = self.paused.remove(whom);
        let standing = self.standing(whom);
        standing.well = true;
        standing.refused = Refusals::default();
        if ended {
            standing.window.clear();
            if whom == Whom::Endpoint {
                self.window.clear();
            }
            let scope = whom.scope();
            self.changes.push(Change::Close { scope });
        }
    }

    /// The circuit: most attempts of the last seconds failed, whatever they were told.
    fn watch(&mut self, now: BootInstant, page: &str, lane: u64, judgement: &Judgement<'_>) {
        // What was on its way when its page paused is no news.
        if self.paused.stops(page) {
            return;
        }
        // What its page is to blame for is none of the endpoint's.
        let failed = match judgement.outcome {
            Outcome::Retryable | Outcome::Ambiguous => judgement.counts,
            outcome => outcome == Outcome::NotSent,
        };
        let attempt = Attempt {
            page: self.hasher.hash_one(page),
            lane,
            failed,
        };
        self.window.count(&self.settings, now, attempt);
        let own = &mut self.pages.entry(page.to_owned()).or_default().window;
        own.count(&self.settings, now, attempt);
        if !failed {
            return;
        }
        let (page_fails, all_fail) = (own.trips(&self.settings), self.window.trips(&self.settings));
        let others_pass = self.window.passes_others(attempt.page);
        let only_page = self.window.fails_only(attempt.page) && (others_pass || self.several);
        let why = || format!("most attempts fail: {}", judgement.reason);
        if page_fails && others_pass || (page_fails || all_fail) && only_page {
            // The others are judged by what comes from now on.
            own.clear();
            self.window.clear();
            self.open(Whom::Page(page), &why(), Duration::ZERO);
        } else if all_fail {
            self.open(Whom::Endpoint, &why(), Duration::ZERO);
        }
    }
}
