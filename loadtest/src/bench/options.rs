//! What is to be measured, and how.

use super::BenchError;
use super::system::System;
use super::workload::Workload;
use std::path::PathBuf;
use std::time::Duration;

/// What is to be measured, and how.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// What the systems are made to do.
    pub(crate) workloads: Vec<Workload>,
    /// With what ringlb is compared.
    pub(crate) peers: Vec<System>,
    /// How often each system is run with each workload.
    pub(crate) rounds: u32,
    /// How long each run is measured.
    pub(crate) duration: Duration,
    /// How long it is loaded before that.
    pub(crate) warm_up: Duration,
    /// Whether system calls are counted, in runs of their own.
    pub(crate) count_system_calls: bool,
    /// Where the results are written as JSON, after each run.
    pub(crate) json: Option<PathBuf>,
    /// The directory that a report and its plots are written to.
    pub(crate) report: Option<PathBuf>,
}

impl Options {
    /// All systems to measure, ringlb too, in their order.
    pub(super) fn systems(&self) -> Vec<System> {
        let wanted = |system: &System| *system == System::Ringlb || self.peers.contains(system);
        System::ALL.into_iter().filter(wanted).collect()
    }

    /// Those whose programs are needed.
    pub(super) fn programs(&self) -> Vec<System> {
        let mut systems = self.systems();
        if self.workloads.contains(&Workload::OpenLoop) && !systems.contains(&System::Haproxy) {
            systems.push(System::Haproxy);
        }
        systems
    }

    /// Whether they make sense.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let invalid = |option, reason: &str| Err(BenchError::Option { option, reason: reason.to_owned() });
        if self.rounds == 0 {
            return invalid("--rounds", "must be at least 1");
        }
        if self.duration.is_zero() {
            return invalid("--duration", "must be more than 0");
        }
        Ok(())
    }
}
