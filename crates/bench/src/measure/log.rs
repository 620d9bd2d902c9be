//! How much SQLite writes to its log, read from the index of the log (`-shm`).
//!
//! The log is used again from its start after a checkpoint, so its size says nothing. The header of
//! the index counts frames and commits; it is read every few milliseconds, and what the log held
//! when it began anew is added up. (SQLite's "WAL-index format", section 2.1.)

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinHandle;

/// The header stands there twice, so that a torn read is seen.
const HEADER: usize = 48;
/// Before each page in the log.
const FRAME_HEADER: u64 = 24;

/// What was written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Log {
    /// Bytes of frames.
    pub bytes: u64,
    /// Transactions that wrote.
    pub commits: u64,
}

#[derive(Clone, Copy, PartialEq)]
struct Header {
    commits: u32,
    page: u32,
    frames: u32,
    salt: u32,
}

/// Watches one database's log.
pub struct LogWatch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(Log, Option<File>)>,
}

impl LogWatch {
    /// Begins before the worker opens the database.
    ///
    /// Closing a file drops every lock that the process has on it: the caller must have closed its
    /// own connections to the database when [`LogWatch::end`] is called.
    pub fn begin(database: &str) -> Self {
        let path = PathBuf::from(format!("{database}-shm"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (mut file, mut sum) = (None, Sum::default());
            loop {
                let last = stopped.load(Ordering::Acquire);
                if file.is_none() {
                    file = File::open(&path).ok();
                }
                if let Some(header) = file.as_ref().and_then(read) {
                    sum.see(header);
                }
                if last {
                    return (sum.log(), file);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { stop, task }
    }

    /// What was written until now.
    pub async fn end(self) -> Result<Log> {
        self.stop.store(true, Ordering::Release);
        Ok(self.task.await?.0)
    }
}

fn read(file: &File) -> Option<Header> {
    let mut bytes = [0; 2 * HEADER];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (first, second) = bytes.split_at(HEADER);
    let word = |at: usize| {
        let bytes = first.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let initialised = first[12] == 1;
    // Two bytes; 1 stands for 65,536.
    let page = match word(12)? >> 16 {
        1 => 65_536,
        page => page,
    };
    (first == second && initialised).then_some(Header {
        commits: word(8)?,
        page,
        frames: word(16)?,
        salt: word(32)?,
    })
}

#[derive(Default)]
struct Sum {
    first: Option<Header>,
    last: Option<Header>,
    /// Of the logs that ended.
    frames: u64,
}

impl Sum {
    fn see(&mut self, header: Header) {
        self.first.get_or_insert(header);
        if let Some(last) = self.last.filter(|last| last.salt != header.salt) {
            self.frames += u64::from(last.frames);
        }
        self.last = Some(header);
    }

    fn log(&self) -> Log {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            return Log::default();
        };
        let frames = self.frames + u64::from(last.frames) - u64::from(first.frames);
        Log {
            bytes: frames * (u64::from(last.page) + FRAME_HEADER),
            commits: u64::from(last.commits.wrapping_sub(first.commits)),
        }
    }
}
