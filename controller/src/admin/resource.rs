//! What the API shows.

use crate::model::{Attachment, Backend, Families, Network, PublishedDocument, Service, Weight};
use crate::reconcile::{NetworkStatus, Upgraded};
use crate::source::status::SourceStatus;
use ipnet::IpNet;
use ringlb_proxy::control::message::{
    DatagramStatistics, Generation, Health, ProxyStatistics, RingStatistics, ServiceSettings, Statistics,
};
use serde::Serialize;
use std::collections::HashMap;
use std::net::IpAddr;

/// Where networks come from that no source observes.
const MADE: &str = "api";

/// A network.
#[derive(Debug, Serialize)]
pub(super) struct NetworkResource {
    name: String,
    /// Where it comes from: `api` if it was made by a call, else the source that observes it.
    source: &'static str,
    subnet: Families<IpNet>,
    /// None if somebody else chooses the VIPs.
    vip_prefix: Option<Families<IpNet>>,
    /// None while the network has no sandbox on this node.
    lb_address: Option<Families<IpAddr>>,
    generation: Generation,
    attachments: usize,
    services: usize,
}

/// An attachment.
#[derive(Debug, Serialize)]
pub(super) struct AttachmentResource {
    name: String,
    netns: String,
    ip: Families<IpAddr>,
}

/// A service.
#[derive(Debug, Serialize)]
pub(super) struct ServiceResource {
    name: String,
    vip: Families<IpAddr>,
    published: Vec<PublishedDocument>,
    #[serde(flatten)]
    settings: ServiceSettings,
    backends: Vec<BackendResource>,
}

/// A backend.
#[derive(Debug, Serialize)]
pub(super) struct BackendResource {
    ip: IpAddr,
    weight: Weight,
    drain: bool,
    backup: bool,
}

/// What came of a change: the generation that the proxy has acknowledged, how many microseconds after the request had
/// come in, and the resource as it is now.
#[derive(Debug, Serialize)]
pub(super) struct Changed<T> {
    pub(super) generation: Generation,
    pub(super) acknowledged_in_us: u64,
    #[serde(flatten)]
    pub(super) resource: T,
}

/// The resource of a change, under its kind's name.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Resource {
    Network(NetworkResource),
    Attachment(AttachmentResource),
    Service(Box<ServiceResource>),
    Backend(BackendResource),
}

/// The answer to a removal.
#[derive(Debug, Serialize)]
pub(super) struct Removed {
    pub(super) generation: Generation,
    pub(super) acknowledged_in_us: u64,
}

/// The answer to a whole desired state.
#[derive(Debug, Serialize)]
pub(super) struct Applied {
    pub(super) acknowledged_in_us: u64,
    pub(super) networks: Vec<AppliedNetwork>,
}

/// What a desired state meant for a network.
#[derive(Debug, Serialize)]
pub(super) struct AppliedNetwork {
    pub(super) name: String,
    pub(super) outcome: Outcome,
    /// None for a network that was removed.
    pub(super) generation: Option<Generation>,
}

/// What came of upgrading.
#[derive(Debug, Serialize)]
pub(super) struct UpgradedNode {
    pub(super) networks: Vec<UpgradedNetwork>,
}

/// What came of it for a network.
#[derive(Debug, Serialize)]
pub(super) struct UpgradedNetwork {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) upgraded: Upgraded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Created,
    Changed,
    Unchanged,
    Removed,
}

/// The whole node.
#[derive(Debug, Serialize)]
pub(super) struct NodeResource {
    pub(super) version: &'static str,
    pub(super) daemon_pid: u32,
    pub(super) ready: bool,
    pub(super) sources: Vec<SourceStatus>,
    pub(super) networks: Vec<NetworkStatusResource>,
}

/// A network with all that is known of it.
#[derive(Debug, Serialize)]
pub(super) struct NetworkStatusResource {
    name: String,
    /// Where it comes from: `api` if it was made by a call, else the source that observes it.
    source: &'static str,
    subnet: Families<IpNet>,
    /// None if somebody else chooses the VIPs.
    vip_prefix: Option<Families<IpNet>>,
    generation: Generation,
    #[serde(flatten)]
    status: NetworkStatus,
    connections: Option<ProxyStatistics>,
    datagrams: Option<DatagramStatistics>,
    ring: Option<RingStatistics>,
    attachments: Vec<AttachmentResource>,
    services: Vec<ServiceStatusResource>,
}

#[derive(Debug, Serialize)]
struct ServiceStatusResource {
    name: String,
    vip: Families<IpAddr>,
    published: Vec<PublishedDocument>,
    #[serde(flatten)]
    settings: ServiceSettings,
    /// None while no proxy has told, like all counters.
    connections: Option<u64>,
    sessions: Option<u64>,
    backends: Vec<BackendStatusResource>,
}

