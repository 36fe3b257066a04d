//! From what is remembered to what is observed.

use super::network::{NetworkMemory, ServiceMemory};
use super::{Deadline, Told};
use crate::model::{Families, Name, ObservedBackend, ObservedNetwork, ObservedSandbox, ObservedService};
use crate::source::docker::labels::Labels;
use crate::source::docker::view::InspectedPort;
use crate::source::status::InvalidLabel;
use ringlb_proxy::control::message::{Port, Protocol, PublishedPort};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

/// What there is to say.
#[derive(Debug, Default)]
pub(in crate::source::docker) struct Outcome {
    /// The networks that have a sandbox on this node, or had one until lately.
    pub(in crate::source::docker) networks: Vec<ObservedNetwork>,
    /// What cannot be called by its name, and why: a network, or `NETWORK/SERVICE`.
    pub(in crate::source::docker) refused: Vec<(String, String)>,
    /// The labels of these services that are not valid.
    pub(in crate::source::docker) invalid_labels: Vec<InvalidLabel>,
    /// When there may be something else to say without any further observation.
    pub(in crate::source::docker) deadline: Option<Instant>,
}

pub(super) fn derive(
    networks: &BTreeMap<String, NetworkMemory>,
    told: &Told,
    started: Option<Instant>,
    now: Instant,
    deadline: Deadline,
) -> Outcome {
    let mut outcome = Outcome { deadline: deadline.0, ..Outcome::default() };
    let mut names = BTreeSet::new();
    for network in networks.values().filter(|network| is_here(network, started, now)) {
        let name = match Name::new(&network.name.to_lowercase()) {
            Ok(name) if names.insert(name.clone()) => name,
            Ok(name) => {
                let reason = format!("there is another network that is `{name}` in lower case");
                outcome.refused.push((network.name.clone(), reason));
                continue;
            }
            Err(reason) => {
                outcome.refused.push((network.name.clone(), reason));
                continue;
            }
        };
        let observed = observe(name, network, told, &mut outcome.refused);
        outcome.networks.push(observed);
    }
    outcome.invalid_labels = invalid_labels(told);
    outcome
}

fn is_here(network: &NetworkMemory, started: Option<Instant>, now: Instant) -> bool {
    let held = || network.held_without_sandbox(started).is_some_and(|end| now < end);
    !network.subnet.is_empty() && (network.sandbox.is_some() || held())
}

fn observe(name: Name, network: &NetworkMemory, told: &Told, refused: &mut Vec<(String, String)>) -> ObservedNetwork {
    let sandbox = network.sandbox.as_ref().filter(|_| !network.lb_address.is_empty());
    let sandbox = sandbox.map(|sandbox| ObservedSandbox {
        takeover: false,
        path: sandbox.path.clone(),
        identity: sandbox.identity,
        lb_address: network.lb_address,
    });
    // What is listed goes before what was, and the newest before what had the same VIP, port or address earlier.
    let mut services: Vec<_> = network.services.iter().collect();
    services.sort_by_key(|(name, service)| (!service.listed, Reverse(service.since), *name));
    let mut taken = Taken::default();
    let unlabelled = Labels::default();
    let mut observed = Vec::new();
    for (service_name, service) in services {
        let told = told.services.get(service_name);
        let labels = told.map_or(&unlabelled, |told| &told.labels);
        if !labels.enabled {
            continue;
        }
        let named = Name::new(&service_name.to_lowercase()).and_then(|name| {
            let free = taken.names.insert(name.clone());
            if free { Ok(name) } else { Err(format!("there is another service that is `{name}` in lower case")) }
        });
        let named = match named {
            Ok(named) => named,
            Err(reason) => {
                refused.push((format!("{name}/{service_name}"), reason));
                continue;
            }
        };
        if !taken.addresses.insert(service.vip) {
            continue;
        }
        let ports = told.map(|told| told.facts.ports.as_slice());
        observed.push(ObservedService {
            name: named,
            vip: Families::from(service.vip),
            settings: labels.settings.clone(),
            published: if network.ingress { taken.ports(service, ports) } else { Vec::new() },
            backends: taken.backends(service, labels),
        });
    }
    observed.sort_by(|one, other| one.name.cmp(&other.name));
    ObservedNetwork { name, subnet: network.subnet, sandbox, services: observed }
}

/// What only one service of a network can have.
#[derive(Debug, Default)]
struct Taken {
    names: BTreeSet<Name>,
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<Port>,
}

impl Taken {
    /// The ports that a manager tells, or else those that are seen, whose protocol may be either.
    fn ports(&mut self, service: &ServiceMemory, told: Option<&[PublishedPort]>) -> Vec<PublishedPort> {
        let seen = || {
            let both = |port: &InspectedPort| {
                let (number, target) = (port.published, port.target);
                [Protocol::Tcp, Protocol::Udp]
                    .map(|protocol| PublishedPort { published: Port { protocol, number }, target })
            };
            service.ports.iter().flat_map(both).collect()
        };
        let ports = told.map_or_else(seen, <[_]>::to_vec);
        let mut ports: Vec<_> = ports.into_iter().filter(|port| self.ports.insert(port.published)).collect();
        ports.sort();
        ports
    }

    fn backends(&mut self, service: &ServiceMemory, labels: &Labels) -> Vec<ObservedBackend> {
        let free = service.tasks.iter().filter(|(address, _)| self.addresses.insert(**address));
        let backend = free.map(|(address, task)| ObservedBackend {
            address: *address,
            weight: labels.weight,
            draining: task.draining,
            local: task.local,
        });
        backend.collect()
    }
}

fn invalid_labels(told: &Told) -> Vec<InvalidLabel> {
    let services = told.services.iter().flat_map(|(service, told)| {
        told.labels.invalid.iter().map(move |(label, reason)| InvalidLabel {
            service: service.clone(),
            label: label.clone(),
            reason: reason.clone(),
        })
    });
    services.collect()
}
