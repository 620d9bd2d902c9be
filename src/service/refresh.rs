//! The task that keeps the keyring up to date: files with secrets are read again while the worker
//! runs, and another configuration replaces them all.
//!
//! One task does both, so that what was read before a reload is never laid over it. It looks at
//! contents, not at times or inodes: symbolic links are swapped, files are renamed into place, and
//! credentials may be remounted. A file that cannot be read leaves its secret as it is.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{Config, SecretFile};
use crate::events::{Event, Events};
use crate::keyring::Keyring;
use crate::worker::{Stop, is_stopped, stopped};

/// How often files are read. What two looks in a row agree on counts: a file that is being written
/// is neither taken up in half nor complained about.
const LOOK: Duration = Duration::from_secs(1);

/// A file, and what the last looks at it found.
struct Watched {
    file: SecretFile,
    seen: Option<Result<SecretString, String>>,
    /// It has been said that it cannot be read.
    told: bool,
}

pub(super) async fn refresh(
    keyring: Arc<Keyring>,
    files: Vec<SecretFile>,
    mut reloads: mpsc::Receiver<Config>,
    events: Arc<Events>,
    mut stop: Stop,
) {
    let mut watched = watch(&files);
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !is_stopped(&stop) {
        tokio::select! {
            () = stopped(&mut stop) => {}
            Some(config) = reloads.recv() => {
                for page in keyring.replace(config.pairs()) {
                    events.emit(&Event::SecretChanged { page: &page });
                }
                watched = watch(config.secret_files());
            }
            _ = ticks.tick(), if !watched.is_empty() => {
                let reading = tokio::task::spawn_blocking(move || {
                    let read = |watched: &Watched| watched.file.read();
                    let found: Vec<_> = watched.iter().map(read).collect();
                    (watched, found)
                });
                // It neither panics nor is it cancelled; without it there is nothing to watch.
                let Ok((same, found)) = reading.await else { return };
                watched = same;
                for (watched, found) in watched.iter_mut().zip(found) {
                    watched.take(found, &keyring, &events);
                }
            }
        }
    }
}

fn watch(files: &[SecretFile]) -> Vec<Watched> {
    let watch = |file: &SecretFile| Watched {
        file: file.clone(),
        seen: None,
        told: false,
    };
    files.iter().map(watch).collect()
}

impl Watched {
    /// Takes in what a look found.
    fn take(&mut self, found: Result<SecretString, String>, keyring: &Keyring, events: &Events) {
        let SecretFile {
            page, slot, key, ..
        } = &self.file;
        let agree = match (&self.seen, &found) {
            (Some(Ok(before)), Ok(now)) => before.expose_secret() == now.expose_secret(),
            (Some(Err(_)), Err(_)) => true,
            _ => false,
        };
        match &found {
            _ if !agree => {}
            Ok(secret) => {
                self.told = false;
                if !keyring.holds(page, *slot, secret) && keyring.set(page, *slot, secret.clone()) {
                    events.emit(&Event::SecretChanged { page });
                }
            }
            Err(why) => {
                if !std::mem::replace(&mut self.told, true) {
                    events.emit(&Event::SecretKept { key, why });
                }
            }
        }
        self.seen = Some(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::Pair;
    use crate::secrets::{Secrets as _, Slot};

    #[test]
    fn only_what_two_looks_agree_on_counts() {
        let pair = Pair {
            current: Some("old".into()),
            previous: None,
        };
        let (ring, events) = (Keyring::new([("1".to_owned(), pair)]), Events::new());
        let file = SecretFile::of("pages.1.secret_file", "s".as_ref()).expect("a key of a page");
        let mut watched = watch(&[file]).remove(0);
        let holds = |secret: &str| ring.holds("1", Slot::Current, &secret.into());
        let half = || Ok("ne".into());
        let new = || Ok("new".into());
        let gone = || Err("s: No such file".to_owned());
        for (found, holding, told) in [
            (half(), "old", false),
            (new(), "old", false),
            (gone(), "old", false),
            (new(), "old", false),
            (new(), "new", false),
            (gone(), "new", false),
            (gone(), "new", true),
            (gone(), "new", true),
            (half(), "new", true),
            (half(), "ne", false),
        ] {
            watched.take(found, &ring, &events);
            assert!(holds(holding), "{holding}");
            assert_eq!(watched.told, told);
        }
        assert_eq!(ring.take_changed(), ["1"]);
    }
}
