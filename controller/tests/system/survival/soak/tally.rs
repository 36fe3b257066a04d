//! What clients have done and what came of it.

use std::fmt;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longer than anything takes that works.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The count of one kind of clients.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Connections that have done all that they were to.
    pub(super) done: u64,
    /// Connections that were ended by something done on purpose: by the client itself, or by a change.
    pub(super) injected: u64,
    /// Bytes of the connections that have done all that they were to.
    pub(super) sent: u64,
    pub(super) received: u64,
    failures: Vec<Failure>,
}

/// A connection that failed for no reason that its client knows of.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    began: Instant,
    ended: Instant,
    error: String,
}

/// The times in which the proxy has no descriptors left.
#[derive(Debug, Default)]
pub(super) struct Exhaustions(Mutex<Vec<(Instant, Instant)>>);

impl Tally {
    /// Counts what came of a connection that began then.
    pub(super) fn count(&mut self, began: Instant, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.done += 1,
            Err(error) => {
                let error = format!("{:?}: {error}", error.kind());
                self.failures.push(Failure { began, ended: Instant::now(), error });
            }
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.len() as u64
    }

    /// The failures that nothing explains.
    pub(super) fn unexplained(&self, exhaustions: &Exhaustions) -> Vec<Failure> {
        let explains = |failure: &Failure| !exhaustions.met(failure.began, failure.ended);
        self.failures.iter().filter(|failure| explains(failure)).cloned().collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, injected, sent, received, failures } = self;
        let failures = failures.len();
        write!(
            formatter,
            "{done} done, {injected} ended on purpose, {failures} failed, {sent} bytes there and {received} back"
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} after {:.1?}", self.error, self.ended - self.began)
    }
}

impl Exhaustions {
    pub(super) fn add(&self, began: Instant, ended: Instant) {
        self.0.lock().unwrap().push((began, ended));
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Whether something that was between these times has met one.
    fn met(&self, began: Instant, ended: Instant) -> bool {
        self.0.lock().unwrap().iter().any(|(from, to)| began <= *to && ended >= *from)
    }
}
