//! How a server answers, and where.

use crate::protocol::ServerName;
use std::net::SocketAddr;
use std::time::Duration;

/// How a server answers, and where.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The name that it answers with.
    pub name: ServerName,
    /// Where it listens, for TCP and UDP. Port 0 is a port of the system's choice. `[::]` is IPv4 as well, unless an
    /// IPv4 address with the same port is here too.
    pub listen: Vec<SocketAddr>,
    /// It answers that much later, to imitate a slow backend: each line, each piece of echoed data and each datagram.
    pub delay: Duration,
    /// It says its name on every connection before anything is received, as SMTP and MySQL servers do. This crate's
    /// load does not expect that.
    pub greeting: bool,
}

impl ServerOptions {
    /// A server on a port of 127.0.0.1 that the system chooses, which answers at once.
    #[must_use]
    pub fn new(name: ServerName) -> Self {
        Self { name, listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))], delay: Duration::ZERO, greeting: false }
    }
}
