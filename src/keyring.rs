//! The pages' secrets while the worker runs: replaced without a restart, and two of a page for the
//! time of a rotation.
//!
//! A page signs with its current secret. Once that is refused and there is a previous one, it goes
//! on with the other; whichever was accepted last stays in use. It reads no file, knows no configuration key
//! and logs nothing; its callers do. Not `Debug`: it is made of secrets.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use secrecy::{ExposeSecret as _, SecretString};

use crate::secrets::{Refusal, SecretId, Secrets, Signed, Slot, sign_with};

/// The section that holds for every page without one of its own.
pub const DEFAULT_PAGE: &str = "default";

/// What the configuration says of one page, or of `default`. A page with `current: None` signs nothing; it
/// does not fall back to `default`.
#[derive(Clone, Default)]
pub struct Pair {
    /// The one that signs.
    pub current: Option<SecretString>,
    /// The one that is tried when the current one is refused.
    pub previous: Option<SecretString>,
}

/// See the module. Shared by senders (reading) and the reloader (writing).
#[derive(Default)]
pub struct Keyring {
    state: RwLock<State>,
    /// Sections changed since the last [`Secrets::take_changed`].
    changed: Mutex<BTreeSet<String>>,
}

#[derive(Default)]
struct State {
    sections: HashMap<String, Keys>,
    /// Pages that have had a secret refused; all others use their current one.
    turns: HashMap<String, Turn>,
    /// The last id that was given.
    last: u64,
}

struct Key {
    id: SecretId,
    secret: SecretString,
}

/// Two that hold the same secret have the same id.
#[derive(Clone, Default)]
struct Keys {
    current: Option<Arc<Key>>,
    previous: Option<Arc<Key>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Turn {
    in_use: Slot,
    /// The other one was refused, and the one in use has not been accepted since.
    other_refused: bool,
}

impl Keyring {
    /// A keyring with what the configuration says of each section.
    pub fn new(sections: impl IntoIterator<Item = (String, Pair)>) -> Self {
        let ring = Self::default();
        ring.replace(sections);
        // What is there from the start has not changed.
        ring.take_changed();
        ring
    }

    /// Replaces all sections. Returns those whose secret changed, came or went.
    pub fn replace(&self, sections: impl IntoIterator<Item = (String, Pair)>) -> Vec<String> {
        let mut state = self.write();
        let mut fresh = HashMap::new();
        for (section, pair) in sections {
            let old = state.keys(&section).cloned().unwrap_or_default();
            let mut known = vec![old.current, old.previous];
            let current = pair.current.map(|secret| state.key(&known, secret));
            known.push(current.clone());
            let previous = pair.previous.map(|secret| state.key(&known, secret));
            fresh.insert(section, Keys { current, previous });
        }
        let old = std::mem::replace(&mut state.sections, fresh);
        let names: BTreeSet<&String> = old.keys().chain(state.sections.keys()).collect();
        let changed: Vec<String> = names
            .into_iter()
            .filter(|name| ids(keys_in(&old, name)) != ids(state.keys(name)))
            .cloned()
            .collect();
        state.forget_turns(&old);
        drop(state);
        self.note(&changed);
        changed
    }

    /// Replaces one secret of a section. True if that changed anything.
    pub fn set(&self, section: &str, slot: Slot, secret: SecretString) -> bool {
        let mut state = self.write();
        let mut keys = state.sections.get(section).cloned().unwrap_or_default();
        let known = [keys.current.clone(), keys.previous.clone()];
        let key = Some(state.key(&known, secret));
        match slot {
            Slot::Current => keys.current = key,
            Slot::Previous => keys.previous = key,
        }
        let old = state.sections.clone();
        state.sections.insert(section.to_owned(), keys);
        let changed = ids(old.get(section)) != ids(state.sections.get(section));
        state.forget_turns(&old);
        drop(state);
        if changed {
            self.note(&[section.to_owned()]);
        }
        changed
    }

    /// True if a section holds this secret there.
    pub fn holds(&self, section: &str, slot: Slot, secret: &SecretString) -> bool {
        let state = self.read();
        let keys = state.sections.get(section);
        keys.and_then(|keys| keys.at(slot))
            .is_some_and(|key| key.secret.expose_secret() == secret.expose_secret())
    }

