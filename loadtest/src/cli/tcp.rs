//! `ringlb-load tcp`.

use super::{Failure, signals, tell};
use clap::ValueEnum;
use ringlb_load::{
    Direction, Load, LoadError, LoadHandle, LoadOptions, Progress, Report, Workload, raise_descriptor_limit, units,
};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

/// Drive `ringlb-load serve` and measure
///
/// Without --rate the loop is closed: each connection begins its next request when it is done with the last. With
/// --rate it is open: requests are due at an even rate, their time counts from when they are due, and those that are
/// due while all connections are busy wait; so a stall of the server is not hidden.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to, as ADDR:PORT or NAME:PORT; several get equal shares
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// What a request is
    #[arg(long, value_enum, default_value_t = Mode::Connect)]
    mode: Mode,
    /// Connections at a time [default: 64; 1 with bulk]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Requests per second in all (open loop)
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// How long to begin requests [default: 10s, or until --requests are done]
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    duration: Option<Duration>,
    /// How many requests to begin in all
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Bytes of a request (pingpong) or a stream (bulk), such as 64, 16K or 1G [default: 64 with pingpong; until the
    /// end with bulk]
    #[arg(long, value_name = "B", value_parser = units::parse_size)]
    size: Option<u64>,
    /// Which way the bytes go with bulk
    #[arg(long, value_enum, value_name = "DIRECTION")]
    bulk: Option<BulkDirection>,
    /// How long a request may take; with bulk, how long nothing may move
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = units::parse_duration)]
    timeout: Duration,
    /// The address to connect from
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,
    /// How often to tell the progress, on standard error
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = units::parse_duration)]
    interval: Duration,
    /// Tell no progress
    #[arg(long, short)]
    quiet: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
    /// Exit with status 1 if any request failed
    #[arg(long)]
    fail_on_error: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Connect, ask for the server's name, read it, close
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
    let options = options(arguments)?;
    options.validate()?;
    let interval = arguments.interval.max(Duration::from_millis(10));
    let limit = raise_descriptor_limit()?;
    if options.connections as u64 + DESCRIPTORS_BESIDES > limit {
        tell(format_args!(
            "warning: {} connections do not fit into the limit of {limit} open descriptors (ulimit -n)",
            options.connections
        ));
    }
    let (give_stopper, take_stopper) = std::sync::mpsc::channel::<ringlb_load::LoadStopper>();
    signals::on_end(move || {
        // Without a load there is nothing to stop: it did not start, and the program ends.
        if let Ok(stopper) = take_stopper.recv() {
            stopper.stop();
        }
    })?;
    let mut load = Load::start(options)?;
    // Without a receiver a signal has come already, and the thread waits for the second.
    let _ = give_stopper.send(load.stopper());
    if arguments.quiet {
        while !load.wait(Duration::from_secs(3600)) {}
    } else {
        watch(&mut load, interval);
    }
    let report = load.join()?;
    print(&report, arguments.json).map_err(Failure::Output)?;
    let failed = arguments.fail_on_error && report.failures > 0;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Standard input, output and error, the ring, the runtime's own, and some room.
const DESCRIPTORS_BESIDES: u64 = 32;

fn options(arguments: &Arguments) -> Result<LoadOptions, LoadError> {
    let invalid = |option, reason: &str| Err(LoadError::Option { option, reason: reason.to_owned() });
    if arguments.bulk.is_some() && arguments.mode != Mode::Bulk {
        return invalid("--bulk", "goes with --mode bulk only");
    }
    if arguments.size.is_some() && arguments.mode == Mode::Connect {
        return invalid("--size", "goes with --mode pingpong and --mode bulk only");
    }
    let workload = match arguments.mode {
        Mode::Connect => Workload::Connect,
        Mode::Pingpong => Workload::Pingpong { size_bytes: arguments.size.unwrap_or(64) },
        Mode::Bulk => Workload::Bulk {
            direction: match arguments.bulk {
                Some(BulkDirection::Up) => Direction::Up,
                Some(BulkDirection::Down) | None => Direction::Down,
                Some(BulkDirection::Both) => Direction::Both,
            },
            size_bytes: arguments.size,
        },
    };
    Ok(LoadOptions {
        targets: arguments.targets.iter().map(|target| resolve(target)).collect::<Result<_, _>>()?,
        workload,
        connections: arguments.connections.unwrap_or(if arguments.mode == Mode::Bulk { 1 } else { 64 }),
        rate: arguments.rate,
        duration: match (arguments.duration, arguments.requests) {
            (None, None) => Some(Duration::from_secs(10)),
            (duration, _) => duration,
        },
        requests: arguments.requests,
        timeout: arguments.timeout,
        source: arguments.source,
    })
}

fn resolve(target: &str) -> Result<SocketAddr, LoadError> {
    let invalid = |reason| LoadError::Option { option: "TARGET", reason };
    target
        .to_socket_addrs()
        .map_err(|error| invalid(format!("{target:?} is not an address and port: {error}")))?
        .next()
        .ok_or_else(|| invalid(format!("{target:?} has no address")))
}

fn watch(load: &mut LoadHandle, interval: Duration) {
    let mut before = load.snapshot();
    while !load.wait(interval) {
        let now = load.snapshot();
        tell(format_args!("{}", progress_line(&before, &now)));
        before = now;
    }
}

fn progress_line(before: &Progress, now: &Progress) -> String {
    let interval = now.elapsed.saturating_sub(before.elapsed);
    let seconds = interval.as_secs_f64().max(0.001);
    let requests = now.requests.saturating_sub(before.requests);
    let moved = |progress: &Progress| progress.bytes_sent + progress.bytes_received;
    let mut line = format!(
        "{:>7.1} s {:>10.0} req/s {:>10} {:>8} failed",
        now.elapsed.as_secs_f64(),
        f64::from(u32::try_from(requests).unwrap_or(u32::MAX)) / seconds,
        units::format_bit_rate(moved(now).saturating_sub(moved(before)), interval),
        now.failures
    );
    if let Some(intended) = now.intended {
        let behind = intended.saturating_sub(now.requests + now.failures);
        line.push_str(&format!(" {behind:>8} due or under way"));
    }
    if let Some(total) = now.total {
        line.push_str(&format!(
            "  p50 {}  p99 {}  max {}",
            units::format_microseconds(total.p50_us),
            units::format_microseconds(total.p99_us),
            units::format_microseconds(total.max_us)
        ));
    }
    line
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()
}
