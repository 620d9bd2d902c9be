//! Random producers, workers, answers, operators and clocks; a checker that knows only the promises.
//!
//! Every scenario has a seed, which is printed where a promise breaks. `POSTLANE_MODEL_SEED=N` runs
//! one scenario alone, `POSTLANE_MODEL_RUNS=N` that many.
#![expect(clippy::print_stderr, reason = "says how much was tried")]

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postlane::attempt::Claim;
use postlane::clock::{BootInstant, Millis};
use postlane::job::JobId;
use postlane::judge::Answer;
use postlane::store::operate::{self, Operator, Verb};
use postlane::store::{Pool, Use};
use support::chance::Chance;
use support::{Db, Engine, Steps, settings, status_answer};

const LEASE: Millis = 45_000;

/// What the checker knows of a job from the producer and the operators.
#[derive(Debug, Default, Clone)]
struct Job {
    lane: usize,
    not_before: Millis,
    expires: Option<Millis>,
    hold: bool,
    /// A request may have arrived, and no operator has decided since.
    may_have_arrived: bool,
    requests: i64,
    resolved: bool,
}

/// A row of the table.
#[derive(Debug, Clone)]
struct Row {
    state: String,
    attempts: i64,
    joined: bool,
}

struct Hand {
    claim: Claim,
    at: Millis,
}

struct Worker {
    name: String,
    steps: Steps,
    hand: Vec<Hand>,
    fail: Arc<AtomicBool>,
}

struct World<'d> {
    db: &'d Db,
    chance: Chance,
    now: Millis,
    jobs: BTreeMap<JobId, Job>,
    /// The job of each lane that has begun and has not ended since.
    heads: HashMap<usize, JobId>,
    workers: Vec<Worker>,
    named: usize,
    seed: u64,
    trace: Vec<String>,
}

