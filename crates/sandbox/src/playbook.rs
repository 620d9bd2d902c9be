//! Who gets which script.
//!
//! Each recipient plays a copy of its own, from the start: the most exact target wins, `PAGE/VALUE`
//! before `VALUE` before `PAGE/*` before `*`. A script set while the sandbox runs starts with the
//! next request; one for another target does not disturb those that are half played.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use crate::script::{Script, ScriptError, Step};

/// Whose requests a script is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The page, or `None` for every page.
    pub page: Option<String>,
    /// The recipient's value, whatever its kind, or `None` for everybody.
    pub recipient: Option<String>,
}

impl Target {
    /// Every request there is.
    pub const ALL: Self = Self {
        page: None,
        recipient: None,
    };
}

impl FromStr for Target {
    type Err = ScriptError;

    /// `RECIPIENT`, `*`, `PAGE/RECIPIENT` or `PAGE/*`; only digits before a slash are a page.
    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let digits = |page: &str| !page.is_empty() && page.bytes().all(|b| b.is_ascii_digit());
        let (page, recipient) = match text.split_once('/') {
            Some((page, rest)) if digits(page) => (Some(page.to_owned()), rest),
            _ => (None, text),
        };
        if recipient.is_empty() {
            return Err(ScriptError(format!(
                "\"{text}\" names no recipient: use a value or *"
            )));
        }
        Ok(Self {
            page,
            recipient: (recipient != "*").then(|| recipient.to_owned()),
        })
    }
}

/// A script and whose it is; on the command line `TARGET=SCRIPT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Whose requests.
    pub target: Target,
    /// What happens to them.
    pub script: Script,
}

impl Binding {
    /// The bindings of a TOML file: keys are targets, values are scripts.
    pub fn from_toml(text: &str) -> Result<Vec<Self>, ScriptError> {
        let table: std::collections::BTreeMap<String, String> =
            toml::from_str(text).map_err(|why| ScriptError(why.to_string()))?;
        let binding = |(target, script): (&String, &String)| {
            let script = script.parse();
            let script = script.map_err(|why| ScriptError(format!("{target}: {why}")))?;
            Ok(Self {
                target: target.parse()?,
                script,
            })
        };
        table.iter().map(binding).collect()
    }
}

impl FromStr for Binding {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let (target, script) = text
            .split_once('=')
            .ok_or_else(|| ScriptError(format!("\"{text}\" is not of the form TARGET=SCRIPT")))?;
        Ok(Self {
            target: target.parse()?,
            script: script.parse()?,
        })
    }
}

/// How far one recipient has come in its script.
#[derive(Default)]
pub(crate) struct Cursor {
    bound: Option<Arc<Bound>>,
    next: usize,
    generation: u64,
}

/// A script as it was set: setting the same one again is another.
struct Bound {
    serial: u64,
    script: Script,
}

/// Every script that is set.
#[derive(Default)]
pub(crate) struct Playbook {
    scripts: HashMap<Target, Arc<Bound>>,
    generation: u64,
}

impl Playbook {
    pub fn bind(&mut self, binding: Binding) {
        self.generation += 1;
        let bound = Bound {
            serial: self.generation,
            script: binding.script,
        };
        self.scripts.insert(binding.target, Arc::new(bound));
    }

    /// True if every request is reset, for any recipient, so that no body needs to be read.
    pub fn resets_unread(&self) -> bool {
        let everybody = self.scripts.get(&Target::ALL);
        self.scripts.len() == 1 && everybody.is_some_and(|b| b.script.only_resets_before())
    }

    /// The step for the next request of a recipient; `None` is a plain `ok`.
    pub fn next(&self, cursor: &mut Cursor, page: &str, recipient: &str) -> Option<Arc<Step>> {
        if cursor.generation != self.generation {
            cursor.generation = self.generation;
            let bound = self.find(page, recipient);
            let serial = |bound: &Option<Arc<Bound>>| bound.as_ref().map(|b| b.serial);
            if serial(&bound) != serial(&cursor.bound) {
                (cursor.bound, cursor.next) = (bound, 0);
            }
        }
        let step = cursor.bound.as_ref()?.script.step(cursor.next).cloned();
        cursor.next += 1;
        step
    }

    fn find(&self, page: &str, recipient: &str) -> Option<Arc<Bound>> {
        let (page, recipient) = (Some(page.to_owned()), Some(recipient.to_owned()));
        let targets = [
            Target {
                page: page.clone(),
                recipient: recipient.clone(),
            },
            Target {
                page: None,
                recipient,
            },
            Target {
                page,
                recipient: None,
            },
            Target::ALL,
        ];
        targets
            .iter()
            .find_map(|target| self.scripts.get(target))
            .cloned()
    }
}
