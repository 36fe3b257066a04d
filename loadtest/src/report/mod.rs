//! What came of a load. The same types read the JSON of `ringlb-load tcp --json` and `udp --json`.
//!
//! Units are in the names: `_us` is microseconds, `_per_second` is a rate. Within one [`SCHEMA_VERSION`] fields may be
//! added, never removed or changed in meaning.

mod text;

use crate::Workload;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The version of the JSON report.
pub const SCHEMA_VERSION: u32 = 1;

/// What came of a load. Its `Display` is the readable report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`] of the program that wrote it.
    pub schema_version: u32,
    /// What the requests were.
    pub workload: Workload,
    /// The most connections at a time; with [`Workload::Udp`] the number of clients.
    pub connections: u64,
    /// When the clock was started, in milliseconds since 1970.
    pub started_at_unix_ms: u64,
    /// How long requests were begun. Those under way at the end were waited for and are counted.
    pub elapsed_us: u64,
    /// Why no more were begun.
    pub ended_by: EndReason,
    /// Requests done. Streams, with [`Workload::Bulk`].
    pub requests: u64,
    /// Requests that failed. Connections that could not be made before the clock was started count, too.
    pub failures: u64,
    /// Streams with a size that were cut short by the end of the run: neither done nor failed.
    pub interrupted: u64,
    /// Requests that were due before the end of the run and never begun, because all connections were busy (open
    /// loop).
    pub not_begun: u64,
    /// Requests per second that were wanted (open loop).
    pub intended_rate_per_second: Option<f64>,
    /// Requests done per second.
    pub achieved_rate_per_second: f64,
    /// Connections made; with [`Workload::Udp`] sockets opened.
    pub connections_opened: u64,
    /// Bytes of requests sent. With pingpong and bulk only the data counts, not what opens a connection.
    pub bytes_sent: u64,
    /// Bytes of answers received, counted alike.
    pub bytes_received: u64,
    /// How long things took.
    pub latency: Latencies,
    /// Each target, in the order given.
    pub targets: Vec<TargetReport>,
    /// Each server that said its name, by name.
    pub backends: Vec<BackendReport>,
    /// Failures by kind; kinds that did not occur are left out.
    pub errors: BTreeMap<ErrorKind, ErrorReport>,
    /// What happened when.
    pub timeline: Timeline,
    /// What became of datagrams, with [`Workload::Udp`].
    #[serde(default)]
    pub datagrams: Option<DatagramReport>,
}

impl Report {
    /// How long requests were begun.
    #[must_use]
    pub const fn elapsed(&self) -> Duration {
        Duration::from_micros(self.elapsed_us)
    }

    /// Requests that a backend did.
    #[must_use]
    pub fn requests_of(&self, backend: &str) -> u64 {
        self.backends.iter().find(|report| report.name == backend).map_or(0, |report| report.requests)
    }

    /// Failures of a kind.
    #[must_use]
    pub fn failures_of(&self, kind: ErrorKind) -> u64 {
        self.errors.get(&kind).map_or(0, |error| error.count)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::write(self, formatter)
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its time was over.
    Duration,
    /// All requests were done.
    Requests,
    /// It was stopped.
    Stopped,
}

/// How long things took. `None`: there was nothing to measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// From when a request should have begun to when it did (open loop).
    pub wait: Option<LatencySummary>,
    /// Making a connection.
    pub connect: Option<LatencySummary>,
    /// From when a request should have begun to the first byte of the answer; not with [`Workload::Udp`]. In a closed loop it should have begun
    /// when it did.
    pub first_byte: Option<LatencySummary>,
    /// From when a request should have begun to its end.
    pub total: Option<LatencySummary>,
}

/// A distribution of times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// How many.
    pub count: u64,
    /// The shortest.
    pub min_us: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Half are not longer.
    pub p50_us: u64,
    /// 90 % are not longer.
    pub p90_us: u64,
    /// 99 % are not longer.
    pub p99_us: u64,
    /// 99.9 % are not longer.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// A target's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// Where to.
    pub target: SocketAddr,
    /// Requests done.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
}

