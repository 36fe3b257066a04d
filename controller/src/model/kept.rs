//! A model as a document, from which the same model can be made again.

use super::change::{checked_name, checked_plan};
use super::document::{AttachmentDocument, BackendDocument, DOCUMENT_VERSION, NetworkDocument, ServiceDocument};
use super::{DesiredState, Families, Generation, Model, Network, NetworkSpec, Rejection, Shared};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A whole model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// What should be, with all addresses that were chosen.
    pub state: DesiredState,
    /// What is not said by a desired state, by network.
    pub networks: BTreeMap<String, KeptNetwork>,
}

/// What is not said of a network by a desired state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptNetwork {
    /// The number of its table.
    pub generation: Generation,
    /// The addresses of its LB endpoint.
    pub lb_address: Option<Families<IpAddr>>,
}

impl Model {
    /// All of this model that is made here: what a source observes, it observes again.
    #[must_use]
    pub fn keep(&self) -> Kept {
        let made = || self.networks.values().filter(|network| network.source().is_none());
        let networks = made().map(|network| document(network)).collect();
        let rest = made().map(|network| {
            let kept = KeptNetwork { generation: network.generation(), lb_address: network.lb_address() };
            (network.name().to_string(), kept)
        });
        Kept { state: DesiredState { version: DOCUMENT_VERSION, networks }, networks: rest.collect() }
    }

    /// The model that `kept` was made from. Generations go on from where they were.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn restore(kept: &Kept) -> Result<Self, Rejection> {
        let mut networks = OrdMap::new();
        for document in &kept.state.networks {
            let Some(rest) = kept.networks.get(&document.name) else { continue };
            let name = checked_name(&format!("networks.{}", document.name), &document.name)?;
            let spec = NetworkSpec { subnet: document.subnet, vip_prefix: document.vip_prefix };
            let plan = checked_plan(&name, &spec)?;
            let remembered =
                Network::remembered(name.clone(), plan, rest.generation, rest.lb_address.unwrap_or_default());
            networks.insert(name, Shared::new(remembered));
        }
        Self { networks, ..Self::default() }.desired(&kept.state)
    }
}

fn document(network: &Network) -> NetworkDocument {
    let attachments = network.attachments().values().map(|attachment| AttachmentDocument {
        name: attachment.name.to_string(),
        netns: attachment.netns.clone(),
        ip: attachment.ip,
    });
    let services = network.services().in_order().map(|service| ServiceDocument {
        name: service.name.to_string(),
        vip: service.vip,
        settings: service.settings.clone(),
        published: service.published.iter().map(|port| (*port).into()).collect(),
        backends: service
            .backends
            .iter()
            .map(|(ip, backend)| BackendDocument {
                ip: *ip,
                weight: backend.weight,
                drain: backend.draining,
                backup: backend.backup,
            })
            .collect(),
    });
    NetworkDocument {
        name: network.name().to_string(),
        subnet: network.subnet(),
        vip_prefix: network.vip_prefix(),
        attachments: attachments.collect(),
        services: services.collect(),
    }
}
