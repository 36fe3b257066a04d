//! Making one run: warm up, load, and read what it has cost.

use super::changes::{self, Churn, Churned};
use super::idle;
use super::results::{CpuSource, Run};
use super::stage::{House, Stage};
use super::system::System;
use super::workload::Workload;
use super::{BenchError, Options};
use crate::instruments::accounting::{self, cpu_time};
use nix::unistd::Pid;
use ringlb_load::units::to_float;
use ringlb_load::{Direction, Exchange, LatencySummary, LoadOptions, Report, Workload as LoadKind};
use std::time::Duration;

/// A rate that is low enough for a proxy to be idle most of the time.
const LOW_RATE: f64 = 1_000.0;
const SMALL: u64 = 64;
const LOST_AFTER: Duration = Duration::from_secs(1);

/// Runs a system with a workload once. The rate is that of [`Workload::OpenLoop`].
pub(super) fn run(
    house: &House,
    options: &Options,
    workload: Workload,
    system: System,
    rate: Option<f64>,
) -> Result<Run, BenchError> {
    let stage = Stage::open(house, system)?;
    let run = match workload {
        Workload::Idle => idle::measure(&stage)?,
        Workload::Propagation => changes::propagation(&stage, options)?,
        Workload::SingleChanges => changes::single(&stage, options)?,
        Workload::Batches => changes::batches(&stage, options)?,
        _ => load(&stage, house, options, workload, rate)?,
    };
    stage.close()?;
    Ok(run)
}

fn load(
    stage: &Stage<'_>,
    house: &House,
    options: &Options,
    workload: Workload,
    rate: Option<f64>,
) -> Result<Run, BenchError> {
    let mut load = load_of(stage, workload)?;
    if workload == Workload::OpenLoop {
        load.rate = rate;
    }
    if !options.warm_up.is_zero() {
        stage.load(LoadOptions { duration: Some(options.warm_up), ..load.clone() })?.join()?;
    }
    let churn = workload == Workload::Churn && stage.system != System::RinglbQuiet;
    let churn = churn.then(|| Churn::start(&stage.admin_socket())).transpose()?;
    let processes = stage.processes();
    let busy_processors = || accounting::Processors::read(&house.processors.numbers());
    let own = [Pid::this()];
    let (busy, cpu, own_cpu) = (busy_processors()?, cpu_time(&processes)?, cpu_time(&own)?);
    let report = stage.load(LoadOptions { duration: Some(options.duration), ..load })?.join()?;
    let cpu = cpu_time(&processes)?.saturating_sub(cpu);
    let own_cpu = cpu_time(&own)?.saturating_sub(own_cpu);
    let busy = busy.busy_until(&busy_processors()?);
    let changes = churn.map(Churn::stop).transpose()?;
    let work = work(workload, &report);
    let per_unit = |time: Duration| (work.units > 0.0).then(|| time.as_secs_f64() * 1e6 / work.units);
    let latency = |of: fn(&LatencySummary) -> u64| work.latency.as_ref().map(of);
    let cpu_us_per_unit = per_unit(cpu).filter(|_| stage.system.has_processes());
    Ok(Run {
        rate: Some(work.rate),
        p50_us: latency(|summary| summary.p50_us),
        p99_us: latency(|summary| summary.p99_us),
        p999_us: latency(|summary| summary.p999_us),
        cpu_us_per_unit,
        cpu_source: cpu_us_per_unit.map(|_| CpuSource::Processes),
        load_us_per_unit: per_unit(own_cpu),
        machine_us_per_unit: per_unit(busy),
        changes_per_second: changes.map(|Churned { per_second }| per_second),
        errors: report.failures,
        error_example: report.errors.values().next().map(|error| error.example.clone()),
        units: work.units,
        seconds: report.elapsed().as_secs_f64(),
        ..Run::new(workload, stage.system)
    })
}

/// The load of a workload.
pub(super) fn load_of(stage: &Stage<'_>, workload: Workload) -> Result<LoadOptions, BenchError> {
    let pingpong = LoadKind::Pingpong { size_bytes: SMALL };
    let udp = LoadKind::Udp { exchange: Exchange::Pingpong, size_bytes: SMALL, names: false };
    let bulk = |direction| LoadKind::Bulk { direction, size_bytes: None };
    let (kind, connections) = match workload {
        Workload::Connect => (LoadKind::ConnectEcho { size_bytes: SMALL }, 64),
        Workload::PingpongOne | Workload::PingpongSlow => (pingpong, 1),
        Workload::Pingpong64 | Workload::OpenLoop | Workload::Churn => (pingpong, 64),
        Workload::Pingpong512 => (pingpong, 512),
        Workload::BulkOne => (bulk(Direction::Down), 1),
        Workload::Bulk8 => (bulk(Direction::Down), 8),
        Workload::BulkBoth => (bulk(Direction::Both), 8),
        Workload::Udp64 => (udp, 64),
        Workload::Udp1000 => (udp, 1_000),
        Workload::Idle => (pingpong, idle::CONNECTIONS),
        Workload::Propagation | Workload::SingleChanges | Workload::Batches => {
            return Err(BenchError::Impossible(format!("{workload} has no load of its own")));
        }
    };
    let mut options = LoadOptions::new(stage.targets(), kind);
    options.connections = connections;
    if matches!(kind, LoadKind::Udp { .. }) {
        // A client that waits for a lost datagram does nothing else.
        options.timeout = LOST_AFTER;
    }
    options.rate = match workload {
        Workload::PingpongSlow => Some(LOW_RATE),
        Workload::Idle => Some(idle::RATE),
        _ => None,
    };
    Ok(options)
}

/// What was done.
pub(super) struct Work {
    pub(super) units: f64,
    rate: f64,
    /// How long requests took, where there are any.
    latency: Option<LatencySummary>,
}

pub(super) fn work(workload: Workload, report: &Report) -> Work {
    let seconds = report.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
    match workload {
        Workload::BulkOne | Workload::Bulk8 | Workload::BulkBoth => {
            // What goes up and comes back is carried twice.
            let bytes = to_float(report.bytes_received) * if workload == Workload::BulkBoth { 2.0 } else { 1.0 };
            Work { units: bytes / 1e9, rate: bytes * 8.0 / 1e9 / seconds, latency: None }
        }
        _ => {
            let requests = to_float(report.requests);
            Work { units: requests, rate: requests / seconds, latency: report.latency.total }
        }
    }
}
