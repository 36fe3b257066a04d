//! Why managers and workers do not come together.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use thiserror::Error;

/// Why nothing can be served to workers, or learned from managers.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// A file of the swarm's node certificate cannot be read.
    #[error("cannot read {} of the swarm's node certificate: {cause}; is this node in a swarm, and may ringlb read the Engine's data directory?", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The key is encrypted.
    #[error("the node's key {} is encrypted, as the swarm is locked with `--autolock`: ringlb cannot speak for this manager, and workers need another one, or they use defaults", path.display())]
    Locked {
        /// The key's file.
        path: PathBuf,
    },
    /// A file of the node certificate makes no sense.
    #[error("cannot use {} of the swarm's node certificate: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The port cannot be listened on.
    #[error(
        "cannot listen on {address} for the swarm's workers: {cause}; choose another port with --cluster-port, the same on all nodes"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// All services together are more than a worker would read.
    #[error(
        "the labels of all services have {bytes} bytes together, and workers read {} at most: they keep what they heard before",
        super::line::MAX_LINE
    )]
    TooMuch {
        /// The length of the message.
        bytes: usize,
    },
    /// There is no connection.
    #[error(
        "cannot connect to ringlb on manager {manager}: {cause}; does `ringlb daemon --source docker` run there, with the same --cluster-port?"
    )]
    Connect {
        /// The manager.
        manager: SocketAddr,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The other end does not prove that it is a node of this swarm, or does not believe this node.
    #[error("no secure connection with {peer}: {cause}")]
    Handshake {
        /// The other end.
        peer: SocketAddr,
        /// What TLS says.
        cause: io::Error,
    },
    /// The other end's certificate is not one of this swarm, or not a manager's.
    #[error("{peer} is not trusted: {reason}")]
    Stranger {
        /// The other end.
        peer: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection with {peer} broke: {cause}")]
    Broken {
        /// The other end.
        peer: SocketAddr,
        /// The kernel's answer, or that of TLS.
        cause: io::Error,
    },
    /// The other end is silent.
    #[error("nothing came from {peer} for {} s", after.as_secs_f32())]
    Silent {
        /// The other end.
        peer: SocketAddr,
        /// How long.
        after: std::time::Duration,
    },
    /// A message is not to be understood.
    #[error("a message of {peer} makes no sense: {reason}; do both run the same version of ringlb?")]
    Message {
        /// The other end.
        peer: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
}