impl World<'_> {
    fn broken(&self, what: &str) -> ! {
        panic!("seed {}: {what}\n{}", self.seed, self.trace.join("\n"))
    }

    fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken(&what());
        }
    }

    async fn hire(&mut self) {
        self.named += 1;
        let name = format!("s{}w{}", self.seed, self.named);
        let pool = Pool::open(&self.db.url, Use::Write, false)
            .await
            .expect("opens");
        let fail = Arc::new(AtomicBool::new(false));
        if let Pool::Sqlite(sqlite, _) = &pool {
            let mut connection = sqlite.acquire().await.expect("connects");
            let fail = Arc::clone(&fail);
            let mut handle = connection.lock_handle().await.expect("handle");
            handle.set_commit_hook(move || !fail.swap(false, Ordering::SeqCst));
        }
        let mut settings = settings(&name);
        settings.concurrency = 1 + self.chance.below(6);
        let steps = Steps::on(pool, settings).await;
        self.workers.push(Worker {
            name,
            steps,
            hand: Vec::new(),
            fail,
        });
    }

    async fn rows(&self) -> BTreeMap<JobId, Row> {
        let rows = self
            .db
            .sql("select j.id, s.state, attempts, case when send_at is null or joined_at is not null then 1 else 0 end as joined
                from send_jobs j join send_status s on s.id = j.id")
            .await
            .expect("rows");
        let row = |row: &postlane::store::Row| {
            let value = Row {
                state: row.text("state").expect("state"),
                attempts: row.int("attempts").expect("attempts"),
                joined: row.int("joined").expect("joined") == 1,
            };
            (row.job("id").expect("id"), value)
        };
        rows.iter().map(row).collect()
    }

    async fn insert(&mut self) {
        let lane = self.chance.below(3);
        let mut job = Job {
            lane,
            not_before: self.now,
            ..Job::default()
        };
        let now = self.db.time(self.now);
        let mut more = vec![("created_at", now.clone()), ("due_at", now)];
        if self.chance.once_in(5) {
            job.not_before = self.now + 1000 * i64::try_from(self.chance.below(60)).expect("small");
            more.push(("send_at", self.db.time(job.not_before)));
        }
        if self.chance.once_in(4) {
            let delay = 1 + self.chance.below(10);
            job.not_before += 1000 * i64::try_from(delay).expect("small");
            more.push(("delay", delay.to_string()));
        }
        if self.chance.once_in(6) {
            let expires = self.now + 1000 * i64::try_from(self.chance.below(100)).expect("small");
            job.expires = Some(expires);
            more.push(("expires_at", self.db.time(expires)));
        }
        if self.chance.once_in(3) {
            job.hold = true;
            more.push(("on_ambiguous", "'hold'".to_owned()));
        }
        // Two kinds of recipient share a lane by its key.
        let recipient = if lane == 2 {
            more.push(("ordering_key", "'k'".to_owned()));
            format!("x{}", self.chance.below(3))
        } else {
            format!("r{lane}")
        };
        let text = if self.chance.once_in(20) {
            "x".repeat(641)
        } else {
            "hi".to_owned()
        };
        let more: Vec<(&str, &str)> = more.iter().map(|(c, v)| (*c, v.as_str())).collect();
        let id = self.db.insert_with(&recipient, &text, &more).await;
        self.trace.push(format!("{} insert {id} {job:?}", self.now));
        self.jobs.insert(id, job);
    }

    async fn cycle(&mut self, at: usize) {
        let before = self.rows().await;
        let now = self.now;
        let worker = &mut self.workers[at];
        worker.steps.now = now;
        let result = worker.steps.cycle_at(now, BootInstant::now()).await;
        let failed = result.is_err();
        let claims = match result {
            Ok(step) => step.claims,
            Err(error) => {
                let forced = error.to_string();
                let claims = worker.steps.take_claims();
                if !(error.is_conflict() || forced.contains("constraint failed"))
                    || forced.contains("send_")
                {
                    self.broken(&format!("the cycle failed: {error}"));
                }
                claims
            }
        };
        let after = self.rows().await;
        self.trace.push(format!(
            "{now} {} cycles{}: {:?}",
            self.workers[at].name,
            if failed { " and fails" } else { "" },
            claims.iter().map(|c| (c.job, c.number)).collect::<Vec<_>>()
        ));
        self.forget_heads(&after);
        for claim in claims {
            self.request(&before, &after, &claim, at).await;
            self.workers[at].hand.push(Hand { claim, at: now });
        }
    }

    /// A head that is no longer in the lane is none.
    fn forget_heads(&mut self, rows: &BTreeMap<JobId, Row>) {
        self.heads.retain(|_, job| {
            rows.get(job)
                .is_some_and(|r| r.state == "queued" || r.state == "sending")
        });
    }

    /// Checks one request against every promise.
    async fn request(
        &mut self,
        before: &BTreeMap<JobId, Row>,
        after: &BTreeMap<JobId, Row>,
        claim: &Claim,
        at: usize,
    ) {
        let now = self.now;
        let job = self.jobs[&claim.job].clone();
        let id = claim.job;
        let row = format!(
            "select count(*) from send_lanes where job = {id} and number = {} and worker = '{}'",
            claim.number, self.workers[at].name
        );
        self.check(self.db.int(&row).await == 1, || {
            format!("G2: {id} is sent without a record")
        });
        self.check(now >= job.not_before, || format!("G7: {id} goes early"));
        self.check(job.expires.is_none_or(|e| now < e), || {
            format!("G7: {id} goes after it expired")
        });
        self.check(!(job.hold && job.may_have_arrived), || {
            format!("G6: {id} goes twice under hold")
        });
        for worker in &self.workers {
            for hand in &worker.hand {
                let other = self.jobs[&hand.claim.job].lane;
                self.check(other != job.lane || hand.at + LEASE <= now, || {
                    format!("G3: {id} goes while {} is on the wire", hand.claim.job)
                });
            }
        }
        let begun = before.get(&id).is_some_and(|r| r.attempts > 0);
        for (lower, row) in after
            .range(..id)
            .filter(|(lower, _)| self.jobs[lower].lane == job.lane)
        {
            self.check(row.state != "unknown", || {
                format!("G3: {id} goes past unknown {lower}")
            });
            let waited = before.get(lower).is_some_and(|r| r.joined);
            self.check(begun || row.state != "queued" || !waited, || {
                format!("G3: {id} begins before {lower}")
            });
        }
        if let Some(head) = self.heads.get(&job.lane) {
            self.check(*head == id, || {
                format!("G3: {id} goes although {head} has begun")
            });
        }
        self.heads.insert(job.lane, id);
        let job = self.jobs.get_mut(&id).expect("known");
        job.requests += 1;
        job.may_have_arrived = true;
    }

    fn answer(&mut self, at: usize) {
        if self.workers[at].hand.is_empty() {
            return;
        }
        let index = self.chance.below(self.workers[at].hand.len());
        let hand = self.workers[at].hand.swap_remove(index);
        let answer = match self.chance.below(12) {
            0 => status_answer(400),
            1 => status_answer(429),
            2 => status_answer(500),
            3 | 4 => status_answer(503),
            5 => Answer::not_sent("refused"),
            6 => Answer::lost("reset"),
            _ => status_answer(200),
        };
        let definite = !matches!(
            &answer,
            Answer::Lost { .. } | Answer::Status { status: 500, .. }
        );
        self.trace.push(format!(
            "{} answer {} to {} {}",
            self.now,
            word(&answer),
            self.workers[at].name,
            hand.claim.job
        ));
        let job = self.jobs.get_mut(&hand.claim.job).expect("known");
        if definite && job.requests == hand.claim.number.0 {
            job.may_have_arrived = false;
        }
        let now = self.now;
        let worker = &mut self.workers[at];
        worker.steps.now = now;
        worker.steps.answer_with(hand.claim, &answer);
    }

    async fn operator(&mut self) {
        let Some(job) = self.any_job() else { return };
        let verb = *self.chance.pick(&[
            Verb::Hold,
            Verb::Hold,
            Verb::Release,
            Verb::Release,
            Verb::Release,
            Verb::Cancel,
            Verb::ResolveDelivered,
            Verb::ResolveDead,
            Verb::ResolveResend,
            Verb::ResolveResend,
        ]);
        self.apply(verb, job).await;
    }

    async fn apply(&mut self, verb: Verb, job: JobId) {
        let by = Operator {
            who: "model".to_owned(),
            why: None,
        };
        let before = self.rows().await;
        let moved = operate::apply(&self.db.pool, verb, &[job], &by)
            .await
            .expect("applies");
        if moved.is_empty() {
            return;
        }
        let state = before[&job].state.clone();
        self.trace
            .push(format!("{} {verb:?} {job} ({state})", self.now));
        let allowed = match verb {
            Verb::Hold => state == "queued",
            Verb::Release => state == "held",
            Verb::Cancel => ["queued", "held", "unknown", "sending"].contains(&state.as_str()),
            _ => state == "unknown",
        };
        self.check(allowed, || format!("{verb:?} took {job} in {state}"));
        let known = self.jobs.get_mut(&job).expect("known");
        match verb {
            Verb::ResolveResend => known.may_have_arrived = false,
            Verb::ResolveDelivered => known.resolved = true,
            _ => {}
        }
        self.forget_heads(&self.rows().await);
    }

    fn any_job(&mut self) -> Option<JobId> {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        (!ids.is_empty()).then(|| *self.chance.pick(&ids))
    }

    async fn pause(&mut self) {
        let by = Operator {
            who: "model".to_owned(),
            why: None,
        };
        let scope = *self
            .chance
            .pick(&["all", "page:1", "lane:1/id:r0", "lane:1/key:k"]);
        let pauses = self.chance.once_in(3);
        self.trace.push(format!(
            "{} {} {scope}",
            self.now,
            if pauses { "pause" } else { "resume" }
        ));
        if pauses {
            operate::pause(&self.db.pool, &support::scope(scope), &by)
                .await
                .expect("pauses");
        } else {
            operate::resume(&self.db.pool, &support::scope(scope), &by)
                .await
                .expect("resumes");
        }
    }

    async fn step(&mut self) {
        let at = self.chance.below(self.workers.len());
        match self.chance.below(40) {
            0..9 => self.insert().await,
            9..22 => self.cycle(at).await,
            22..30 => self.answer(at),
            30..32 => self.operator().await,
            32 => self.pause().await,
            33 => {
                // Its process is gone, and all it had in hand.
                let gone = self.workers.swap_remove(at);
                self.trace
                    .push(format!("{} {} is gone", self.now, gone.name));
                self.hire().await;
            }
            34 => self.workers[at].fail.store(true, Ordering::SeqCst),
            35 | 36 => self.now += 46_000,
            37 => self.now += 5_000,
            _ => self.now += 300,
        }
    }

    /// Faults end: everything that nobody holds must end too.
    async fn quiesce(&mut self) {
        let by = Operator {
            who: "model".to_owned(),
            why: None,
        };
        for scope in ["all", "page:1", "lane:1/id:r0", "lane:1/key:k"] {
            operate::resume(&self.db.pool, &support::scope(scope), &by)
                .await
                .expect("resumes");
        }
        // Some of the old ones come back late, the others never.
        for at in 0..self.workers.len() {
            self.workers[at].fail.store(false, Ordering::SeqCst);
            while self.chance.once_in(2) && !self.workers[at].hand.is_empty() {
                self.answer(at);
            }
            self.cycle(at).await;
            self.cycle(at).await;
        }
        let mut late = std::mem::take(&mut self.workers);
        self.hire().await;
        for _ in 0..400 {
            self.cycle(0).await;
            while let Some(hand) = self.workers[0].hand.pop() {
                let job = self.jobs.get_mut(&hand.claim.job).expect("known");
                job.may_have_arrived = false;
                self.workers[0].steps.now = self.now;
                self.workers[0].steps.answer(hand.claim, 200);
            }
            self.now += 15_000;
            if self
                .rows()
                .await
                .values()
                .all(|r| r.state != "sending" && r.state != "queued")
            {
                break;
            }
        }
        self.cycle(0).await;
        for worker in &mut late {
            worker.steps.now = self.now;
            worker.steps.ledger.drain();
            for hand in worker.hand.drain(..) {
                worker.steps.answer(hand.claim, 503);
            }
            worker.steps.cycle().await;
        }
        self.cycle(0).await;
    }

    async fn verdict(&self) {
        let rows = self.rows().await;
        self.check(rows.len() == self.jobs.len(), || {
            "G1: a job vanished".to_owned()
        });
        let unknown: HashSet<usize> = rows
            .iter()
            .filter(|(_, r)| r.state == "unknown")
            .map(|(id, _)| self.jobs[id].lane)
            .collect();
        for (id, row) in &rows {
            let job = &self.jobs[id];
            let ended = match row.state.as_str() {
                "delivered" | "dead" | "cancelled" | "held" | "unknown" => true,
                _ => unknown.contains(&job.lane),
            };
            self.check(ended, || format!("G9: {id} is {} in the end", row.state));
            let attempts = self
                .db
                .int(&format!(
                    "select count(*) from send_attempts where job_id = {id}"
                ))
                .await;
            self.check(attempts == row.attempts && job.requests <= attempts, || {
                format!(
                    "G2: {id} has {attempts} attempt rows, {} attempts and {} requests",
                    row.attempts, job.requests
                )
            });
            if row.state == "delivered" && !job.resolved {
                let said = self.db.int(&format!("select count(*) from send_attempts where job_id = {id} and outcome = 'delivered'")).await;
                self.check(said > 0, || {
                    format!("G1: {id} is delivered and no answer said so")
                });
            }
        }
        let open = self
            .db
            .int("select count(*) from send_lanes where worker is not null")
            .await;
        self.check(open == 0, || {
            format!("G8: {open} attempts without an outcome")
        });
        let lanes = self
            .db
            .int("select count(*) from send_lanes where due_at is not null")
            .await;
        self.check(lanes == 0, || format!("{lanes} lanes are left"));
    }
}

