//! How many connections there may be, and whose.

use super::duration::QueueTimeout;
use super::group::setting_group;
use super::number::number_setting;
use serde::{Deserialize, Serialize};

number_setting! {
    /// The most connections that a service has at once: 1 to 10,000,000; 0, the default, is no limit.
    MaxConnections(u32), 0 to 10_000_000, default 0
}

number_setting! {
    /// The most connections that each of a service's backends has at once, those being established included: 1 to 10,000,000;
    /// 0, the default, is no limit.
    MaxConnectionsPerBackend(u32), 0 to 10_000_000, default 0
}

number_setting! {
    /// The most connections that a client has to a service at once: 1 to 10,000,000; 0, the default, is no limit. A client is
    /// an IPv4 address or the /64 of an IPv6 address.
    MaxConnectionsPerClient(u32), 0 to 10_000_000, default 0
}

impl MaxConnections {
    /// The limit as a number that is always there.
    #[must_use]
    pub fn limit(self) -> u64 {
        limit(self.0)
    }
}

impl MaxConnectionsPerBackend {
    /// The limit as a number that is always there.
    #[must_use]
    pub fn limit(self) -> u64 {
        limit(self.0)
    }
}

fn limit(setting: u32) -> u64 {
    if setting == 0 { u64::MAX } else { setting.into() }
}

/// Who waits when all backends of a service have their maximum of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct Queue {
    /// So many connections may wait at once.
    pub length: QueueLength,
    /// For so long.
    pub timeout: QueueTimeout,
}

setting_group!(Queue);

number_setting! {
    /// 0, the default, to 65,535 connections.
    QueueLength(u16), 0 to 65535, default 0
}

/// How fast a client may open connections to a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct ClientRate {
    /// Connections a second in the long run.
    pub per_second: RatePerSecond,
    /// Connections at once after a pause.
    pub burst: RateBurst,
}

setting_group!(ClientRate);

number_setting! {
    /// 1 to 1,000,000 a second; 0, the default, is no limit.
    RatePerSecond(u32), 0 to 1_000_000, default 0
}

number_setting! {
    /// 1 to 1,000,000. By default 10: a browser opens up to 6 connections at once.
    RateBurst(u32), 1 to 1_000_000, default 10
}
