//! Rings when the files of a SQLite database are written.

use std::sync::Arc;

use tokio::sync::Notify;

use super::file::{DatabaseFile, Stamp};

/// Rings when the log of a SQLite file is written.
#[cfg(target_os = "linux")]
pub(super) struct Watch {
    watcher: notify::RecommendedWatcher,
    file: DatabaseFile,
    /// True while it rings.
    pub is_on: bool,
}

#[cfg(target_os = "linux")]
impl Watch {
    /// Rings from now on whenever the file or its log is written; none if that cannot be watched.
    pub fn new(file: &DatabaseFile, bell: Arc<Notify>) -> Option<Self> {
        let files = file.written();
        let ring = move |event: notify::Result<notify::Event>| {
            let touched = event
                .is_ok_and(|e| !e.kind.is_access() && e.paths.iter().any(|p| files.contains(p)));
            if touched {
                bell.notify_one();
            }
        };
        let mut watch = Self {
            watcher: notify::recommended_watcher(ring).ok()?,
            file: file.clone(),
            is_on: false,
        };
        watch.set(true);
        watch.is_on.then_some(watch)
    }

    /// Rings from now on, or no more.
    pub fn set(&mut self, on: bool) {
        use notify::Watcher as _;
        let folder = self.file.path().parent().unwrap_or(self.file.path());
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
        self.file.stamp()
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) struct Watch {
    file: DatabaseFile,
    pub is_on: bool,
}

#[cfg(not(target_os = "linux"))]
impl Watch {
    pub fn new(_file: &DatabaseFile, _bell: Arc<Notify>) -> Option<Self> {
        None
    }

    pub fn set(&mut self, on: bool) {
        self.is_on = on;
    }

    pub fn stamp(&self) -> Stamp {
        self.file.stamp()
    }
}
