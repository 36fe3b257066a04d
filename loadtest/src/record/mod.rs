//! Counting while a load runs.

mod histogram;
mod timeline;

use crate::load::Failure;
use crate::units::{microseconds, per_second};
use crate::{
    BackendReport, EndReason, ErrorKind, ErrorReport, Latencies, LoadError, LoadOptions, Progress, Report,
    SCHEMA_VERSION, TargetReport,
};
use histogram::Histogram;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};
use timeline::Recording;

/// Names beyond this many are counted together, so that a server that invents names costs no memory without bound.
const MAX_BACKENDS: usize = 4096;
/// What they are counted as. No server can be called so: names have no spaces.
const OTHER_BACKENDS: &str = "all others";

/// Everything that is counted in one run.
#[derive(Debug)]
pub(crate) struct Recorder {
    started: Instant,
    started_at: SystemTime,
    ended: Option<(Instant, EndReason)>,
    intended: u64,
    requests: u64,
    failures: u64,
    interrupted: u64,
    connections_opened: u64,
    bytes_sent: u64,
    bytes_received: u64,
    wait: Histogram,
    connect: Histogram,
    first_byte: Histogram,
    total: Histogram,
    coarse: Histogram,
    targets: Vec<Counts>,
    names: BTreeMap<String, usize>,
    backends: Vec<Backend>,
    errors: BTreeMap<ErrorKind, ErrorReport>,
    timeline: Recording,
}

/// A request that was done.
#[derive(Debug)]
pub(crate) struct Success<'a> {
    /// The target's index.
    pub(crate) target: usize,
    /// The server's name.
    pub(crate) backend: &'a str,
    /// From when it should have begun to when it was; in open loops.
    pub(crate) wait: Option<Duration>,
    /// From when it should have begun to the server's first byte.
    pub(crate) first_byte: Duration,
    /// From when it should have begun to its end.
    pub(crate) total: Duration,
    /// Its end.
    pub(crate) ended: Instant,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    requests: u64,
    failures: u64,
}

#[derive(Debug)]
struct Backend {
    counts: Counts,
    connections: u64,
    first_seen: Instant,
    last_seen: Instant,
    total: Histogram,
}

impl Recorder {
    pub(crate) fn new(options: &LoadOptions) -> Result<Self, LoadError> {
        let precise = Histogram::precise()?;
        Ok(Self {
            started: Instant::now(),
            started_at: SystemTime::now(),
            ended: None,
            intended: 0,
            requests: 0,
            failures: 0,
            interrupted: 0,
            connections_opened: 0,
            bytes_sent: 0,
            bytes_received: 0,
            wait: precise.clone(),
            connect: precise.clone(),
            first_byte: precise.clone(),
            total: precise,
            coarse: Histogram::coarse()?,
            targets: vec![Counts::default(); options.targets.len()],
            names: BTreeMap::new(),
            backends: Vec::new(),
            errors: BTreeMap::new(),
            timeline: Recording::default(),
        })
    }

    /// From now on time counts. What was counted before belongs to the first moment.
    pub(crate) fn start(&mut self, started: Instant) {
        self.started = started;
        self.started_at = SystemTime::now();
    }

    /// No more requests are begun.
    pub(crate) const fn end(&mut self, ended: Instant, reason: EndReason) {
        self.ended = Some((ended, reason));
    }

    /// So many requests should have begun by now.
    pub(crate) const fn intended(&mut self, intended: u64) {
        self.intended = intended;
    }

    /// A connection was made.
    pub(crate) fn connected(&mut self, time: Duration) {
        self.connections_opened += 1;
        self.connect.record(time);
    }

    /// A connection for more than one answer turned out to be with this backend.
    pub(crate) fn opened(&mut self, backend: &str) {
        self.backend(backend, Instant::now()).connections += 1;
    }

    /// Bytes of requests and answers went out and came in.
    pub(crate) fn moved(&mut self, sent: u64, received: u64) {
        self.bytes_sent += sent;
        self.bytes_received += received;
        let bucket = self.timeline.bucket(self.started.elapsed());
        bucket.bytes_sent += sent;
        bucket.bytes_received += received;
    }

    /// A request was done.
    pub(crate) fn success(&mut self, success: &Success<'_>) {
        self.requests += 1;
        self.targets[success.target].requests += 1;
        if let Some(wait) = success.wait {
            self.wait.record(wait);
        }
        self.first_byte.record(success.first_byte);
        self.total.record(success.total);
        let bucket = self.timeline.bucket(success.ended.saturating_duration_since(self.started));
        bucket.requests += 1;
        bucket.max_us = bucket.max_us.max(microseconds(success.total));
        let backend = self.backend(success.backend, success.ended);
        backend.counts.requests += 1;
        backend.last_seen = success.ended;
        backend.total.record(success.total);
    }

