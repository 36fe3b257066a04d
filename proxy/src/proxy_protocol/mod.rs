//! The PROXY protocol, versions 1 and 2: who the client is, told before the first byte of a connection.
//!
//! As HAProxy's specification (`doc/proxy-protocol.txt`) says. [`version1()`] and [`version2()`] make headers, [`read()`]
//! takes them. Reading is strict, because an address that somebody believes decides who may come in: what does not follow
//! the grammar to the letter is refused, and so is a header of version 2 with a checksum that is wrong.
//!
//! An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`, RFC 4291, section 2.5.5.2) means the IPv4 address, in both directions.
//! Where that leaves two families in one header, the IPv4 address is written as IPv4-mapped, as HAProxy does.

mod checksum;
mod read;
mod version1;
mod version2;
mod write;

pub use read::{Header, Progress, ProxyProtocolError, read};
pub use version1::MAX_VERSION1;
pub use version2::MAX_VERSION2;
pub use write::{HeaderBytes, unknown, version1, version2};

use std::net::SocketAddr;

/// What a connection is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    One,
    /// Binary.
    Two,
}

/// The two ends of the connection that the sender of a header relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
}

impl Addresses {
    /// The same with IPv4-mapped addresses as IPv4, and without what a header does not carry: flow labels and scopes.
    #[must_use]
    pub fn canonical(self) -> Self {
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        Self { source: canonical(self.source), destination: canonical(self.destination) }
    }
}

#[cfg(test)]
mod tests;