#[derive(Debug, Serialize)]
struct BackendStatusResource {
    ip: IpAddr,
    weight: Weight,
    drain: bool,
    backup: bool,
    /// How the proxy sees it; none while no proxy has told.
    health: Option<Health>,
    ejected_for_ms: Option<u64>,
    warmth_percent: Option<u8>,
    ejections: Option<u64>,
    check_failures: Option<u64>,
    active: Option<u64>,
    connections: Option<u64>,
    connect_failures: Option<u64>,
    sessions: Option<u64>,
    active_sessions: Option<u64>,
    datagrams_to_backend: Option<u64>,
    datagrams_to_client: Option<u64>,
    bytes_to_backend: Option<u64>,
    bytes_to_client: Option<u64>,
}

impl From<&Network> for NetworkResource {
    fn from(network: &Network) -> Self {
        Self {
            name: network.name().to_string(),
            source: network.source().unwrap_or(MADE),
            subnet: network.subnet(),
            vip_prefix: vip_prefix(network),
            lb_address: network.lb_address(),
            generation: network.generation(),
            attachments: network.attachments().len(),
            services: network.services().len(),
        }
    }
}

impl From<&Attachment> for AttachmentResource {
    fn from(attachment: &Attachment) -> Self {
        Self { name: attachment.name.to_string(), netns: attachment.netns.clone(), ip: attachment.ip }
    }
}

impl From<&Service> for ServiceResource {
    fn from(service: &Service) -> Self {
        Self {
            name: service.name.to_string(),
            vip: service.vip,
            published: published(service),
            settings: service.settings.clone(),
            backends: service.backends.iter().map(|(ip, backend)| BackendResource::new(*ip, *backend)).collect(),
        }
    }
}

fn vip_prefix(network: &Network) -> Option<Families<IpNet>> {
    let vip_prefix = network.vip_prefix();
    (!vip_prefix.is_empty()).then_some(vip_prefix)
}

fn published(service: &Service) -> Vec<PublishedDocument> {
    service.published.iter().map(|port| (*port).into()).collect()
}

impl BackendResource {
    pub(super) fn new(ip: IpAddr, backend: Backend) -> Self {
        Self { ip, weight: backend.weight, drain: backend.draining, backup: backend.backup }
    }
}

impl NetworkStatusResource {
    /// Puts together what should be, what the network's task says and what its proxy says.
    pub(super) fn new(network: &Network, status: NetworkStatus, statistics: Option<Statistics>) -> Self {
        let statistics_of: HashMap<_, _> = statistics
            .iter()
            .flat_map(|statistics| &statistics.services)
            .map(|service| {
                let backends: HashMap<_, _> =
                    service.backends.iter().map(|backend| (backend.address, backend)).collect();
                (service.name.as_str(), (service, backends))
            })
            .collect();
        let services = network.services().in_order().map(|service| {
            let told = statistics_of.get(&*service.name);
            ServiceStatusResource {
                name: service.name.to_string(),
                vip: service.vip,
                published: published(service),
                settings: service.settings.clone(),
                connections: told.map(|(service, _)| service.connections),
                sessions: told.map(|(service, _)| service.sessions),
                backends: service
                    .backends
                    .iter()
                    .map(|(ip, backend)| {
                        let told = told.and_then(|(_, backends)| backends.get(ip));
                        BackendStatusResource {
                            ip: *ip,
                            weight: backend.weight,
                            drain: backend.draining,
                            backup: backend.backup,
                            health: told.map(|told| told.health),
                            ejected_for_ms: told.map(|told| told.ejected_for_ms),
                            warmth_percent: told.map(|told| told.warmth),
                            ejections: told.map(|told| told.ejections),
                            check_failures: told.map(|told| told.check_failures),
                            active: told.map(|told| told.active),
                            connections: told.map(|told| told.connections),
                            connect_failures: told.map(|told| told.connect_failures),
                            sessions: told.map(|told| told.sessions),
                            active_sessions: told.map(|told| told.active_sessions),
                            datagrams_to_backend: told.map(|told| told.datagrams_to_backend),
                            datagrams_to_client: told.map(|told| told.datagrams_to_client),
                            bytes_to_backend: told.map(|told| told.bytes_to_backend),
                            bytes_to_client: told.map(|told| told.bytes_to_client),
                        }
                    })
                    .collect(),
            }
        });
        let services = services.collect();
        Self {
            name: network.name().to_string(),
            source: network.source().unwrap_or(MADE),
            subnet: network.subnet(),
            vip_prefix: vip_prefix(network),
            generation: network.generation(),
            status,
            connections: statistics.as_ref().map(|statistics| statistics.proxy.clone()),
            datagrams: statistics.as_ref().map(|statistics| statistics.datagrams.clone()),
            ring: statistics.map(|statistics| statistics.ring),
            attachments: network
                .attachments()
                .values()
                .map(|attachment| AttachmentResource::from(&**attachment))
                .collect(),
            services,
        }
    }
}