    fn note(&self, sections: &[String]) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.extend(sections.iter().cloned());
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Secrets for Keyring {
    fn sign(&self, page: &str, body: &[u8]) -> Option<Signed> {
        // The lock is not held while it signs: a long body would keep a reload waiting, and that
        // all other senders.
        let key = self.read().in_use(page)?;
        Some(Signed {
            signature: sign_with(key.secret.expose_secret().as_bytes(), body),
            secret: key.id,
        })
    }

    fn has(&self, page: &str) -> bool {
        let state = self.read();
        state.keys(page).is_some_and(|keys| keys.current.is_some())
    }

    fn refused(&self, page: &str, secret: SecretId) -> Refusal {
        let mut state = self.write();
        if state.in_use(page).is_none_or(|key| key.id != secret) {
            return Refusal::Late;
        }
        if !state.keys(page).is_some_and(Keys::differ) {
            return Refusal::Sole;
        }
        let turn = state.turn(page);
        let in_use = turn.in_use.other();
        let next = Turn {
            in_use,
            other_refused: true,
        };
        state.turns.insert(page.to_owned(), next);
        match turn.other_refused {
            true => Refusal::Both(in_use),
            false => Refusal::Switched(in_use),
        }
    }

    fn accepted(&self, page: &str, secret: SecretId) {
        let proves = |state: &State| {
            state.turns.get(page).is_some_and(|turn| turn.other_refused)
                && state.in_use(page).is_some_and(|key| key.id == secret)
        };
        if !proves(&self.read()) {
            return;
        }
        let mut state = self.write();
        if !proves(&state) {
            return;
        }
        match state.turn(page).in_use {
            Slot::Current => drop(state.turns.remove(page)),
            Slot::Previous => {
                if let Some(turn) = state.turns.get_mut(page) {
                    turn.other_refused = false;
                }
            }
        }
    }

    fn take_changed(&self) -> Vec<String> {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *changed).into_iter().collect()
    }

    fn has_own(&self, page: &str) -> bool {
        self.read().sections.contains_key(page)
    }
}

impl State {
    /// The keys of a page: its own, else those of `default`.
    fn keys(&self, page: &str) -> Option<&Keys> {
        keys_in(&self.sections, page)
    }

    fn in_use(&self, page: &str) -> Option<Arc<Key>> {
        let keys = self.keys(page)?;
        let current = keys.current.as_ref()?;
        let key = match self.turn(page).in_use {
            Slot::Current => current,
            Slot::Previous => keys.previous.as_ref().unwrap_or(current),
        };
        Some(Arc::clone(key))
    }

    fn turn(&self, page: &str) -> Turn {
        let first = Turn {
            in_use: Slot::Current,
            other_refused: false,
        };
        self.turns.get(page).copied().unwrap_or(first)
    }

    /// A secret with its id: the one it is `known` by, so that what is in flight still counts.
    fn key(&mut self, known: &[Option<Arc<Key>>], secret: SecretString) -> Arc<Key> {
        let same = |key: &&Arc<Key>| key.secret.expose_secret() == secret.expose_secret();
        if let Some(key) = known.iter().flatten().find(same) {
            return Arc::clone(key);
        }
        self.last += 1;
        let id = SecretId(self.last);
        Arc::new(Key { id, secret })
    }

    /// Pages whose keys differ from `old` start again with the current one.
    fn forget_turns(&mut self, old: &HashMap<String, Keys>) {
        let Self {
            sections, turns, ..
        } = self;
        turns.retain(|page, _| ids(keys_in(old, page)) == ids(keys_in(sections, page)));
    }
}

impl Keys {
    fn at(&self, slot: Slot) -> Option<&Arc<Key>> {
        match slot {
            Slot::Current => self.current.as_ref(),
            Slot::Previous => self.previous.as_ref(),
        }
    }

    /// True if there are two, and they are not the same.
    fn differ(&self) -> bool {
        let id = |slot| self.at(slot).map(|key| key.id);
        let previous = id(Slot::Previous);
        previous.is_some() && previous != id(Slot::Current)
    }
}

fn keys_in<'a>(sections: &'a HashMap<String, Keys>, page: &str) -> Option<&'a Keys> {
    sections.get(page).or_else(|| sections.get(DEFAULT_PAGE))
}

/// The ids of a section; a previous secret equal to the current one counts as absent.
fn ids(keys: Option<&Keys>) -> [Option<SecretId>; 2] {
    let id = |slot| keys.and_then(|keys| keys.at(slot)).map(|key| key.id);
    let (current, previous) = (id(Slot::Current), id(Slot::Previous));
    [current, previous.filter(|_| previous != current)]
}
