//! What can be set for a service.
//!
//! Documents and messages hold the same values: as text that people write (`"30s"`) where the format is a human-readable
//! one, as numbers between daemon and proxy. So a setting is declared once, with its default and its bounds.

mod duration;
mod udp;

pub use duration::{ConnectTimeout, DrainTimeout, UdpIdleTimeout};
pub use udp::UdpSettings;

use serde::{Deserialize, Serialize};

/// All settings of a service but its name, its VIP and its backends. Those that a document does not give are the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// How long a draining backend keeps its connections.
    pub drain_timeout: DrainTimeout,
    /// How long one attempt to connect to a backend may take.
    pub connect_timeout: ConnectTimeout,
    /// What is set for its UDP sessions.
    pub udp: UdpSettings,
}

/// How a backend is chosen for a new connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Round robin: each eligible backend in turn.
    #[default]
    Rr,
    /// Power of two choices: of two random eligible backends the one with fewer connections for its weight.
    P2c,
    /// Weighted round robin: turns in proportion to weight, spread evenly.
    Wrr,
    /// Maglev hashing of the client's address: one look at a table, which changes little when backends come or go.
    Maglev,
    /// Weighted rendezvous hashing of the client's address: only the clients of a backend that goes move.
    SourceHash,
}

impl Algorithm {
    /// Whether the choice depends on the client's address.
    #[must_use]
    pub fn uses_client_address(self) -> bool {
        matches!(self, Self::Maglev | Self::SourceHash)
    }
}
