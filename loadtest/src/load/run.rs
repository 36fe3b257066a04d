//! What the workers of a run have in common.

use super::arrivals::{Arrival, Arrivals};
use super::options::LoadOptions;
use crate::failure::Failure;
use crate::record::SharedRecorder;
use crate::record::Success;
use std::net::SocketAddr;
use std::time::Instant;

/// The thread of a load, in messages.
pub(super) const WHAT: &str = "load";

/// What the workers of a run have in common.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) options: LoadOptions,
    pub(super) arrivals: Arrivals,
    pub(super) recorder: SharedRecorder,
}

impl Run {
    /// Which target is the one for this number, and its address.
    pub(super) fn target(&self, index: u64) -> (usize, SocketAddr) {
        let targets = &self.options.targets;
        let index = usize::try_from(index % targets.len() as u64).unwrap_or_default();
        (index, targets[index])
    }

    /// Counts a request that was done.
    pub(super) fn succeeded(
        &self,
        target: usize,
        arrival: Arrival,
        begun: Instant,
        backend: Option<&str>,
        first: Instant,
    ) {
        let ended = Instant::now();
        self.recorder.lock().success(&Success {
            target,
            backend,
            wait: self.options.rate.map(|_| begun.duration_since(arrival.intended)),
            first_byte: Some(first.duration_since(arrival.intended)),
            total: ended.duration_since(arrival.intended),
            ended,
        });
    }

    /// Counts a request that failed.
    pub(super) fn failed(&self, target: usize, backend: Option<&str>, failure: &Failure) {
        self.recorder.lock().failure(target, backend, failure, Instant::now());
    }
}
