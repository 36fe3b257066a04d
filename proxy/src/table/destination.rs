//! What a client asks for.

use crate::control::message::{Port, Protocol};
use std::net::{IpAddr, SocketAddr};

/// Where a client sends to, by which its service is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The address and port that the client uses.
    pub address: SocketAddr,
    /// By which protocol.
    pub protocol: Protocol,
    /// Whether it came by a socket of a published port: then only the port counts, as the address is one of the node's, which
    /// may be a VIP of this network by chance.
    pub published: bool,
}

impl Destination {
    /// The address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> Port {
        Port { protocol: self.protocol, number: self.address.port() }
    }
}
