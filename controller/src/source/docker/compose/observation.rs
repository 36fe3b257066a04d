//! From services and their holders to networks.

use super::holders::Held;
use super::services::{Key, Service, Services};
use crate::model::{Families, ObservedBackend, ObservedNetwork, ObservedSandbox, ObservedService};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

impl Services {
    /// The networks of the services that have a holder. Containers whose id is among `stopping` drain.
    pub(super) fn observe(&self, held: &BTreeMap<Key, Held>, stopping: &BTreeSet<String>) -> Vec<ObservedNetwork> {
        let observed = |(key, service): (&Key, &Service)| {
            let subnet = self.bridges.get(&key.network).map(|bridge| bridge.subnet).unwrap_or_default();
            held.get(key).map(|held| network(key, service, subnet, held, stopping))
        };
        self.all.iter().filter_map(observed).collect()
    }
}

fn network(
    key: &Key,
    service: &Service,
    subnet: Families<IpNet>,
    held: &Held,
    stopping: &BTreeSet<String>,
) -> ObservedNetwork {
    let mut backends: BTreeMap<_, ObservedBackend> = BTreeMap::new();
    for (container, labels) in &service.containers {
        // One of its addresses: each would get a share of its own.
        let address = container.networks.get(&key.network).and_then(|addresses| addresses.iter().next().copied());
        let Some(address) = address.filter(|_| container.running) else { continue };
        // One that is not ready keeps its connections: it may be again.
        let draining = !container.ready || stopping.contains(&container.id);
        backends.entry(address).or_insert(ObservedBackend { address, weight: labels.weight, draining, local: true });
    }
    let settings = service.containers.first().map(|(_, labels)| labels.settings.clone()).unwrap_or_default();
    ObservedNetwork {
        name: service.network_name.clone(),
        subnet,
        sandbox: Some(ObservedSandbox {
            path: held.path.clone(),
            identity: held.identity,
            // The sandbox has no other address: the VIP is the LB endpoint's too.
            lb_address: held.addresses,
            takeover: false,
        }),
        services: vec![ObservedService {
            name: service.name.clone(),
            vip: held.addresses,
            settings,
            published: service.published.clone(),
            backends: backends.into_values().collect(),
        }],
    }
}
