//! The rules of pauses against 200 pages in virtual time: no database, no network, and the real [`Breaker`],
//! the real choice of probes and the real sharing of slots.
//!
//! `POSTLANE_SIMULATION_SEEDS` says how many runs, `POSTLANE_SIMULATION_SEED` which single one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::LazyLock;

use super::*;
use crate::clock::{Millis, millis};
use crate::job::PageId;
use crate::judge::{Answer, RuleSet, judge};
use crate::pace::{Slot, Slots};
use crate::scope::Pause;

const ALL_PAGES: usize = 200;
/// How long a run is, in milliseconds.
const RUN: u64 = 300_000;
/// The whole of one attempt.
const TIMEOUT: u64 = 30_000;
/// What a healthy page's job may wait for others.
const PROMISE: u64 = 2_000;
const PROBE: Duration = Duration::from_secs(1);
const MAX_PROBE: Duration = Duration::from_secs(30);
/// After a sickness: what hung may still fail, and then the longest wait and the first one pass.
const CONVALESCENCE: u64 = TIMEOUT + 30_000 + 3_000;

/// The same numbers for the same seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from).max(1)
    }

    fn once_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// How a page is sick, or what the endpoint does to all while it is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Ill {
    Unavailable,
    Error,
    Signature,
    Throttled,
    Hangs,
    Gone,
    Forbidden,
    SomeErrors,
    WrongUrl,
    Refused,
}

const ILLS: [Ill; 9] = [
    Ill::Unavailable,
    Ill::Error,
    Ill::Signature,
    Ill::Throttled,
    Ill::Hangs,
    Ill::Gone,
    Ill::Forbidden,
    Ill::SomeErrors,
    Ill::WrongUrl,
];
const OUTAGES: [Ill; 4] = [Ill::Unavailable, Ill::Hangs, Ill::WrongUrl, Ill::Refused];

impl Ill {
    /// People are refused, and the page is well.
    fn is_peoples(self) -> bool {
        matches!(self, Self::Gone | Self::Forbidden)
    }

    /// Nothing gets through while it lasts.
    fn is_total(self) -> bool {
        !self.is_peoples() && self != Self::SomeErrors
    }
}

/// The judgement of each kind of answer, by the built-in rules.
static JUDGED: LazyLock<HashMap<Option<Ill>, Judgement<'static>>> = LazyLock::new(|| {
    static RULES: LazyLock<std::sync::Arc<RuleSet>> = LazyLock::new(RuleSet::built_in);
    let answer = |status, retry_after, body: &str| Answer::Status {
        status,
        content_type: None,
        retry_after,
        body: body.as_bytes().to_vec(),
        cut: None,
    };
    let lost = Answer::Lost {
        error: "timed out".to_owned(),
        evidence: None,
    };
    let refused = Answer::NotSent {
        error: "connection refused".to_owned(),
        evidence: None,
    };
    let throttled = Some(Duration::from_secs(5));
    let answers = [
        (None, answer(200, None, "{\"success\":true}")),
        (Some(Ill::Unavailable), answer(503, None, "")),
        (Some(Ill::Error), answer(500, None, "")),
        (Some(Ill::SomeErrors), answer(500, None, "")),
        (Some(Ill::Signature), answer(401, None, "")),
        (Some(Ill::Throttled), answer(429, throttled, "")),
        (Some(Ill::Hangs), lost),
        (Some(Ill::WrongUrl), answer(404, None, "")),
        (Some(Ill::Refused), refused),
        (
            Some(Ill::Gone),
            answer(400, None, "{\"error\":{\"code\":551}}"),
        ),
    ];
    let mut judged: HashMap<_, _> = answers
        .iter()
        .map(|(ill, answer)| (*ill, judge(&RULES, answer)))
        .collect();
    // A rule that takes a person's refusal for the page's.
    let mut forbidden = judged[&Some(Ill::Gone)].clone();
    (forbidden.scope, forbidden.pause_after) = (PauseWanted::Page, Some(5));
    judged.insert(Some(Ill::Forbidden), forbidden);
    judged
});

