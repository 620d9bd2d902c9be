//! The files of a SQLite database: rings when they are written, and tells whether they were.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

/// How long files that have not changed are believed to hold nothing new.
pub const REST: Duration = Duration::from_secs(600);

/// Sizes and times of the database's file and of its log. Equal ones: nothing was committed between,
/// but for what falls into the same tick of the file system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp([Option<(u64, SystemTime)>; 2]);

impl Stamp {
    /// How the files are now.
    pub fn of(database: &Path) -> Self {
        let look = |path: &Path| {
            let about = fs::metadata(path).ok()?;
            Some((about.len(), about.modified().ok()?))
        };
        Self([look(database), look(&log(database))])
    }
}

/// The write-ahead log of a database.
fn log(database: &Path) -> PathBuf {
    let mut log = database.to_path_buf().into_os_string();
    log.push("-wal");
    log.into()
}

/// Rings when the log of a SQLite file is written.
#[cfg(target_os = "linux")]
pub(super) struct Watch {
    watcher: notify::RecommendedWatcher,
    database: PathBuf,
    /// True while it rings.
    pub is_on: bool,
}

#[cfg(target_os = "linux")]
impl Watch {
    /// Rings from now on whenever the file or its log is written; none if that cannot be watched.
    pub fn new(database: &Path, bell: Arc<Notify>) -> Option<Self> {
        let database = std::path::absolute(database).ok()?;
        let files = [database.clone(), log(&database)];
        let ring = move |event: notify::Result<notify::Event>| {
            let touched = event
                .is_ok_and(|e| !e.kind.is_access() && e.paths.iter().any(|p| files.contains(p)));
            if touched {
                bell.notify_one();
            }
        };
        let mut watch = Self {
            watcher: notify::recommended_watcher(ring).ok()?,
            database,
            is_on: false,
        };
        watch.set(true);
        watch.is_on.then_some(watch)
    }

    /// Rings from now on, or no more.
    pub fn set(&mut self, on: bool) {
        use notify::Watcher as _;
        let folder = self.database.parent().unwrap_or(&self.database);
        let done = match on {
            true => self
                .watcher
                .watch(folder, notify::RecursiveMode::NonRecursive),
            false => self.watcher.unwatch(folder),
        };
        self.is_on = on && done.is_ok();
    }

    /// How the files are now.
    pub fn stamp(&self) -> Stamp {
        Stamp::of(&self.database)
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) struct Watch {
    pub is_on: bool,
}

#[cfg(not(target_os = "linux"))]
impl Watch {
    pub fn new(_database: &Path, _bell: Arc<Notify>) -> Option<Self> {
        None
    }

    pub fn set(&mut self, on: bool) {
        self.is_on = on;
    }

    pub fn stamp(&self) -> Stamp {
        Stamp([None; 2])
    }
}
