//! What clients do in a workload, and what came of it.

use super::requests::{self, Connections, Order, Outcome};
use super::stage::Stage;
use super::workload::Workload;
use super::{BenchError, idle};
use ringlb_load::units::to_float;
use ringlb_load::{Direction, Exchange, LatencySummary, LoadOptions, Report, Workload as LoadKind};
use std::time::Duration;

/// A rate that is low enough for a proxy to be idle most of the time.
const LOW_RATE: f64 = 1_000.0;
const SMALL: u64 = 64;
const LOST_AFTER: Duration = Duration::from_secs(1);

/// The work of a workload.
pub(super) enum Work {
    /// Requests of 64 bytes.
    Requests(Order),
    /// Everything else.
    Load(LoadOptions),
}

/// What was done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) units: f64,
    pub(super) rate: f64,
    /// Times that 500, 990 and 999 of 1,000 requests did not exceed, in microseconds, where there are requests.
    pub(super) quantiles: [Option<u64>; 3],
    pub(super) failures: u64,
    pub(super) failure: Option<String>,
    pub(super) elapsed: Duration,
}

/// The work of a workload; the rate is that of [`Workload::OpenLoop`].
pub(super) fn work_of(stage: &mut Stage<'_>, workload: Workload, rate: Option<f64>) -> Result<Work, BenchError> {
    let (connections, rate) = match workload {
        Workload::Connect => (Connections::ForOneRequest(64), None),
        Workload::PingpongOne => (Connections::Lasting(1), None),
        Workload::PingpongSlow => (Connections::Lasting(1), Some(LOW_RATE)),
        Workload::Pingpong64 | Workload::Churn => (Connections::Lasting(64), None),
        Workload::Pingpong512 => (Connections::Lasting(512), None),
        Workload::OpenLoop => (Connections::Lasting(64), rate),
        _ => return Ok(Work::Load(load_of(stage, workload)?)),
    };
    stage.only_echo()?;
    Ok(Work::Requests(Order { targets: stage.targets(), connections, rate, duration: Duration::ZERO }))
}

/// The load of a workload with other servers.
pub(super) fn load_of(stage: &Stage<'_>, workload: Workload) -> Result<LoadOptions, BenchError> {
    let udp = LoadKind::Udp { exchange: Exchange::Pingpong, size_bytes: SMALL, names: false };
    let bulk = |direction| LoadKind::Bulk { direction, size_bytes: None };
    let (kind, connections) = match workload {
        Workload::BulkOne => (bulk(Direction::Down), 1),
        Workload::Bulk8 => (bulk(Direction::Down), 8),
        Workload::BulkBoth => (bulk(Direction::Both), 8),
        Workload::Udp64 => (udp, 64),
        Workload::Udp1000 => (udp, 1_000),
        Workload::Idle => (LoadKind::Pingpong { size_bytes: SMALL }, idle::CONNECTIONS),
        _ => return Err(BenchError::Impossible(format!("{workload} has no such load"))),
    };
    let mut options = LoadOptions::new(stage.targets(), kind);
    options.connections = connections;
    if matches!(kind, LoadKind::Udp { .. }) {
        // A client that waits for a lost datagram does nothing else.
        options.timeout = LOST_AFTER;
    }
    options.rate = (workload == Workload::Idle).then_some(idle::RATE);
    Ok(options)
}

/// What clients say of it.
pub(super) enum Driven {
    Requests(Outcome),
    Load(Box<Report>),
}

impl Work {
    /// Does it for so long.
    pub(super) fn drive(&self, stage: &Stage<'_>, duration: Duration) -> Result<Driven, BenchError> {
        match self {
            Self::Requests(order) => {
                let order = Order { duration, ..order.clone() };
                Ok(Driven::Requests(stage.in_client(|| requests::run(&order))?))
            }
            Self::Load(load) => {
                let load = LoadOptions { duration: Some(duration), ..load.clone() };
                Ok(Driven::Load(Box::new(stage.load(load)?.join()?)))
            }
        }
    }
}

impl Driven {
    /// In figures.
    pub(super) fn done(self, workload: Workload) -> Done {
        match self {
            Self::Requests(outcome) => Done::from(outcome),
            Self::Load(report) => Done::of(workload, &report),
        }
    }
}

impl From<Outcome> for Done {
    fn from(mut outcome: Outcome) -> Self {
        let units = outcome.times.count();
        Self {
            units,
            rate: units / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            quantiles: [500, 990, 999].map(|share| outcome.times.per_mille(share)),
            failures: outcome.failures,
            failure: outcome.failure,
            elapsed: outcome.elapsed,
        }
    }
}

impl Done {
    fn of(workload: Workload, report: &Report) -> Self {
        let seconds = report.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let (units, rate, latency) = match workload {
            Workload::BulkOne | Workload::Bulk8 | Workload::BulkBoth => {
                // What goes up and comes back is carried twice.
                let ways = if workload == Workload::BulkBoth { 2.0 } else { 1.0 };
                let bytes = to_float(report.bytes_received) * ways;
                (bytes / 1e9, bytes * 8.0 / 1e9 / seconds, None)
            }
            _ => {
                let requests = to_float(report.requests);
                (requests, requests / seconds, report.latency.total)
            }
        };
        let quantile = |of: fn(&LatencySummary) -> u64| latency.as_ref().map(of);
        Self {
            units,
            rate,
            quantiles: [
                quantile(|times| times.p50_us),
                quantile(|times| times.p99_us),
                quantile(|times| times.p999_us),
            ],
            failures: report.failures,
            failure: report.errors.values().next().map(|error| error.example.clone()),
            elapsed: report.elapsed(),
        }
    }
}
