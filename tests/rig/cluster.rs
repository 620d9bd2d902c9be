//! A throw-away Postgres server that may be crashed.
//!
//! Made of the binaries that the system has; as root it runs as the user `postgres`, because the
//! server refuses to be root. It is stopped by its own data folder when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A server of its own for one test.
pub struct Cluster {
    folder: tempfile::TempDir,
    bin: PathBuf,
    port: u16,
}

impl Cluster {
    /// A server that does not run yet; none if the system has no Postgres.
    ///
    /// # Panics
    /// In CI, where nothing may be skipped, or if the server's data cannot be made.
    pub fn new() -> Option<Self> {
        let Some(bin) = binaries() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "in CI nothing may be skipped: install postgresql"
            );
            eprintln!("skipped: no initdb in PATH or /usr/lib/postgresql");
            return None;
        };
        let cluster = Self {
            folder: tempfile::tempdir().expect("temp folder"),
            bin,
            port: super::free_port(),
        };
        if rustix::process::geteuid().is_root() {
            let mut chown = Command::new("chown");
            assert!(
                run(chown.arg("postgres").arg(cluster.folder.path())),
                "chown"
            );
        }
        let data = cluster.data();
        let made = cluster.run(
            "initdb",
            &["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync"],
        );
        assert!(made, "initdb");
        Some(cluster)
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes this one, which does not run, a standby of another, which does.
    pub fn follow(&self, primary: &Self) {
        self.follow_at("127.0.0.1", primary.port);
    }

    /// Makes this one, which does not run, a standby of the server there.
    pub fn follow_at(&self, host: &str, port: u16) {
        std::fs::remove_dir_all(self.data()).expect("removes the data");
        let from = format!(
            "host={host} port={port} user=postgres application_name=standby_{}",
            self.port
        );
        let data = self.data();
        let copied = self.run(
            "pg_basebackup",
            &[
                "-d",
                &from,
                "-D",
                &data,
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
            ],
        );
        assert!(copied, "pg_basebackup");
    }

    /// Ends its being a standby; it may be written to once this returns.
    pub fn promote(&self) {
        let data = self.data();
        assert!(
            self.run("pg_ctl", &["-D", &data, "-w", "promote"]),
            "pg_ctl promote"
        );
    }

    /// Starts it as a small one.
    pub fn start(&self) {
        self.start_with("-c shared_buffers=16MB");
    }

    /// Starts it with these options; what they do not say is the server's default.
    pub fn start_with(&self, options: &str) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 {options}",
            self.port,
            self.folder.path().display()
        );
        let (data, log) = (self.data(), self.folder.path().join("log"));
        let log = log.display().to_string();
        let started = self.run(
            "pg_ctl",
            &["-D", &data, "-l", &log, "-o", &options, "-w", "start"],
        );
        assert!(started, "pg_ctl start");
    }

    /// Takes connections of a network without a password.
    pub fn trust(&self, network: &str) {
        use std::io::Write as _;
        let file = Path::new(&self.data()).join("pg_hba.conf");
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(file)
            .expect("opens");
        writeln!(file, "host all,replication all {network} trust").expect("writes");
    }

    /// Starts it in a network namespace, on all its addresses and a port of the caller's.
    pub fn start_in(&self, space: &str, port: u16) {
        let options = format!(
            "-p {port} -k {} -c listen_addresses=* -c shared_buffers=16MB",
            self.folder.path().display()
        );
        let log = self.folder.path().join("log").display().to_string();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space, "runuser", "-u", "postgres", "--"]);
        command.arg(self.bin.join("pg_ctl"));
        command.args([
            "-D",
            &self.data(),
            "-l",
            &log,
            "-o",
            &options,
            "-w",
            "start",
        ]);
        assert!(
            run(command.current_dir(self.folder.path())),
            "pg_ctl start in {space}"
        );
    }

    /// Stops it: `immediate` is a crash, `fast` ends all sessions.
    pub fn stop(&self, mode: &str) {
        let data = self.data();
        assert!(
            self.run("pg_ctl", &["-D", &data, "-m", mode, "-w", "stop"]),
            "pg_ctl stop"
        );
    }

    /// The ids of its processes.
    ///
    /// # Panics
    /// If it does not run.
    pub fn processes(&self) -> Vec<String> {
        let file = std::fs::read_to_string(Path::new(&self.data()).join("postmaster.pid"));
        let postmaster = file
            .expect("it runs")
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = std::fs::read_to_string(children).expect("it runs");
        let children = children.split_whitespace().map(str::to_owned);
        // The postmaster first: else it would begin new ones.
        std::iter::once(postmaster.clone())
            .chain(children)
            .collect()
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let program = self.bin.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(arguments).current_dir(self.folder.path());
        run(&mut command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.data();
        if Path::new(&data).join("postmaster.pid").exists() {
            self.run("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]);
        }
    }
}

fn run(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn binaries() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    places.extend(versions.flatten().map(|version| version.path().join("bin")));
    // Where a link in the PATH leads to: the other programs are there, too.
    let found = places
        .into_iter()
        .find_map(|bin| bin.join("initdb").canonicalize().ok())?;
    found.parent().map(Path::to_path_buf)
}
