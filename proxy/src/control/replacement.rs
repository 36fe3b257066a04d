//! What is said when a proxy takes the place of another one of its network (since version 5 of the protocol).
//!
//! The new one is told to wait for sessions ([`AwaitSessions`]), gets the table, and accepts connections from the sockets that
//! both have. Then the old one is told to retire ([`Retire`]): it accepts no more, and sends its UDP sessions with their sockets
//! straight to the new one, over a pair of sockets of which the daemon has given an end to each. So a daemon that ends in
//! between costs nothing: what has begun comes to its end without it.
//!
//! [`AwaitSessions`]: super::message::Request::AwaitSessions
//! [`Retire`]: super::message::Request::Retire

use super::version::{Message, OLDEST_VERSION};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// The environment variable by which a daemon tells a proxy from which build of its program, and with which settings, it starts
/// it. No argument, so that an older program can be started too.
pub const BUILD: &str = "RINGLB_PROXY_BUILD";

/// What a proxy says of itself beyond its greeting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The newest version of the protocol that it speaks.
    pub most_version: u16,
    /// From which build of its program it was started, and with which settings, in the words of the daemon that started it; empty if
    /// that said nothing.
    pub build: String,
    /// What it does.
    pub duty: Duty,
}

/// What a proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Duty {
    /// It serves all that comes.
    Serving,
    /// It serves connections, if it has a table, and receives no datagrams before it has the sessions of the one before it.
    AwaitingSessions,
    /// It has been replaced: it accepts nothing and serves what it has.
    Retiring {
        /// How much longer at most, in milliseconds; `None` as long as it takes.
        left_ms: Option<u64>,
    },
}

/// What a proxy that retires still has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Client connections open.
    pub connections: u64,
    /// UDP sessions open: those that it did not hand over.
    pub sessions: u64,
    /// UDP sessions that it has handed over.
    pub handed_over: u64,
}

/// UDP sessions on their way from a proxy to the one that takes its place. The descriptors of their sockets follow, one each, in
/// this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionBatch {
    /// The sessions, at most [`MOST_IN_PACKET`] of them.
    ///
    /// [`MOST_IN_PACKET`]: super::descriptors::MOST_IN_PACKET
    pub sessions: Vec<SessionSpec>,
    /// Whether there are no more.
    pub last: bool,
}

/// A UDP session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// The data thread that has it, from 0.
    pub thread: u32,
    /// The client, as the socket that it sends to knows it.
    pub client: SocketAddr,
    /// What the client sends to.
    pub target: SocketAddr,
    /// Whether that is a published port, not a VIP.
    pub published: bool,
    /// The backend's address.
    pub backend: IpAddr,
    /// The backend's port.
    pub port: u16,
    /// The replies that end the session when they have come; `None` if replies do not end it.
    pub expected: Option<u64>,
    /// The place of the steered socket by which the client is answered, if it is one.
    pub steered: Option<u32>,
}

impl Message for SessionBatch {
    fn since(&self) -> u16 {
        OLDEST_VERSION + 1
    }
}
