//! Counting while a load runs.

mod histogram;
mod shared;
mod timeline;

use crate::failure::Failure;
use crate::units::{bits_per_second, microseconds, per_second};
use crate::{
    BackendReport, DatagramReport, EndReason, ErrorKind, ErrorReport, Latencies, LoadError, LoadOptions, Progress,
    Report, SCHEMA_VERSION, TargetReport, Workload,
};
use histogram::Histogram;
pub(crate) use shared::SharedRecorder;
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
    datagrams: Datagrams,
}

/// A request that was done.
#[derive(Debug)]
pub(crate) struct Success<'a> {
    /// The target's index.
    pub(crate) target: usize,
    /// The server's name, if it is known.
    pub(crate) backend: Option<&'a str>,
    /// From when it should have begun to when it was; in open loops.
    pub(crate) wait: Option<Duration>,
    /// From when it should have begun to the server's first byte, where that is not its end.
    pub(crate) first_byte: Option<Duration>,
    /// From when it should have begun to its end.
    pub(crate) total: Duration,
    /// Its end.
    pub(crate) ended: Instant,
}

/// What became of datagrams; [`DatagramReport`] says what is counted as what.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Datagrams {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) late: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupt: u64,
    pub(crate) foreign: u64,
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
            datagrams: Datagrams::default(),
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

    /// A socket for datagrams was opened, which takes no time to speak of.
    pub(crate) const fn socket_opened(&mut self) {
        self.connections_opened += 1;
    }

    /// Counts of datagrams, to be counted up.
    pub(crate) const fn datagrams(&mut self) -> &mut Datagrams {
        &mut self.datagrams
    }

    /// A request begins, so long after it should have.
    pub(crate) fn waited(&mut self, wait: Duration) {
        self.wait.record(wait);
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
            self.waited(wait);
        }
        if let Some(first_byte) = success.first_byte {
            self.first_byte.record(first_byte);
        }
        self.total.record(success.total);
        let bucket = self.timeline.bucket(success.ended.saturating_duration_since(self.started));
        bucket.requests += 1;
        bucket.max_us = bucket.max_us.max(microseconds(success.total));
        if let Some(name) = success.backend {
            let backend = self.backend(name, success.ended);
            backend.counts.requests += 1;
            backend.last_seen = success.ended;
            backend.total.record(success.total);
        }
    }

    /// A request failed. The backend is known where it failed after the server had said its name.
    pub(crate) fn failure(&mut self, target: usize, backend: Option<&str>, failure: &Failure, at: Instant) {
        self.failures(target, backend, failure, at, 1);
    }

    /// Several requests failed, all alike.
    pub(crate) fn failures(
        &mut self,
        target: usize,
        backend: Option<&str>,
        failure: &Failure,
        at: Instant,
        count: u64,
    ) {
        let kind = failure.kind();
        let after = at.saturating_duration_since(self.started);
        self.failures += count;
        self.targets[target].failures += count;
        *self.timeline.bucket(after).errors.entry(kind).or_default() += count;
        self.errors
            .entry(kind)
            .or_insert_with(|| ErrorReport { count: 0, first_at_us: microseconds(after), example: failure.to_string() })
            .count += count;
        if let Some(backend) = backend {
            self.backend(backend, at).counts.failures += count;
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
            datagrams: matches!(options.workload, Workload::Udp { .. }).then(|| self.datagram_report(elapsed)),
        }
    }

    fn datagram_report(&self, elapsed: Duration) -> DatagramReport {
        let Datagrams { sent, received, lost, late, duplicates, reordered, corrupt, foreign } = self.datagrams;
        DatagramReport {
            sent,
            received,
            lost,
            late,
            duplicates,
            reordered,
            corrupt,
            foreign,
            goodput_bits_per_second: bits_per_second(self.bytes_received, elapsed),
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
    use std::net::SocketAddr;

    #[test]
    fn servers_that_invent_names_take_no_memory_without_bound() {
        let options = LoadOptions::new(vec![SocketAddr::from(([127, 0, 0, 1], 1))], Workload::Connect);
        let mut recorder = Recorder::new(&options).unwrap();
        let ended = recorder.started;
        for number in (0..MAX_BACKENDS + 100).chain([0, MAX_BACKENDS]) {
            recorder.success(&Success {
                target: 0,
                backend: Some(&format!("backend-{number}")),
                wait: None,
                first_byte: None,
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
