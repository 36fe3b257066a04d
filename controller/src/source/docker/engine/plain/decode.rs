//! From the Engine's documents to [the words that matter here](super::super::super::compose).

use super::super::super::compose::{Bridge, Container, Place};
use super::super::addresses::{addresses, fixed_addresses, reserved, subnets};
use bollard::models::{ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, Network};

/// The bridge network that every Engine has, without aliases and DNS.
const DEFAULT_BRIDGE: &str = "bridge";
/// The one by which a swarm's containers reach the outside.
const GATEWAY_BRIDGE: &str = "docker_gwbridge";

/// Nothing if containers have no alias there, or it belongs to a swarm.
pub(super) fn bridge(network: Network) -> Option<Bridge> {
    let name = network.name?;
    let plain = network.driver.as_deref() == Some("bridge") && network.config_only != Some(true);
    if !plain || name == DEFAULT_BRIDGE || name == GATEWAY_BRIDGE {
        return None;
    }
    let ipam = network.ipam.as_ref();
    Some(Bridge { name, subnet: subnets(ipam), reserved: reserved(ipam).collect() })
}

pub(super) fn container(summary: ContainerSummary) -> Option<Container> {
    let name = summary.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let status = summary.status.unwrap_or_default();
    let paused = summary.state == Some(ContainerSummaryStateEnum::PAUSED);
    Some(Container {
        id: summary.id?,
        name: name.trim_start_matches('/').to_owned(),
        created: summary.created.unwrap_or_default(),
        labels: summary.labels.unwrap_or_default().into_iter().collect(),
        running: paused || summary.state == Some(ContainerSummaryStateEnum::RUNNING),
        // `Up 2 minutes (healthy)`; there is no field for it before version 1.52 of the API.
        ready: !paused && !status.contains("(unhealthy)") && !status.contains("(health: starting)"),
        fixed: networks.iter().map(|(name, endpoint)| (name.clone(), fixed_addresses(endpoint))).collect(),
        networks: networks.into_iter().map(|(name, endpoint)| (name, addresses(&endpoint))).collect(),
    })
}

pub(super) fn place(container: ContainerInspectResponse, network: &str) -> Place {
    let settings = container.network_settings.unwrap_or_default();
    let endpoint = settings.networks.unwrap_or_default().remove(network);
    Place {
        addresses: endpoint.map(|endpoint| addresses(&endpoint)).unwrap_or_default(),
        sandbox_key: settings.sandbox_key.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
