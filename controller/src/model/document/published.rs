//! A published port in a document.

use crate::model::{Port, Protocol, PublishedPort};
use serde::{Deserialize, Serialize};

/// A port of this node under which a service is to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct PublishedDocument {
    /// The port that clients use, 1 to 65,535.
    pub port: u16,
    /// The port of the backends, 1 to 65,535.
    pub target: u16,
    /// TCP if not given.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

impl From<PublishedDocument> for PublishedPort {
    fn from(PublishedDocument { port, target, protocol }: PublishedDocument) -> Self {
        Self { published: Port { protocol, number: port }, target }
    }
}

impl From<PublishedPort> for PublishedDocument {
    fn from(PublishedPort { published, target }: PublishedPort) -> Self {
        Self { port: published.number, target, protocol: published.protocol }
    }
}
