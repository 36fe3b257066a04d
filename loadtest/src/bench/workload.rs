//! The workloads: what each one does, and in what its results are counted.

use super::system::System;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What the systems are made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Workload {
    /// Connect, 64 bytes, the same back, close; 64 at a time.
    #[serde(rename = "w1")]
    Connect,
    /// 64 bytes and the same back, over one connection.
    #[serde(rename = "w2-1")]
    PingpongOne,
    /// Over 64 connections.
    #[serde(rename = "w2-64")]
    Pingpong64,
    /// Over 512 connections.
    #[serde(rename = "w2-512")]
    Pingpong512,
    /// 1,000 requests a second over one connection.
    #[serde(rename = "w2-low")]
    PingpongSlow,
    /// One stream, from the backend.
    #[serde(rename = "w3-1")]
    BulkOne,
    /// Eight streams, from the backends.
    #[serde(rename = "w3-8")]
    Bulk8,
    /// Eight connections, each in both directions at once.
    #[serde(rename = "w3-both")]
    BulkBoth,
    /// Datagrams of 64 bytes and the same back, each of 64 clients one at a time.
    #[serde(rename = "w4-64")]
    Udp64,
    /// The same with 1,000 clients.
    #[serde(rename = "w4-1000")]
    Udp1000,
    /// 8,000 connections over which nothing goes.
    #[serde(rename = "w5")]
    Idle,
    /// Requests at a fixed rate, whatever becomes of them, over 64 connections.
    #[serde(rename = "w6")]
    OpenLoop,
    /// 64 connections, while tables change.
    #[serde(rename = "w7")]
    Churn,
    /// A backend is added and used.
    #[serde(rename = "w8-use")]
    Propagation,
    /// Changes of a large table, one by one.
    #[serde(rename = "w8-single")]
    SingleChanges,
    /// Changes of a large table, all at once.
    #[serde(rename = "w8-batch")]
    Batches,
}

/// What a workload's results are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Units {
    /// One piece of work.
    pub(super) work: &'static str,
    /// The rate.
    pub(super) rate: &'static str,
    /// CPU time for a piece of work, for people.
    pub(super) cpu: CpuUnit,
}

/// In what CPU time is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CpuUnit {
    Microseconds,
    Milliseconds,
}

impl CpuUnit {
    /// Its symbol.
    pub(super) const fn symbol(self) -> &'static str {
        match self {
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
        }
    }

    /// So many microseconds in it.
    pub(super) fn of(self, microseconds: f64) -> f64 {
        match self {
            Self::Microseconds => microseconds,
            Self::Milliseconds => microseconds / 1e3,
        }
    }
}

impl Workload {
    /// All, in the order in which they are run.
    pub(crate) const ALL: [Self; 16] = [
        Self::Connect,
        Self::PingpongOne,
        Self::Pingpong64,
        Self::Pingpong512,
        Self::PingpongSlow,
        Self::BulkOne,
        Self::Bulk8,
        Self::BulkBoth,
        Self::Udp64,
        Self::Udp1000,
        Self::Idle,
        Self::OpenLoop,
        Self::Churn,
        Self::Propagation,
        Self::SingleChanges,
        Self::Batches,
    ];

