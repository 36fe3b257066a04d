//! `ringlb-load`: echo servers, load for TCP and UDP, a benchmark of balancers, and what ringlb costs by size.

#![forbid(unsafe_code)]

mod bench;
mod cli;
mod instruments;
mod scale;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
