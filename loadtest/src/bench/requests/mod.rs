//! Requests, and the servers that answer them, at the least cost.
//!
//! Client and servers share one processor, and where a system is fast they are what limits it. The load of
//! [`ringlb_load::Load`] has tasks, timers and operations of their own for each request, which cost more than the request
//! itself; here two loops do nothing but wait for events, connect, read, write and close. Every byte that comes back is checked
//! all the same.

mod connection;
mod lasting;
mod poll;
mod server;
mod short;

pub(super) use server::EchoServer;

use super::BenchError;
use crate::instruments::statistics::Times;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The bytes of a request, and of its answer.
const SIZE: usize = 64;
/// A request that is not answered for so long has failed.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// How often is looked for those, and for the end.
const REVIEW: Duration = Duration::from_millis(50);

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// Where connections go to, in turn.
    pub(super) targets: Vec<SocketAddr>,
    pub(super) connections: Connections,
    /// Requests a second, due at even intervals whether or not a connection is free. Without, each connection makes the
    /// next one as soon as it has its answer. For lasting connections only.
    pub(super) rate: Option<f64>,
    /// How long requests are begun.
    pub(super) duration: Duration,
}

/// So many at once, each with one request at a time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Connections {
    /// They stay open.
    Lasting(usize),
    /// Each is closed with its answer, and another one made in its place.
    ForOneRequest(usize),
}

/// Carries an order out, in the calling thread's namespace.
///
/// # Errors
/// If lasting connections cannot be made at the start. What happens later is in the outcome.
pub(super) fn run(order: &Order) -> Result<Outcome, BenchError> {
    let done = match order.connections {
        Connections::Lasting(count) => lasting::run(order, count),
        Connections::ForOneRequest(count) => short::run(order, count),
    };
    done.map_err(BenchError::machine("make connections for a load"))
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer came in time")
}

/// Requests that failed.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    first: Option<String>,
}

impl Failures {
    fn note(&mut self, error: &io::Error) {
        self.count += 1;
        self.first.get_or_insert_with(|| error.to_string());
    }
}

/// What was done.
#[derive(Debug)]
pub(super) struct Outcome {
    /// For each request that was answered, the time from when it was due to the last byte of its answer. Without a rate it
    /// is due when it is begun; a connection of its own is part of it.
    pub(super) times: Times,
    /// Requests that were not, or wrongly.
    pub(super) failures: u64,
    /// What happened to the first of them.
    pub(super) failure: Option<String>,
    /// How long it took.
    pub(super) elapsed: Duration,
}

#[cfg(test)]
mod tests;
