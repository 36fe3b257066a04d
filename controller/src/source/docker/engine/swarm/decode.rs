//! From the Engine's documents to [the words that matter here](super::super::super::view).

use super::super::super::facts::ServiceFacts;
use super::super::super::view::{
    Cluster, ClusterService, InspectedNetwork, InspectedPort, InspectedService, InspectedTask, ListedNetwork, Node,
    TaskPhase,
};
use super::super::addresses::{parsed, subnets};
use crate::model::Families;
use bollard::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum, EndpointResource, Network,
    NetworkInspect, Service, SystemInfo, Task, TaskState,
};
use ringlb_proxy::control::message::{Port, Protocol, PublishedPort};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// How the Engine calls the driver of swarm networks.
const OVERLAY: &str = "overlay";

pub(super) fn node(info: SystemInfo) -> Node {
    let swarm = info.swarm.unwrap_or_default();
    let managers = swarm.remote_managers.unwrap_or_default();
    Node {
        version: info.server_version.unwrap_or_default(),
        id: swarm.node_id.unwrap_or_default(),
        address: swarm.node_addr.unwrap_or_default(),
        swarm: swarm.local_node_state.map(|state| state.to_string()).unwrap_or_default(),
        manager: swarm.control_available.unwrap_or_default(),
        managers: managers.into_iter().filter_map(|manager| manager.addr).collect(),
        root_dir: info.docker_root_dir.unwrap_or_default(),
    }
}

/// Nothing if it is not a network of the swarm with tasks.
pub(super) fn listed_network(network: Network) -> Option<ListedNetwork> {
    let of_swarm = network.driver.as_deref() == Some(OVERLAY) && network.scope.as_deref() == Some("swarm");
    if !of_swarm || network.config_only == Some(true) {
        return None;
    }
    Some(ListedNetwork { id: network.id?, name: network.name?, ingress: network.ingress.unwrap_or_default() })
}

/// A service of a network. The crate leaves it undecoded.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct VerboseService {
    #[serde(rename = "VIP")]
    vip: String,
    ports: Option<Vec<String>>,
    tasks: Option<Vec<VerboseTask>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct VerboseTask {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    #[serde(rename = "EndpointIP")]
    endpoint_ip: String,
    info: Option<HashMap<String, String>>,
}

/// `node_address` is that of this node, where it is known.
pub(super) fn inspected_network(network: NetworkInspect, node_address: &str) -> InspectedNetwork {
    let subnet = subnets(network.ipam.as_ref());
    let name = network.name.unwrap_or_default();
    let ingress = network.ingress.unwrap_or_default();
    let containers = network.containers.unwrap_or_default();
    let lb_endpoint = if ingress { "ingress-sbox".to_owned() } else { format!("lb-{name}") };
    let lb_address = containers.get(&lb_endpoint).map(endpoint_addresses).unwrap_or_default();
    let endpoints: BTreeSet<_> = containers.into_values().filter_map(|container| container.endpoint_id).collect();
    let mut services = BTreeMap::new();
    for (name, service) in network.services.into_iter().flatten() {
        // Containers that belong to no service are together under no name.
        let Ok(service) = serde_json::from_value::<VerboseService>(service) else { continue };
        // Without a VIP (`--endpoint-mode dnsrr`) it says `<nil>`.
        let Ok(vip) = service.vip.parse::<IpAddr>() else { continue };
        if name.is_empty() || vip.is_unspecified() {
            continue;
        }
        let ports = service.ports.unwrap_or_default().iter().filter_map(|text| port(text)).collect::<BTreeSet<_>>();
        let tasks = service.tasks.unwrap_or_default().into_iter().filter_map(|task| {
            let address = task.endpoint_ip.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified())?;
            let host = task.info.as_ref().and_then(|info| info.get("Host IP"));
            let local = endpoints.contains(&task.endpoint_id)
                || host.is_some_and(|host| !host.is_empty() && host == node_address);
            Some((address, InspectedTask { id: task_id(&name, &task.name), local }))
        });
        let tasks = tasks.collect();
        services.insert(name, InspectedService { vip, ports: ports.into_iter().collect(), tasks });
    }
    InspectedNetwork { name, ingress, subnet, lb_address, services }
}

pub(super) fn cluster(services: Vec<Service>, tasks: Vec<Task>) -> Cluster {
    let tasks = tasks.into_iter().filter_map(|task| {
        let phase = task_phase(task.desired_state, task.status.and_then(|status| status.state));
        Some((task.id?, phase))
    });
    Cluster { services: services.into_iter().filter_map(cluster_service).collect(), tasks: tasks.collect() }
}

fn cluster_service(service: Service) -> Option<ClusterService> {
    let specification = service.spec?;
    let endpoint = service.endpoint.unwrap_or_default();
    let ports = endpoint.ports.unwrap_or_default();
    let facts = ServiceFacts {
        id: service.id?,
        name: specification.name?,
        labels: specification.labels.unwrap_or_default().into_iter().collect(),
        ports: ports.iter().filter_map(published_port).collect(),
    };
    let vips = endpoint.virtual_ips.unwrap_or_default().into_iter().filter_map(|vip| {
        let address = vip.addr?;
        let address = address.split('/').next()?.parse().ok()?;
        Some((vip.network_id?, address))
    });
    Some(ClusterService { facts, vips: vips.collect() })
}

/// Nothing if ringlb is not to publish it: a port in mode `host` is the Engine's own, and SCTP goes through nobody.
fn published_port(port: &EndpointPortConfig) -> Option<PublishedPort> {
    if port.publish_mode == Some(EndpointPortConfigPublishModeEnum::HOST) {
        return None;
    }
    let protocol = match port.protocol? {
        EndpointPortConfigProtocolEnum::TCP => Protocol::Tcp,
        EndpointPortConfigProtocolEnum::UDP => Protocol::Udp,
        EndpointPortConfigProtocolEnum::SCTP | EndpointPortConfigProtocolEnum::EMPTY => return None,
    };
    let number = |number: Option<i64>| u16::try_from(number?).ok().filter(|number| *number > 0);
    let published = Port { protocol, number: number(port.published_port)? };
    Some(PublishedPort { published, target: number(port.target_port)? })
}

fn task_phase(desired: Option<TaskState>, now: Option<TaskState>) -> TaskPhase {
    if now > Some(TaskState::RUNNING) {
        TaskPhase::Over
    } else if desired > Some(TaskState::RUNNING) {
        TaskPhase::Stopping
    } else {
        TaskPhase::Wanted
    }
}

/// The id is the last part of a task's name; another container keeps its name.
fn task_id(service: &str, name: &str) -> String {
    let rest = name.strip_prefix(service).and_then(|rest| rest.strip_prefix('.'));
    rest.and_then(|rest| rest.rsplit('.').next()).unwrap_or(name).to_owned()
}

/// `Target: 80, Publish: 8080`
fn port(text: &str) -> Option<InspectedPort> {
    let (target, published) = text.strip_prefix("Target: ")?.split_once(", Publish: ")?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
    Some(InspectedPort { published: number(published)?, target: number(target)? })
}

fn endpoint_addresses(endpoint: &EndpointResource) -> Families<IpAddr> {
    parsed([&endpoint.ipv4_address, &endpoint.ipv6_address])
}

#[cfg(test)]
mod tests;
