//! `release`: puts held jobs back.

use clap::Args;

use super::change::{Change, Rule};
use super::{Failure, Globals, Out};
use crate::job::State;
use crate::store::operate::Verb;

/// Put held jobs back into their old places
///
/// A released job goes before those of its lane that were enqueued after it.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane release 12\n  \
    postlane release --page 12345 --why 'price corrected'\n  \
    postlane release --all")]
pub struct Release {
    #[command(flatten)]
    change: Change,
}

const RULE: Rule = Rule {
    verb: Verb::Release,
    takes: &[State::Held],
    done: "released",
    refusal,
};

fn refusal(state: State) -> &'static str {
    match state {
        State::Queued | State::Sending => "it is not held",
        State::Unknown => "it waits for `postlane resolve`, not for a release",
        _ => "it is over; `postlane requeue` sends it again",
    }
}

impl Release {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        self.change.run(globals, &RULE, out).await
    }
}
