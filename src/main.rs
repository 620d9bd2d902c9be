//! The `postlane` command: reads the command line, runs one verb, ends with its exit code.

use std::process::ExitCode;

use clap::Parser as _;
use postlane::cli::{Cli, Failure, Out};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version come this way too; a closed pipe is no reason to complain.
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2));
        }
    };
    let mut out = Out::new();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return out.end(Err(Failure::Failed(format!("no runtime: {error}")))),
    };
    let done = runtime.block_on(cli.run(&mut out));
    // Whatever still runs has been told to end; nothing may hold up the exit.
    runtime.shutdown_background();
    out.end(done)
}
