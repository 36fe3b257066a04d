//! The whole model, and the changes that can be made to it.

use super::limits::MAX_NETWORKS;
use super::published::Ports;
use super::subnet::{self, Subnet};
use super::{
    AttachmentSpec, BackendSpec, Families, Generation, Name, Network, NetworkSpec, OfFamily, Rejection, ServiceSpec,
    Shared,
};
use imbl::OrdMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// All that should be on this node.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub(super) networks: OrdMap<Name, Shared<Network>>,
    /// The ports that services of any network publish.
    pub(super) ports: Ports,
    /// The first generation of networks that there are none of yet, where it is not 1.
    pub(super) first_generations: OrdMap<Name, Generation>,
}

/// One change. The names in it are as they came in, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Make the network, or give it these settings, which only an empty network takes.
    PutNetwork(NetworkSpec),
    /// Remove the network; one that is not empty only with `remove_lb`, which removes what belongs to it too.
    RemoveNetwork {
        /// Whether the network's services, attachments and LB endpoint go with it.
        remove_lb: bool,
    },
    /// Make or change an attachment.
    PutAttachment {
        /// Its name.
        attachment: String,
        /// Its settings.
        spec: AttachmentSpec,
    },
    /// Remove an attachment.
    RemoveAttachment {
        /// Its name.
        attachment: String,
    },
    /// Change a service.
    Service {
        /// Its name.
        service: String,
        /// What to do with it.
        change: ServiceChange,
    },
}

/// A change of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceChange {
    /// Make it or give it these settings.
    Put(Box<ServiceSpec>),
    /// Remove it.
    Remove,
    /// Change a backend.
    Backend {
        /// Its address.
        address: IpAddr,
        /// What to do with it.
        change: BackendChange,
    },
}

/// A change of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendChange {
    /// Add it or give it these settings.
    Put(BackendSpec),
    /// Let it keep its connections and give it no new ones.
    Drain,
    /// Remove it.
    Remove,
}

impl Model {
    /// The networks by name.
    #[must_use]
    pub fn networks(&self) -> &OrdMap<Name, Shared<Network>> {
        &self.networks
    }

    /// The network of that name.
    #[must_use]
    pub fn network(&self, name: &str) -> Option<&Shared<Network>> {
        self.networks.get(name)
    }

    /// This model with one change of one network made to it.
    ///
    /// # Errors
    /// What is wrong with the change. This model is as it was in any case.
    pub fn change(&self, network: &str, change: &Change) -> Result<Self, Rejection> {
        if let Some(source) = self.networks.get(network).and_then(|network| network.source()) {
            return Err(observed(network, source));
        }
        match change {
            Change::PutNetwork(spec) => self.put_network(network, spec),
            Change::RemoveNetwork { remove_lb } => self.remove_network(network, *remove_lb),
            Change::PutAttachment { attachment, spec } => {
                let name = checked_name(&format!("networks.{network}.attachments.{attachment}"), attachment)?;
                self.edit(network, |network| network.put_attachment(&name, spec))
            }
            Change::RemoveAttachment { attachment } => {
                self.edit(network, |network| network.remove_attachment(attachment))
            }
            Change::Service { service, change } => match change {
                ServiceChange::Put(spec) => {
                    let name = checked_name(&format!("networks.{network}.services.{service}"), service)?;
                    self.edit(network, |network| network.put_service(&name, spec))
                }
                ServiceChange::Remove => self.edit(network, |network| network.remove_service(service)),
                ServiceChange::Backend { address, change } => self.edit(network, |network| match change {
                    BackendChange::Put(spec) => network.put_backend(service, *address, *spec),
                    BackendChange::Drain => network.drain_backend(service, *address),
                    BackendChange::Remove => network.remove_backend(service, *address),
                }),
            },
        }
    }

