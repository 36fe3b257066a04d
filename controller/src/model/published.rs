//! Published ports: a service's own list, and who has which port of the node.

use super::document::PublishedDocument;
use super::limits::MAX_PUBLISHED;
use super::{Name, Network, Port, PublishedPort, Rejection, Service, Services, Shared};
use imbl::OrdMap;

/// Which service of which network publishes a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publisher {
    pub(super) network: Name,
    pub(super) service: Name,
}

/// The ports of the node that are published. A copy shares what it does not change.
#[derive(Debug, Clone, Default)]
pub(super) struct Ports(OrdMap<Port, Publisher>);

impl Ports {
    /// These ports with those of a network as it is now instead of as it was before. Its cost grows with what differs.
    pub(super) fn with(&self, before: Option<&Network>, now: Option<&Network>) -> Result<Self, Rejection> {
        let none = Services::default();
        let [earlier, later] = [before, now].map(|network| network.map_or(&none, Network::services));
        let mut ports = self.clone();
        let mut added = Vec::new();
        for (old, new) in later.differences(earlier) {
            if old.zip(new).is_some_and(|(old, new)| old.published == new.published) {
                continue;
            }
            for port in old.iter().flat_map(|service| &service.published) {
                ports.0.remove(&port.published);
            }
            added.extend(new);
        }
        if let Some(network) = now {
            added.into_iter().try_for_each(|service| ports.publish(network, service))?;
        }
        Ok(ports)
    }

    /// Gives a service of a network its ports.
    pub(super) fn publish(&mut self, network: &Network, service: &Shared<Service>) -> Result<(), Rejection> {
        for port in &service.published {
            let publisher = Publisher { network: network.name().clone(), service: service.name.clone() };
            self.take(port.published, publisher)?;
        }
        Ok(())
    }

    /// Gives a port to a service, if no other has it.
    pub(super) fn take(&mut self, port: Port, publisher: Publisher) -> Result<(), Rejection> {
        match self.0.get(&port) {
            Some(other) if *other != publisher => {
                let Publisher { network, service } = &publisher;
                let field = format!("networks.{network}.services.{service}.published");
                let reason = format!(
                    "{} is already published by service `{}` of network `{}`",
                    port, other.service, other.network
                );
                Err(Rejection::conflict(field, reason))
            }
            _ => {
                self.0.insert(port, publisher);
                Ok(())
            }
        }
    }

    /// Who has a port.
    pub(super) fn publisher(&self, port: Port) -> Option<&Publisher> {
        self.0.get(&port)
    }
}

/// The ports of a list, sorted, if none of them is wrong.
pub(super) fn checked(service: &str, listed: &[PublishedDocument]) -> Result<Vec<PublishedPort>, Rejection> {
    check_count(service, listed.len())?;
    let mut ports: Vec<_> = listed.iter().map(|port| PublishedPort::from(*port)).collect();
    ports.sort_unstable();
    check_sorted(&format!("{service}.published"), &ports)?;
    Ok(ports)
}

/// Whether a service may publish so many ports.
pub(super) fn check_count(service: &str, count: usize) -> Result<(), Rejection> {
    if count > MAX_PUBLISHED {
        let reason = format!("the limit of {MAX_PUBLISHED} published ports for a service is reached");
        return Err(Rejection::conflict(format!("{service}.published"), reason));
    }
    Ok(())
}

/// Whether sorted ports go together.
pub(super) fn check_sorted(field: &str, ports: &[PublishedPort]) -> Result<(), Rejection> {
    if ports.iter().any(|port| port.published.number == 0 || port.target == 0) {
        return Err(Rejection::invalid(field, "has port 0: ports are 1 to 65535"));
    }
    match ports.windows(2).find(|pair| pair[0].published == pair[1].published) {
        Some(pair) => Err(Rejection::invalid(field, format!("{} is listed twice", pair[0].published))),
        None => Ok(()),
    }
}
