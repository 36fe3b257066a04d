//! What a source observes as one change.

use super::change::observed;
use super::limits::{MAX_BACKENDS, MAX_NETWORKS, MAX_SERVICES};
use super::network::Observation;
use super::published::{Ports, Publisher, check_count, check_sorted};
use super::{Backend, Model, Name, Network, ObservedNetwork, ObservedService, Rejection, Service, Shared};
use imbl::OrdMap;
use std::collections::{BTreeMap, HashSet};

impl Model {
    /// The model in which the networks of `source` are these. Networks and services in which nothing differs are shared
    /// with this model; a network in which something does is one generation further.
    ///
    /// Gives what of them is not taken, and why. A network that is not stays as it is in this model. Of a port that
    /// somebody else publishes, only the port is left out.
    #[must_use]
    pub fn observe(&self, source: &'static str, networks: Vec<ObservedNetwork>) -> (Self, Vec<(Name, Rejection)>) {
        let of_source = |network: &Shared<Network>| network.source() == Some(source);
        let mut next: OrdMap<Name, Shared<Network>> = self
            .networks
            .iter()
            .filter(|(_, it)| !of_source(it))
            .map(|(name, it)| (name.clone(), it.clone()))
            .collect();
        let mut ports = Ports::default();
        for network in next.values() {
            for service in network.services().values() {
                // Checked when it was taken.
                let _ = ports.publish(network, service);
            }
        }
        let mut refused = Vec::new();
        let mut accepted: BTreeMap<Name, ObservedNetwork> = BTreeMap::new();
        for network in networks {
            let name = network.name.clone();
            match self.check_observed(source, &network, &accepted, &next) {
                Ok(()) => {
                    accepted.insert(name, network);
                }
                Err(rejection) => {
                    if let Some(before) = self.networks.get(&name).filter(|before| of_source(before)) {
                        for service in before.services().values() {
                            let _ = ports.publish(before, service);
                        }
                        next.insert(name.clone(), before.clone());
                    }
                    refused.push((name, rejection));
                }
            }
        }
        self.settle_ports(&mut accepted, &mut ports, &mut refused);
        for network in accepted.into_values() {
            let network = self.observed_network(source, network);
            next.insert(network.name().clone(), network);
        }
        (Self { networks: next, ports, ..self.clone() }, refused)
    }

    fn check_observed(
        &self,
        source: &str,
        network: &ObservedNetwork,
        accepted: &BTreeMap<Name, ObservedNetwork>,
        next: &OrdMap<Name, Shared<Network>>,
    ) -> Result<(), Rejection> {
        let (name, field) = (&network.name, format!("networks.{}", network.name));
        if accepted.contains_key(name) {
            return Err(Rejection::invalid(field, "is listed twice"));
        }
        match self.networks.get(name).map(|other| other.source()) {
            Some(None) => return Err(Rejection::conflict(field, "is the name of a network that is made by the API")),
            Some(Some(other)) if other != source => return Err(observed(name, other)),
            _ => {}
        }
        if accepted.len() + next.len() >= MAX_NETWORKS {
            return Err(Rejection::conflict(field, format!("the limit of {MAX_NETWORKS} networks is reached")));
        }
        if network.sandbox.as_ref().is_some_and(|sandbox| sandbox.lb_address.is_empty()) {
            return Err(Rejection::invalid(
                format!("{field}.lb_address"),
                "the sandbox has no address of its LB endpoint",
            ));
        }
        if network.services.len() > MAX_SERVICES {
            let reason = format!("the limit of {MAX_SERVICES} services for a network is reached");
            return Err(Rejection::conflict(format!("{field}.services"), reason));
        }
        let (mut names, mut vips, mut published) = (HashSet::new(), HashSet::new(), Vec::new());
        for service in &network.services {
            let field = format!("{field}.services.{}", service.name);
            if !names.insert(&service.name) {
                return Err(Rejection::invalid(field, "is listed twice"));
            }
            check_service(&field, service)?;
            if let Some(vip) = service.vip.iter().find(|vip| !vips.insert(**vip)) {
                let reason = format!("{vip} is the VIP of another service too");
                return Err(Rejection::conflict(format!("{field}.vip"), reason));
            }
            published.extend_from_slice(&service.published);
        }
        published.sort_unstable();
        check_sorted(&format!("{field}.published"), &published)
    }

    /// Leaves out of `networks` the ports that others have. Who has a port keeps it.
    fn settle_ports(
        &self,
        networks: &mut BTreeMap<Name, ObservedNetwork>,
        ports: &mut Ports,
        refused: &mut Vec<(Name, Rejection)>,
    ) {
        for first in [true, false] {
            for (network, observed) in &mut *networks {
                for service in &mut observed.services {
                    let publisher = Publisher { network: network.clone(), service: service.name.clone() };
                    service.published.retain(|port| {
                        let had = self.ports.publisher(port.published) == Some(&publisher);
                        if had != first {
                            return true;
                        }
                        let taken = ports.take(port.published, publisher.clone());
                        let kept = taken.is_ok();
                        refused.extend(taken.err().map(|rejection| (network.clone(), rejection)));
                        kept
                    });
                }
            }
        }
    }

    fn observed_network(&self, source: &'static str, network: ObservedNetwork) -> Shared<Network> {
        let ObservedNetwork { name, subnet, sandbox, services } = network;
        let before = self.networks.get(&name);
        // Built on the earlier map, so that the two can be compared at the cost of what differs.
        let mut map = before.map(|before| before.services().clone()).unwrap_or_default();
        map.begin_change();
        let names: HashSet<_> = services.iter().map(|service| service.name.clone()).collect();
        let there = before.into_iter().flat_map(|before| before.services().values());
        for gone in there.filter(|service| !names.contains(&service.name)) {
            map.remove(&gone.name);
        }
        for service in services {
            let service = taken(service);
            if map.get(&service.name).is_none_or(|before| **before != service) {
                map.put(Shared::new(service));
            }
        }
        let observation = Observation { source, subnet, sandbox };
        let network = Network::observed(name, observation, map);
        let Some(before) = before else { return Shared::new(self.numbered_first(network)) };
        let unchanged = before.observation() == network.observation()
            && network.services().differences(before.services()).next().is_none();
        if unchanged { before.clone() } else { Shared::new(network.at_least(before.generation() + 1)) }
    }
}

fn check_service(field: &str, service: &ObservedService) -> Result<(), Rejection> {
    if service.vip.is_empty() {
        return Err(Rejection::invalid(format!("{field}.vip"), "has no VIP"));
    }
    let checked = service.settings.check();
    checked.map_err(|(setting, reason)| Rejection::invalid(format!("{field}.{setting}"), reason))?;
    if service.backends.len() > MAX_BACKENDS {
        let reason = format!("the limit of {MAX_BACKENDS} backends for a service is reached");
        return Err(Rejection::conflict(format!("{field}.backends"), reason));
    }
    check_count(field, service.published.len())?;
    let mut addresses = HashSet::new();
    match service.backends.iter().find(|backend| !addresses.insert(backend.address)) {
        Some(twice) => Err(Rejection::invalid(format!("{field}.backends.{}", twice.address), "is listed twice")),
        None => Ok(()),
    }
}

fn taken(observed: ObservedService) -> Service {
    let ObservedService { name, vip, settings, mut published, backends } = observed;
    published.sort_unstable();
    let backends = backends.into_iter().map(|backend| {
        let local = settings.prefer_local && backend.local;
        (backend.address, Backend { weight: backend.weight, draining: backend.draining, backup: false, local })
    });
    Service { name, vip, backends: backends.collect(), settings: settings.clone(), published }
}
