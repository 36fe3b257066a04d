//! What is to be built and measured.

use super::plan::Plan;
use super::size::{Size, Steps};
use crate::instruments::BenchError;
use std::path::PathBuf;
use std::time::Duration;

/// What is to be built and measured.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The largest size.
    pub(crate) largest: Size,
    /// Which sizes up to it.
    pub(crate) steps: Steps,
    /// How many changes are made in each step.
    pub(crate) changes: u32,
    /// How long idle processes are looked at, and how long connections are made, in each step.
    pub(crate) duration: Duration,
    /// How many containers of this node are on each network, for what the kernel's balancer costs in its old form.
    pub(crate) containers: u32,
    /// Where the results are written as JSON, after each step.
    pub(crate) json: Option<PathBuf>,
    /// The directory that a report and its plots are written to.
    pub(crate) report: Option<PathBuf>,
}

impl Options {
    /// What is built in each step.
    pub(super) fn plans(&self) -> Result<Vec<Plan>, BenchError> {
        let invalid = |option, reason: &str| BenchError::Option { option, reason: reason.to_owned() };
        if self.changes == 0 {
            return Err(invalid("--changes", "must be at least 1"));
        }
        if self.duration.is_zero() {
            return Err(invalid("--duration", "must be more than 0"));
        }
        if self.containers == 0 {
            return Err(invalid("--containers", "must be at least 1"));
        }
        let sizes = self.steps.up_to(self.largest);
        sizes.into_iter().map(|size| Plan::of(size).map_err(|reason| invalid("size", &reason))).collect()
    }
}
