//! `ringlb-load tcp`.

use super::Failure;
use super::load::{Common, invalid};
use clap::ValueEnum;
use ringlb_load::{Direction, LoadError, Workload, units};
use std::process::ExitCode;
use std::time::Duration;

/// Drive `ringlb-load serve` over TCP and measure
///
/// Without --rate the loop is closed: each connection begins its next request when it is done with the last. With
/// --rate it is open: requests are due at an even rate, their time counts from when they are due, and those that are
/// due while all connections are busy wait; so a stall of the server is not hidden.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// What a request is
    #[arg(long, value_enum, default_value_t = Mode::Connect)]
    mode: Mode,
    /// Connections at a time [default: 64; 1 with bulk]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Bytes of a request (connect, pingpong) or a stream (bulk), such as 64, 16K or 1G [default: the server's name is
    /// asked for with connect; 64 with pingpong; until the end with bulk]
    #[arg(long, value_name = "B", value_parser = units::parse_size)]
    size: Option<u64>,
    /// Which way the bytes go with bulk
    #[arg(long, value_enum, value_name = "DIRECTION")]
    bulk: Option<BulkDirection>,
    /// How long a request may take; with bulk, how long nothing may move
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Connect, ask for the server's name, read it, close; with --size, send bytes and check that they come back instead
    Connect,
    /// Send bytes over a connection that stays open, check that they come back
    Pingpong,
    /// Stream test data, check it
    Bulk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BulkDirection {
    /// To the server
    Up,
    /// From the server (the default)
    Down,
    /// To the server and back, both at once
    Both,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let connections = arguments.connections.unwrap_or(if arguments.mode == Mode::Bulk { 1 } else { 64 });
    arguments.common.run(workload(arguments)?, connections, arguments.timeout)
}

fn workload(arguments: &Arguments) -> Result<Workload, LoadError> {
    if arguments.bulk.is_some() && arguments.mode != Mode::Bulk {
        return invalid("--bulk", "goes with --mode bulk only");
    }
    Ok(match arguments.mode {
        Mode::Connect => match arguments.size {
            None => Workload::Connect,
            Some(size_bytes) => Workload::ConnectEcho { size_bytes },
        },
        Mode::Pingpong => Workload::Pingpong { size_bytes: arguments.size.unwrap_or(64) },
        Mode::Bulk => Workload::Bulk {
            direction: match arguments.bulk {
                Some(BulkDirection::Up) => Direction::Up,
                Some(BulkDirection::Down) | None => Direction::Down,
                Some(BulkDirection::Both) => Direction::Both,
            },
            size_bytes: arguments.size,
        },
    })
}