fn word(answer: &Answer) -> String {
    match answer {
        Answer::Status { status, .. } => status.to_string(),
        Answer::NotSent { .. } => "not sent".to_owned(),
        Answer::Lost { .. } => "lost".to_owned(),
    }
}

async fn scenario(db: &Db, seed: u64) -> (usize, i64) {
    for table in [
        "send_jobs",
        "send_attempts",
        "send_lanes",
        "send_inbox",
        "send_timers",
        "send_pauses",
    ] {
        db.sql(&format!("delete from {table}"))
            .await
            .expect("cleans");
    }
    let mut world = World {
        db,
        chance: Chance::new(seed),
        now: db.pool.now().await.expect("now") + 1000,
        jobs: BTreeMap::new(),
        heads: HashMap::new(),
        workers: Vec::new(),
        named: 0,
        seed,
        trace: Vec::new(),
    };
    for _ in 0..=world.chance.below(3) {
        world.hire().await;
    }
    let steps = 40 + world.chance.below(100);
    for _ in 0..steps {
        world.step().await;
    }
    world.quiesce().await;
    world.verdict().await;
    (
        world.jobs.len(),
        world.jobs.values().map(|j| j.requests).sum(),
    )
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn scenarios(db: &Db, runs: u64) {
    let seeds = match number("POSTLANE_MODEL_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("POSTLANE_MODEL_RUNS").unwrap_or(runs),
    };
    let (mut jobs, mut requests) = (0, 0);
    for seed in seeds {
        let (some, sent) = scenario(db, seed).await;
        jobs += some;
        requests += sent;
    }
    eprintln!("{jobs} jobs, {requests} requests, every promise kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_every_promise_is_kept_on_sqlite() {
    let db = Db::fresh(Engine::Sqlite).await.expect("sqlite is built in");
    scenarios(&db, 120).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_every_promise_is_kept_on_postgres() {
    let Some(db) = support::postgres().await else {
        return;
    };
    scenarios(&db, 25).await;
}
