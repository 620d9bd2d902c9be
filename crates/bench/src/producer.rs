//! Producers: processes that insert single rows at a fixed pace, whatever becomes of the last.
//!
//! An open loop: each INSERT has its moment, and a late one is late, so a database that stalls
//! cannot hide the stall by slowing its producers down.

use std::time::Duration;

use anyhow::{Context as _, Result};
use postlane::clock::BootInstant;
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;

use crate::process::{self, Process};
use crate::receiver::Arrivals;
use crate::sql::{Safety, Sql};

/// What one producer does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// The database.
    pub url: String,
    /// What its recipients' names begin with.
    pub prefix: String,
    /// How many rows.
    pub inserts: u32,
    /// From one to the next, in microseconds.
    pub every_us: u64,
    /// Over how many recipients, in turn.
    pub recipients: u32,
    /// Each recipient is of a page of its own.
    pub pages: bool,
}

/// One INSERT; nanoseconds of the boot clock.
#[derive(Debug, Clone)]
pub struct Insert {
    /// The recipient.
    pub recipient: String,
    /// The number of the message among those of its recipient, from 1.
    pub number: u64,
    /// When it was to begin.
    pub scheduled_ns: u64,
    /// When it began.
    pub began_ns: u64,
    /// When its commit was confirmed.
    pub done_ns: u64,
}

/// The role: connects, says so, waits for a line with the moment to begin, inserts, and prints what
/// it did. A thread that sleeps: the timers of tokio are a millisecond coarse.
pub fn produce() -> Result<()> {
    let task: Task = process::task()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut sql = runtime.block_on(Sql::open(&task.url, Safety::Full))?;
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let begin: u64 = line.trim().parse().context("the moment to begin")?;
    let mut done = Vec::with_capacity(task.inserts as usize);
    for n in 0..task.inserts {
        let scheduled = begin + u64::from(n) * task.every_us * 1000;
        let now = BootInstant::now().nanos();
        if now < scheduled {
            std::thread::sleep(Duration::from_nanos(scheduled - now));
        }
        let (name, number) = (n % task.recipients, n / task.recipients + 1);
        let recipient = format!("{{\"id\":\"{}{name}\"}}", task.prefix);
        let message = format!("{{\"template_type\":\"text\",\"text\":\"Hello World #{number}\"}}");
        let began = BootInstant::now().nanos();
        let page = match task.pages {
            true => format!("1{name:08}"),
            false => "1".to_owned(),
        };
        runtime.block_on(sql.enqueue(&page, &recipient, &message))?;
        let confirmed = BootInstant::now().nanos();
        done.push((name, number, scheduled, began, confirmed));
    }
    for (name, number, scheduled, began, confirmed) in done {
        println!(
            "{}{name} {number} {scheduled} {began} {confirmed}",
            task.prefix
        );
    }
    runtime.block_on(sql.close())
}

/// How producers work.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How many processes.
    pub producers: u32,
    /// Rows a second of each.
    pub rate: u32,
    /// For so long.
    pub span: Duration,
    /// Over how many recipients of all of them; none: each job has its own.
    pub recipients: Option<u32>,
    /// Each recipient is of a page of its own.
    pub pages: bool,
}

impl Pace {
    /// How many rows all of them insert.
    pub fn inserts(self) -> u32 {
        self.producers * self.each()
    }

    fn each(self) -> u32 {
        let inserts = self.span.as_secs_f64() * f64::from(self.rate);
        inserts as u32
    }
}

/// Producers that are connected and wait.
pub struct Producers(Vec<Process>);

impl Producers {
    /// Starts them.
    pub async fn start(url: &str, prefix: &str, pace: Pace) -> Result<Self> {
        let mut processes = Vec::new();
        for producer in 0..pace.producers {
            let task = Task {
                url: url.to_owned(),
                prefix: format!("{prefix}{producer}x"),
                inserts: pace.each(),
                every_us: 1_000_000 / u64::from(pace.rate),
                recipients: pace
                    .recipients
                    .map_or(pace.each(), |all| all / pace.producers)
                    .max(1),
                pages: pace.pages,
            };
            processes.push(Process::role("producer", &task, None)?);
        }
        for process in &mut processes {
            process.line().await?;
        }
        Ok(Self(processes))
    }

    /// Lets them begin, one shortly after the other; returns what they did.
    pub async fn insert(mut self) -> Result<Vec<Insert>> {
        let begin = BootInstant::now().later(Duration::from_millis(50)).nanos();
        for (at, process) in self.0.iter_mut().enumerate() {
            process.say(&(begin + at as u64 * 300_000).to_string())?;
        }
        let mut inserts = Vec::new();
        for process in &mut self.0 {
            let said = process.rest().await?;
            for line in said.lines() {
                inserts.push(Insert::read(line).context("what a producer did")?);
            }
        }
        for mut process in self.0 {
            let ended = process.ends(Duration::from_secs(10)).await?;
            anyhow::ensure!(ended.success(), "a producer ended with {ended}");
        }
        Ok(inserts)
    }
}

impl Insert {
    /// When its request arrived, by the receiver's record.
    pub fn arrived(&self, arrivals: &Arrivals) -> Result<u64> {
        let arrived = arrivals.get(&(self.recipient.clone(), self.number));
        arrived
            .copied()
            .with_context(|| format!("{} #{} did not arrive", self.recipient, self.number))
    }

    /// Milliseconds from the moment it was due to its confirmed commit.
    pub fn took_ms(&self) -> f64 {
        (self.done_ns - self.scheduled_ns) as f64 / 1e6
    }

    fn read(line: &str) -> Option<Self> {
        let (recipient, numbers) = line.split_once(' ')?;
        let mut numbers = numbers.split(' ').map(str::parse);
        Some(Self {
            recipient: recipient.to_owned(),
            number: numbers.next()?.ok()?,
            scheduled_ns: numbers.next()?.ok()?,
            began_ns: numbers.next()?.ok()?,
            done_ns: numbers.next()?.ok()?,
        })
    }
}
