//! `ringlb-load scale`.

use super::{Failure, tell};
use crate::scale::{self, Options, Size, Steps};
use ringlb_load::units;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measure what ringlb costs by size: networks, services and backends
///
/// At each of several sizes a daemon is started, all of it built by its API, and memory, kernel objects, CPU time, system
/// calls and times are measured; nothing is left. Backends are addresses without a server. Results are written after each
/// size. Needs two processors, strace, and root.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Networks, at the largest size
    #[arg(long, value_name = "N", default_value_t = 1)]
    networks: u32,
    /// Services of each network, at the largest size
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    services: u32,
    /// Backends of each service, at the largest size
    #[arg(long, value_name = "N", default_value_t = 10)]
    backends: u32,
    /// How many sizes: from 1 network, 10 services and 10 backends up to the largest, by equal factors. Or the sizes
    /// themselves, such as 1x10x10,1x10000x100: networks, services of each, backends of each
    #[arg(long, value_name = "N|SIZES", default_value = "5")]
    steps: Steps,
    /// How many task changes are made at each size
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    changes: u32,
    /// How long idle processes are looked at, and how long connections are made, at each size
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::parse_duration)]
    duration: Duration,
    /// Containers of this node on each network, for what the kernel's balancer cost when each of them had all of it
    #[arg(long, value_name = "N", default_value_t = 50)]
    containers: u32,
    /// Write the results there, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report and its plots into that directory
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { networks, services, backends, steps, changes, duration, containers, json, report } = arguments;
    let invalid = |(option, number): (&'static str, u32)| {
        let reason = "must be at least 1".to_owned();
        (number == 0).then_some(Failure::Bench(crate::instruments::BenchError::Option { option, reason }))
    };
    let numbers = [("--networks", networks), ("--services", services), ("--backends", backends)];
    if let Some(failure) = numbers.into_iter().find_map(invalid) {
        return Err(failure);
    }
    let largest = Size { networks, services, backends };
    let options = Options { largest, steps, changes, duration, containers, json, report };
    let results = scale::run(&options, &mut |line| tell(format_args!("{line}")))?;
    let mut out = io::stdout().lock();
    out.write_all(scale::document(&results).as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}
