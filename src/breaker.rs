//! When a page or the whole endpoint pauses by itself, and what lets it go on.
//!
//! Pure: told of each judgement and the time. A wrong secret, a wrong URL or an endpoint that is
//! down is no fault of the jobs that meet it: what is paused waits, uses up no attempts, and is
//! probed with one real job until an answer says that it is well.
//!
//! * A page or the endpoint pauses when two recipients in a row were refused that way, with no
//!   success between them: one bad job never stops a page.
//! * The circuit of the endpoint opens when most attempts over several recipients fail in a short
//!   time, whatever the answers say; if all that fail are one page's and others pass, only that page
//!   pauses.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::clock::BootInstant;
use crate::job::{Outcome, Scope};
use crate::judge::Judgement;

/// Recipients that must have been refused before a page or the endpoint pauses.
const WITNESSES: usize = 2;
/// Parts of the window, each forgotten as a whole.
const PARTS: u32 = 10;

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

impl Default for Settings {
    fn default() -> Self {
        Self {
            attempts: 20,
            recipients: 5,
            window: Duration::from_secs(10),
            failing: 0.8,
            probe: Duration::from_secs(1),
            max_probe: Duration::from_secs(30),
        }
    }
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

/// Watches the judgements of one worker.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    hasher: RandomState,
    /// Recipients refused since the last success, by scope.
    refused: HashMap<String, Refusals>,
    /// Scopes that have answered well since they were last refused.
    well: HashSet<String>,
    /// What is paused, by whomever.
    paused: HashSet<String>,
    window: VecDeque<Part>,
    changes: Vec<Change>,
}

#[derive(Debug, Default)]
struct Refusals {
    judgements: u32,
    lanes: Vec<u64>,
}

#[derive(Debug)]
struct Part {
    began: BootInstant,
    attempts: usize,
    failed: usize,
    /// As many recipients as must be told apart.
    lanes: Vec<u64>,
    /// Up to two pages of those that failed, and of the others.
    failing: Vec<u64>,
    passing: Vec<u64>,
}

