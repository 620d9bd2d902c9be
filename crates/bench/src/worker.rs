//! The worker: the real binary, a process of its own, so that its processor time and its memory
//! are its alone.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::database::Database;
use crate::process::{self, Process};
use crate::receiver::{Receiver, SECRET};

/// How a run wants its worker; everything else is at its default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// `worker.name`.
    pub name: String,
    /// `worker.concurrency`.
    pub in_flight: usize,
    /// The page that has a secret; none: each.
    pub page: Option<String>,
    /// Further settings, as environment variables without `POSTLANE_`.
    pub more: Vec<(String, String)>,
}

impl Settings {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            name: "bench".to_owned(),
            in_flight: 256,
            page: None,
            more: Vec::new(),
        }
    }

    /// Those of one of several workers.
    pub fn of(&self, number: usize) -> Self {
        Self {
            name: format!("{}{number}", self.name),
            ..self.clone()
        }
    }

    /// With one more setting.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.more.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// Builds the binary, if cargo runs this program: cargo has built this one alone.
pub fn build() -> Result<()> {
    ensure!(
        !cfg!(debug_assertions),
        "a build for debugging says nothing about speed: use cargo run --release"
    );
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build
            .args(["build", "--release", "--package", "postlane"])
            .args(["--bin", "postlane", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        // What cargo says of this package. Dependencies (ring) are built again when that changes.
        unset(&mut build, &["CARGO_PKG_", "CARGO_MANIFEST_"]);
        ensure!(
            build.status()?.success(),
            "cargo could not build the worker"
        );
    }
    let binary = binary()?;
    ensure!(
        binary.exists(),
        "there is no worker at {}",
        binary.display()
    );
    Ok(())
}

/// The worker's binary, beside this program.
fn binary() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("postlane"))
}

/// Leaves out of a command's environment what begins so.
fn unset(command: &mut Command, prefixes: &[&str]) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Task {
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

/// The role: becomes the worker.
pub fn become_worker() -> Result<()> {
    let task: Task = process::task()?;
    process::raise_open_files()?;
    let mut command = Command::new(binary()?);
    unset(&mut command, &["POSTLANE_"]);
    // An empty file: whatever configuration this machine has elsewhere is not read.
    let config = task.folder.join("empty.toml");
    File::create(&config)?;
    let error = command
        .args(["run", "--config"])
        .arg(config)
        .envs(task.environment)
        .current_dir(task.folder)
        .stdin(Stdio::null())
        .exec();
    Err(error).context("start postlane")
}

/// A running worker.
pub struct Worker {
    process: Process,
    log: PathBuf,
}

impl Worker {
    /// Starts one.
    pub fn start(database: &Database, receiver: &Receiver, settings: &Settings) -> Result<Self> {
        let set = |key: &str, value: &str| (format!("POSTLANE_{key}"), value.to_owned());
        let page = settings.page.as_deref().unwrap_or("DEFAULT");
        let mut environment = vec![
            set("DATABASE_URL", &database.url),
            set("API__URL", &receiver.url),
            set(&format!("PAGES__{page}__SECRET"), SECRET),
            set("ADMIN__LISTEN", ""),
            set("WORKER__NAME", &settings.name),
            set("WORKER__CONCURRENCY", &settings.in_flight.to_string()),
            // What still hangs at the end of a run is not waited for.
            set("WORKER__SHUTDOWN_TIMEOUT", "1s"),
        ];
        environment.extend(settings.more.iter().map(|(key, value)| set(key, value)));
        let folder = database.folder.path().to_owned();
        let log = folder.join(format!("{}.log", settings.name));
        let task = Task {
            folder,
            environment,
        };
        let process = Process::role("worker", &task, Some(File::create(&log)?))?;
        Ok(Self { process, log })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGTERM, and its end. An error if it did not end well or has found a bug in itself.
    pub async fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        let ended = self.process.ends(Duration::from_secs(60)).await?;
        let log = self.says();
        ensure!(
            ended.success(),
            "the worker ended with {ended}: {}",
            tail(&log)
        );
        ensure!(
            !log.contains("please report"),
            "the worker says: {}",
            tail(&log)
        );
        Ok(())
    }

    /// SIGKILL.
    pub async fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.ends(Duration::from_secs(10)).await?;
        Ok(())
    }

    /// Its log.
    fn says(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

/// Waits for a part of a run; an error as soon as a worker ends by itself.
pub async fn beside<T>(workers: &mut [Worker], part: impl Future<Output = Result<T>>) -> Result<T> {
    let died = async {
        loop {
            for worker in &mut *workers {
                if let Some(status) = worker.process.has_ended()? {
                    bail!("a worker ended with {status}: {}", tail(&worker.says()));
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        done = part => done,
        died = died => died,
    }
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
