//! What can be set for a service.
//!
//! Documents and messages hold the same values: as text that people write (`"30s"`) where the format is a human-readable
//! one, as numbers between daemon and proxy. So a setting is declared once, with its default and its bounds.

mod access_log;
mod duration;
mod ejection;
mod eligibility;
mod group;
mod health_check;
mod keepalive;
mod limits;
mod number;
mod prefixes;
mod retry;
mod text;
mod udp;
mod weight;

pub use access_log::{AccessLog, AccessLogFormat, AccessLogSample};
pub use duration::{
    CheckInterval, CheckTimeout, ConnectTimeout, DrainTimeout, EjectionBase, EjectionLongest, IdleTimeout,
    KeepaliveIdle, KeepaliveInterval, MaxLifetime, ProxyProtocolTimeout, QueueTimeout, SlowStart, UdpIdleTimeout,
    UserTimeout,
};
pub use ejection::{Ejection, EjectionFailures, EjectionShare};
pub use eligibility::{LocalThreshold, PanicThreshold};
pub use health_check::{CheckFall, CheckPort, CheckRise, CheckText, HealthCheck, MAX_CHECK_TEXT};
pub use keepalive::{Keepalive, KeepaliveProbes};
pub use limits::{
    ClientRate, MaxConnections, MaxConnectionsPerBackend, MaxConnectionsPerClient, Queue, QueueLength, RateBurst,
    RatePerSecond,
};
pub use prefixes::{MAX_PREFIXES, Prefix, Prefixes};
pub use retry::{Retries, RetryBudget, RetryMinimum, RetryPercent};
pub use text::parsed;
pub use udp::{UdpResponses, UdpSettings};
pub use weight::Weight;

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// All settings of a service but its name, its VIP and its backends. Those that a document does not give are the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// How long one attempt to connect to a backend may take.
    pub connect_timeout: ConnectTimeout,
    /// How many other backends are tried for a connection after the first.
    pub retries: Retries,
    /// How many retries all connections may have together.
    pub retry_budget: RetryBudget,
    /// How long a draining backend keeps its connections.
    pub drain_timeout: DrainTimeout,
    /// What becomes of its connections then.
    pub drain_policy: DrainPolicy,
    /// How long a connection may be without any data.
    pub idle_timeout: IdleTimeout,
    /// How long a connection may last.
    pub max_lifetime: MaxLifetime,
    /// When a silent peer is asked whether it is still there.
    pub keepalive: Keepalive,
    /// How long data that was sent may be without an acknowledgement.
    pub user_timeout: UserTimeout,
    /// Which connections get a line in the access log.
    pub access_log: AccessLog,
    /// Over which time a new backend's share rises to its whole weight; zero for at once.
    pub slow_start: SlowStart,
    /// Whether backends on this node come before others.
    pub prefer_local: bool,
    /// The share of the backends on this node that must be healthy for that, in percent.
    pub local_threshold: LocalThreshold,
    /// With a smaller share of healthy backends, in percent, and no healthy backup, all are used.
    pub panic_threshold: PanicThreshold,
    /// When a backend that cannot be reached is left out for a while.
    pub ejection: Ejection,
    /// How backends are asked whether they are well.
    pub health_check: HealthCheck,
    /// What is set for its UDP sessions.
    pub udp: UdpSettings,
    /// How many connections the service may have at once.
    pub max_connections: MaxConnections,
    /// How many each backend may have. A backend that has them is not picked.
    pub max_connections_per_backend: MaxConnectionsPerBackend,
    /// How many a client may have.
    pub max_connections_per_client: MaxConnectionsPerClient,
    /// Who waits when all backends have as many as they may have.
    pub queue: Queue,
    /// How fast a client may open connections.
    pub client_rate: ClientRate,
    /// Which clients may come in; all if it is empty.
    pub allow: Prefixes,
    /// Which clients may not, even if they are allowed.
    pub deny: Prefixes,
    /// How a backend is told who the client is.
    pub proxy_protocol: ProxyProtocol,
    /// Peers whose connections begin with a PROXY protocol header that is believed.
    pub accept_proxy_protocol: Prefixes,
    /// How long they may take to send it.
    pub proxy_protocol_timeout: ProxyProtocolTimeout,
}

impl ServiceSettings {
    /// Whether the settings go together, each of them being right by itself.
    ///
    /// # Errors
    /// The setting that does not, by its path, and the reason.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.health_check.check()
    }

    /// The time that a backend that starts to drain gives its connections; `None` if it lets them end by themselves.
    #[must_use]
    pub fn drain_deadline(&self) -> Option<Duration> {
        match self.drain_policy {
            DrainPolicy::Reset => self.drain_timeout.0,
            DrainPolicy::Keep => None,
        }
    }

    /// Whether connections can end because of their age.
    #[must_use]
    pub fn limits_age(&self) -> bool {
        self.idle_timeout.0.is_some() || self.max_lifetime.0.is_some()
    }
}

/// What becomes of a draining backend's connections when their time is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainPolicy {
    /// They are reset.
    #[default]
    Reset,
    /// They go on until they end or the backend is removed.
    Keep,
}

/// How a backend is told who the client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    /// It is not.
    #[default]
    Off,
    /// By a PROXY protocol header of version 1, a line of text, before the connection's first byte.
    V1,
    /// By one of version 2, which is binary.
    V2,
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
