//! `ringlb-load`: echo servers and load for TCP and UDP.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
