//! `ringlb-load`: echo servers, load for TCP and UDP, and a benchmark of balancers.

#![forbid(unsafe_code)]

mod bench;
mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
