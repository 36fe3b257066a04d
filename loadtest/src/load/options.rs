//! What a load is to do.

use crate::LoadError;
use crate::datagram::{MAX_SIZE, min_size};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What a load is to do. Without a duration, without a number of requests and without
/// [`LoadHandle::stop`](crate::LoadHandle::stop) it goes on for ever.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where to. With several targets each gets the same share: connections to them in turn.
    pub targets: Vec<SocketAddr>,
    /// What kind of requests.
    pub workload: Workload,
    /// At most this many connections at a time; with [`Workload::Pingpong`] exactly this many. With
    /// [`Workload::Udp`]: clients, with a socket each.
    pub connections: usize,
    /// Requests per second in all (open loop). A request's time counts from when it should have begun, also when all
    /// connections were busy then. `None` (closed loop): each connection begins its next request when it is done with
    /// the last.
    pub rate: Option<f64>,
    /// How long requests are begun.
    pub duration: Option<Duration>,
    /// How many requests are begun in all.
    pub requests: Option<u64>,
    /// How long a request may take from its actual begin; for bulk, how long nothing may move. With
    /// [`Workload::Udp`]: when a datagram without an answer is lost.
    pub timeout: Duration,
    /// The address to connect from. `None` leaves it to the system.
    pub source: Option<IpAddr>,
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case")]
pub enum Workload {
    /// Connect, ask the server for its name, read it until the server closes, close.
    Connect,
    /// Connect, send bytes, check that the same come back, close. Servers are not asked for their names.
    ConnectEcho {
        /// How many.
        size_bytes: u64,
    },
    /// Send bytes over a connection that stays open, and check that the same come back.
    Pingpong {
        /// How many.
        size_bytes: u64,
    },
    /// Connect and move a checked stream of bytes.
    Bulk {
        /// Which way.
        direction: Direction,
        /// How many bytes. `None`: until the load ends.
        size_bytes: Option<u64>,
    },
    /// Send a datagram, and check that the same comes back.
    Udp {
        /// How datagrams follow each other.
        exchange: Exchange,
        /// How many bytes one has: at least 32, with `names` at least 96.
        size_bytes: u64,
        /// Whether the servers are asked for their names: each answer then counts for its server.
        names: bool,
    },
}

/// How datagrams follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exchange {
    /// Each over a new socket, which has a port of its own.
    Connect,
    /// Over sockets that stay open; the next when the last is answered, or lost.
    Pingpong,
    /// Over sockets that stay open, without waiting for answers.
    Bulk,
}

/// Which way bulk data moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To the server, which checks it.
    Up,
    /// From the server.
    Down,
    /// To the server and back, both at once.
    Both,
}

impl LoadOptions {
    /// One connection, closed loop, a timeout of 5 s, no end.
    #[must_use]
    pub const fn new(targets: Vec<SocketAddr>, workload: Workload) -> Self {
        Self {
            targets,
            workload,
            connections: 1,
            rate: None,
            duration: None,
            requests: None,
            timeout: Duration::from_secs(5),
            source: None,
        }
    }

    /// Whether the options make sense, alone and together.
    ///
    /// # Errors
    /// [`LoadError::Option`].
    pub fn validate(&self) -> Result<(), LoadError> {
        let invalid = |option, reason: &str| Err(LoadError::Option { option, reason: reason.to_owned() });
        if self.targets.is_empty() {
            return invalid("TARGET", "there must be at least one");
        }
        if self.connections == 0 || self.connections > MAX_CONNECTIONS {
            return invalid("--connections", &format!("must be between 1 and {MAX_CONNECTIONS}"));
        }
        if self.rate.is_some_and(|rate| !(MIN_RATE..=MAX_RATE).contains(&rate)) {
            return invalid("--rate", &format!("must be between {MIN_RATE} and {MAX_RATE} per second"));
        }
        if self.duration.is_some_and(|duration| duration.is_zero() || duration > MAX_TIME) {
            return invalid("--duration", "must be more than 0 and at most 30 days");
        }
        if self.timeout.is_zero() || self.timeout > MAX_TIME {
            return invalid("--timeout", "must be more than 0 and at most 30 days");
        }
        if self.requests == Some(0) {
            return invalid("--requests", "must be at least 1");
        }
        match self.workload {
            Workload::ConnectEcho { size_bytes } | Workload::Pingpong { size_bytes }
                if !(1..=MAX_PINGPONG).contains(&size_bytes) =>
            {
                return invalid(
                    "--size",
                    &format!("must be between 1 and {MAX_PINGPONG} bytes with connect and pingpong"),
                );
            }
            Workload::Bulk { size_bytes: Some(0), .. } => return invalid("--size", "must be at least 1"),
            Workload::Bulk { size_bytes: None, .. } if self.rate.is_some() || self.requests.is_some() => {
                return invalid(
                    "--size",
                    "is needed with --rate or --requests in bulk mode: without it a stream has no end",
                );
            }
            Workload::Udp { size_bytes, names, .. } if !(min_size(names)..=MAX_SIZE).contains(&size_bytes) => {
                let names_too = if names { " when servers are asked for their names" } else { "" };
                return invalid(
                    "--size",
                    &format!("must be between {} and {MAX_SIZE} bytes with UDP{names_too}", min_size(names)),
                );
            }
            Workload::Connect
            | Workload::ConnectEcho { .. }
            | Workload::Pingpong { .. }
            | Workload::Bulk { .. }
            | Workload::Udp { .. } => {}
        }
        if let Some(source) = self.source
            && let Some(target) = self.targets.iter().find(|target| target.is_ipv4() != source.is_ipv4())
        {
            return invalid("--source", &format!("{source} and {target} are of different address families"));
        }
        Ok(())
    }
}

