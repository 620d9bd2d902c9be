//! The worker is killed and stalled at random moments under load, and every promise still holds.
//!
//! The real binary, SIGKILL and SIGSTOP, both engines; the receiver survives in this process and
//! an independent checker judges tables and record. `POSTLANE_KILLS` (10) says how often each
//! test kills, `POSTLANE_SEED` when.
#![expect(
    clippy::print_stdout,
    reason = "figures and what was skipped are for whoever runs the tests"
)]

mod rig;
mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rig::{Dice, Load, Producer, Setup, Sql, Worker, check, sandbox, until};
use rustix::process::Signal;
use sandbox::Mock;
use tokio::time::{Instant, sleep, timeout};

/// Longer than the lease of these workers (1.4 s).
const STALL: Duration = Duration::from_millis(1900);

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn kills() -> u64 {
    setting("POSTLANE_KILLS", 10)
}

fn dice() -> Dice {
    Dice(setting("POSTLANE_SEED", 7))
}

/// How long everything may take to end after the last fault.
const LONG: Duration = Duration::from_secs(30);

/// Jobs that may still go out: not those behind one that an operator must decide.
const LEFT: &str = "send_jobs j where state in ('queued', 'held') and not exists \
    (select 1 from send_jobs u where u.lane = j.lane and u.state = 'unknown' and u.id < j.id)";

/// Waits until the receiver has got more than it had.
async fn work_goes_on(mock: &Mock, worker: &Worker) {
    let before = mock.count();
    until("requests go on", Duration::from_secs(20), async || {
        mock.count() > before
    })
    .await;
    assert!(worker.pid() > 0);
}

/// A kill may also come before the first request.
async fn a_random_moment(dice: &mut Dice, mock: &Mock, worker: &Worker) {
    mock.set_latency(dice.ms(0, 15));
    work_goes_on(mock, worker).await;
    sleep(dice.ms(5, 300)).await;
}

/// What a killed worker leaves open. A commit that had reached the server is carried out after its death.
async fn left_open(sql: &Sql, worker: &Worker) -> HashSet<(i64, i64)> {
    let mut open = sql.open_attempts(Some(worker)).await;
    loop {
        sleep(Duration::from_millis(50)).await;
        let now = sql.open_attempts(Some(worker)).await;
        if now.is_subset(&open) {
            return open;
        }
        open.extend(now);
    }
}

/// A worker that is killed at random moments and started again; the last one, at work, and which
/// attempts were in flight at the kills.
async fn killed(
    setup: &Setup,
    kills: u64,
    dice: &mut Dice,
    mock: &Mock,
    sql: &Sql,
) -> (Worker, HashSet<(i64, i64)>) {
    let mut in_flight = HashSet::new();
    let mut worker = setup.start();
    for _ in 0..kills {
        a_random_moment(dice, mock, &worker).await;
        worker.kill();
        in_flight.extend(left_open(sql, &worker).await);
        worker = setup.start();
    }
    work_goes_on(mock, &worker).await;
    (worker, in_flight)
}

/// Beside another worker, one may just have nothing to do.
async fn has_work_in_hand(sql: &Sql, worker: &Worker) {
    let name = worker.signature();
    let open = format!("send_lanes where worker like '{name}%'");
    until("the victim has work in hand", LONG, async || {
        sql.count(&open).await > 0
    })
    .await;
}

fn tell(
    what: &str,
    db: &support::Db,
    faults: u64,
    bound: usize,
    verdict: &rig::Verdict,
    began: Instant,
) {
    println!(
        "{what} on {:?}: {faults} faults, {verdict}, bound {bound}, {:.1?}",
        db.engine,
        began.elapsed()
    );
}

/// However often a worker is killed, no job is singled out for it.
fn patient(db: &support::Db, mock: &Mock) -> Setup {
    let mut setup = Setup::new(&db.url, &mock.url());
    let most = ("POSTLANE_RETRY__MAX_AMBIGUOUS", "1000000");
    setup.env.push((most.0.to_owned(), most.1.to_owned()));
    setup
}

