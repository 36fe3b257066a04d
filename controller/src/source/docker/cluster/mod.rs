//! How workers learn what only managers are told: services' labels, and the protocols of their ports.
//!
//! The Engine answers `/services` on managers alone. So ringlb on a manager [`serve()`]s what it learned there, and ringlb
//! on a worker [`follow()`]s the managers that its Engine names. Nothing has to be set up for it: both ends show the
//! certificates by which the swarm's nodes know each other (TLS 1.3, RFC 8446; `certificates`), so whoever is no node
//! of this swarm learns nothing, and nobody but a manager is believed.
//!
//! A worker that reaches no manager goes on with what it heard last. If it has heard nothing yet, services have the
//! default settings, and their ports are published for TCP and UDP: see [`Following::services`].

mod certificates;
mod connected;
mod error;
mod follow;
mod line;
mod link;
mod pauses;
mod places;
mod serve;
#[cfg(test)]
mod tests;

pub use certificates::Certificates;
pub use error::ClusterError;
pub use follow::{FollowStatus, Following, follow};
pub use link::Link;
pub use serve::{ServeStatus, Serving, serve};

use std::time::Duration;

/// The TCP port on which managers serve, unless another is chosen. It must be the same on all nodes of a swarm.
pub const DEFAULT_PORT: u16 = 9479;

/// How patient both ends are.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A manager that has nothing to say says so after this time.
    pub heartbeat: Duration,
    /// Whoever has heard nothing for so long takes the other end for dead.
    pub silence: Duration,
    /// How long a worker waits for a connection, and for the TLS handshake, each.
    pub handshake: Duration,
    /// How long a manager waits for the TLS handshake of whoever connects.
    pub greeting: Duration,
    /// For how long a manager shows what went wrong with somebody who connected.
    pub shown: Duration,
    /// How long a connection lasts: then the worker comes again and shows the certificate that it has then.
    pub connection: Duration,
    /// The pause after the first failure; it doubles with each one.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            silence: Duration::from_secs(20),
            handshake: Duration::from_secs(10),
            greeting: Duration::from_secs(3),
            shown: Duration::from_secs(60),
            connection: Duration::from_secs(3600),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
        }
    }
}
