//! Making one run: warm up, load, and read what it has cost.

use super::accounting::{self, cpu_time};
use super::idle;
use super::results::{CpuSource, Run};
use super::stage::{House, Stage};
use super::system::System;
use super::workload::Workload;
use super::{BenchError, Options};
use ringlb_load::units::to_float;
use ringlb_load::{Direction, LatencySummary, LoadOptions, Report, Workload as LoadKind};
use std::time::Duration;

/// A rate that is low enough for a proxy to be idle most of the time.
const LOW_RATE: f64 = 1_000.0;
const SMALL: u64 = 64;

/// Runs a system with a workload once.
pub(super) fn run(
    house: &House,
    options: &Options,
    workload: Workload,
    system: System,
    round: u32,
) -> Result<Run, BenchError> {
    let stage = Stage::open(house, system)?;
    let mut run = match workload {
        Workload::Idle => idle::measure(&stage)?,
        _ => load(&stage, house, options, workload)?,
    };
    run.round = round;
    stage.close()?;
    Ok(run)
}

fn load(
    stage: &Stage<'_>,
    house: &House,
    options: &Options,
    workload: Workload,
) -> Result<Run, BenchError> {
    let load = load_options(stage, workload);
    if !options.warm_up.is_zero() {
        stage.load(LoadOptions { duration: Some(options.warm_up), ..load.clone() })?.join()?;
    }
    let processes = stage.processes();
    let busy_processors = || accounting::Processors::read(&house.processors.numbers());
    let (busy, cpu) = (busy_processors()?, cpu_time(&processes)?);
    let report = stage.load(LoadOptions { duration: Some(options.duration), ..load })?.join()?;
    let cpu = cpu_time(&processes)?.saturating_sub(cpu);
    let busy = busy.busy_until(&busy_processors()?);
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
        machine_us_per_unit: per_unit(busy),
        errors: report.failures,
        error_example: report.errors.values().next().map(|error| error.example.clone()),
        units: work.units,
        seconds: report.elapsed().as_secs_f64(),
        ..Run::new(workload, stage.system)
    })
}

pub(super) fn load_options(stage: &Stage<'_>, workload: Workload) -> LoadOptions {
    let pingpong = LoadKind::Pingpong { size_bytes: SMALL };
    let bulk = |direction| LoadKind::Bulk { direction, size_bytes: None };
    let (kind, connections) = match workload {
        Workload::Connect => (LoadKind::Connect, 64),
        Workload::PingpongOne | Workload::PingpongSlow => (pingpong, 1),
        Workload::Pingpong64 => (pingpong, 64),
        Workload::Pingpong512 => (pingpong, 512),
        Workload::BulkOne => (bulk(Direction::Down), 1),
        Workload::Bulk8 => (bulk(Direction::Down), 8),
        Workload::BulkBoth => (bulk(Direction::Both), 8),
        Workload::Idle => (pingpong, idle::CONNECTIONS),
    };
    let mut options = LoadOptions::new(stage.targets(), kind);
    options.connections = connections;
    options.rate = match workload {
        Workload::PingpongSlow => Some(LOW_RATE),
        Workload::Idle => Some(idle::RATE),
        _ => None,
    };
    options
}

/// What was done.
struct Work {
    units: f64,
    rate: f64,
    /// How long requests took, where there are any.
    latency: Option<LatencySummary>,
}

fn work(workload: Workload, report: &Report) -> Work {
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
