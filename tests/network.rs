//! A host that vanishes without a word, and its address that moves: real hosts, in network namespaces of the test's own.
//!
//! Needs root, `ip` and a Postgres server; where one is missing the tests are skipped by name, which fails in CI.
#![expect(clippy::print_stderr, reason = "says what was skipped")]

mod rig;
mod support;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rig::cluster::Cluster;
use rig::{Setup, Sql, Worker, sandbox, synchronise, until};
use sandbox::Mock;
use tokio::time::{Instant, sleep};

/// By when a worker must have found out, and go on.
const FOUND: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(60);

/// A network with two hosts, and an address that one of them has.
struct Network {
    /// Names of this process's own, so that tests can run at once.
    name: String,
    subnet: u32,
}

const HOSTS: [&str; 2] = ["a", "b"];

fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Network {
    fn new(number: u32) -> Option<Self> {
        let network = Self {
            name: format!("pl{}x{number}", std::process::id() % 100_000),
            subnet: 100 + (std::process::id() + number * 61) % 120,
        };
        if !rustix::process::geteuid().is_root() || !network.make() {
            assert!(
                std::env::var_os("CI").is_none(),
                "in CI nothing may be skipped: run as root, with iproute2"
            );
            eprintln!("skipped: network namespaces need root and `ip`");
            return None;
        }
        Some(network)
    }

    fn make(&self) -> bool {
        let Self { name, subnet } = self;
        let bridge = ip(&format!("link add {name} type bridge"))
            && ip(&format!("addr add 10.213.{subnet}.1/24 dev {name}"))
            && ip(&format!("link set {name} up"));
        bridge
            && HOSTS.iter().enumerate().all(|(at, host)| {
                let (space, link) = (format!("{name}{host}"), format!("{name}{host}"));
                ip(&format!("netns add {space}"))
                    && ip(&format!(
                        "link add {link} type veth peer name eth0 netns {space}"
                    ))
                    && ip(&format!("link set {link} master {name} up"))
                    && ip(&format!(
                        "-n {space} addr add 10.213.{subnet}.{}/24 dev eth0",
                        at + 2
                    ))
                    && ip(&format!("-n {space} link set eth0 up"))
                    && ip(&format!("-n {space} link set lo up"))
            })
    }

    fn space(&self, host: &str) -> String {
        format!("{}{host}", self.name)
    }

    /// The address that moves.
    fn address(&self) -> String {
        format!("10.213.{}.99", self.subnet)
    }

    /// Gives it to a host, as a cluster manager does: with a word to the neighbours.
    fn give_address(&self, host: &str) {
        let (space, address) = (self.space(host), self.address());
        assert!(
            ip(&format!("-n {space} addr add {address}/32 dev eth0")),
            "the address"
        );
        // What the bridge's host knows of the old one is forgotten.
        ip(&format!("neigh flush dev {}", self.name));
    }

    /// The host is gone: no packet of its comes or goes any more, and nobody says so.
    fn vanish(&self, host: &str) {
        assert!(
            ip(&format!("link set {} down", self.space(host))),
            "the link"
        );
        ip(&format!("neigh flush dev {}", self.name));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in HOSTS {
            ip(&format!("netns del {}", self.space(host)));
            ip(&format!("link del {}", self.space(host)));
        }
        ip(&format!("link del {}", self.name));
    }
}

/// A worker in front of a primary that has the address, and a synchronous standby.
struct Scene {
    network: Network,
    second: Cluster,
    /// Dropped last: the test's own processes end with their data.
    _first: Cluster,
    mock: Arc<Mock>,
    setup: Setup,
}

