//! From the Engine's documents to what matters here.

use crate::model::Families;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, EndpointSettings, Network};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The bridge network that every Engine has, without aliases and DNS.
const DEFAULT_BRIDGE: &str = "bridge";
/// The one by which a swarm's containers reach the outside.
const GATEWAY_BRIDGE: &str = "docker_gwbridge";

/// A bridge network that a user made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bridge {
    pub(super) name: String,
    pub(super) subnet: Families<IpNet>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    /// Its name, for people.
    pub(super) name: String,
    /// When it was made, in seconds since 1970.
    pub(super) created: i64,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) running: bool,
    /// Whether it is healthy, or nobody checks that.
    pub(super) healthy: bool,
    /// Its addresses by the names of its networks; none while it does not run.
    pub(super) networks: BTreeMap<String, Families<IpAddr>>,
}

/// Nothing if containers have no alias there, or it belongs to a swarm.
pub(super) fn bridge(network: Network) -> Option<Bridge> {
    let name = network.name?;
    let plain = network.driver.as_deref() == Some("bridge") && network.config_only != Some(true);
    if !plain || name == DEFAULT_BRIDGE || name == GATEWAY_BRIDGE {
        return None;
    }
    let configurations = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let subnets = configurations.into_iter().filter_map(|configuration| configuration.subnet?.parse::<IpNet>().ok());
    Some(Bridge { name, subnet: subnets.collect() })
}

pub(super) fn container(summary: ContainerSummary) -> Option<Container> {
    let name = summary.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let status = summary.status.unwrap_or_default();
    Some(Container {
        id: summary.id?,
        name: name.trim_start_matches('/').to_owned(),
        created: summary.created.unwrap_or_default(),
        labels: summary.labels.unwrap_or_default().into_iter().collect(),
        running: summary.state == Some(ContainerSummaryStateEnum::RUNNING),
        // `Up 2 minutes (healthy)`; there is no field for it before version 1.52 of the API.
        healthy: !status.contains("(unhealthy)") && !status.contains("(health: starting)"),
        networks: networks.into_iter().map(|(name, endpoint)| (name, addresses(&endpoint))).collect(),
    })
}

pub(super) fn addresses(endpoint: &EndpointSettings) -> Families<IpAddr> {
    let given = [&endpoint.ip_address, &endpoint.global_ipv6_address];
    given.into_iter().filter_map(|address| address.as_deref()?.parse::<IpAddr>().ok()).collect()
}
