//! What the kernel says about processes: processor time, memory, reads, wake-ups.

use std::fs;

/// Ticks a second in `/proc/PID/stat`: a constant of Linux for programs, whatever its own is.
const TICKS: f64 = 100.0;

/// The fields of `/proc/PID/stat` behind the name, from the state (field 3) on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = text.rsplit_once(") ")?.1;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Field `number` as in proc(5), from 1.
fn field(stat: &[String], number: usize) -> f64 {
    let text = stat.get(number - 3);
    text.and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// Processor seconds of a process so far.
pub fn cpu_seconds(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |stat| (field(&stat, 14) + field(&stat, 15)) / TICKS)
}

/// Processor seconds of a process, its living children, and those it has waited for.
pub fn tree_cpu_seconds(root: u32) -> f64 {
    let waited = |pid| {
        stat(pid).map_or(0.0, |stat| {
            (14..=17).map(|number| field(&stat, number)).sum::<f64>() / TICKS
        })
    };
    children(root).into_iter().map(waited).sum::<f64>() + waited(root)
}

fn children(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// The first process of the Postgres server whose backend this is, if both run on this machine.
pub fn postmaster_of(backend: i64) -> Option<u32> {
    let backend = u32::try_from(backend).ok()?;
    let is_postgres = |pid: u32| {
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| matches!(name.trim(), "postgres" | "postmaster"))
    };
    // A server elsewhere may have the number of any process here: the backend says whose it is.
    let line = fs::read_to_string(format!("/proc/{backend}/cmdline")).ok()?;
    let parent = parent_of(backend)?;
    (line.contains("postgres:") && is_postgres(parent)).then_some(parent)
}

/// The most memory that a process has had so far, in bytes.
pub fn peak_memory(pid: u32) -> u64 {
    status(&format!("/proc/{pid}/status"), "VmHWM:") * 1024
}

/// Reads from files and pipes so far: system calls.
pub fn reads(pid: u32) -> u64 {
    status(&format!("/proc/{pid}/io"), "syscr:")
}

/// How often threads whose names begin so have been woken so far.
pub fn wakes(pid: u32, name: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let woken = |entry: fs::DirEntry| {
        let folder = entry.path().display().to_string();
        let thread = fs::read_to_string(format!("{folder}/comm")).unwrap_or_default();
        match thread.starts_with(name) {
            true => status(&format!("{folder}/status"), "voluntary_ctxt_switches:"),
            false => 0,
        }
    };
    threads.into_iter().flatten().flatten().map(woken).sum()
}

/// The number behind a word at the beginning of a line.
fn status(file: &str, word: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}
