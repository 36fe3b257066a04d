//! How a network is.

use super::{MemoryStatus, PrivilegeStatus};
use crate::model::Families;
use ringlb_proxy::control::message::{Features, Generation};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What there is of a network.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NetworkStatus {
    /// The generation that the proxy has acknowledged; the network's own while it has no proxy.
    pub acknowledged_generation: Generation,
    /// The sandbox, while there is one.
    pub sandbox: Option<SandboxStatus>,
    /// The proxy, while there is a sandbox for it.
    pub proxy: Option<ProxyStatus>,
    /// The proxies that were replaced and still have connections, the oldest first.
    pub draining: Vec<DrainingStatus>,
    /// The attachments that could not be made, with the reason.
    pub failed_attachments: BTreeMap<String, String>,
    /// The published ports that cannot be served, such as `8080/tcp`, with the service and the reason.
    pub failed_ports: BTreeMap<String, String>,
    /// What went wrong last and is not mended yet.
    pub error: Option<String>,
}

/// A sandbox.
#[derive(Debug, Clone, Serialize)]
pub struct SandboxStatus {
    /// The name of its namespace, as `ip netns` shows it.
    pub namespace: String,
    /// The LB endpoint's addresses.
    pub lb_address: Families<IpAddr>,
    /// What leads connections to the proxy's listener: `sk_lookup` or `tproxy`.
    pub steering: String,
    /// What is served in the place of IPVS; none where there is no IPVS.
    pub takeover: Option<TakeoverStatus>,
}

/// What is served in the place of the kernel's balancer.
#[derive(Debug, Clone, Serialize)]
pub struct TakeoverStatus {
    /// How many VIPs.
    pub vips: usize,
    /// How many published ports.
    pub ports: usize,
    /// Why there is nothing more, if something went wrong.
    pub error: Option<String>,
}

/// A proxy.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ProxyStatus {
    /// Its process; none while it waits to be started again.
    pub pid: Option<u32>,
    /// How many times it was started again after it had ended by itself.
    pub restarts: u64,
    /// How the last one ended that did so by itself.
    pub last_end: Option<String>,
    /// How many in a row have ended by themselves soon after their start: the pauses before the next grow with it.
    pub quick_ends: u32,
    /// In how many milliseconds the next one is started, while there is none.
    pub starts_in_ms: Option<u64>,
    /// What it may do, once it serves.
    pub privileges: Option<PrivilegeStatus>,
    /// Its memory, if that is limited.
    pub memory: Option<MemoryStatus>,
    /// The version of its program, once it has said so.
    pub version: Option<String>,
    /// What it uses of the kernel, once it has said so.
    pub features: Option<Features>,
    /// Why the last attempt to put another one in its place came to nothing, if it did.
    pub upgrade_error: Option<String>,
}

/// A proxy that was replaced and still has connections.
#[derive(Debug, Clone, Serialize)]
pub struct DrainingStatus {
    /// Its process.
    pub pid: Option<u32>,
    /// Its open connections, a second ago at most.
    pub connections: u64,
    /// Its UDP sessions, a second ago at most.
    pub sessions: u64,
    /// How much longer it has, in milliseconds; none: as long as its connections take.
    pub deadline_in_ms: Option<u64>,
}