const MAX_CONNECTIONS: usize = 1_000_000;
const MIN_RATE: f64 = 0.001;
const MAX_RATE: f64 = 10_000_000.0;
const MAX_PINGPONG: u64 = 1 << 30;
/// Keeps times far from the ends of what clocks can express.
const MAX_TIME: Duration = Duration::from_secs(30 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn options(workload: Workload) -> LoadOptions {
        LoadOptions::new(vec![SocketAddr::from(([127, 0, 0, 1], 80))], workload)
    }

    fn refused(options: &LoadOptions) -> &'static str {
        match options.validate() {
            Err(LoadError::Option { option, .. }) => option,
            other => panic!("{other:?} for {options:?}"),
        }
    }

    #[test]
    fn defaults_make_sense() {
        options(Workload::Connect).validate().unwrap();
        options(Workload::Pingpong { size_bytes: 64 }).validate().unwrap();
        options(Workload::Bulk { direction: Direction::Both, size_bytes: None }).validate().unwrap();
        for (size_bytes, names) in [(32, false), (96, true), (65_507, true)] {
            options(Workload::Udp { exchange: Exchange::Bulk, size_bytes, names }).validate().unwrap();
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let connect = options(Workload::Connect);
        assert_eq!(refused(&LoadOptions { targets: Vec::new(), ..connect.clone() }), "TARGET");
        for connections in [0, MAX_CONNECTIONS + 1] {
            assert_eq!(refused(&LoadOptions { connections, ..connect.clone() }), "--connections");
        }
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e12] {
            assert_eq!(refused(&LoadOptions { rate: Some(rate), ..connect.clone() }), "--rate");
        }
        for time in [Duration::ZERO, Duration::MAX] {
            assert_eq!(refused(&LoadOptions { duration: Some(time), ..connect.clone() }), "--duration");
            assert_eq!(refused(&LoadOptions { timeout: time, ..connect.clone() }), "--timeout");
        }
        assert_eq!(refused(&LoadOptions { requests: Some(0), ..connect.clone() }), "--requests");
        let source = Some(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(refused(&LoadOptions { source, ..connect }), "--source");
        for size_bytes in [0, MAX_PINGPONG + 1] {
            assert_eq!(refused(&options(Workload::Pingpong { size_bytes })), "--size");
            assert_eq!(refused(&options(Workload::ConnectEcho { size_bytes })), "--size");
        }
        let endless = options(Workload::Bulk { direction: Direction::Up, size_bytes: None });
        assert_eq!(refused(&LoadOptions { rate: Some(1.0), ..endless.clone() }), "--size");
        assert_eq!(refused(&LoadOptions { requests: Some(1), ..endless }), "--size");
        assert_eq!(refused(&options(Workload::Bulk { direction: Direction::Up, size_bytes: Some(0) })), "--size");
        for (size_bytes, names) in [(31, false), (95, true), (65_508, false), (65_508, true)] {
            let exchange = Exchange::Pingpong;
            assert_eq!(refused(&options(Workload::Udp { exchange, size_bytes, names })), "--size");
        }
    }
}
