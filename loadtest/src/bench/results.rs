//! The results, as they are written to JSON.

use super::system::{Missing, System};
use super::workload::Workload;
use crate::instruments::host::Host;
use crate::instruments::statistics::Times;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The version of the JSON document: within one, fields may be added, never removed or changed in meaning.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// What came of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// [`SCHEMA_VERSION`].
    pub(crate) schema_version: u32,
    /// Whether all runs that were wanted have been made.
    pub(crate) complete: bool,
    /// On what, and with what.
    pub(crate) machine: Machine,
    /// How it was run.
    pub(crate) settings: Settings,
    /// Systems that were wanted and could not be measured.
    pub(crate) missing: Vec<Missing>,
    /// Workloads that a system cannot do, and runs that failed.
    pub(crate) left_out: Vec<LeftOut>,
    /// One for each workload, system and round, in the order in which they were made.
    pub(crate) runs: Vec<Run>,
    /// ringlb ÷ a peer.
    pub(crate) ratios: Vec<Ratio>,
    /// System calls, if they were to be counted.
    pub(crate) system_calls: Vec<SystemCalls>,
}

/// On what a benchmark ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The machine itself.
    #[serde(flatten)]
    pub(crate) host: Host,
    /// How TCP found its speed (`net.ipv4.tcp_congestion_control`), in all namespaces.
    pub(crate) congestion_control: String,
    /// What the systems' programs say of their versions.
    pub(crate) versions: BTreeMap<System, String>,
}

/// How a benchmark was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// What was to be done.
    pub(crate) workloads: Vec<Workload>,
    /// How often each system was run with each workload.
    pub(crate) rounds: u32,
    /// How long each run was measured, in seconds.
    pub(crate) duration_s: f64,
    /// How long it was loaded before that, in seconds.
    pub(crate) warm_up_s: f64,
    /// Requests a second with workload `w6`.
    pub(crate) open_loop_rate: Option<f64>,
}

/// One system with one workload, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// What was done.
    pub(crate) workload: Workload,
    /// By which system.
    pub(crate) system: System,
    /// In which round, from 1.
    pub(crate) round: u32,
    /// What was reached, in `unit`.
    pub(crate) rate: Option<f64>,
    /// What the rate is counted in.
    pub(crate) unit: String,
    /// What `..._per_unit` is counted by.
    pub(crate) work: String,
    /// Half of the requests took no longer.
    pub(crate) p50_us: Option<u64>,
    /// 99 % took no longer.
    pub(crate) p99_us: Option<u64>,
    /// 99.9 % took no longer.
    pub(crate) p999_us: Option<u64>,
    /// CPU time of the system, by the kernel's accounting.
    pub(crate) cpu_us_per_unit: Option<f64>,
    /// What `cpu_us_per_unit` is.
    pub(crate) cpu_source: Option<CpuSource>,
    /// CPU time of the client and the servers. What both have together on their one processor limits what can be reached.
    pub(crate) load_us_per_unit: Option<f64>,
    /// Time that both processors were busy, whoever used it: the load and the servers, too.
    pub(crate) machine_us_per_unit: Option<f64>,
    /// Task changes a second that were made meanwhile.
    pub(crate) changes_per_second: Option<f64>,
    /// Memory of the system's processes.
    pub(crate) memory_bytes_per_unit: Option<f64>,
    /// Requests that failed.
    pub(crate) errors: u64,
    /// An example, if any did.
    pub(crate) error_example: Option<String>,
    /// How much work was done.
    pub(crate) units: f64,
    /// In what time.
    pub(crate) seconds: f64,
}

/// Where a CPU time is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CpuSource {
    /// The CPU clocks of the system's processes.
    Processes,
    /// The system is the kernel: what both processors were busy for longer than without any balancer in the same round.
    MachineBeyondDirect,
    /// The CPU clocks of its processes, and what client and servers needed more than without any balancer in the same round.
    ProcessesAndLoadBeyondDirect,
}

/// What was not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    /// The workload.
    pub(crate) workload: Workload,
    /// The system.
    pub(crate) system: System,
    /// The round, if it was not left out in all of them.
    pub(crate) round: Option<u32>,
    /// Why.
    pub(crate) reason: String,
}

/// The system calls of a system with a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SystemCalls {
    /// The workload.
    pub(crate) workload: Workload,
    /// The system.
    pub(crate) system: System,
    /// How much work was done meanwhile.
    pub(crate) units: f64,
    /// All of them, for a unit of work.
    pub(crate) per_unit: f64,
    /// The same by name.
    pub(crate) by_name: BTreeMap<String, f64>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Metric {
    /// Work done in a time: more is better. As the others: less is better.
    Rate,
    /// CPU time for a unit of work.
    Cpu,
    /// The median time.
    P50,
    /// The time that 99 % do not exceed.
    P99,
    /// Memory for a unit of work.
    Memory,
}

/// ringlb ÷ a peer, in the rounds that have both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// The workload.
    pub(crate) workload: Workload,
    /// What is compared.
    pub(crate) metric: Metric,
    /// With which system.
    pub(crate) peer: System,
    /// The median of the rounds' ratios.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Run {
    /// One in which nothing was measured.
    pub(super) fn new(workload: Workload, system: System) -> Self {
        Self {
            workload,
            system,
            round: 1,
            rate: None,
            unit: workload.units().rate.to_owned(),
            work: workload.units().work.to_owned(),
            p50_us: None,
            p99_us: None,
            p999_us: None,
            cpu_us_per_unit: None,
            cpu_source: None,
            load_us_per_unit: None,
            machine_us_per_unit: None,
            changes_per_second: None,
            memory_bytes_per_unit: None,
            errors: 0,
            error_example: None,
            units: 0.0,
            seconds: 0.0,
        }
    }
}

impl Run {
    /// So many units of work were done in that time, with that CPU time of the system.
    pub(super) fn with_work(self, units: f64, seconds: f64, cpu: Option<Duration>) -> Self {
        let per_unit = |time: Duration| (units > 0.0).then(|| time.as_secs_f64() * 1e6 / units);
        let rate = Some(units / seconds.max(f64::MIN_POSITIVE));
        Self { units, seconds, rate, cpu_us_per_unit: cpu.and_then(per_unit), ..self }
    }

    /// It took so long.
    pub(super) fn with_times(self, times: &mut Times) -> Self {
        let [p50_us, p99_us, p999_us] = [500, 990, 999].map(|share| times.per_mille(share));
        Self { p50_us, p99_us, p999_us, ..self }
    }
}

impl Metric {
    /// All.
    pub(crate) const ALL: [Self; 5] = [Self::Rate, Self::Cpu, Self::P50, Self::P99, Self::Memory];

    /// A run's value.
    pub(crate) fn of(self, run: &Run) -> Option<f64> {
        let time = |time: Option<u64>| time.map(ringlb_load::units::to_float);
        match self {
            Self::Rate => run.rate,
            Self::Cpu => run.cpu_us_per_unit,
            Self::P50 => time(run.p50_us),
            Self::P99 => time(run.p99_us),
            Self::Memory => run.memory_bytes_per_unit,
        }
    }
}

impl Results {
    /// Whether a run that should have given figures did not.
    pub(crate) fn has_failed_runs(&self) -> bool {
        self.left_out.iter().any(|left_out| left_out.round.is_some())
    }

    /// The values of a metric in the runs of a system with a workload.
    pub(crate) fn values(&self, workload: Workload, system: System, metric: Metric) -> Vec<f64> {
        let runs = self.runs.iter().filter(|run| run.workload == workload && run.system == system);
        runs.filter_map(|run| metric.of(run)).collect()
    }
}
