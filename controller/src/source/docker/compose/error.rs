//! Why a service on a plain network cannot be seen to.

use super::super::engine::EngineError;
use std::path::PathBuf;
use thiserror::Error;

/// Why a service on a plain network cannot be seen to.
#[derive(Debug, Error)]
pub(super) enum ComposeError {
    /// The Engine cannot be asked, or does not do it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// There is no holder image for this machine.
    #[error("there is no program for {architecture} that could hold a VIP: ringlb has one for amd64 and arm64")]
    Architecture {
        /// The Engine's architecture, in its words.
        architecture: String,
    },
    /// The holder image cannot be made.
    #[error("cannot make the image of the containers that hold VIPs: {0}")]
    Image(std::io::Error),
    /// The holder is not there any more.
    #[error("the container that holds the VIP has been removed meanwhile")]
    NoHolder,
    /// The holder runs but has no address on the network.
    #[error("the container that holds the VIP has no address on network {network}")]
    NoAddress {
        /// The network.
        network: String,
    },
    /// It cannot be found out where the Engine keeps its namespaces.
    #[error("cannot find the Engine at {}: {cause}", socket.display())]
    NoEngine {
        /// The Engine's socket.
        socket: PathBuf,
        /// The kernel's answer.
        cause: std::io::Error,
    },
    /// The holder's namespace is not where the Engine says.
    #[error("there is no network namespace at {}: has the container that holds the VIP ended?", path.display())]
    NoSandbox {
        /// Where it was looked for.
        path: PathBuf,
    },
}
