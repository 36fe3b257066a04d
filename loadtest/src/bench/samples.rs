//! Results made up for tests.

use super::results::{CpuSource, Machine, Results, Run, SCHEMA_VERSION, Settings};
use super::system::System;
use super::workload::Workload;
use crate::instruments::host::Host;
use std::collections::BTreeMap;

/// Results without runs.
pub(super) fn results(rounds: u32) -> Results {
    Results {
        schema_version: SCHEMA_VERSION,
        complete: true,
        machine: Machine {
            host: Host::sample(),
            congestion_control: "cubic".to_owned(),
            versions: BTreeMap::from([(System::Haproxy, "HAProxy version 2.6".to_owned())]),
        },
        settings: Settings {
            workloads: vec![Workload::Connect],
            rounds,
            duration_s: 5.0,
            warm_up_s: 1.0,
            open_loop_rate: None,
        },
        missing: Vec::new(),
        left_out: Vec::new(),
        runs: Vec::new(),
        ratios: Vec::new(),
        system_calls: Vec::new(),
    }
}

/// A run with a rate; everything else is the same for all.
pub(super) fn run(workload: Workload, system: System, round: u32, rate: f64) -> Run {
    Run {
        round,
        rate: Some(rate),
        p50_us: Some(100),
        p99_us: Some(200),
        p999_us: Some(300),
        cpu_us_per_unit: system.has_processes().then_some(10.0),
        cpu_source: system.has_processes().then_some(CpuSource::Processes),
        machine_us_per_unit: Some(20.0),
        ..Run::new(workload, system)
    }
}
