//! `ringlb-load udp`.

use super::Failure;
use super::load::Common;
use clap::ValueEnum;
use ringlb_load::{Exchange, Workload, units};
use std::process::ExitCode;
use std::time::Duration;

/// Drive `ringlb-load serve`, or any echo server, over UDP and measure
///
/// Each client has a socket, and so a port, of its own. Every datagram says which it is, so that loss, duplicates,
/// reordering, corruption and answers meant for another are told apart.
///
/// Without --rate the loop is closed: each client sends its next datagram when the last is answered or lost, or with
/// bulk at once. With --rate it is open: datagrams are due at an even rate and their time counts from when they are due.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// How datagrams follow each other
    #[arg(long, value_enum, default_value_t = Mode::Pingpong)]
    mode: Mode,
    /// Clients at a time [default: 64; 1 with bulk]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Bytes of a datagram without headers, from 32 to 65507 [default: 64; 128 with --names; 1400 with bulk]
    #[arg(long, value_name = "B", value_parser = units::parse_size)]
    size: Option<u64>,
    /// Ask each server for its name, and count by name; takes 96 bytes
    #[arg(long)]
    names: bool,
    /// When a datagram without an answer is lost
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Each from a new port
    Connect,
    /// The next when the last is answered or lost
    Pingpong,
    /// Without waiting for answers
    Bulk,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (exchange, connections, size) = match arguments.mode {
        Mode::Connect => (Exchange::Connect, 64, 64),
        Mode::Pingpong => (Exchange::Pingpong, 64, 64),
        // What fits into a packet nearly everywhere.
        Mode::Bulk => (Exchange::Bulk, 1, 1400),
    };
    let size_bytes = arguments.size.unwrap_or(if arguments.names { size.max(128) } else { size });
    let workload = Workload::Udp { exchange, size_bytes, names: arguments.names };
    arguments.common.run(workload, arguments.connections.unwrap_or(connections), arguments.timeout)
}