impl Breaker {
    /// One that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            hasher: RandomState::new(),
            refused: HashMap::new(),
            well: HashSet::new(),
            paused: HashSet::new(),
            window: VecDeque::new(),
            changes: Vec::new(),
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
            Scope::Page => self.refuse(&page_scope(page), lane, judgement),
            Scope::Endpoint => self.refuse(ENDPOINT, lane, judgement),
        };
        self.close(page, judgement);
        self.watch(now, page, lane, judgement);
        let paused = self.is_paused(ENDPOINT) || self.is_paused(&page_scope(page));
        judgement.counts = !paused && (judgement.counts || alone);
        if paused && judgement.scope != Scope::None && judgement.outcome == Outcome::Refused {
            judgement.outcome = Outcome::Retryable;
        }
    }

    /// What is paused now, as the database says.
    pub fn set_paused<'s>(&mut self, scopes: impl Iterator<Item = &'s String>) {
        let mut paused: HashSet<String> = scopes.cloned().collect();
        // What the senders saw since the last changes were written.
        for change in &self.changes {
            match change {
                Change::Open { scope, .. } => paused.insert(scope.clone()),
                Change::Close { scope } => paused.remove(scope),
            };
        }
        for ended in self.paused.difference(&paused) {
            self.refused.remove(ended);
        }
        if self.paused.contains(ENDPOINT) && !paused.contains(ENDPOINT) {
            self.window.clear();
        }
        self.paused = paused;
    }

    /// What must become of the pauses in the database; each is told once.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// A change that could not be written is told again.
    pub fn keep(&mut self, changes: Vec<Change>) {
        self.changes.splice(0..0, changes);
    }

    /// A page, or `default` for all that have none of their own, has another secret: what was refused
    /// before is no longer worth anything.
    pub fn secret_changed(&mut self, page: &str) {
        let scope = page_scope(page);
        let all = page == "default";
        let means = |other: &String| *other == scope || all && other.starts_with("page:");
        self.refused.retain(|other, _| !means(other));
        let paused = self.paused.iter().filter(|other| means(other)).cloned();
        self.changes
            .extend(paused.map(|scope| Change::Close { scope }));
    }

    fn is_paused(&self, scope: &str) -> bool {
        self.paused.contains(scope) || self.paused.contains("all")
    }

    /// A refusal that asks for a pause. True if others pass, so that the job is judged alone.
    fn refuse(&mut self, scope: &str, lane: u64, judgement: &Judgement<'_>) -> bool {
        let refused = self.refused.entry(scope.to_owned()).or_default();
        refused.judgements = refused.judgements.saturating_add(1);
        if refused.lanes.len() < WITNESSES && !refused.lanes.contains(&lane) {
            refused.lanes.push(lane);
        }
        if refused.lanes.len() < WITNESSES {
            // Somebody has passed since it was refused last.
            return self.well.remove(scope) && judgement.outcome != Outcome::Throttled;
        }
        if refused.judgements >= judgement.pause_after.unwrap_or_default() {
            let wait = judgement.retry_after.unwrap_or_default();
            self.open(scope, &judgement.reason, wait);
        }
        false
    }

    fn open(&mut self, scope: &str, why: &str, wait: Duration) {
        if self.paused.insert(scope.to_owned()) {
            self.changes.push(Change::Open {
                scope: scope.to_owned(),
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
            self.is_well(ENDPOINT);
        }
        if delivered || judgement.scope == Scope::None && judgement.outcome == Outcome::Refused {
            self.is_well(&page_scope(page));
        }
    }

    fn is_well(&mut self, scope: &str) {
        if !self.well.contains(scope) {
            self.well.insert(scope.to_owned());
        }
        self.refused.remove(scope);
        if self.paused.remove(scope) {
            if scope == ENDPOINT {
                self.window.clear();
            }
            self.changes.push(Change::Close {
                scope: scope.to_owned(),
            });
        }
    }

    /// The circuit: most attempts of the last seconds failed, whatever they were told.
    fn watch(&mut self, now: BootInstant, page: &str, lane: u64, judgement: &Judgement<'_>) {
        let part = self.settings.window / PARTS;
        while self
            .window
            .front()
            .is_some_and(|p| now.since(p.began) >= self.settings.window)
        {
            self.window.pop_front();
        }
        if self
            .window
            .back()
            .is_none_or(|p| now.since(p.began) >= part)
        {
            self.window.push_back(Part {
                began: now,
                attempts: 0,
                failed: 0,
                lanes: Vec::new(),
                failing: Vec::new(),
                passing: Vec::new(),
            });
        }
        // What its page is to blame for is none of the endpoint's.
        let failed = match judgement.outcome {
            Outcome::Retryable | Outcome::Ambiguous => judgement.counts,
            outcome => outcome == Outcome::NotSent,
        };
        let hashed = self.hasher.hash_one(page);
        if let Some(part) = self.window.back_mut() {
            part.attempts += 1;
            part.failed += usize::from(failed);
            if part.lanes.len() < self.settings.recipients && !part.lanes.contains(&lane) {
                part.lanes.push(lane);
            }
            let pages = if failed {
                &mut part.failing
            } else {
                &mut part.passing
            };
            if pages.len() < 2 && !pages.contains(&hashed) {
                pages.push(hashed);
            }
        }
        if failed && !self.paused.contains(ENDPOINT) && self.trips() {
            let why = format!("most attempts fail: {}", judgement.reason);
            let only = |pages: &Vec<u64>| pages.iter().all(|page| *page == hashed);
            let alone = self.window.iter().all(|part| only(&part.failing));
            let others_pass = !self.window.iter().all(|part| only(&part.passing));
            match alone && others_pass {
                true => self.open(&page_scope(page), &why, Duration::ZERO),
                false => self.open(ENDPOINT, &why, Duration::ZERO),
            }
        }
    }

    fn trips(&self) -> bool {
        let attempts: usize = self.window.iter().map(|p| p.attempts).sum();
        let failed: usize = self.window.iter().map(|p| p.failed).sum();
        let lanes: HashSet<u64> = self
            .window
            .iter()
            .flat_map(|p| p.lanes.iter().copied())
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "a ratio of counts")]
        let failing = failed as f64 >= self.settings.failing * attempts as f64;
        attempts >= self.settings.attempts && lanes.len() >= self.settings.recipients && failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Settings::default())
    }

    fn said(outcome: Outcome, scope: Scope) -> Judgement<'static> {
        let plain = Judgement::lost("test", "it said no");
        Judgement {
            outcome,
            scope,
            counts: scope == Scope::None && outcome != Outcome::Throttled,
            ..plain
        }
    }

    fn at(ms: u64) -> BootInstant {
        static BASE: std::sync::LazyLock<BootInstant> = std::sync::LazyLock::new(BootInstant::now);
        BASE.later(Duration::from_millis(ms))
    }

    fn saw(
        breaker: &mut Breaker,
        now: BootInstant,
        page: &str,
        lane: &str,
        said: &Judgement<'static>,
    ) -> bool {
        let mut judgement = said.clone();
        breaker.saw(now, page, lane, &mut judgement);
        judgement.counts
    }

    fn opened(breaker: &mut Breaker) -> Vec<String> {
        let scope = |change| match change {
            Change::Open { scope, .. } => format!("+{scope}"),
            Change::Close { scope } => format!("-{scope}"),
        };
        breaker.changes().into_iter().map(scope).collect()
    }

    #[test]
    fn two_recipients_refused_in_a_row_pause_their_page_and_one_never_does() {
        let mut breaker = breaker();
        let refused = said(Outcome::Retryable, Scope::Page);
        for n in 0..50 {
            saw(&mut breaker, at(n * 60_000), "1", "1/id:a", &refused);
        }
        assert!(opened(&mut breaker).is_empty(), "one recipient");
        assert!(
            !saw(&mut breaker, at(0), "1", "1/id:b", &refused),
            "does not count"
        );
        assert_eq!(opened(&mut breaker), ["+page:1"]);
        let failed = said(Outcome::Ambiguous, Scope::None);
        assert!(
            !saw(&mut breaker, at(0), "1", "1/id:c", &failed),
            "nor does anything of a paused page"
        );
        assert!(
            saw(&mut breaker, at(0), "2", "2/id:c", &failed),
            "another page goes on"
        );
        saw(
            &mut breaker,
            at(0),
            "1",
            "1/id:c",
            &said(Outcome::Delivered, Scope::None),
        );
        assert_eq!(opened(&mut breaker), ["-page:1"]);
    }

    #[test]
    fn a_job_refused_while_others_pass_is_judged_alone_and_counts() {
        let mut breaker = breaker();
        let refused = said(Outcome::Retryable, Scope::Page);
        assert!(
            !saw(&mut breaker, at(0), "1", "1/id:bad", &refused),
            "nobody has passed yet"
        );
        for n in 0..50 {
            saw(
                &mut breaker,
                at(n),
                "1",
                "1/id:good",
                &said(Outcome::Delivered, Scope::None),
            );
            assert!(saw(&mut breaker, at(n), "1", "1/id:bad", &refused));
            saw(
                &mut breaker,
                at(n),
                "1",
                "1/id:good",
                &said(Outcome::Delivered, Scope::None),
            );
            assert!(saw(&mut breaker, at(n), "1", "1/id:worse", &refused));
        }
        assert!(opened(&mut breaker).is_empty());
    }

    #[test]
    fn a_throttled_recipient_slows_itself_and_two_slow_their_page() {
        let mut breaker = breaker();
        let mut throttled = said(Outcome::Throttled, Scope::Page);
        throttled.retry_after = Some(Duration::from_secs(17));
        assert!(!saw(&mut breaker, at(0), "1", "1/id:a", &throttled));
        saw(
            &mut breaker,
            at(0),
            "1",
            "1/id:b",
            &said(Outcome::Delivered, Scope::None),
        );
        assert!(!saw(&mut breaker, at(0), "1", "1/id:a", &throttled));
        assert!(breaker.changes().is_empty());
        saw(&mut breaker, at(0), "1", "1/id:b", &throttled);
        let opened = breaker.changes();
        assert!(
            matches!(&opened[..], [Change::Open { scope, wait, .. }]
            if scope == "page:1" && wait.as_secs() == 17),
            "{opened:?}"
        );
    }

    #[test]
    fn some_rules_want_more_in_a_row() {
        let mut breaker = breaker();
        let mut refused = said(Outcome::Refused, Scope::Page);
        refused.pause_after = Some(5);
        for n in 0..4 {
            saw(&mut breaker, at(0), "1", &format!("1/id:{n}"), &refused);
        }
        assert!(opened(&mut breaker).is_empty());
        saw(&mut breaker, at(0), "1", "1/id:4", &refused);
        assert_eq!(opened(&mut breaker), ["+page:1"]);
    }

    #[test]
    fn a_wrong_url_pauses_the_endpoint_and_any_real_answer_ends_that() {
        for well in [
            said(Outcome::Delivered, Scope::None),
            said(Outcome::Refused, Scope::None),
            said(Outcome::Retryable, Scope::Page),
            said(Outcome::Throttled, Scope::Page),
        ] {
            let mut breaker = breaker();
            let refused = said(Outcome::Retryable, Scope::Endpoint);
            saw(&mut breaker, at(0), "1", "1/id:a", &refused);
            saw(&mut breaker, at(0), "2", "2/id:a", &refused);
            assert_eq!(opened(&mut breaker), ["+endpoint"]);
            saw(
                &mut breaker,
                at(0),
                "1",
                "1/id:a",
                &said(Outcome::Retryable, Scope::None),
            );
            assert!(
                opened(&mut breaker).is_empty(),
                "a 500 says nothing about the URL"
            );
            saw(&mut breaker, at(0), "1", "1/id:c", &well);
            assert_eq!(opened(&mut breaker), ["-endpoint"], "{well:?}");
        }
    }

    #[test]
    fn the_circuit_opens_at_its_figures_and_not_before() {
        let failed = said(Outcome::Ambiguous, Scope::None);
        let run = |attempts: usize, lanes: usize, good: usize, gap: u64| {
            let mut breaker = breaker();
            for n in 0..attempts {
                let what = match n < good {
                    true => said(Outcome::Delivered, Scope::None),
                    false => failed.clone(),
                };
                let lane = format!("1/id:{}", n % lanes);
                saw(&mut breaker, at(n as u64 * gap), "1", &lane, &what);
            }
            !opened(&mut breaker).is_empty()
        };
        assert!(run(20, 5, 0, 100));
        assert!(!run(19, 5, 0, 100), "19 attempts");
        assert!(!run(20, 4, 0, 100), "4 recipients");
        assert!(run(20, 5, 4, 100), "16 of 20");
        assert!(!run(20, 5, 5, 100), "15 of 20");
        assert!(!run(200, 5, 0, 600), "never 20 within 10 seconds");
    }

    #[test]
    fn one_error_in_five_never_opens_the_circuit() {
        let mut breaker = breaker();
        for n in 0..10_000_u64 {
            let outcome = match n % 5 {
                0 => Outcome::Retryable,
                _ => Outcome::Delivered,
            };
            saw(
                &mut breaker,
                at(n),
                "1",
                &format!("1/id:{n}"),
                &said(outcome, Scope::None),
            );
        }
        assert!(opened(&mut breaker).is_empty());
    }

    #[test]
    fn a_pause_that_somebody_ended_begins_anew() {
        let mut breaker = breaker();
        let refused = said(Outcome::Retryable, Scope::Page);
        saw(&mut breaker, at(0), "1", "1/id:a", &refused);
        saw(&mut breaker, at(0), "1", "1/id:b", &refused);
        assert_eq!(opened(&mut breaker), ["+page:1"]);
        breaker.set_paused(["page:1".to_owned()].iter());
        breaker.set_paused([].iter());
        saw(&mut breaker, at(0), "1", "1/id:c", &refused);
        assert!(opened(&mut breaker).is_empty(), "one recipient since");
        saw(&mut breaker, at(0), "1", "1/id:d", &refused);
        assert_eq!(opened(&mut breaker), ["+page:1"]);
    }

    #[test]
    fn the_failures_of_one_page_pause_that_page_while_others_pass() {
        let failed = said(Outcome::Ambiguous, Scope::None);
        let mut breaker = breaker();
        saw(
            &mut breaker,
            at(0),
            "2",
            "2/id:a",
            &said(Outcome::Delivered, Scope::None),
        );
        for n in 0..30 {
            saw(&mut breaker, at(n), "1", &format!("1/id:{n}"), &failed);
        }
        assert_eq!(opened(&mut breaker), ["+page:1"]);
    }

    #[test]
    fn refused_signatures_do_not_open_the_circuit() {
        let mut breaker = breaker();
        for n in 0..300 {
            saw(
                &mut breaker,
                at(n),
                "1",
                &format!("1/id:{n}"),
                &said(Outcome::Retryable, Scope::Page),
            );
        }
        assert_eq!(opened(&mut breaker), ["+page:1"]);
    }

    #[test]
    fn a_page_that_is_paused_kills_no_job() {
        let mut breaker = breaker();
        let refused = said(Outcome::Refused, Scope::Page);
        for lane in ["1/id:a", "1/id:b"] {
            saw(&mut breaker, at(0), "1", lane, &refused);
        }
        let mut probe = refused.clone();
        breaker.saw(at(0), "1", "1/id:c", &mut probe);
        assert_eq!((probe.outcome, probe.counts), (Outcome::Retryable, false));
    }

    #[test]
    fn what_opens_while_the_pauses_are_written_stays_open() {
        let mut breaker = breaker();
        let refused = said(Outcome::Retryable, Scope::Page);
        saw(&mut breaker, at(0), "1", "1/id:a", &refused);
        saw(&mut breaker, at(0), "1", "1/id:b", &refused);
        breaker.set_paused([].iter());
        assert!(!saw(
            &mut breaker,
            at(0),
            "1",
            "1/id:c",
            &said(Outcome::Ambiguous, Scope::None)
        ));
        saw(
            &mut breaker,
            at(0),
            "1",
            "1/id:c",
            &said(Outcome::Delivered, Scope::None),
        );
        assert_eq!(opened(&mut breaker), ["+page:1", "-page:1"]);
    }
}