impl Scene {
    async fn new(number: u32) -> Option<Self> {
        let network = Network::new(number)?;
        let (first, second) = (Cluster::new()?, Cluster::new()?);
        let (port, primary) = (5432, format!("10.213.{}.2", network.subnet));
        first.trust("10.213.0.0/16");
        first.start_in(&network.space("a"), port);
        second.follow_at(&primary, port);
        second.start_in(&network.space("b"), port);
        synchronise(&format!("postgres://postgres@{primary}:{port}/postgres")).await;
        network.give_address("a");
        let url = format!("postgres://postgres@{}:{port}/postgres", network.address());
        let mock = sandbox();
        let setup = Setup {
            timeout: "5s",
            lease: "8s",
            ..Setup::new(&url, &mock.url())
        };
        let (code, _, error) = setup.verb(&["migrate"]);
        assert_eq!(code, 0, "{error}");
        Some(Self {
            network,
            second,
            _first: first,
            mock,
            setup,
        })
    }

    /// The primary's host is gone, and the standby has its place and its address.
    fn fail_over(&self) {
        self.network.vanish("a");
        self.second.promote();
        self.network.give_address("b");
    }

    fn sql(&self) -> Sql {
        Sql::open(&self.setup.database_url)
    }

    async fn working(&self) -> Worker {
        let worker = self.setup.start();
        worker.ready(true, LONG).await;
        worker
    }
}

async fn insert(sql: &Sql, jobs: usize) {
    sql.rows(&format!(
        "insert into send_jobs (page_id, recipient, message) select '1', json_build_object('id', 'r' || g), \
         '{{\"template_type\":\"text\",\"text\":\"x\"}}' from generate_series(1, {jobs}) g"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_goes_on_with_whoever_has_the_address_of_a_host_that_vanished() {
    let Some(scene) = Scene::new(1).await else {
        return;
    };
    let mut worker = scene.working().await;
    let sql = scene.sql();
    scene.mock.set_latency(Duration::from_millis(300));
    insert(&sql, 2000).await;
    until("requests are in flight", LONG, async || {
        scene.mock.count() > 60
    })
    .await;

    scene.fail_over();
    let moved = Instant::now();
    // Those that were on the wire end within their timeout; what comes after them was claimed of the second server.
    sleep(Duration::from_secs(6)).await;
    let before = scene.mock.count();
    until("requests go on", FOUND, async || {
        scene.mock.count() > before
    })
    .await;
    assert!(moved.elapsed() < FOUND, "{:?}", moved.elapsed());
    worker.ready(true, FOUND).await;
    assert!(
        worker.says("nothing is sent until it can") > 0,
        "{}",
        worker.log()
    );
    scene.mock.set_latency(Duration::ZERO);
    let sql = scene.sql();
    sql.finished(LONG).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    let attempts = sql.count("send_attempts").await;
    assert!(
        scene.mock.count() <= attempts,
        "{} requests, {attempts} attempts",
        scene.mock.count()
    );
    assert_eq!(sql.count("send_jobs where state = 'delivered'").await, 2000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_host_vanished_stops_in_time_and_says_so_meanwhile() {
    let Some(scene) = Scene::new(2).await else {
        return;
    };
    let mut worker = scene.working().await;
    scene.mock.set_latency(Duration::from_millis(300));
    insert(&scene.sql(), 2000).await;
    until("requests are in flight", LONG, async || {
        scene.mock.count() > 60
    })
    .await;
    scene.network.vanish("a");
    worker.ready(false, FOUND).await;
    let told = Instant::now();
    let code = worker.stop().await;
    // shutdown_timeout is five seconds.
    assert!(
        told.elapsed() < Duration::from_secs(7),
        "{:?}",
        told.elapsed()
    );
    assert_eq!(code, 1, "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_finds_out_that_its_host_has_vanished() {
    let Some(scene) = Scene::new(3).await else {
        return;
    };
    let mut worker = scene.working().await;
    sleep(Duration::from_secs(3)).await;
    scene.fail_over();
    let sql = scene.sql();
    until("the address answers", LONG, async || {
        sql.try_rows("select 'x'").await.is_ok()
    })
    .await;
    insert(&sql, 1).await;
    until("it is delivered", FOUND, async || scene.mock.count() == 1).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
}
