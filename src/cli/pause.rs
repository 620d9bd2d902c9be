//! `pause`: stops a page, a lane or everything from being sent.

use clap::Args;

use super::change::Asking;
use super::choice::{check_lane, check_page};
use super::out::safe;
use super::{Failure, Globals, Out};
use crate::scope::Scope;
use crate::store::operate::pause;
use crate::store::{Use, read};

/// Stop a page, a lane or everything from being sent
///
/// What is on the wire ends; nothing new goes out until `resume`. Jobs keep their places, and
/// failures count against none of them.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane pause --page 12345 --why 'the token is being renewed'\n  \
    postlane pause --lane 12345/id:777\n  \
    postlane pause --all")]
pub struct Pause {
    #[command(flatten)]
    pub scope: Which,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

/// What is paused or resumed.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// This page
    #[arg(long, value_name = "PAGE")]
    page: Option<String>,
    /// This lane, for example 12345/id:777
    #[arg(long, value_name = "LANE")]
    lane: Option<String>,
    /// The endpoint: what a worker pauses when its URL is wrong or most attempts fail
    #[arg(long)]
    endpoint: bool,
    /// Everything
    #[arg(long)]
    all: bool,
}

impl Which {
    /// As pauses have it.
    pub fn scope(&self) -> Result<Scope, Failure> {
        match (&self.page, &self.lane) {
            (Some(page), _) => check_page(page).map(|()| Scope::Page(page.as_str().into())),
            (_, Some(lane)) => check_lane(lane).map(|()| Scope::Lane(lane.as_str().into())),
            _ if self.endpoint => Ok(Scope::Endpoint),
            _ => Ok(Scope::All),
        }
    }
}

impl Pause {
    pub async fn run(&self, globals: &Globals, out: &mut Out) -> Result<(), Failure> {
        let scope = self.scope.scope()?;
        let (_, pool) = globals.open(Use::Write, out).await?;
        let shown = safe(&scope.to_string());
        let new = if self.dry_run {
            let pauses = read::pauses(&pool).await?;
            !pauses.iter().any(|pause| pause.scope == scope)
        } else {
            pause(&pool, &scope, &self.asking.operator()).await?
        };
        match (new, self.dry_run) {
            (true, true) => Ok(out.line(format_args!("{shown} would be paused"))?),
            (true, false) => Ok(out.line(format_args!("{shown} paused"))?),
            (false, _) => Err(Failure::Nothing(format!("{shown} is paused already"))),
        }
    }
}
