//! `ringlb-load bench`.

use super::{Failure, tell};
use crate::bench::{self, Options, System, Workload};
use ringlb_load::units;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measure ringlb side by side with other balancers, and with none
///
/// A client, two servers and a sandbox are made in namespaces on one bridge, anew for each run; in the sandbox one system
/// after the other does the same work, on a processor of its own. Results are written after each run, so that those of a
/// benchmark that is interrupted are not lost. Needs two processors; and root, for figures that say something of ringlb as
/// root runs it.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What the systems are made to do: names with commas between them, such as w1,w2-64, a family such as w3, or all
    #[arg(long, value_name = "WORKLOADS", default_value = "all", value_parser = parse_workloads)]
    workloads: Workloads,
    /// With what ringlb is compared: direct, haproxy, haproxy-tuned, nginx, envoy, nft, or all that are installed
    #[arg(long, value_name = "PEERS", default_value = "all", value_parser = parse_peers)]
    peers: Peers,
    /// How often each system is run with each workload
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,
    /// How long each run is measured
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::parse_duration)]
    duration: Duration,
    /// How long it is loaded before that
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::parse_duration)]
    warm_up: Duration,
    /// Count system calls too, with strace, in runs of their own
    #[arg(long)]
    count_syscalls: bool,
    /// Write the results there, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report and its plots into that directory
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

/// What `--workloads` gives.
#[derive(Debug, Clone)]
struct Workloads(Vec<Workload>);

/// What `--peers` gives.
#[derive(Debug, Clone)]
struct Peers {
    systems: Vec<System>,
    /// Whether each of them was asked for, so that one that is not installed is a failure.
    named: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let options = Options {
        workloads: arguments.workloads.0,
        peers: arguments.peers.systems,
        rounds: arguments.rounds,
        duration: arguments.duration,
        warm_up: arguments.warm_up,
        count_system_calls: arguments.count_syscalls,
        json: arguments.json,
        report: arguments.report,
    };
    let results = bench::run(&options, &mut |line| tell(format_args!("{line}")))?;
    let mut out = io::stdout().lock();
    out.write_all(bench::document(&results).as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)?;
    let lacking = arguments.peers.named && !results.missing.is_empty();
    Ok(if lacking || results.has_failed_runs() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn parse_workloads(text: &str) -> Result<Workloads, String> {
    let mut chosen = Vec::new();
    for part in text.split(',') {
        chosen.extend(bench::workload::parse(part)?);
    }
    // In their own order, each once.
    Ok(Workloads(Workload::ALL.into_iter().filter(|workload| chosen.contains(workload)).collect()))
}

fn parse_peers(text: &str) -> Result<Peers, String> {
    if text == "all" {
        return Ok(Peers { systems: System::ALL.to_vec(), named: false });
    }
    Ok(Peers { systems: text.split(',').map(str::parse).collect::<Result<_, _>>()?, named: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_chosen_by_name_and_family() {
        let names = |text: &str| parse_workloads(text).unwrap().0.iter().map(|one| one.name()).collect::<Vec<_>>();
        assert_eq!(names("w2-64,w1"), ["w1", "w2-64"]);
        assert_eq!(names("w1,w3,w1"), ["w1", "w3-1", "w3-8", "w3-both"]);
        assert_eq!(names("all").len(), Workload::ALL.len());
        for text in ["", "w1,", "w1 w2", "nonsense"] {
            assert!(parse_workloads(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn peers_are_chosen_by_name() {
        let some = parse_peers("haproxy,direct").unwrap();
        assert_eq!((some.systems, some.named), (vec![System::Haproxy, System::Direct], true));
        let all = parse_peers("all").unwrap();
        assert_eq!((all.systems, all.named), (System::ALL.to_vec(), false));
        assert!(parse_peers("haproxy,traefik").unwrap_err().contains("traefik"));
    }
}
