//! Requests over connections that stay open, and the servers that answer them, at the least cost.
//!
//! Client and servers share one processor, and where a system is fast they are what limits it. The load of
//! [`ringlb_load::Load`] has tasks, timers and operations of their own for each request, which cost more than the request
//! itself; here two loops do nothing but `epoll_wait(2)`, `read(2)` and `write(2)`. Every byte that comes back is checked
//! all the same.

mod client;
mod connection;
mod poll;
mod server;

pub(super) use client::run;
pub(super) use server::EchoServer;

use crate::instruments::statistics::Times;
use std::net::SocketAddr;
use std::time::Duration;

/// The bytes of a request, and of its answer.
const SIZE: usize = 64;

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// Where connections go to, in turn.
    pub(super) targets: Vec<SocketAddr>,
    /// So many, each with one request at a time.
    pub(super) connections: usize,
    /// Requests a second, due at even intervals whether or not a connection is free. Without, each connection makes the
    /// next one as soon as it has its answer.
    pub(super) rate: Option<f64>,
    /// How long requests are begun.
    pub(super) duration: Duration,
}

/// What was done.
#[derive(Debug)]
pub(super) struct Outcome {
    /// For each request that was answered, the time from when it was due to the last byte of its answer. Without a rate it
    /// is due when it is begun.
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
