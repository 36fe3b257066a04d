//! The command line.

mod bench;
mod load;
mod scale;
mod serve;
mod signals;
mod tcp;
mod udp;

use crate::bench::BenchError;
use clap::{Parser, Subcommand};
use ringlb_load::LoadError;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// Echo servers and load, for testing load balancers
#[derive(Debug, Parser)]
#[command(name = "ringlb-load", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Tcp(tcp::Arguments),
    Udp(udp::Arguments),
    Bench(bench::Arguments),
    Scale(scale::Arguments),
}

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Tcp(arguments) => tcp::run(&arguments),
        Command::Udp(arguments) => udp::run(&arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Scale(arguments) => scale::run(arguments),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            tell(format_args!("error: {failure}"));
            match failure {
                Failure::Load(LoadError::Option { .. }) | Failure::Bench(BenchError::Option { .. }) => {
                    ExitCode::from(2)
                }
                Failure::Load(_) | Failure::Bench(_) | Failure::Output(_) | Failure::Signals(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// Why the program did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// Writes a line for people, to standard error. If nobody reads it, there is nobody to tell.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
