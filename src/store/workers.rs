//! Whether a worker runs on a database, without a table that it would have to keep up to date.
//!
//! On Postgres the sessions of a worker carry the word in their `application_name`, which every role may
//! see. On SQLite a worker holds a shared lock on a file beside the database; the system lets go of it
//! however the worker ends.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::time::Duration;

use super::file::DatabaseFile;
use super::{Pool, Result, one};

/// Sessions of this process are those of a worker from now on.
pub use super::backends::call_this_process_a_worker;

/// Held as long as this process is a worker on the database.
#[derive(Debug)]
pub struct Presence(
    #[expect(dead_code, reason = "the lock is held by the open file")] Option<File>,
);

/// Lets others see that a worker runs here. If the folder is not writable, the worker is not seen; nothing else.
pub fn announce(pool: &Pool) -> Presence {
    let lock = |path: PathBuf| {
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).ok()?;
        // Who looks whether a worker is there has it for a moment.
        for _ in 0..20 {
            match file.try_lock_shared() {
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
                locked => return locked.is_ok().then_some(file),
            }
        }
        None
    };
    Presence(pool.file().map(lock_file).and_then(lock))
}

const SESSIONS: &str = "-- workers: is one connected
select count(*) as sessions from pg_stat_activity
where datname = current_database() and application_name like 'postlane % worker %'";

/// True if a worker is seen on the database, false if none is, `None` if unknown. Behind a
/// pooler, whose sessions have other names, one may run unseen.
///
/// # Errors
/// The database cannot be asked.
pub async fn seen(pool: &Pool) -> Result<Option<bool>> {
    let Some(database) = pool.file() else {
        let sessions = one(pool.rows(SESSIONS, &[]).await?)?.int("sessions")?;
        return Ok(Some(sessions > 0));
    };
    Ok(match File::open(lock_file(database)) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Some(false),
            Err(TryLockError::WouldBlock) => Some(true),
            Err(TryLockError::Error(_)) => None,
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    })
}

fn lock_file(database: &DatabaseFile) -> PathBuf {
    let mut file = database.path().as_os_str().to_owned();
    file.push("-worker");
    file.into()
}