#[derive(Debug, Clone, Copy)]
struct Spell {
    ill: Ill,
    from: u64,
    to: u64,
}

impl Spell {
    fn lasts(&self, now: u64) -> bool {
        (self.from..self.to).contains(&now)
    }
}

#[derive(Debug)]
struct Job {
    attempts: i32,
    failures: u32,
}

#[derive(Debug, Default)]
struct Lane {
    jobs: VecDeque<Job>,
    in_flight: bool,
    /// When its head could have gone, while it waits.
    ready: Option<u64>,
}

#[derive(Debug)]
struct Page {
    name: PageId,
    spell: Option<Spell>,
    lanes: Vec<Lane>,
    /// Every so many milliseconds a job comes.
    gap: u64,
    /// Lanes whose head may go, by the time since when.
    due: BTreeSet<(u64, usize)>,
    /// Attempts that went wrong since one passed.
    failed: usize,
    /// Attempts that have ended while it was sick for longer than the circuit looks back, and not paused.
    unpaused: usize,
    /// Attempts that began while it was paused, since then.
    probes: usize,
    paused_at: Option<u64>,
}

#[derive(Debug, Clone)]
struct Row {
    probe_at: Millis,
    wait: Millis,
    suspect: Suspect,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize, usize),
    Answers {
        worker: usize,
        life: u32,
        page: usize,
        lane: usize,
        ill: Option<Ill>,
        began: u64,
    },
    Due(usize, usize),
    Looks(usize),
    Restarts(usize),
}

struct Worker {
    breaker: Breaker,
    slots: Slots,
    /// Those of what is in flight, by page and lane.
    taken: HashMap<(usize, usize), Slot>,
    life: u32,
    looks_at: Option<u64>,
}

struct World {
    seed: u64,
    chance: Chance,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    pages: Vec<Page>,
    numbers: HashMap<PageId, usize>,
    outage: Option<Spell>,
    rows: BTreeMap<Scope, Row>,
    workers: Vec<Worker>,
    due: BTreeSet<usize>,
    closings: usize,
    /// What a healthy page's job has waited at most.
    longest: u64,
    attempts: usize,
}

fn at(ms: u64) -> BootInstant {
    static BASE: LazyLock<BootInstant> = LazyLock::new(BootInstant::now);
    BASE.later(Duration::from_millis(ms))
}

fn settings() -> Settings {
    Settings {
        attempts: 20,
        recipients: 5,
        window: Duration::from_secs(10),
        failing: 0.8,
        probe: PROBE,
        max_probe: MAX_PROBE,
    }
}

