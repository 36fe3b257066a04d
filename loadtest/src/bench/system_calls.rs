//! How many system calls a unit of work takes, counted in runs of their own.

use super::results::SystemCalls;
use super::stage::{House, Stage};
use super::system::System;
use super::work::work_of;
use super::workload::Workload;
use super::{BenchError, Options};
use crate::instruments::system_calls::Count;
use ringlb_load::units::to_float;
use std::collections::BTreeMap;

/// Counts those of a system's processes with a workload, if both have any.
pub(super) fn count(
    house: &House,
    options: &Options,
    workload: Workload,
    system: System,
) -> Result<Option<SystemCalls>, BenchError> {
    if !system.has_processes() || !workload.is_load() {
        return Ok(None);
    }
    let mut stage = Stage::open(house, system)?;
    let load = work_of(&mut stage, workload, None)?;
    load.drive(&stage, options.warm_up.max(SHORTEST))?;
    let processes = stage.processes();
    let count = Count::begin(&processes, house.directory.path())?;
    let driven = load.drive(&stage, options.duration)?;
    let calls = count.end()?;
    stage.close()?;
    let units = driven.done(workload).units;
    if units <= 0.0 {
        return Err(BenchError::Impossible(format!("{system} did nothing while its system calls were counted")));
    }
    let by_name: BTreeMap<_, _> = calls.into_iter().map(|(name, calls)| (name, to_float(calls) / units)).collect();
    Ok(Some(SystemCalls { workload, system, units, per_unit: by_name.values().sum(), by_name }))
}

/// A system is to have done some of the work before it is looked at.
const SHORTEST: std::time::Duration = std::time::Duration::from_millis(200);
