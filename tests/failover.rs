//! Promotions of a synchronous standby under load, with the real binary.
//!
//! The producer, the receiver and the checker are of this file and know nothing of the product but its outside:
//! what was acknowledged, what arrived, and what `send_attempts` says. `POSTLANE_PROMOTIONS=20` for the long run.
mod rig;
mod support;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use postlane::clock::BootInstant;
use rig::cluster::Cluster;
use rig::{Setup, Sql, synchronise, until};
use tokio::time::sleep;

/// By when requests must go on after the promotion.
const GOES_ON: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(60);
const LANES: usize = 40;

/// What arrived, in order: lane, number, when.
type Arrived = Arc<Mutex<Vec<(String, u64, BootInstant)>>>;

async fn receive(State(arrived): State<Arrived>, body: String) -> &'static str {
    let between = |from: &str, to: char| {
        let rest = body
            .split_once(from)
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        rest.split(to).next().unwrap_or_default().to_owned()
    };
    let number = between("\"text\":\"#", '"').parse().expect("a number");
    let one = (between("\"id\":\"", '"'), number, BootInstant::now());
    arrived.lock().expect("not poisoned").push(one);
    r#"{"success":true}"#
}

async fn receiver() -> (String, Arrived) {
    let arrived = Arrived::default();
    let router = Router::new()
        .route("/", post(receive))
        .with_state(Arc::clone(&arrived));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("binds");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, arrived)
}

/// Inserts number after number for each lane, each again until it is acknowledged. How many of each were.
async fn produce(servers: [Sql; 2], stop: Arc<AtomicBool>) -> BTreeMap<String, u64> {
    let (mut acknowledged, mut at) = (BTreeMap::new(), 0);
    for turn in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let lane = format!("r{}", turn % LANES);
        let number = acknowledged.get(&lane).copied().unwrap_or(0) + 1;
        let insert = format!(
            "insert into send_jobs (page_id, recipient, message, idempotency_key) values ('1', \
             '{{\"id\":\"{lane}\"}}', '{{\"template_type\":\"text\",\"text\":\"#{number}\"}}', '{lane}#{number}') \
             on conflict do nothing"
        );
        // Whether one that failed was committed is not known: its key makes it safe to repeat.
        while servers[at % 2].try_rows(&insert).await.is_err() {
            at += 1;
            sleep(Duration::from_millis(20)).await;
        }
        acknowledged.insert(lane, number);
        sleep(Duration::from_millis(3)).await;
    }
    acknowledged
}

/// Lost, out of order, repeated.
fn judge(
    acknowledged: &BTreeMap<String, u64>,
    arrived: &[(String, u64, BootInstant)],
) -> [usize; 3] {
    let (mut newest, mut reordered, mut repeats) = (BTreeMap::<&str, u64>::new(), 0, 0);
    for (lane, number, _) in arrived {
        let newest = newest.entry(lane).or_default();
        match *number {
            number if number == *newest => repeats += 1,
            number if number == *newest + 1 => *newest = number,
            _ => reordered += 1,
        }
    }
    let arrived: HashSet<_> = arrived
        .iter()
        .map(|(lane, number, _)| (lane, *number))
        .collect();
    let all = acknowledged
        .iter()
        .flat_map(|(lane, most)| (1..=*most).map(move |n| (lane, n)));
    [
        all.filter(|one| !arrived.contains(one)).count(),
        reordered,
        repeats,
    ]
}