    /// As it is called on the command line and in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "w1",
            Self::PingpongOne => "w2-1",
            Self::Pingpong64 => "w2-64",
            Self::Pingpong512 => "w2-512",
            Self::PingpongSlow => "w2-low",
            Self::BulkOne => "w3-1",
            Self::Bulk8 => "w3-8",
            Self::BulkBoth => "w3-both",
            Self::Udp64 => "w4-64",
            Self::Udp1000 => "w4-1000",
            Self::Idle => "w5",
            Self::OpenLoop => "w6",
            Self::Churn => "w7",
            Self::Propagation => "w8-use",
            Self::SingleChanges => "w8-single",
            Self::Batches => "w8-batch",
        }
    }

    /// What it is, for people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Connect => "connect, 64 B, reply, close; 64 in flight",
            Self::PingpongOne => "64 B ping-pong, 1 connection",
            Self::Pingpong64 => "64 B ping-pong, 64 connections",
            Self::Pingpong512 => "64 B ping-pong, 512 connections",
            Self::PingpongSlow => "64 B ping-pong, 1,000 requests a second over 1 connection",
            Self::BulkOne => "bulk from the backend, 1 stream",
            Self::Bulk8 => "bulk from the backends, 8 streams",
            Self::BulkBoth => "bulk, 8 connections, both ways at once",
            Self::Udp64 => "UDP, 64 B and back, 64 clients",
            Self::Udp1000 => "UDP, 64 B and back, 1,000 clients",
            Self::OpenLoop => "64 B ping-pong, 64 connections, at half of what HAProxy can do in w2-64",
            Self::Churn => "64 B ping-pong, 64 connections, while 1,000 tasks a second come and go",
            Self::Propagation => "from the call that adds a backend to the end of the first connection to it",
            Self::SingleChanges => "adding and removing backends of 1,000 services × 10, 16 requests at a time",
            Self::Batches => "giving all backends of 1,000 services × 10 another weight, as one batch",
            Self::Idle => "memory of the system's processes for each of 8,000 idle connections",
        }
    }

    /// What its results are counted in.
    pub(super) const fn units(self) -> Units {
        let cpu = CpuUnit::Microseconds;
        match self {
            Self::Connect | Self::Idle => Units { work: "connection", rate: "connections/s", cpu },
            Self::PingpongOne
            | Self::Pingpong64
            | Self::Pingpong512
            | Self::PingpongSlow
            | Self::OpenLoop
            | Self::Churn => Units { work: "request", rate: "requests/s", cpu },
            Self::Udp64 | Self::Udp1000 => Units { work: "round trip", rate: "round trips/s", cpu },
            Self::Propagation | Self::SingleChanges | Self::Batches => Units { work: "change", rate: "changes/s", cpu },
            Self::BulkOne | Self::Bulk8 | Self::BulkBoth => {
                Units { work: "GB", rate: "Gb/s", cpu: CpuUnit::Milliseconds }
            }
        }
    }

    /// Whether it is work done by clients, of which there is more or less.
    pub(super) const fn is_load(self) -> bool {
        !matches!(self, Self::Idle | Self::Churn | Self::Propagation | Self::SingleChanges | Self::Batches)
    }

    /// Which of these systems do it. Changes of tables are ringlb's own affair.
    pub(super) fn systems(self, chosen: &[System]) -> Vec<System> {
        match self {
            Self::Churn => vec![System::RinglbQuiet, System::Ringlb],
            Self::Propagation | Self::SingleChanges | Self::Batches => vec![System::Ringlb],
            _ => chosen.to_vec(),
        }
    }

    /// Whether the system can be measured with it; if not, why.
    pub(super) const fn suits(self, system: System) -> Result<(), &'static str> {
        match (self, system) {
            (Self::Idle, System::Direct | System::Nft) => Err("there is no process whose memory could be told"),
            (Self::Udp64 | Self::Udp1000, System::Haproxy | System::HaproxyTuned) => Err("HAProxy has no UDP proxy"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|workload| workload.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|workload| workload.name()).collect();
            format!("there is no workload {text:?}; there are {}", names.join(", "))
        })
    }
}

/// The workloads that a name stands for: one, or all that it begins, as `w2` does, or `all`.
pub(crate) fn parse(text: &str) -> Result<Vec<Workload>, String> {
    if text == "all" {
        return Ok(Workload::ALL.to_vec());
    }
    let family = format!("{text}-");
    let members: Vec<_> = Workload::ALL.into_iter().filter(|workload| workload.name().starts_with(&family)).collect();
    if members.is_empty() { Ok(vec![text.parse()?]) } else { Ok(members) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_alone_and_by_family() {
        for workload in Workload::ALL {
            assert_eq!(parse(workload.name()), Ok(vec![workload]));
            let json = serde_json::to_value(workload).unwrap();
            assert_eq!(json, workload.name(), "the JSON has the same names");
        }
        assert_eq!(parse("w8").unwrap().len(), 3);
        assert_eq!(parse("w3"), Ok(vec![Workload::BulkOne, Workload::Bulk8, Workload::BulkBoth]));
        assert_eq!(parse("all").unwrap().len(), Workload::ALL.len());
        for text in ["", "w", "w2-", "W1", "w9"] {
            assert!(parse(text).unwrap_err().contains("w2-64"), "{text}");
        }
    }
}
