//! What an idle connection costs in memory.

use super::BenchError;
use super::results::Run;
use super::stage::Stage;
use super::work::load_of;
use super::workload::Workload;
use crate::instruments::accounting::memory;
use ringlb_load::units::to_float;
use std::time::{Duration, Instant};

/// How many there are.
pub(super) const CONNECTIONS: usize = 8_000;
/// The first request says that all connections are made; the next one would be due in a quarter of an hour.
pub(super) const RATE: f64 = 0.001;
/// How long it may take to make them.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a system does once connections are made, such as giving memory back, is to be over.
const SETTLE: Duration = Duration::from_secs(1);
/// The load and the servers have one each.
const DESCRIPTORS: u64 = 2 * CONNECTIONS as u64 + 200;

/// Compares the memory of the system's processes with idle connections and without them.
pub(super) fn measure(stage: &Stage<'_>) -> Result<Run, BenchError> {
    let limit = ringlb_load::raise_descriptor_limit()?;
    if limit < DESCRIPTORS {
        return Err(BenchError::Impossible(format!(
            "{CONNECTIONS} connections need {DESCRIPTORS} open descriptors, and the limit is {limit}; raise it (ulimit -Hn)"
        )));
    }
    let processes = stage.processes();
    let without = memory(&processes)?;
    let load = stage.load(load_of(stage, Workload::Idle)?)?;
    let begun = Instant::now();
    while load.snapshot().requests == 0 {
        if begun.elapsed() > PATIENCE {
            let failures = load.snapshot().failures;
            return Err(BenchError::Impossible(format!(
                "{CONNECTIONS} connections could not be made within {} s; {failures} failed",
                PATIENCE.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(SETTLE);
    let with = memory(&processes)?;
    load.stop();
    let report = load.join()?;
    let connections = to_float(report.connections_opened);
    Ok(Run {
        memory_bytes_per_unit: Some(to_float(with.saturating_sub(without)) / connections.max(1.0)),
        errors: report.failures,
        error_example: report.errors.values().next().map(|error| error.example.clone()),
        units: connections,
        seconds: report.elapsed().as_secs_f64(),
        ..Run::new(Workload::Idle, stage.system)
    })
}
