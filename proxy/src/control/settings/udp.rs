//! What can be set for a service's UDP sessions. It applies to those that begin from then on.

use super::duration::UdpIdleTimeout;
use super::group::setting_group;
use super::number::number_setting;
use serde::{Deserialize, Serialize};

/// When a UDP session ends. All that one client's address and port sends to one VIP and port is one session, which stays
/// with one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct UdpSettings {
    /// How long it may be idle.
    pub idle_timeout: UdpIdleTimeout,
    /// After how many replies it ends.
    pub responses: UdpResponses,
}

setting_group!(UdpSettings);

number_setting! {
    /// How many replies each of the client's datagrams gets: when all have come, the session ends at once. 1 suits DNS,
    /// where it makes every query a choice of its own. 0, the default: replies do not end a session.
    UdpResponses(u16), 0 to 65535, default 0
}
