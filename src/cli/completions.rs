//! `completions`: a script for the shell.

use std::io::Write as _;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Failure, Out};

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane completions bash > /etc/bash_completion.d/postlane\n  \
    postlane completions zsh > ~/.zfunc/_postlane")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(&self, out: &mut Out) -> Result<(), Failure> {
        // Into memory first: the generator panics where it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "postlane", &mut script);
        Ok(out.write_all(&script)?)
    }
}
