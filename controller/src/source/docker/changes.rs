//! What of an observation is new, for the log.

use crate::model::{Name, ObservedNetwork, ObservedService};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Tells what appeared and what is gone: networks and services as events that an operator needs, backends for whoever looks
/// closer.
pub(super) fn log_changes(before: &[ObservedNetwork], now: &[ObservedNetwork]) {
    let (before, now) = (by_name(before), by_name(now));
    for (name, network) in &now {
        let earlier = before.get(name);
        if earlier.is_none() {
            tracing::info!(network = %name, subnet = %network.subnet, "the network has appeared");
        }
        log_services(name, &services(earlier.copied()), &services(Some(network)));
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        tracing::info!(network = %name, "the network is gone");
    }
}

/// The services of a network, with their backends and whether these drain.
type Services<'a> = BTreeMap<&'a Name, BTreeMap<IpAddr, bool>>;

fn by_name(networks: &[ObservedNetwork]) -> BTreeMap<&Name, &ObservedNetwork> {
    networks.iter().map(|network| (&network.name, network)).collect()
}

fn services(network: Option<&ObservedNetwork>) -> Services<'_> {
    let backends = |service: &ObservedService| {
        service.backends.iter().map(|backend| (backend.address, backend.draining)).collect()
    };
    let services = network.into_iter().flat_map(|network| &network.services);
    services.map(|service| (&service.name, backends(service))).collect()
}

fn log_services(network: &Name, before: &Services<'_>, now: &Services<'_>) {
    let none = BTreeMap::new();
    for (service, backends) in now {
        if !before.contains_key(service) {
            tracing::info!(%network, %service, "the service has appeared");
        }
        let known = before.get(service).unwrap_or(&none);
        for (backend, draining) in backends.iter().filter(|(backend, draining)| known.get(backend) != Some(draining)) {
            tracing::debug!(%network, %service, %backend, draining, "the backend is there");
        }
        for backend in known.keys().filter(|backend| !backends.contains_key(backend)) {
            tracing::debug!(%network, %service, %backend, "the backend is gone");
        }
    }
    for service in before.keys().filter(|service| !now.contains_key(*service)) {
        tracing::info!(%network, %service, "the service is gone");
    }
}