    /// A request failed. The backend is known where it failed after the server had said its name.
    pub(crate) fn failure(&mut self, target: usize, backend: Option<&str>, failure: &Failure, at: Instant) {
        let kind = failure.kind();
        let after = at.saturating_duration_since(self.started);
        self.failures += 1;
        self.targets[target].failures += 1;
        *self.timeline.bucket(after).errors.entry(kind).or_default() += 1;
        self.errors
            .entry(kind)
            .or_insert_with(|| ErrorReport { count: 0, first_at_us: microseconds(after), example: failure.to_string() })
            .count += 1;
        if let Some(backend) = backend {
            self.backend(backend, at).counts.failures += 1;
        }
    }

    /// A request was cut short by the end of the run.
    pub(crate) const fn interrupted(&mut self) {
        self.interrupted += 1;
    }

    fn backend(&mut self, name: &str, seen: Instant) -> &mut Backend {
        let bounded =
            if self.names.len() < MAX_BACKENDS || self.names.contains_key(name) { name } else { OTHER_BACKENDS };
        let index = match self.names.get(bounded) {
            Some(index) => *index,
            None => {
                self.backends.push(Backend {
                    counts: Counts::default(),
                    connections: 0,
                    first_seen: seen,
                    last_seen: seen,
                    total: self.coarse.clone(),
                });
                self.names.insert(bounded.to_owned(), self.backends.len() - 1);
                self.backends.len() - 1
            }
        };
        &mut self.backends[index]
    }

    /// Backends with their names, by name.
    fn named_backends(&self) -> impl Iterator<Item = (&String, &Backend)> {
        self.names.iter().map(|(name, index)| (name, &self.backends[*index]))
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            elapsed: self.elapsed(),
            requests: self.requests,
            failures: self.failures,
            intended: (self.intended > 0).then_some(self.intended),
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
            total: self.total.summary(),
            requests_by_backend: self
                .named_backends()
                .map(|(name, backend)| (name.clone(), backend.counts.requests))
                .collect(),
            failures_by_kind: self.errors.iter().map(|(kind, error)| (*kind, error.count)).collect(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.ended.map_or_else(Instant::now, |(ended, _)| ended).saturating_duration_since(self.started)
    }

    pub(crate) fn report(&self, options: &LoadOptions, not_begun: u64) -> Report {
        let elapsed = self.elapsed();
        Report {
            schema_version: SCHEMA_VERSION,
            workload: options.workload,
            connections: options.connections as u64,
            started_at_unix_ms: self
                .started_at
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            elapsed_us: microseconds(elapsed),
            ended_by: self.ended.map_or(EndReason::Requests, |(_, reason)| reason),
            requests: self.requests,
            failures: self.failures,
            interrupted: self.interrupted,
            not_begun,
            intended_rate_per_second: options.rate,
            achieved_rate_per_second: per_second(self.requests, elapsed),
            connections_opened: self.connections_opened,
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
            latency: Latencies {
                wait: self.wait.summary(),
                connect: self.connect.summary(),
                first_byte: self.first_byte.summary(),
                total: self.total.summary(),
            },
            targets: self.target_reports(options),
            backends: self.backend_reports(),
            errors: self.errors.clone(),
            timeline: self.timeline.report(),
        }
    }

    fn target_reports(&self, options: &LoadOptions) -> Vec<TargetReport> {
        let counts = self.targets.iter();
        options
            .targets
            .iter()
            .zip(counts)
            .map(|(target, counts)| TargetReport {
                target: *target,
                requests: counts.requests,
                failures: counts.failures,
            })
            .collect()
    }

    fn backend_reports(&self) -> Vec<BackendReport> {
        let after_start = |at: Instant| microseconds(at.saturating_duration_since(self.started));
        self.named_backends()
            .map(|(name, backend)| BackendReport {
                name: name.clone(),
                requests: backend.counts.requests,
                failures: backend.counts.failures,
                connections: backend.connections,
                first_seen_us: after_start(backend.first_seen),
                last_seen_us: after_start(backend.last_seen),
                total: backend.total.summary(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Workload;
    use std::net::SocketAddr;

    #[test]
    fn servers_that_invent_names_take_no_memory_without_bound() {
        let options = LoadOptions::new(vec![SocketAddr::from(([127, 0, 0, 1], 1))], Workload::Connect);
        let mut recorder = Recorder::new(&options).unwrap();
        let ended = recorder.started;
        for number in (0..MAX_BACKENDS + 100).chain([0, MAX_BACKENDS]) {
            recorder.success(&Success {
                target: 0,
                backend: &format!("backend-{number}"),
                wait: None,
                first_byte: Duration::ZERO,
                total: Duration::from_millis(1),
                ended,
            });
        }
        let report = recorder.report(&options, 0);
        assert_eq!(report.backends.len(), MAX_BACKENDS + 1);
        assert_eq!(report.requests_of("backend-0"), 2);
        assert_eq!(report.requests_of(OTHER_BACKENDS), 101);
        assert_eq!(report.backends.iter().map(|backend| backend.requests).sum::<u64>(), report.requests);
    }
}