impl Worker {
    fn new(life: u32) -> Self {
        Self {
            breaker: Breaker::new(settings()),
            slots: Slots::new(256),
            taken: HashMap::new(),
            life,
            looks_at: None,
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let night = chance.once_in(2);
        let sick = chance.between(0, 16);
        let mut pages: Vec<Page> = (0..ALL_PAGES)
            .map(|number| Page {
                name: (1000 + number).to_string().into(),
                spell: None,
                lanes: Vec::new(),
                // By night most pages have nothing to send.
                gap: match night {
                    true if !chance.once_in(20) => RUN * 4,
                    true => chance.between(10_000, 120_000),
                    false => chance.between(5_000, 60_000),
                },
                due: BTreeSet::new(),
                failed: 0,
                unpaused: 0,
                probes: 0,
                paused_at: None,
            })
            .collect();
        for page in &mut pages {
            let lanes = chance.between(1, 60) as usize;
            page.lanes.resize_with(lanes, Lane::default);
        }
        for _ in 0..sick {
            let page = chance.between(0, ALL_PAGES as u64) as usize;
            let from = chance.between(1_000, 80_000);
            pages[page].spell = Some(Spell {
                ill: ILLS[chance.between(0, ILLS.len() as u64) as usize],
                from,
                to: from + chance.between(5_000, 100_000),
            });
            if chance.once_in(2) {
                pages[page].gap = chance.between(200, 4_000);
            }
        }
        let outage = chance.once_in(4).then(|| {
            let from = chance.between(10_000, 80_000);
            Spell {
                ill: OUTAGES[chance.between(0, OUTAGES.len() as u64) as usize],
                from,
                to: from + chance.between(2_000, 90_000),
            }
        });
        let workers = 1 + usize::from(chance.once_in(2));
        let numbers = pages.iter().enumerate();
        let numbers = numbers.map(|(number, page)| (page.name.clone(), number));
        let mut world = Self {
            seed,
            numbers: numbers.collect(),
            now: 0,
            events: BinaryHeap::new(),
            order: 0,
            pages,
            outage,
            rows: BTreeMap::new(),
            workers: (0..workers).map(|_| Worker::new(0)).collect(),
            due: BTreeSet::new(),
            closings: 0,
            longest: 0,
            attempts: 0,
            chance,
        };
        world.begin();
        world
    }

    /// What comes from outside.
    fn begin(&mut self) {
        for page in 0..ALL_PAGES {
            let (gap, lanes) = (self.pages[page].gap, self.pages[page].lanes.len() as u64);
            let mut time = self.chance.between(0, gap * 2);
            while time < RUN {
                let lane = self.chance.between(0, lanes) as usize;
                self.plan(time, Event::Arrives(page, lane));
                time += self.chance.between(1, gap * 2);
            }
            // A burst at its worst moment.
            if let Some(spell) = self.pages[page].spell
                && self.chance.once_in(2)
            {
                for lane in 0..lanes {
                    let time = spell.from + self.chance.between(0, 500);
                    self.plan(time, Event::Arrives(page, lane as usize));
                }
            }
        }
        for worker in 0..self.workers.len() {
            if self.chance.once_in(2) {
                let time = self.chance.between(20_000, 150_000);
                self.plan(time, Event::Restarts(worker));
            }
        }
    }

    fn plan(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((time, self.order, event)));
    }