/// A server's part. Behind a load balancer these are the backends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendReport {
    /// Its name. After 4,096 of them the rest are counted as `all others`.
    pub name: String,
    /// Requests done.
    pub requests: u64,
    /// Requests that failed after it had said its name.
    pub failures: u64,
    /// Connections that it said its name on for more than one answer: with pingpong and bulk, and with
    /// [`Workload::Udp`] where it was not the same as before.
    pub connections: u64,
    /// When it was first heard of.
    pub first_seen_us: u64,
    /// When it last did a request.
    pub last_seen_us: u64,
    /// How long its requests took, as [`Latencies::total`], to two digits.
    pub total: Option<LatencySummary>,
}

/// What became of datagrams. [`Report::requests`] are those that were answered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DatagramReport {
    /// Sent.
    pub sent: u64,
    /// Received, of whatever kind.
    pub received: u64,
    /// Not answered within the timeout; they are failures of the kind [`ErrorKind::Timeout`]. Where an error told of a
    /// datagram's fate, such as [`ErrorKind::Refused`], it is counted as that instead.
    pub lost: u64,
    /// Of those that were given up, answered after all.
    pub late: u64,
    /// Answers beyond the first to the same datagram.
    pub duplicates: u64,
    /// Answers that came after one to a later datagram of the same client (RFC 4737).
    pub reordered: u64,
    /// Received, but changed on the way; failures of the kind [`ErrorKind::Mismatch`].
    pub corrupt: u64,
    /// Received unchanged, but meant for another client, socket or run.
    pub foreign: u64,
    /// Bits of answered datagrams per second, without headers.
    pub goodput_bits_per_second: f64,
}

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The connection was refused, or a datagram was, by ICMP.
    Refused,
    /// The connection was reset.
    Reset,
    /// It took longer than allowed.
    Timeout,
    /// The connection ended before the answer did.
    UnexpectedEnd,
    /// The answer was wrong.
    Mismatch,
    /// No route to the target.
    Unreachable,
    /// This process or machine has no descriptor left.
    NoDescriptors,
    /// No local port is left for this target.
    NoPorts,
    /// Something else; the example says what.
    Other,
}

/// As in JSON.
impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::UnexpectedEnd => "unexpected_end",
            Self::Mismatch => "mismatch",
            Self::Unreachable => "unreachable",
            Self::NoDescriptors => "no_descriptors",
            Self::NoPorts => "no_ports",
            Self::Other => "other",
        })
    }
}

/// The failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// How many.
    pub count: u64,
    /// When the first was.
    pub first_at_us: u64,
    /// What it said.
    pub example: String,
}

/// What happened when. At most 600 buckets, from the start without gaps, up to the last in which something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// How long a bucket is: a second, doubled as often as a long run needs.
    pub bucket_us: u64,
    /// The buckets.
    pub buckets: Vec<TimelineBucket>,
}

/// What happened in one bucket of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineBucket {
    /// Requests done.
    pub requests: u64,
    /// The longest of them, as [`Latencies::total`].
    pub max_us: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Failures by kind.
    pub errors: BTreeMap<ErrorKind, u64>,
}

impl TimelineBucket {
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut errors = self.errors.clone();
        for (kind, count) in &other.errors {
            *errors.entry(*kind).or_default() += count;
        }
        Self {
            requests: self.requests + other.requests,
            max_us: self.max_us.max(other.max_us),
            bytes_sent: self.bytes_sent + other.bytes_sent,
            bytes_received: self.bytes_received + other.bytes_received,
            errors,
        }
    }
}

/// How far a load is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Since the clock was started; no longer than requests were begun.
    pub elapsed: Duration,
    /// Requests done.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Requests that should have begun (open loop).
    pub intended: Option<u64>,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// How long requests took so far.
    pub total: Option<LatencySummary>,
    /// Requests done, by server.
    pub requests_by_backend: BTreeMap<String, u64>,
    /// Failures, by kind.
    pub failures_by_kind: BTreeMap<ErrorKind, u64>,
}
