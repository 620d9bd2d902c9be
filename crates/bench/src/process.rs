//! Child processes: told their task on standard input, ended with this one.
//!
//! Every part of a run is a process of its own, so that each has its own figures and all share
//! the machine as they would elsewhere. A child dies with its parent, however that ends.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use postlane::clock::BootInstant;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A running child; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts this program again in a role; `log` takes its standard error. Must be called from
    /// the main thread: a child dies with the *thread* that started it.
    pub fn role(role: &str, task: &impl Serialize, log: Option<File>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(log) = log {
            command.stderr(log);
        }
        let mut child = command.spawn().with_context(|| format!("start {role}"))?;
        let mut process = Self {
            name: role.to_owned(),
            stdin: child.stdin.take(),
            lines: child.stdout.take().map(BufReader::new),
            child,
        };
        process.say(&serde_json::to_string(task)?)?;
        Ok(process)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its input is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("tell {}", self.name))
    }

    /// The next line of its standard output.
    pub async fn line(&mut self) -> Result<String> {
        let mut lines = self.lines.take().context("its output is being read")?;
        let (lines, line) = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            lines.read_line(&mut line).map(|_| (lines, line))
        })
        .await??;
        self.lines = Some(lines);
        if line.is_empty() {
            bail!("{} ended without an answer", self.name);
        }
        Ok(line.trim_end().to_owned())
    }

    /// Everything that it still writes, until it ends.
    pub async fn rest(&mut self) -> Result<String> {
        let mut lines = self.lines.take().context("its output is being read")?;
        Ok(tokio::task::spawn_blocking(move || {
            let mut rest = String::new();
            lines.read_to_string(&mut rest).map(|_| rest)
        })
        .await??)
    }

    /// Closes its standard input: the end of a role's work.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub async fn ends(&mut self, limit: Duration) -> Result<ExitStatus> {
        let began = BootInstant::now();
        loop {
            if let Some(status) = self.has_ended()? {
                return Ok(status);
            }
            if began.elapsed() > limit {
                bail!(
                    "{} still runs {limit:?} after it should have ended",
                    self.name
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What a role does first: reads its task, and makes sure that it ends with its parent.
pub fn task<T: DeserializeOwned>() -> Result<T> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut line = String::new();
    // Byte by byte: what follows is for the next reader, also after an exec.
    for byte in std::io::stdin().lock().bytes() {
        match byte? {
            b'\n' => break,
            byte => line.push(char::from(byte)),
        }
    }
    serde_json::from_str(&line).context("the task of a role")
}

/// Raises the limit of open files to what the system allows.
pub fn raise_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}
