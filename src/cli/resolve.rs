//! `resolve`: decides jobs of which it is unknown whether they arrived.

use clap::Args;

use super::change::{Change, Rule};
use super::{Failure, Globals, Out};
use crate::job::State;
use crate::store::operate::Verb;

/// Decide what became of unknown jobs
///
/// An unknown job may have arrived: its last attempt ended without an answer, or with one that
/// does not say. Its lane waits for the decision (lanes.after_unknown = "block").
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane resolve 12 --delivered --why 'the customer has it'\n  \
    postlane resolve 12 13 --dead\n  \
    postlane list --state unknown --page 12345 --json | postlane resolve - --resend")]
pub struct Resolve {
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct How {
    /// It arrived
    #[arg(long)]
    delivered: bool,
    /// It did not arrive, and shall not be sent again
    #[arg(long)]
    dead: bool,
    /// Send it again, in its place; it may arrive twice
    #[arg(long)]
    resend: bool,
}

fn refusal(state: State) -> &'static str {
    match state {
        State::Queued | State::Held => "it waits to be sent; only unknown jobs need a decision",
        State::Sending => "its attempt has not ended; only unknown jobs need a decision",
        _ => "it is over; only unknown jobs need a decision",
    }
}

impl Resolve {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let (verb, done) = if self.how.delivered {
            (Verb::ResolveDelivered, "resolved: delivered")
        } else if self.how.dead {
            (Verb::ResolveDead, "resolved: dead")
        } else {
            (Verb::ResolveResend, "resolved: queued again, in its place")
        };
        let rule = Rule {
            verb,
            takes: &[State::Unknown],
            done,
            refusal,
        };
        self.change.run(globals, &rule, out).await
    }
}
