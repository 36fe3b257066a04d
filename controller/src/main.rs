//! The `ringlb` program: the daemon, and the command line that talks to it.
#![forbid(unsafe_code)]

use clap::Parser;
use ringlb::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(cli::Arguments::parse())
}
