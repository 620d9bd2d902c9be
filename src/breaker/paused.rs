//! What is paused, by whomever: the scopes of `send_pauses` that a breaker asks about.
//!
//! Kept by page, so that asking needs no scope to be written out: it is asked for each delivery.

use std::collections::HashSet;

use super::{ENDPOINT, Whom};

/// See the module. Paused lanes are nothing that a breaker minds.
#[derive(Debug, Default)]
pub(super) struct Paused {
    all: bool,
    endpoint: bool,
    pages: HashSet<String>,
}

impl Paused {
    /// Notes a scope as it stands in `send_pauses`, or that it is paused no more.
    pub(super) fn set(&mut self, scope: &str, paused: bool) {
        match scope.strip_prefix("page:") {
            Some(page) if paused => drop(self.pages.insert(page.to_owned())),
            Some(page) => drop(self.pages.remove(page)),
            None if scope == ENDPOINT => self.endpoint = paused,
            None if scope == "all" => self.all = paused,
            None => {}
        }
    }

    /// True if that was not paused yet.
    pub(super) fn insert(&mut self, whom: Whom<'_>) -> bool {
        match whom {
            Whom::Page(page) => self.pages.insert(page.to_owned()),
            Whom::Endpoint => !std::mem::replace(&mut self.endpoint, true),
        }
    }

    /// True if that was paused.
    pub(super) fn remove(&mut self, whom: Whom<'_>) -> bool {
        match whom {
            Whom::Page(page) => self.pages.remove(page),
            Whom::Endpoint => std::mem::take(&mut self.endpoint),
        }
    }

    /// True if the endpoint itself is paused.
    pub(super) fn endpoint(&self) -> bool {
        self.endpoint
    }

    /// The pages that are paused themselves.
    pub(super) fn pages(&self) -> &HashSet<String> {
        &self.pages
    }

    /// True if a page must wait, for its own sake or for another's.
    pub(super) fn stops(&self, page: &str) -> bool {
        self.all || self.endpoint || self.pages.contains(page)
    }
}
