//! `man`: manual pages made of the help texts.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::{Cli, Failure, Out};

/// Print the manual page, or write one for each verb into a folder
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    postlane man | man -l -\n  \
    postlane man --out /usr/local/share/man/man1")]
pub struct Man {
    /// Write postlane.1 and a page for each verb into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub fn run(&self, out: &mut Out) -> Result<(), Failure> {
        if let Some(folder) = &self.out {
            return clap_mangen::generate_to(Cli::command(), folder)
                .map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())));
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        Ok(out.write_all(&page)?)
    }
}
