//! A Docker Engine as a source: the networks of its swarm that have a sandbox on this node.
//!
//! The Engine is observed, and nothing of it is changed. What it shows in several places, each early in something else, is
//! put together by `state`: the verbose inspection of a network has VIPs, ports and tasks; the DNS in a network's sandbox
//! takes a task out before it is told to stop; managers know labels, protocols and what is to become of a task. Events of
//! this node only say that it is time to look.

mod changes;
pub mod cluster;
pub mod compose;
mod connection;
mod engine;
pub mod facts;
mod ipvs;
mod labels;
mod look;
mod names;
mod observer;
mod remains;
mod sandbox_files;
mod state;
mod view;
mod watch;

pub use facts::{Facts, ServiceFacts};
pub(crate) use remains::{Remains, sandboxes};
pub use view::Node;

use super::Desired;
use super::status::SharedStatus;
use observer::Observer;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch as channel;

/// The name of the source.
pub const NAME: &str = "docker";

/// Where an Engine listens, unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Where an Engine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Its socket.
    pub socket: PathBuf,
    /// Where the namespaces of its sandboxes are mounted. Found by the process that listens on the socket if not given.
    pub netns_dir: Option<PathBuf>,
}

impl Location {
    /// Where the namespaces of its sandboxes are mounted.
    ///
    /// # Errors
    /// If that is not given, and nobody listens on the socket.
    pub(crate) fn sandboxes(&self) -> io::Result<PathBuf> {
        self.netns_dir.clone().map_or_else(|| sandbox_files::directory(&self.socket), Ok)
    }
}

/// Which Engine is observed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The Engine.
    pub engine: Location,
    /// The TCP port on which managers tell workers what services' labels are; 0 for none.
    pub cluster_port: u16,
    /// Whether to serve in the place of IPVS, where the Engine has it. Its sandboxes are left alone otherwise.
    pub takeover: bool,
}

/// An Engine as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineStatus {
    /// Its version.
    pub version: String,
    /// `manager`, `worker`, or `none` outside a swarm.
    pub role: &'static str,
    /// How the node stands to its swarm: `inactive`, `pending`, `active`, `error` or `locked`.
    pub swarm: String,
}

/// A source that runs.
#[derive(Debug)]
pub struct Docker {
    /// How it is.
    pub status: SharedStatus,
    /// The Engine's node, once it has answered.
    pub node: channel::Receiver<Option<Arc<Node>>>,
    /// What managers say of services; on a manager what its own Engine says.
    pub facts: channel::Receiver<Arc<Facts>>,
}

/// Begins to observe. `feed` has what other nodes' managers say, for as long as this node is none.
#[must_use]
pub fn start(options: Options, desired: Arc<Desired>, feed: channel::Receiver<Option<Arc<Facts>>>) -> Docker {
    let status = SharedStatus::new(NAME);
    let (node_sender, node) = channel::channel(None);
    let (facts_sender, facts) = channel::channel(Arc::default());
    let observer = Observer::new(options, desired, feed, status.clone(), node_sender, facts_sender);
    tokio::spawn(observer.run());
    Docker { status, node, facts }
}
