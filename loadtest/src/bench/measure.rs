//! Making one run: warm up, load, and read what it has cost.

use super::changes::{self, Churn, Churned};
use super::idle;
use super::results::{CpuSource, Run};
use super::stage::{House, Stage};
use super::system::System;
use super::work::work_of;
use super::workload::Workload;
use super::{BenchError, Options};
use crate::instruments::accounting::{self, cpu_time};
use nix::unistd::Pid;
use std::time::Duration;

/// Runs a system with a workload once. The rate is that of [`Workload::OpenLoop`].
pub(super) fn run(
    house: &House,
    options: &Options,
    workload: Workload,
    system: System,
    rate: Option<f64>,
) -> Result<Run, BenchError> {
    let mut stage = Stage::open(house, system)?;
    let run = match workload {
        Workload::Idle => idle::measure(&stage)?,
        Workload::Propagation => changes::propagation(&stage, options)?,
        Workload::SingleChanges => changes::single(&stage, options)?,
        Workload::Batches => changes::batches(&stage, options)?,
        _ => load(&mut stage, house, options, workload, rate)?,
    };
    stage.close()?;
    Ok(run)
}

fn load(
    stage: &mut Stage<'_>,
    house: &House,
    options: &Options,
    workload: Workload,
    rate: Option<f64>,
) -> Result<Run, BenchError> {
    let load = work_of(stage, workload, rate)?;
    if !options.warm_up.is_zero() {
        load.drive(stage, options.warm_up)?;
    }
    let churn = workload == Workload::Churn && stage.system != System::RinglbQuiet;
    let start = || house.processors.on_system(|| Churn::start(&stage.admin_socket()));
    let churn = churn.then(start).transpose()?;
    let processes = stage.processes();
    let busy_processors = || accounting::Processors::read(&house.processors.numbers());
    let own = [Pid::this()];
    let (busy, cpu, own_cpu) = (busy_processors()?, cpu_time(&processes)?, cpu_time(&own)?);
    let driven = load.drive(stage, options.duration)?;
    let cpu = cpu_time(&processes)?.saturating_sub(cpu);
    let own_cpu = cpu_time(&own)?.saturating_sub(own_cpu);
    let busy = busy.busy_until(&busy_processors()?);
    let changes = churn.map(Churn::stop).transpose()?;
    let done = driven.done(workload);
    let per_unit = |time: Duration| (done.units > 0.0).then(|| time.as_secs_f64() * 1e6 / done.units);
    let cpu_us_per_unit = per_unit(cpu).filter(|_| stage.system.has_processes());
    let [p50_us, p99_us, p999_us] = done.quantiles;
    Ok(Run {
        rate: Some(done.rate),
        p50_us,
        p99_us,
        p999_us,
        cpu_us_per_unit,
        cpu_source: cpu_us_per_unit.map(|_| CpuSource::Processes),
        load_us_per_unit: per_unit(own_cpu),
        machine_us_per_unit: per_unit(busy),
        changes_per_second: changes.map(|Churned { per_second }| per_second),
        errors: done.failures,
        error_example: done.failure,
        units: done.units,
        seconds: done.elapsed.as_secs_f64(),
        ..Run::new(workload, stage.system)
    })
}