    fn put_network(&self, name: &str, spec: &NetworkSpec) -> Result<Self, Rejection> {
        let name = checked_name(&format!("networks.{name}"), name)?;
        let plan = checked_plan(&name, spec)?;
        let before = self.networks.get(&name);
        if let Some(before) = before {
            if before.plan() == plan {
                return Ok(self.clone());
            }
            if !before.is_empty() {
                let same_subnets = before.subnet() == plan.iter().map(Subnet::net).collect();
                let field = if same_subnets { "vip_prefix" } else { "subnet" };
                let reason = "cannot change while the network has services or attachments: remove them first";
                return Err(Rejection::conflict(format!("networks.{name}.{field}"), reason));
            }
        }
        if before.is_none() && self.networks.len() >= MAX_NETWORKS {
            let reason = format!("the limit of {MAX_NETWORKS} networks is reached");
            return Err(Rejection::conflict(format!("networks.{name}"), reason));
        }
        // What is observed is somebody else's choice.
        let made = self.networks.values().filter(|other| other.source().is_none());
        for other in made.filter(|other| *other.name() != name) {
            // Prefixes of different families have nothing in common.
            let mut pairs = plan.iter().filter_map(|ours| Some((ours.net(), *other.subnet().get(ours.family())?)));
            if let Some((ours, theirs)) = pairs.find(|(ours, theirs)| subnet::overlap(ours, theirs)) {
                return Err(overlap(&name, ours, theirs, other.name()));
            }
        }
        let network = Network::new(name, plan);
        self.with(match before {
            Some(before) => network.numbered_after(before),
            None => self.numbered_first(network),
        })
    }

    fn remove_network(&self, name: &str, remove_lb: bool) -> Result<Self, Rejection> {
        let field = format!("networks.{name}");
        let network = self.networks.get(name).ok_or_else(|| Rejection::not_found(&field))?;
        if !network.is_empty() && !remove_lb {
            let (services, attachments) = (network.services().len(), network.attachments().len());
            let reason = format!(
                "still has services ({services}) or attachments ({attachments}): remove them first, or ask for `remove_lb`"
            );
            return Err(Rejection::conflict(field, reason));
        }
        let ports = self.ports.with(Some(network), None)?;
        Ok(Self { networks: self.networks.without(name), ports, ..self.clone() })
    }

    fn edit(&self, name: &str, edit: impl FnOnce(&mut Network) -> Result<(), Rejection>) -> Result<Self, Rejection> {
        let before = self.networks.get(name).ok_or_else(|| Rejection::not_found(format!("networks.{name}")))?;
        let mut network = before.begin_change();
        edit(&mut network)?;
        network.settle_lb_endpoint()?;
        let network = network.numbered_after(before);
        let unchanged = network.generation() == before.generation()
            && network.attachments().diff(before.attachments()).next().is_none();
        if unchanged { Ok(self.clone()) } else { self.with(network) }
    }

    fn with(&self, network: Network) -> Result<Self, Rejection> {
        let before = self.networks.get(network.name()).map(|before| &**before);
        let ports = self.ports.with(before, Some(&network))?;
        Ok(Self { networks: self.networks.update(network.name().clone(), Shared::new(network)), ports, ..self.clone() })
    }

    /// This model, in which the tables of these networks go on after those generations: proxies have them already.
    #[must_use]
    pub fn going_on_after(mut self, generations: impl IntoIterator<Item = (Name, Generation)>) -> Self {
        for (name, generation) in generations {
            let first = generation.saturating_add(1);
            if let Some(network) = self.networks.get(&name).filter(|network| network.generation() < first) {
                let network = Network::clone(network).at_least(first);
                self.networks.insert(name.clone(), Shared::new(network));
            }
            self.first_generations.insert(name, first);
        }
        self
    }

    /// A network that there was not before.
    pub(super) fn numbered_first(&self, network: Network) -> Network {
        let least = self.first_generations.get(network.name()).copied().unwrap_or_default();
        network.at_least(least)
    }
}

/// Only its source changes a network that is observed.
pub(super) fn observed(name: &str, source: &str) -> Rejection {
    let reason = format!("is observed by source `{source}`: change it there");
    Rejection::conflict(format!("networks.{name}"), reason)
}

pub(super) fn checked_name(field: &str, name: &str) -> Result<Name, Rejection> {
    Name::new(name).map_err(|reason| Rejection::invalid(format!("{field}.name"), reason))
}

pub(super) fn checked_plan(name: &Name, spec: &NetworkSpec) -> Result<Families<Subnet>, Rejection> {
    subnet::checked(spec.subnet, spec.vip_prefix)
        .map_err(|(field, reason)| Rejection::invalid(format!("networks.{name}.{field}"), reason))
}

pub(super) fn overlap(name: &Name, ours: IpNet, theirs: IpNet, other: &Name) -> Rejection {
    let reason = format!("{ours} overlaps {theirs} of network `{other}`");
    Rejection::conflict(format!("networks.{name}.subnet"), reason)
}