    fn run(&mut self) {
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            if time >= RUN {
                break;
            }
            self.now = time;
            self.happens(event);
        }
        for page in 0..ALL_PAGES {
            for lane in 0..self.pages[page].lanes.len() {
                if let Some(ready) = self.pages[page].lanes[lane].ready {
                    self.has_waited(page, lane, ready);
                }
            }
        }
    }

    fn happens(&mut self, event: Event) {
        let any = self.chance.between(0, self.workers.len() as u64) as usize;
        match event {
            Event::Arrives(page, lane) => {
                let state = &mut self.pages[page].lanes[lane];
                state.jobs.push_back(Job {
                    attempts: 0,
                    failures: 0,
                });
                if state.jobs.len() == 1 && !state.in_flight {
                    self.is_due(page, lane);
                }
                self.cycle(any);
            }
            Event::Due(page, lane) => {
                self.is_due(page, lane);
                self.cycle(any);
            }
            Event::Looks(worker) => {
                let looks_at = self.workers[worker].looks_at;
                if looks_at == Some(self.now) {
                    self.workers[worker].looks_at = None;
                    self.cycle(worker);
                }
            }
            Event::Restarts(worker) => {
                let life = self.workers[worker].life + 1;
                // It finishes what is in flight first: slots and memory begin anew, the rows stay.
                let changes = self.workers[worker].breaker.changes();
                changes.into_iter().for_each(|change| self.write(change));
                self.workers[worker] = Worker::new(life);
                self.cycle(worker);
            }
            Event::Answers {
                worker,
                life,
                page,
                lane,
                ill,
                began,
            } => {
                self.answers(worker, life, page, lane, ill, began);
                self.cycle(worker);
            }
        }
    }

    fn is_due(&mut self, page: usize, lane: usize) {
        self.pages[page].lanes[lane].ready = Some(self.now);
        self.pages[page].due.insert((self.now, lane));
        self.due.insert(page);
    }

    /// What would be answered now.
    fn answer(&mut self, page: usize, lane: usize) -> Option<Ill> {
        if let Some(outage) = self.outage.filter(|outage| outage.lasts(self.now)) {
            return Some(outage.ill);
        }
        let spell = self.pages[page]
            .spell
            .filter(|spell| spell.lasts(self.now))?;
        let is_hit = match spell.ill {
            // Every lane but each third is of a recipient who is gone.
            Ill::Gone | Ill::Forbidden => !lane.is_multiple_of(3),
            Ill::SomeErrors => self.chance.between(0, 10) < 3,
            _ => true,
        };
        is_hit.then_some(spell.ill)
    }

    fn answers(
        &mut self,
        worker: usize,
        life: u32,
        page: usize,
        lane: usize,
        ill: Option<Ill>,
        began: u64,
    ) {
        let mut judgement = JUDGED[&ill].clone();
        let name = self.pages[page].name.clone();
        let is_sick = self.is_totally_sick(page, began) && self.is_totally_sick(page, self.now);
        let onset = self.pages[page].spell.map_or(0, |spell| spell.from);
        let is_known = self.now > onset + millis(settings().window) as u64 + 1_000;
        if is_sick && is_known && !self.rows.contains_key(&Scope::Page(name.clone())) {
            self.pages[page].unpaused += 1;
        }
        let passes = matches!(ill, None | Some(Ill::Gone));
        let state = &mut self.pages[page];
        state.failed = if passes { 0 } else { state.failed + 1 };
        let Worker {
            breaker,
            taken,
            life: alive,
            ..
        } = &mut self.workers[worker];
        breaker.saw(
            at(self.now),
            &name,
            &format!("{name}/{lane}").into(),
            &mut judgement,
        );
        if *alive == life
            && let Some(slot) = taken.remove(&(page, lane))
        {
            slot.ended(ill != Some(Ill::Hangs));
        }
        let lane_state = &mut state.lanes[lane];
        lane_state.in_flight = false;
        let Some(job) = lane_state.jobs.front_mut() else {
            return;
        };
        job.failures += u32::from(judgement.counts && !passes);
        let ends = matches!(judgement.outcome, Outcome::Delivered | Outcome::Refused)
            || job.failures >= 20;
        if ends {
            lane_state.jobs.pop_front();
            if !lane_state.jobs.is_empty() {
                self.is_due(page, lane);
            }
        } else {
            let step = if judgement.counts {
                job.failures
            } else {
                job.attempts.unsigned_abs()
            };
            let backoff = 2_000_u64 << step.clamp(1, 8).saturating_sub(1);
            let asked = judgement
                .retry_after
                .map_or(0, |wait| wait.as_millis() as u64);
            let jitter = self.chance.between(66, 133);
            let time = self.now + (backoff * jitter / 100).max(asked);
            self.plan(time, Event::Due(page, lane));
        }
    }

    fn is_totally_sick(&self, page: usize, time: u64) -> bool {
        let spell = self.pages[page].spell;
        spell.is_some_and(|spell| spell.lasts(time) && spell.ill.is_total())
    }

    /// What the database does with a change.
    fn write(&mut self, change: Change) {
        match change {
            Change::Open {
                scope,
                suspect,
                wait,
                ..
            } => {
                if self.rows.contains_key(&scope) {
                    return;
                }
                if let Scope::Page(name) = &scope {
                    let number = self.numbers[name];
                    let page = &mut self.pages[number];
                    assert!(
                        page.failed > 0,
                        "seed {}: page {name} is paused at {} without a failure of its own",
                        self.seed,
                        self.now
                    );
                    page.paused_at = Some(self.now);
                    page.probes = 0;
                }
                let (wait, now) = (millis(wait), self.now as Millis);
                let probe_at = now + wait;
                self.rows.insert(
                    scope,
                    Row {
                        probe_at,
                        wait,
                        suspect,
                    },
                );
            }
            Change::Renew { .. } => {}
            Change::Close { scope } => {
                let ended = self.rows.remove(&scope).is_some();
                if ended && scope == Scope::Endpoint {
                    self.closings += 1;
                    let now = self.now as Millis;
                    for row in self.rows.values_mut() {
                        if row.suspect == Suspect::Endpoint {
                            row.probe_at = row.probe_at.min(now);
                        }
                    }
                }
            }
        }
    }

    /// A cycle of a worker's ledger, without what only a database needs.
    fn cycle(&mut self, worker: usize) {
        let slots = self.workers[worker].slots.clone();
        let names: Vec<(usize, PageId)> = self
            .due
            .iter()
            .map(|page| (*page, self.pages[*page].name.clone()))
            .collect();
        let ticket = self.workers[worker].breaker.ticket();
        let seen: Vec<Scope> = self.rows.keys().cloned().collect();
        for change in self.workers[worker].breaker.changes() {
            self.write(change.clone());
            self.workers[worker].breaker.written(&change);
        }
        let now = self.now;
        let breaker = &mut self.workers[worker].breaker;
        breaker.set_paused(at(now), ticket, seen.iter(), |_| true);
        let rows = self.rows.iter();
        let pauses: HashMap<Scope, Pause> = rows
            .map(|(scope, row)| {
                let probe_at = row.probe_at;
                (scope.clone(), Pause::Worker { probe_at })
            })
            .collect();
        let with_work = names.iter().map(|(_, name)| name);
        let room = slots.free().min(64);
        let tries = match room {
            0 => Tries::default(),
            _ => breaker.tries(at(now), now as Millis, &pauses, with_work, room),
        };
        let mut granted: HashMap<&str, usize> = HashMap::new();
        granted.extend(tries.trials.iter().map(|page| (&**page, 1)));
        for page in &tries.probes {
            if let Some(row) = self.rows.get_mut(&Scope::Page(page.clone()))
                && row.probe_at <= now as Millis
            {
                row.probe_at = now as Millis + row.wait.min(millis(MAX_PROBE));
                row.wait = (row.wait * 2).min(millis(MAX_PROBE));
                let wait = Duration::from_millis(row.wait as u64);
                let jobs = breadth(row.suspect == Suspect::People, wait, PROBE);
                granted.insert(page, jobs);
            }
        }
        let stopped = pauses.contains_key(&Scope::Endpoint);
        let paused: HashSet<&str> = pauses
            .keys()
            .filter_map(|scope| match scope {
                Scope::Page(page) => Some(&**page),
                _ => None,
            })
            .collect();
        let may = |name: &str| match granted.get(name) {
            Some(jobs) => *jobs,
            None if stopped || paused.contains(name) => 0,
            None => usize::MAX,
        };
        let open: Vec<(usize, PageId, usize)> = names
            .into_iter()
            .map(|(page, name)| (page, may(&name), name))
            .filter(|(_, jobs, _)| *jobs > 0)
            .map(|(page, jobs, name)| (page, name, jobs))
            .collect();
        slots.set_contenders(open.iter().map(|(_, name, _)| &**name));
        for (page, name, jobs) in open {
            let due = self.pages[page].due.iter().copied();
            let mut lanes: Vec<(u64, usize)> = due.collect();
            if jobs < usize::MAX {
                // As the ledger takes them: some of the oldest and some of the newest.
                let mut newest = lanes.split_off(lanes.len().min(32));
                newest.reverse();
                newest.truncate(32);
                let state = &self.pages[page].lanes;
                let is_tried = |lane: &(u64, usize)| {
                    state[lane.1]
                        .jobs
                        .front()
                        .is_some_and(|job| job.attempts > 0)
                };
                lanes = probe_order(newest, lanes, is_tried);
            }
            for (ready, lane) in lanes.into_iter().take(jobs) {
                let Some(slot) = slots.take(&name) else {
                    break;
                };
                self.workers[worker].taken.insert((page, lane), slot);
                self.sends(worker, page, lane, ready);
            }
        }
        // Two workers do not wake each other: each looks at least once a second.
        let next = tries.next_in.unwrap_or(1_000).clamp(1, 1_000) as u64;
        let time = now + next;
        if !self.due.is_empty() && self.workers[worker].looks_at.is_none_or(|at| at > time) {
            self.workers[worker].looks_at = Some(time);
            self.plan(time, Event::Looks(worker));
        }
    }

    fn sends(&mut self, worker: usize, page: usize, lane: usize, ready: u64) {
        self.has_waited(page, lane, ready);
        self.attempts += 1;
        let sick = self.is_totally_sick(page, self.now);
        let state = &mut self.pages[page];
        state.due.remove(&(ready, lane));
        if state.due.is_empty() {
            self.due.remove(&page);
        }
        let lane_state = &mut state.lanes[lane];
        (lane_state.ready, lane_state.in_flight) = (None, true);
        if let Some(job) = lane_state.jobs.front_mut() {
            job.attempts += 1;
        }
        let scope = Scope::Page(state.name.clone());
        if sick && self.rows.contains_key(&scope) {
            state.probes += 1;
        }
        let ill = self.answer(page, lane);
        let took = match ill {
            Some(Ill::Hangs) => TIMEOUT,
            _ => self.chance.between(20, 300),
        };
        let answers = Event::Answers {
            worker,
            life: self.workers[worker].life,
            page,
            lane,
            ill,
            began: self.now,
        };
        self.plan(self.now + took, answers);
        self.costs_little(page);
    }

    /// The promise: no page waits for another's fault.
    fn has_waited(&mut self, page: usize, lane: usize, ready: u64) {
        let (from, to) = (ready, self.now);
        let meets = |spell: &Spell| from < spell.to + CONVALESCENCE && to > spell.from;
        let is_down = self.outage.is_some_and(|spell| meets(&spell));
        let spell = self.pages[page].spell.filter(meets);
        // People's refusals are not the page's fault, if the rules say so.
        let is_sick = spell.is_some_and(|spell| spell.ill != Ill::Gone);
        if is_down || is_sick {
            return;
        }
        let waited = to - from;
        self.longest = self.longest.max(waited);
        assert!(
            waited <= PROMISE,
            "seed {}: lane {lane} of page {} ({:?}) has waited {waited} ms from {from} on; paused: {:?}",
            self.seed,
            self.pages[page].name,
            self.pages[page].spell,
            self.rows.keys()
        );
    }

    /// The price: what is paused is only probed, and what only fails is paused.
    fn costs_little(&self, page: usize) {
        let state = &self.pages[page];
        let Some(spell) = state
            .spell
            .filter(|s| s.ill.is_total() && s.lasts(self.now))
        else {
            return;
        };
        if let Some(paused_at) = state.paused_at.filter(|at| *at >= spell.from) {
            let probes = 7 + (self.now - paused_at) / 30_000 + self.closings as u64;
            assert!(
                state.probes as u64 <= probes,
                "seed {}: page {} {spell:?} was probed {} times by {} since {paused_at}",
                self.seed,
                state.name,
                state.probes,
                self.now
            );
        } else if state.lanes.len() >= 5 {
            // Each worker counts for itself, and what is on its way ends; a few lanes are not enough.
            let most = self.workers.len() * (20 + 16) * 2;
            assert!(
                state.unpaused <= most,
                "seed {}: page {} {spell:?} failed {} times without a pause",
                self.seed,
                state.name,
                state.unpaused
            );
        }
    }
}

#[test]
fn a_healthy_page_waits_for_nobody_and_a_sick_one_costs_its_probes() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seeds = match number("POSTLANE_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("POSTLANE_SIMULATION_SEEDS").unwrap_or(100),
    };
    let (mut longest, mut attempts, mut closings, mut runs) = (0, 0, 0, 0_u64);
    for seed in seeds {
        let mut world = World::new(seed);
        world.run();
        longest = longest.max(world.longest);
        attempts += world.attempts;
        closings += world.closings;
        runs += 1;
    }
    assert!(attempts > 0);
    assert!(runs < 100 || closings > 0, "the endpoint never pauses");
    println!("{runs} runs, {attempts} attempts, {closings} closings, longest wait {longest} ms");
}
