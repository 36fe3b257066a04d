//! When a silent peer is asked whether it is still there.

use super::duration::{KeepaliveIdle, KeepaliveInterval};
use super::group::setting_group;
use super::number::number_setting;
use serde::{Deserialize, Serialize};

/// TCP keepalive towards client and backend (tcp(7)).
///
/// By default a peer that has vanished without a word is found after 3 minutes, and no firewall on the way forgets a silent
/// connection, as their limits are 5 minutes and more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct Keepalive {
    /// The silence before the first probe.
    pub idle: KeepaliveIdle,
    /// The time between probes.
    pub interval: KeepaliveInterval,
    /// So many probes without an answer end the connection.
    pub probes: KeepaliveProbes,
}

setting_group!(Keepalive);

number_setting! {
    /// `TCP_KEEPCNT`: 1 to 127, which is the kernel's own limit.
    KeepaliveProbes(u8), 1 to 127, default 4
}
