//! The nouns of a queue: job, state, attempt, outcome, lane.
//!
//! Plain data. The words are those of the tables, the commands and the metrics.

use std::borrow::{Borrow, Cow};
use std::fmt::{Display, Formatter};
use std::ops::Deref;
use std::sync::Arc;

use crate::clock::Millis;

/// Numbers of which none may be taken for another.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident,)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl Display for $name {
            fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                Display::fmt(&self.0, f)
            }
        }
    )+};
}

numbers! {
    /// The identity of a row of `send_jobs`; grows, and orders the jobs of a lane.
    JobId,
    /// By which a lane's row says whose it is: none is drawn twice.
    Token,
    /// Which attempt of a job, from 1.
    AttemptNo,
}

impl JobId {
    /// Below that of any job.
    pub const MIN: Self = Self(i64::MIN);
    /// Above that of any job.
    pub const MAX: Self = Self(i64::MAX);
}

impl std::str::FromStr for JobId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl AttemptNo {
    /// The first one of a job.
    pub const FIRST: Self = Self(1);

    /// The next one after so many.
    pub const fn after(attempts: i64) -> Self {
        Self(attempts + 1)
    }
}

/// Texts of which none may be taken for another; shared, for they are passed on with each job.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident,)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text, shared.
            pub(crate) fn text(&self) -> &Arc<str> {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.pad(self)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<Cow<'_, str>> for $name {
            fn from(text: Cow<'_, str>) -> Self {
                Self(text.into())
            }
        }
    )+};
}

impl Lane {
    /// Its page, whose name it begins with.
    pub fn page(&self) -> PageId {
        self.split('/').next().unwrap_or_default().into()
    }
}

texts! {
    /// A lane: the jobs of one recipient, or of a producer's own key, of one page.
    Lane,
    /// A page: it has a secret, and its recipients are people's ids of it.
    PageId,
}

/// A word that is not one of those an enum of this module allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} \"{word}\": use one of {allowed}")]
pub struct UnknownWord {
    pub(crate) what: &'static str,
    pub(crate) word: String,
    pub(crate) allowed: String,
}

/// An enum spelled the same in tables, files, flags and errors.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word as it stands in the database, the command line and the metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::job::UnknownWord;
            fn from_str(word: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|v| v.as_str() == word).ok_or_else(|| $crate::job::UnknownWord {
                    what: $what,
                    word: word.to_owned(),
                    allowed: Self::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}
pub(crate) use words;

words! {
    /// Where a job is in its life (`send_jobs.state`).
    State, "state", {
        /// Waits for its turn, its delay or its backoff.
        Queued = "queued",
        /// Its lane has it in hand, and it may be on the wire. Shown only: its row says `queued`.
        Sending = "sending",
        /// An answer to one of its attempts said so. Final.
        Delivered = "delivered",
        /// Refused for good, invalid, expired or out of attempts. Final.
        Dead = "dead",
        /// It may or may not have arrived; an operator decides.
        Unknown = "unknown",
        /// Set aside by an operator.
        Held = "held",
        /// Ended by an operator. Final.
        Cancelled = "cancelled",
    }
}

impl State {
    /// True for the states that no job ever leaves.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Dead | Self::Cancelled)
    }
}

words! {
    /// How one attempt ended (`send_attempts.outcome`).
    Outcome, "outcome", {
        /// The answer said that the message was taken.
        Delivered = "delivered",
        /// The answer said no, and asking again will not help.
        Refused = "refused",
        /// The answer said no, and asking later may help.
        Retryable = "retryable",
        /// The receiver asked to be slower.
        Throttled = "throttled",
        /// It is certain that no byte of the request left.
        NotSent = "not_sent",
        /// It may have arrived, and nothing said whether it did.
        Ambiguous = "ambiguous",
    }
}

words! {
    /// What a judgement asks to pause, because the job is not at fault.
    PauseWanted, "scope", {
        /// Nothing.
        None = "none",
        /// The page: its secret or its token is wrong; after `throttled`, it is too fast.
        Page = "page",
        /// All pages: the URL is wrong, or nothing answers there.
        Endpoint = "endpoint",
    }
}

words! {
    /// What to do after an ambiguous attempt (`send_jobs.on_ambiguous`, `retry.on_ambiguous`).
    OnAmbiguous, "on_ambiguous", {
        /// Send again: at least once.
        Retry = "retry",
        /// Do not send again automatically: the job becomes `unknown`.
        Hold = "hold",
    }
}

words! {
    /// What an `unknown` job does to the jobs behind it (`lanes.after_unknown`).
    AfterUnknown, "after_unknown", {
        /// The lane waits until an operator resolves it.
        Block = "block",
        /// The lane continues.
        Continue = "continue",
    }
}

/// The job at the head of a lane.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its id.
    pub job: JobId,
    /// Attempts that have ended.
    pub attempts: i64,
    /// Those that count.
    pub failures: i64,
    /// Those that count towards `max_ambiguous`.
    pub ambiguous: i64,
    /// When it may no longer be sent.
    pub expires: Option<Millis>,
    /// Its own policy.
    pub on_ambiguous: Option<OnAmbiguous>,
    /// As the producer wrote it.
    pub recipient: Vec<u8>,
    /// As the producer wrote it.
    pub message: Vec<u8>,
    /// The message tag.
    pub tag: Option<String>,
    /// The delay in seconds.
    pub delay: i64,
    /// When its last attempt ended; none before the first.
    pub since: Option<Millis>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_as_itself() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        for outcome in Outcome::ALL {
            assert_eq!(outcome.as_str().parse(), Ok(*outcome));
        }
    }

    #[test]
    fn an_unknown_word_names_what_is_allowed() {
        let error = "sent".parse::<State>().expect_err("not a state");
        assert!(
            error
                .to_string()
                .starts_with("unknown state \"sent\": use one of queued, sending")
        );
    }
}
