//! A line for each connection that ended, for services that ask for it.
//!
//! Data threads hand records over and never wait: a record that does not fit into the queue is counted and dropped.
//! A thread of its own makes lines of them and writes them to standard output.

mod line;
mod writer;

pub use line::write_line;
pub use writer::{AccessLog, start};

use crate::control::settings::AccessLogFormat;
use crate::flow::termination::TerminationCode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A connection that ended.
#[derive(Debug, Clone)]
pub struct Record {
    /// How its line is to be written.
    pub format: AccessLogFormat,
    /// When it ended.
    pub time: SystemTime,
    /// The service that it was for.
    pub service: Arc<str>,
    /// The client's address; none if the client was gone before it was asked for.
    pub client: Option<SocketAddr>,
    /// The VIP and port that the client connected to.
    pub vip: SocketAddr,
    /// The backend that it was connected to, or that was tried last; none if there was none to try.
    pub backend: Option<SocketAddr>,
    /// How it ended.
    pub termination: TerminationCode,
    /// Attempts to connect to a backend.
    pub attempts: u8,
    /// What the attempt that succeeded took.
    pub connect: Option<Duration>,
    /// How long it lasted.
    pub duration: Duration,
    /// Bytes sent to the backend.
    pub bytes_to_backend: u64,
    /// Bytes sent to the client.
    pub bytes_to_client: u64,
}
