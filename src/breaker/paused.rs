//! What is paused, by workers or operators: the scopes of `send_pauses` that a breaker asks about.
//!
//! Kept by page, so that asking needs no scope to be written out: it is asked for each delivery. The
//! database is read before it is written, and by two ledgers: what this process has decided counts until a
//! survey that began after it was written says otherwise.

use std::collections::{HashMap, HashSet};

use crate::job::PageId;
use crate::scope::Scope;

/// See the module. Paused lanes are ignored.
#[derive(Debug, Default)]
pub(super) struct Paused {
    now: Scopes,
    /// What was decided here.
    news: HashMap<Scope, News>,
    /// Grows with each survey that begins and each change that is written.
    ticks: u64,
}

/// The scopes themselves.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    all: bool,
    pub(super) endpoint: bool,
    pub(super) pages: HashSet<PageId>,
}

#[derive(Debug, Clone, Copy)]
struct News {
    paused: bool,
    /// Changes of it that are still to be written.
    unwritten: usize,
    /// When the last one was written.
    written: u64,
}

impl Scopes {
    fn set(&mut self, scope: &Scope, paused: bool) {
        match scope {
            Scope::Page(page) if paused => drop(self.pages.insert(page.clone())),
            Scope::Page(page) => drop(self.pages.remove(page)),
            Scope::Endpoint => self.endpoint = paused,
            Scope::All => self.all = paused,
            Scope::Lane(_) => {}
        }
    }
}

impl Paused {
    /// A survey begins.
    pub(super) fn ticket(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    /// Takes what a survey saw, of the pages that it looked at; returns what was paused before.
    pub(super) fn update<'s>(
        &mut self,
        ticket: u64,
        scopes: impl Iterator<Item = &'s Scope>,
        looked_at: impl Fn(&str) -> bool,
    ) -> Scopes {
        let mut seen = Scopes::default();
        let others = self.now.pages.iter().filter(|page| !looked_at(page));
        seen.pages.extend(others.cloned());
        scopes.for_each(|scope| seen.set(scope, true));
        self.news
            .retain(|_, news| news.unwritten > 0 || news.written > ticket);
        for (scope, news) in &self.news {
            seen.set(scope, news.paused);
        }
        std::mem::replace(&mut self.now, seen)
    }

    /// A change was decided that is still to be written.
    pub(super) fn news(&mut self, scope: &Scope, paused: bool) {
        let known = self.news.get(scope);
        let unwritten = known.map_or(0, |news| news.unwritten) + 1;
        let news = News {
            paused,
            unwritten,
            written: 0,
        };
        self.news.insert(scope.clone(), news);
        self.now.set(scope, paused);
    }

    /// One of them is written.
    pub(super) fn written(&mut self, scope: &Scope) {
        self.ticks += 1;
        if let Some(news) = self.news.get_mut(scope) {
            news.unwritten = news.unwritten.saturating_sub(1);
            news.written = self.ticks;
        }
    }

    /// True if the page was not paused yet.
    pub(super) fn insert(&mut self, page: &PageId) -> bool {
        !self.now.pages.contains(page) && self.now.pages.insert(page.clone())
    }

    /// True if the page was paused.
    pub(super) fn remove(&mut self, page: &str) -> bool {
        self.now.pages.remove(page)
    }

    /// True if the endpoint was not paused yet.
    pub(super) fn begin_endpoint(&mut self) -> bool {
        !std::mem::replace(&mut self.now.endpoint, true)
    }

    /// True if the endpoint was paused.
    pub(super) fn end_endpoint(&mut self) -> bool {
        std::mem::take(&mut self.now.endpoint)
    }

    /// True if the endpoint itself is paused.
    pub(super) fn endpoint(&self) -> bool {
        self.now.endpoint
    }

    /// The pages that are paused themselves.
    pub(super) fn pages(&self) -> &HashSet<PageId> {
        &self.now.pages
    }

    /// True if the page is paused itself.
    pub(super) fn has(&self, page: &str) -> bool {
        self.now.pages.contains(page)
    }

    /// True if a page must wait, for its own sake or for another's.
    pub(super) fn stops(&self, page: &str) -> bool {
        self.now.all || self.now.endpoint || self.has(page)
    }
}
