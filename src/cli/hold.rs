//! `hold`: sets jobs aside.

use clap::Args;

use super::change::{Change, Rule};
use super::{Failure, Globals, Out};
use crate::job::State;
use crate::store::operate::Verb;

/// Set queued jobs aside; their lanes continue without them
///
/// A job that is being sent is refused: it can't be held while it is on the wire. `release` puts
/// a held job back into its old place.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane hold 12 13 --why 'wrong price'\n  \
    postlane hold --page 12345 --since 2h --dry-run\n  \
    postlane list --lane 12345/id:777 --state queued --json | postlane hold -")]
pub struct Hold {
    #[command(flatten)]
    change: Change,
}

const RULE: Rule = Rule {
    verb: Verb::Hold,
    takes: &[State::Queued],
    done: "held",
    refusal,
};

fn refusal(state: State) -> &'static str {
    match state {
        State::Sending => "it can't be held while it is on the wire; cancel it or wait",
        State::Held => "there is nothing to do",
        State::Unknown => "it waits for `postlane resolve` already",
        _ => "it is over; only queued jobs can be held",
    }
}

impl Hold {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        self.change.run(globals, &RULE, out).await
    }
}
