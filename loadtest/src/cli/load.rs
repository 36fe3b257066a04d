//! What `ringlb-load tcp` and `ringlb-load udp` have in common.

use super::{Failure, signals, tell};
use ringlb_load::{
    Load, LoadError, LoadHandle, LoadOptions, Progress, Report, Workload, raise_descriptor_limit, units,
};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

/// Options of both commands.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// Where to, as ADDR:PORT, [ADDR]:PORT or NAME:PORT; several get equal shares
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// Requests per second in all (open loop)
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// How long to begin requests [default: 10s, or until --requests are done]
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    duration: Option<Duration>,
    /// How many requests to begin in all
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
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

impl Common {
    /// Runs a load; prints its progress and its report.
    pub(super) fn run(&self, workload: Workload, connections: usize, timeout: Duration) -> Result<ExitCode, Failure> {
        let options = self.options(workload, connections, timeout)?;
        options.validate()?;
        let interval = self.interval.max(Duration::from_millis(10));
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
        if self.quiet {
            while !load.wait(Duration::from_secs(3600)) {}
        } else {
            watch(&mut load, interval);
        }
        let report = load.join()?;
        print(&report, self.json).map_err(Failure::Output)?;
        let failed = self.fail_on_error && report.failures > 0;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn options(&self, workload: Workload, connections: usize, timeout: Duration) -> Result<LoadOptions, LoadError> {
        Ok(LoadOptions {
            targets: self.targets.iter().map(|target| resolve(target)).collect::<Result<_, _>>()?,
            workload,
            connections,
            rate: self.rate,
            duration: match (self.duration, self.requests) {
                (None, None) => Some(Duration::from_secs(10)),
                (duration, _) => duration,
            },
            requests: self.requests,
            timeout,
            source: self.source,
        })
    }
}

/// Standard input, output and error, the ring, the runtime's own, and some room.
const DESCRIPTORS_BESIDES: u64 = 32;

/// An error in what was asked for.
pub(super) fn invalid<T>(option: &'static str, reason: &str) -> Result<T, LoadError> {
    Err(LoadError::Option { option, reason: reason.to_owned() })
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
