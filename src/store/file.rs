//! The file of a SQLite database: by which name it is known, and whether that name still means it.
//!
//! SQLite keeps its log beside the file that a link leads to, so a name is followed once, after opening.
//! A file that is replaced or removed while it is open stays open without its name: what is written goes
//! nowhere, and SQLite's last close would delete the log of whatever has the name by then. A process that
//! finds this neither writes nor closes; it must restart.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Error, Result};

/// How long files that have not changed are believed to hold nothing new.
pub const REST: Duration = Duration::from_secs(600);

/// Which file it is, whatever its name: device and inode.
type Id = (u64, u64);

/// An open database's file. Cheap to clone: each transaction names it.
#[derive(Debug, Clone)]
pub struct DatabaseFile {
    /// Without links.
    path: Arc<Path>,
    database: Id,
    /// None if there was no log yet.
    log: Option<Id>,
}

impl DatabaseFile {
    /// The file behind a name that has just been opened and read from.
    pub(super) fn opened(name: &Path) -> Result<Self> {
        let known = || {
            let path = name.canonicalize()?;
            let database = id(&fs::metadata(&path)?);
            Ok((path, database))
        };
        let (path, database) = known().map_err(|error: std::io::Error| {
            Error::Url(format!(
                "{} was opened, but cannot be found again: {error}",
                name.display()
            ))
        })?;
        let log = fs::metadata(log(&path)).ok().map(|about| id(&about));
        Ok(Self {
            path: path.into(),
            database,
            log,
        })
    }

    /// Its name without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses to go on if its name, or its log's, means another file by now.
    pub fn check(&self) -> Result<()> {
        let now = |path: &Path| fs::metadata(path).ok().map(|about| id(&about));
        let same = now(&self.path) == Some(self.database)
            && (self.log.is_none() || now(&log(&self.path)) == self.log);
        same.then_some(())
            .ok_or_else(|| Error::Replaced(self.path.to_path_buf()))
    }

    /// How the files are now.
    pub fn stamp(&self) -> Stamp {
        let look = |path: &Path| {
            let about = fs::metadata(path).ok()?;
            Some((id(&about), about.len(), about.modified().ok()?))
        };
        Stamp([look(&self.path), look(&log(&self.path))])
    }

    /// Bytes in the log.
    pub fn log_size(&self) -> u64 {
        fs::metadata(log(&self.path)).map_or(0, |about| about.len())
    }

    /// Names of the file. By more than one there is more than one log, and each change made by the one
    /// damages what was made by the other.
    pub fn names(&self) -> u64 {
        fs::metadata(&self.path).map_or(1, |about| about.nlink())
    }

    /// The file and its log: what rings when it is written.
    pub(super) fn written(&self) -> [PathBuf; 2] {
        [self.path.to_path_buf(), log(&self.path)]
    }
}

/// Which files they are, and their sizes and times. Equal ones: nothing was committed between, except within
/// one tick of the file system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp([Option<(Id, u64, SystemTime)>; 2]);

/// The write-ahead log of a database.
fn log(database: &Path) -> PathBuf {
    let mut log = database.to_path_buf().into_os_string();
    log.push("-wal");
    log.into()
}

fn id(about: &fs::Metadata) -> Id {
    (about.dev(), about.ino())
}
