//! Where a secret may be read from, and what is refused there.
//!
//! The reasons given name variables, files and modes, never what was found in them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::{file, keys};
use crate::secrets::Slot;

/// The folder that systemd mounts a unit's credentials in.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The longest secret file that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// The mode bits of others.
const OTHERS: u32 = 0o007;

/// True for what can be the name of a variable. What cannot may be a secret in the wrong place.
pub(super) fn is_variable(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// The secret in a variable.
pub(super) fn from_variable(
    name: &str,
    environment: &BTreeMap<String, OsString>,
) -> Result<SecretString, String> {
    let value = environment
        .get(name)
        .ok_or_else(|| format!("the variable {name} is not set"))?;
    match value.to_str() {
        Some(value) if value.trim().is_empty() => Err(format!("the variable {name} is empty")),
        Some(value) => one_line(value)
            .map(|()| SecretString::from(value))
            .map_err(|why| format!("the variable {name} {why}")),
        None => Err(format!("the variable {name} is not UTF-8")),
    }
}

/// A file that holds a secret of a page, to be read again while the worker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The page, or `default`.
    pub page: String,
    /// Which of its secrets.
    pub slot: Slot,
    /// The key that names the file.
    pub key: String,
    path: PathBuf,
}

impl SecretFile {
    /// None for a file that holds something else than the secret of a page.
    pub(crate) fn of(key: &str, path: &Path) -> Option<Self> {
        let (page, last) = keys::page_key(key)?;
        Some(Self {
            page: page.to_owned(),
            slot: match keys::PREVIOUS_KEYS.contains(&last) {
                true => Slot::Previous,
                false => Slot::Current,
            },
            key: key.to_owned(),
            path: path.to_owned(),
        })
    }

    /// What it holds now, under the same rules as at the start.
    ///
    /// # Errors
    /// The path and why it cannot be used, in one line, never what is in it.
    pub fn read(&self) -> Result<SecretString, String> {
        from_file(&self.path)
    }
}

/// Why a secret cannot be read.
pub(super) enum Unread {
    /// It is there for the service alone, which this is not.
    Elsewhere(String),
    /// It cannot be used.
    Wrong(String),
}

impl From<String> for Unread {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

/// Where a secret file is. A relative path starts at `folder`; a leading `$CREDENTIALS_DIRECTORY`
/// is replaced, no other variable.
pub(super) fn path_of(
    path: &str,
    folder: &Path,
    environment: &BTreeMap<String, OsString>,
) -> Result<PathBuf, Unread> {
    let credential = path
        .strip_prefix("$CREDENTIALS_DIRECTORY/")
        .or_else(|| path.strip_prefix("${CREDENTIALS_DIRECTORY}/"));
    match (credential, environment.get(CREDENTIALS)) {
        (Some(name), Some(folder)) => Ok(Path::new(folder).join(name)),
        (Some(_), None) => Err(Unread::Elsewhere(format!(
            "{CREDENTIALS} is not set; systemd sets it for units with LoadCredential="
        ))),
        (None, _) if path.starts_with('$') => {
            Err(format!("only ${CREDENTIALS} is replaced in a path").into())
        }
        (None, _) => Ok(folder.join(path)),
    }
}

/// The secret in a file, less one newline at its end.
///
/// A file that others may read is refused, and so is what is not a regular file.
pub(super) fn from_file(path: &Path) -> Result<SecretString, String> {
    let shown = file::shown(path);
    let failed = |error: std::io::Error| format!("{shown}: {error}");
    let file = file::open(path)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(format!(
            "others may use {shown} (mode {:04o}): chmod 640 it",
            mode & 0o7777
        ));
    }
    let mut secret = String::new();
    let read = file.take(LONGEST + 1).read_to_string(&mut secret);
    if read.map_err(failed)? as u64 > LONGEST {
        return Err(format!("{shown} is longer than {LONGEST} bytes"));
    }
    let line = secret.strip_suffix('\n').map_or(secret.as_str(), |line| {
        line.strip_suffix('\r').unwrap_or(line)
    });
    if line.trim().is_empty() {
        return Err(format!("{shown} is empty"));
    }
    one_line(line).map_err(|why| format!("{shown} {why}"))?;
    Ok(SecretString::from(line))
}

/// Refuses what an editor adds unasked: with it every request would be refused.
fn one_line(secret: &str) -> Result<(), &'static str> {
    match secret {
        _ if secret.starts_with('\u{feff}') => {
            Err("begins with a byte order mark: save it without one")
        }
        _ if secret.trim().contains(['\n', '\r']) => {
            Err("has more than one line: leave the secret alone in it")
        }
        _ => Ok(()),
    }
}
