//! `resume`: lets a page, a lane or everything be sent again.

use clap::Args;

use super::change::Asking;
use super::out::safe;
use super::pause::Which;
use super::{Failure, Globals, Out};
use crate::scope::Scope;
use crate::store::operate::resume;
use crate::store::{Use, read};

/// Let a page, a lane or everything be sent again
///
/// Ends the pause of the same scope only: --all does not end the pause of a page. A page or the
/// endpoint that a worker has paused goes on by itself once a job is accepted; this ends it at once.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane resume --page 12345\n  \
    postlane resume --endpoint\n  \
    postlane resume --all --dry-run")]
pub struct Resume {
    #[command(flatten)]
    scope: Which,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Resume {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let scope = self.scope.scope()?;
        let (_, pool) = globals.open(Use::Write, out).await?;
        let shown = safe(&scope.to_string());
        let was = if self.dry_run {
            let pauses = read::pauses(&pool).await?;
            pauses.iter().any(|pause| pause.scope == scope)
        } else {
            resume(&pool, &scope, &self.asking.operator()).await?
        };
        match (was, self.dry_run) {
            (true, true) => out.line(format_args!("{shown} would be resumed"))?,
            (true, false) => out.line(format_args!("{shown} resumed"))?,
            (false, _) => {}
        }
        for pause in read::pauses(&pool).await? {
            if pause.scope != scope {
                let scope = safe(&pause.scope.to_string());
                let why = match safe(&pause.evidence()) {
                    why if why.is_empty() => why,
                    why => format!(": {why}"),
                };
                out.note(format_args!(
                    "{scope} is still paused by {}{why}",
                    safe(&pause.who)
                ));
            }
        }
        match was {
            true => Ok(()),
            // What is paused all the same has been told, with the names that resume takes.
            false if scope == Scope::All => Err(Failure::Nothing(
                "there is no pause of everything (`pause --all`) to end".to_owned(),
            )),
            false => Err(Failure::Nothing(format!("{shown} is not paused"))),
        }
    }
}
