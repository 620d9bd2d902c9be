//! What can be paused, and who has paused it.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

use crate::clock::Millis;
use crate::job::{Lane, PageId, UnknownWord};

/// What must not be sent while it is paused (`send_pauses.scope`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Everything.
    All,
    /// All pages; a worker pauses it when its URL is wrong, or nothing answers there.
    Endpoint,
    /// A page.
    Page(PageId),
    /// A lane.
    Lane(Lane),
}

impl Scope {
    /// What it is a pause of, as metrics have it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Endpoint => "endpoint",
            Self::Page(_) => "page",
            Self::Lane(_) => "lane",
        }
    }
}

impl Display for Scope {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All | Self::Endpoint => f.write_str(self.kind()),
            Self::Page(page) => write!(f, "page:{page}"),
            Self::Lane(lane) => write!(f, "lane:{lane}"),
        }
    }
}

impl FromStr for Scope {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word.split_once(':') {
            Some(("page", page)) => Ok(Self::Page(page.into())),
            Some(("lane", lane)) => Ok(Self::Lane(lane.into())),
            None if word == "all" => Ok(Self::All),
            None if word == "endpoint" => Ok(Self::Endpoint),
            _ => Err(UnknownWord {
                what: "scope",
                word: word.to_owned(),
                allowed: "all, endpoint, page:ID, lane:LANE".to_owned(),
            }),
        }
    }
}

/// Who has paused a scope, and what ends that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// An operator, who ends it.
    Operator,
    /// A worker: a job that is accepted ends it.
    Worker {
        /// When one is tried next.
        probe_at: Millis,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_reads_back_as_itself() {
        for word in ["all", "endpoint", "page:1", "lane:1/key:a:b"] {
            let scope: Scope = word.parse().expect("a scope");
            assert_eq!(scope.to_string(), word);
        }
        for word in ["", "All", "page", "pages:1", "all:1"] {
            assert!(word.parse::<Scope>().is_err(), "{word}");
        }
    }
}