both! {
    a_killed_worker_loses_nothing_keeps_order_and_repeats_only_what_was_in_flight, |db| {
        let (began, mut dice, mock) = (Instant::now(), dice(), sandbox());
        let sql = Sql::open(&db.url);
        let setup = patient(&db, &mock);
        let producer = Producer::start(sql.clone(), Arc::clone(&mock), Load::default(), dice.roll());
        let (mut worker, in_flight) = killed(&setup, kills(), &mut dice, &mock, &sql).await;
        let accepted = producer.stop().await;
        sql.finished(LONG).await;
        assert_eq!(worker.stop().await, 0);
        let verdict = check(&sql, &accepted, &mock, &[]).await;
        tell("kill", &db, kills(), in_flight.len(), &verdict, began);
        verdict.is_clean();
        assert!(verdict.duplicates <= in_flight.len(), "{verdict}, {} in flight", in_flight.len());
        let killed: HashSet<i64> = in_flight.iter().map(|(job, _)| *job).collect();
        let others: Vec<_> = verdict.doubled.difference(&killed).collect();
        assert!(others.is_empty(), "doubled without having been in flight: {others:?}");
        assert_eq!(mock.stats().duplicates, verdict.duplicates as u64);
        assert_eq!(worker.says("please report"), 0);
    }

    one_of_two_workers_is_killed_and_the_other_takes_its_lanes_over, |db| {
        let (began, mut dice, mock) = (Instant::now(), dice(), sandbox());
        let sql = Sql::open(&db.url);
        let setup = patient(&db, &mock);
        let setups = [setup.named("a"), setup.named("b")];
        let producer = Producer::start(sql.clone(), Arc::clone(&mock), Load::default(), dice.roll());
        let mut in_flight = HashSet::new();
        let mut workers = setups.each_ref().map(Setup::start);
        let faults = kills().div_ceil(2);
        for _ in 0..faults {
            let victim = usize::from(dice.roll() % 2 == 0);
            a_random_moment(&mut dice, &mock, &workers[victim]).await;
            has_work_in_hand(&sql, &workers[victim]).await;
            workers[victim].kill();
            in_flight.extend(left_open(&sql, &workers[victim]).await);
            work_goes_on(&mock, &workers[1 - victim]).await;
            workers[victim] = setups[victim].start();
        }
        let accepted = producer.stop().await;
        sql.finished(LONG).await;
        for worker in &mut workers {
            assert_eq!(worker.stop().await, 0);
            assert_eq!(worker.says("please report"), 0);
        }
        let verdict = check(&sql, &accepted, &mock, &[]).await;
        tell("two workers", &db, faults, in_flight.len(), &verdict, began);
        verdict.is_clean();
        assert!(verdict.duplicates <= in_flight.len(), "{verdict}, {} in flight", in_flight.len());
    }

    with_hold_a_job_is_received_once_at_most_until_an_operator_decides, |db| {
        let (began, mut dice, mock) = (Instant::now(), dice(), sandbox());
        let sql = Sql::open(&db.url);
        let setup = Setup { on_ambiguous: "hold", ..patient(&db, &mock) };
        let faults = kills().div_ceil(2);
        // What waits behind unknown jobs counts as ahead of the receiver.
        let load = Load { recipients: 5000, ahead: 200 + 50 * faults, ..Load::default() };
        let producer = Producer::start(sql.clone(), Arc::clone(&mock), load, dice.roll());
        let (mut worker, in_flight) = killed(&setup, faults, &mut dice, &mock, &sql).await;
        let accepted = producer.stop().await;
        // All that is left stands behind a job that nobody knows of.
        until("only unknown jobs and those behind them are left", LONG, async || {
            sql.count(LEFT).await == 0
        }).await;
        let unknown = sql.count("send_jobs where state = 'unknown'").await;
        let held = check(&sql, &accepted, &mock, &["unknown", "queued"]).await;
        tell("hold", &db, faults, in_flight.len(), &held, began);
        held.is_clean();
        assert_eq!(held.duplicates, 0);
        // On a busy machine an answer may also come after the deadline of a second.
        let late = sql.count("send_attempts where rule = 'transport.ambiguous'").await;
        let most = in_flight.len() as u64 + late;
        assert!(unknown <= most, "{unknown} unknown, {} in flight, {late} late", in_flight.len());
        assert!(unknown > 0, "no kill hit a request: this test has not tested anything");
        let (code, listed, _) = setup.verb(&["list", "--state", "unknown", "--json", "--all-rows"]);
        assert_eq!((code, listed.lines().count() as u64), (0, unknown));
        let (code, _, err) = setup.verb(&["resolve", "--state", "unknown", "--resend", "--yes"]);
        assert_eq!(code, 0, "{err}");
        sql.finished(LONG).await;
        assert_eq!(worker.stop().await, 0);
        let verdict = check(&sql, &accepted, &mock, &[]).await;
        verdict.is_clean();
        assert!(verdict.duplicates as u64 <= unknown, "{verdict}, {unknown} unknown");
    }

    a_worker_stalled_beyond_its_lease_is_fenced_and_order_holds, |db| {
        let (verdict, bound) = stall(&db, "retry").await;
        verdict.keeps_its_order();
        assert!(verdict.duplicates <= bound, "{verdict}, {bound} in flight");
    }

    with_hold_a_stalled_worker_repeats_nothing, |db| {
        let (verdict, _) = stall(&db, "hold").await;
        verdict.is_clean();
        assert_eq!(verdict.duplicates, 0, "{verdict}");
    }
}

