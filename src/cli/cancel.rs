//! `cancel`: ends jobs before they are delivered.

use clap::Args;

use super::change::{Change, Rule};
use super::{Failure, Globals, Out};
use crate::job::State;
use crate::store::operate::Verb;

/// End jobs that are not delivered yet
///
/// Ends queued, held and unknown jobs. One that is being sent is marked, and ends after its
/// attempt: delivered if the attempt succeeds, else cancelled.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane cancel 12\n  \
    postlane cancel --lane 12345/id:777 --why 'left the newsletter'      asks first\n  \
    postlane cancel --page 12345 --enqueued-until 2d --dry-run")]
pub struct Cancel {
    #[command(flatten)]
    change: Change,
}

const RULE: Rule = Rule {
    verb: Verb::Cancel,
    takes: &[State::Queued, State::Held, State::Unknown, State::Sending],
    done: "cancelled",
    refusal: |_| "it is over already",
};

impl Cancel {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        self.change.run(globals, &RULE, out).await
    }
}
