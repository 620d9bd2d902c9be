//! The scenarios that deliver a backlog, as data: what is there, and what should come of it.

use crate::drain::Load;
use crate::fill::{Backlog, DEEP};
use crate::receiver::Setup;

/// How big everything is.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Jobs that are delivered in a run.
    pub jobs: usize,
    /// Jobs of S3's deep lane, and of S6's sick page.
    pub deep: usize,
    /// Jobs in the queue of S4.
    pub queued: usize,
    /// Finished jobs of S5.
    pub finished: usize,
    /// Old jobs of S14.
    pub old: usize,
    /// Jobs of S15's single lane.
    pub lane: usize,
    /// INSERTs of one run of S8.
    pub wakes: u32,
    /// Seconds of S9's rest.
    pub rest: u64,
    /// Seconds of S10, and of S6's second part.
    pub produce: u64,
    /// Seconds of S12.
    pub held: u64,
    /// Seconds of the leases in S11.
    pub lease: u64,
    /// Seconds of each part of S16.
    pub steady: u64,
    /// Pages of S17 that have work, that have no secret, and that have a rate.
    pub pages: [usize; 3],
}

impl Sizes {
    /// Those of the goals.
    pub const FULL: Self = Self {
        jobs: 100_000,
        deep: 500_000,
        queued: 2_000_000,
        finished: 5_000_000,
        old: 1_000_000,
        lane: 20_000,
        wakes: 200,
        rest: 60,
        produce: 10,
        held: 120,
        lease: 15,
        steady: 20,
        pages: [20_000, 100_000, 3_000],
    };
    /// For a look.
    pub const QUICK: Self = Self {
        jobs: 20_000,
        deep: 50_000,
        queued: 200_000,
        finished: 300_000,
        old: 100_000,
        lane: 3_000,
        wakes: 60,
        rest: 8,
        produce: 4,
        held: 15,
        lease: 4,
        steady: 6,
        pages: [20_000, 100_000, 3_000],
    };
}

/// What should come of it.
#[derive(Debug, Clone, Copy)]
pub enum Want {
    /// So much of the bare loop.
    OfBare { sqlite: f64, postgres: f64 },
    /// So much of S1.
    OfFirst(f64),
    /// So much of S1, in attempts.
    AttemptsOfFirst(f64),
    /// So much of what the requests in flight allow, or of the bare loop if that is less.
    OfPossible { part: f64, possible: f64 },
    /// So many deliveries a second.
    PerSecond { sqlite: f64, postgres: f64 },
}

/// A scenario.
#[derive(Debug, Clone)]
pub struct Plan {
    /// With its sizes.
    pub title: String,
    /// What is measured.
    pub load: Load,
    /// What it should reach.
    pub want: Want,
    /// Whether the memory of the worker has a bound.
    pub memory: bool,
}

impl Plan {
    /// S1 as it runs in turn with this, for the same engine.
    pub fn first(&self, sizes: &Sizes) -> Option<Load> {
        let compared = matches!(self.want, Want::OfFirst(_) | Want::AttemptsOfFirst(_));
        compared.then(|| Load {
            checkpoint: self.load.checkpoint,
            ..Load::new(sizes.jobs, sizes.jobs)
        })
    }
}

/// `100,000`.
pub fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}

pub fn s1(sizes: &Sizes) -> Plan {
    Plan {
        title: format!("{} jobs, as many recipients", thousands(sizes.jobs)),
        load: Load::new(sizes.jobs, sizes.jobs),
        want: Want::OfBare {
            sqlite: 0.55,
            postgres: 0.45,
        },
        memory: true,
    }
}

pub fn s2(sizes: &Sizes) -> Plan {
    Plan {
        title: format!("{} jobs, 100 recipients", thousands(sizes.jobs)),
        load: Load::new(sizes.jobs, 100),
        want: Want::OfFirst(0.9),
        memory: true,
    }
}

pub fn s3(sizes: &Sizes) -> Plan {
    Plan {
        title: format!(
            "S1 beside a lane of {} jobs whose head fails",
            thousands(sizes.deep)
        ),
        load: Load {
            backlog: Backlog::Deep(sizes.deep),
            receiver: Setup {
                scripts: vec![format!("{DEEP}=500 *")],
                ..Setup::default()
            },
            ..Load::new(sizes.jobs, sizes.jobs)
        },
        want: Want::OfFirst(0.95),
        memory: true,
    }
}

/// The oldest jobs are on pages that were written before the last checkpoint, so S1 begins with one
/// here, too.
pub fn s4(sizes: &Sizes) -> Plan {
    Plan {
        title: format!(
            "the first {} of {} queued jobs",
            thousands(sizes.jobs),
            thousands(sizes.queued)
        ),
        load: Load {
            backlog: Backlog::Queued(sizes.queued),
            deliveries: sizes.jobs,
            checkpoint: true,
            ..Load::new(0, 1)
        },
        want: Want::OfFirst(0.95),
        memory: true,
    }
}

pub fn s5(sizes: &Sizes) -> Plan {
    Plan {
        title: format!("S1 beside {} finished jobs", thousands(sizes.finished)),
        load: Load {
            backlog: Backlog::Finished(sizes.finished, 1),
            ..Load::new(sizes.jobs, sizes.jobs)
        },
        want: Want::OfFirst(0.95),
        memory: false,
    }
}

pub fn s7(sizes: &Sizes) -> Plan {
    let mut load = Load::new(sizes.jobs, sizes.jobs);
    load.settings.in_flight = 2000;
    load.receiver.latency_ms = 200;
    Plan {
        title: "the receiver takes 200 ms, 2,000 requests in flight".to_owned(),
        load,
        want: Want::OfPossible {
            part: 0.9,
            possible: 2000.0 / 0.2,
        },
        memory: false,
    }
}

/// Each recipient has four jobs and gets them with five requests. A retry waits for 100 ms at first:
/// the two seconds of the default are a wait at the end of a run, and no work.
pub fn s13(sizes: &Sizes) -> Plan {
    let mut load = Load::new(sizes.jobs, sizes.jobs / 4);
    load.settings = load.settings.with("RETRY__FIRST", "100ms");
    load.receiver.scripts = vec!["*=ok x2, 500, ok x2".to_owned()];
    Plan {
        title: "20 % of requests answered 500, order kept".to_owned(),
        load,
        want: Want::AttemptsOfFirst(0.7),
        memory: false,
    }
}

pub fn s14(sizes: &Sizes) -> Plan {
    Plan {
        title: format!("S1 while {} old jobs are pruned", thousands(sizes.old)),
        load: Load {
            backlog: Backlog::Finished(sizes.old, 8),
            ..Load::new(sizes.jobs, sizes.jobs)
        },
        want: Want::OfFirst(0.9),
        memory: false,
    }
}

pub fn s15(sizes: &Sizes) -> Plan {
    Plan {
        title: format!("{} jobs in one lane", thousands(sizes.lane)),
        load: Load::new(sizes.lane, 1),
        want: Want::PerSecond {
            sqlite: 1500.0,
            postgres: 1000.0,
        },
        memory: false,
    }
}
