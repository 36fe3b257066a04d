//! What a source observes that somebody else makes: networks whose sandboxes, VIPs and backends are not ringlb's to choose.

use super::{Families, Name, Weight};
use ipnet::IpNet;
use ringlb_proxy::control::message::{PublishedPort, ServiceSettings};
use std::net::IpAddr;
use std::path::PathBuf;

/// A network that a source observes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedNetwork {
    /// Its name, which no network of another source may have.
    pub name: Name,
    /// Its subnets.
    pub subnet: Families<IpNet>,
    /// Its sandbox on this node, while there is one.
    pub sandbox: Option<ObservedSandbox>,
    /// All services, with different names and different VIPs.
    pub services: Vec<ObservedService>,
}

/// A sandbox that somebody else makes and removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedSandbox {
    /// Where its namespace can be opened from here.
    pub path: PathBuf,
    /// Device and inode of the namespace (namespaces(7)): another one at the same path is another sandbox.
    pub identity: (u64, u64),
    /// The LB endpoint's addresses.
    pub lb_address: Families<IpAddr>,
    /// Whether the kernel's balancer, IPVS, serves there too, and new connections are to be taken from it. Then the
    /// published ports are somebody else's on this node, and their connections are sent on into the sandbox.
    pub takeover: bool,
}

/// A service that a source observes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedService {
    /// Its name, unique in the network.
    pub name: Name,
    /// Its virtual addresses.
    pub vip: Families<IpAddr>,
    /// What is set for it.
    pub settings: ServiceSettings,
    /// The ports under which it is published; no two services of a network have the same.
    pub published: Vec<PublishedPort>,
    /// All backends, with different addresses.
    pub backends: Vec<ObservedBackend>,
}

/// A backend that a source observes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedBackend {
    /// Its address on the network.
    pub address: IpAddr,
    /// Its share of new connections.
    pub weight: Weight,
    /// Whether it keeps the connections it has and gets no new ones.
    pub draining: bool,
    /// Whether it is on this node.
    pub local: bool,
}