#[test]
fn the_checker_sees_what_it_is_for() {
    let arrive = |numbers: &[u64]| -> Vec<_> {
        let one = |n: &u64| ("a".to_owned(), *n, BootInstant::now());
        numbers.iter().map(one).collect()
    };
    let three = BTreeMap::from([("a".to_owned(), 3)]);
    for (numbers, verdict) in [
        (&[1, 2, 3][..], [0, 0, 0]),
        (&[1, 2, 2, 3], [0, 0, 1]),
        (&[1, 2], [1, 0, 0]),
        (&[1, 3, 2], [0, 1, 0]),
        (&[1, 2, 1, 3], [0, 1, 0]),
    ] {
        assert_eq!(judge(&three, &arrive(numbers)), verdict, "{numbers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promotions_of_a_synchronous_standby_lose_and_reorder_nothing() {
    let (Some(mut primary), Some(mut standby)) = (Cluster::new(), Cluster::new()) else {
        return;
    };
    let promotions: u32 =
        std::env::var("POSTLANE_PROMOTIONS").map_or(2, |n| n.parse().expect("a number"));
    primary.start();
    Sql::open(&primary.url("postgres"))
        .rows("create database queue")
        .await;
    let hosts = format!("{},{}", primary.address(), standby.address());
    let (url, arrived) = receiver().await;
    let setup = Setup {
        timeout: "5s",
        lease: "8s",
        ..Setup::new(
            &format!("postgres://postgres@{hosts}/queue?target_session_attrs=read-write"),
            &url,
        )
    };
    let (code, _, error) = setup.verb(&["migrate"]);
    assert_eq!(code, 0, "{error}");
    pair(&primary, &standby).await;

    let mut worker = setup.start();
    worker.ready(true, LONG).await;
    let stop = Arc::new(AtomicBool::new(false));
    let servers = [
        Sql::open(&primary.url("queue")),
        Sql::open(&standby.url("queue")),
    ];
    let producer = tokio::spawn(produce(servers, Arc::clone(&stop)));
    let count = || arrived.lock().expect("not poisoned").len();
    let mut waits = Vec::new();
    for promotion in 1..=promotions {
        let before = count();
        until("requests arrive", LONG, async || count() > before + 200).await;
        primary.stop("immediate");
        standby.promote();
        let promoted = BootInstant::now();
        let first_after = || {
            let arrived = arrived.lock().expect("not poisoned");
            arrived
                .iter()
                .map(|(.., at)| *at)
                .find(|at| at.since(promoted) > Duration::ZERO)
        };
        until("requests go on", LONG, async || first_after().is_some()).await;
        let waited = first_after().expect("seen").since(promoted);
        assert!(
            waited < GOES_ON,
            "promotion {promotion}: {waited:?}; {}",
            worker.log()
        );
        waits.push(waited);
        std::mem::swap(&mut primary, &mut standby);
        pair(&primary, &standby).await;
    }
    worker.ready(true, LONG).await;
    stop.store(true, Ordering::Release);
    let acknowledged = producer.await.expect("the producer does not panic");
    let sql = Sql::open(&primary.url("queue"));
    sql.finished(LONG).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());

    let arrived = arrived.lock().expect("not poisoned").clone();
    let [lost, reordered, repeats] = judge(&acknowledged, &arrived);
    let attempts = usize::try_from(sql.count("send_attempts").await).expect("few");
    println!(
        "{promotions} promotions: {} acknowledged, {} requests, {attempts} attempts, {lost} lost, {reordered} reordered, \
         {repeats} repeats; went on after {waits:?}",
        acknowledged.values().sum::<u64>(),
        arrived.len()
    );
    assert_eq!([lost, reordered], [0, 0]);
    assert!(
        arrived.len() <= attempts,
        "{} requests, {attempts} attempts",
        arrived.len()
    );
    // What was in flight when a primary went, and no more.
    assert!(repeats <= 32 * promotions as usize, "{repeats} repeats");
}

/// Makes `standby` a synchronous one of `primary`, which runs.
async fn pair(primary: &Cluster, standby: &Cluster) {
    standby.follow(primary);
    standby.start();
    synchronise(&primary.url("postgres")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_host_of_a_url_is_named_with_its_own_reason() {
    let (Some(primary), Some(standby)) = (Cluster::new(), Cluster::new()) else {
        return;
    };
    primary.start();
    standby.follow(&primary);
    standby.start();
    let nobody = format!("127.0.0.1:{}", rig::free_port());
    let of = |hosts: &str| {
        Setup::new(
            &format!("postgres://postgres@{hosts}/postgres"),
            "http://127.0.0.1:9/",
        )
    };
    let (code, _, said) = of(&format!("{nobody},{}", standby.address())).verb(&["migrate"]);
    assert_eq!(code, 1, "{said}");
    for host in [
        format!("{nobody}: connection refused (nothing listens there)"),
        format!("{}: is a standby", standby.address()),
    ] {
        assert!(said.contains(&host), "{said}");
    }
    let all = format!("{nobody},{},{}", standby.address(), primary.address());
    for verb in ["migrate", "check", "stats"] {
        let (code, out, said) = of(&all).verb(&[verb]);
        assert_eq!(code, 0, "{verb}: {out}{said}");
    }
}