/// Two workers, one of them stopped for longer than its lease, again and again. Returns what the
/// checker says, and how many attempts were in flight when the stalls came.
async fn stall(db: &support::Db, on_ambiguous: &'static str) -> (rig::Verdict, usize) {
    let (began, mut dice, mock) = (Instant::now(), dice(), sandbox());
    let sql = Sql::open(&db.url);
    let setup = Setup {
        on_ambiguous,
        ..patient(db, &mock)
    };
    let setups = [setup.named("a"), setup.named("b")];
    let faults = kills().div_ceil(4);
    let load = Load {
        recipients: if on_ambiguous == "hold" { 5000 } else { 200 },
        ahead: 200 + 50 * faults,
        rest: Duration::from_millis(5),
        ..Load::default()
    };
    let producer = Producer::start(sql.clone(), Arc::clone(&mock), load, dice.roll());
    let mut in_flight = HashSet::new();
    let mut workers = setups.each_ref().map(Setup::start);
    for _ in 0..faults {
        let victim = usize::from(dice.roll() % 2 == 0);
        // Requests that are surely under way when the stall comes.
        mock.set_latency(dice.ms(50, 100));
        work_goes_on(&mock, &workers[victim]).await;
        has_work_in_hand(&sql, &workers[victim]).await;
        workers[victim].signal(Signal::STOP);
        in_flight.extend(sql.open_attempts(None).await);
        sleep(STALL).await;
        // One that stalls with a lock in hand is not taken over before it goes on.
        let taken_over = async {
            while !sql.open_attempts(Some(&workers[victim])).await.is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(Duration::from_secs(2), taken_over).await;
        workers[victim].signal(Signal::CONT);
        work_goes_on(&mock, &workers[victim]).await;
    }
    let accepted = producer.stop().await;
    until(
        "only what waits for an operator is left",
        LONG,
        async || sql.count(LEFT).await == 0,
    )
    .await;
    // A fenced report may come after its job is finished.
    until("every attempt has an outcome", LONG, async || {
        sql.open_attempts(None).await.is_empty()
    })
    .await;
    for worker in &mut workers {
        assert_eq!(worker.stop().await, 0);
        assert_eq!(worker.says("please report"), 0);
    }
    let fenced = workers.iter().map(|w| w.says("had been taken over"));
    let fenced: usize = fenced.sum();
    let open: &[&str] = if on_ambiguous == "hold" {
        &["unknown", "queued"]
    } else {
        &[]
    };
    let verdict = check(&sql, &accepted, &mock, open).await;
    let what = format!("stall, {on_ambiguous}, {fenced} times fenced,");
    tell(&what, db, faults, in_flight.len(), &verdict, began);
    assert!(fenced > 0, "nobody was fenced");
    (verdict, in_flight.len())
}
