//! A whole desired state as one change.

use super::change::{checked_name, checked_subnet, overlap};
use super::document::{AttachmentDocument, DOCUMENT_VERSION, NetworkDocument, ServiceDocument};
use super::limits::{MAX_ATTACHMENTS, MAX_NETWORKS, MAX_SERVICES};
use super::rejection::Rejections;
use super::{AttachmentSpec, DesiredState, Model, Name, Network, NetworkSpec, Rejection, ServiceSpec, Shared};
use imbl::OrdMap;
use std::collections::HashSet;

impl Model {
    /// The model that `state` describes. Names that this model has too keep the addresses that were chosen for them,
    /// and networks in which nothing changes keep their generation.
    ///
    /// # Errors
    /// All that is wrong with the state, as far as one look can tell. This model is as it was in any case.
    pub fn desired(&self, state: &DesiredState) -> Result<Self, Rejection> {
        if state.version != DOCUMENT_VERSION {
            let reason = format!("is {}, this program reads version {DOCUMENT_VERSION}", state.version);
            return Err(Rejection::invalid("version", reason));
        }
        if state.networks.len() > MAX_NETWORKS {
            return Err(Rejection::invalid("networks", format!("has more than {MAX_NETWORKS} entries")));
        }
        let mut rejections = Rejections::default();
        let mut networks = OrdMap::new();
        for document in &state.networks {
            if rejections.is_full() {
                break;
            }
            let Some(network) = rejections.note(self.desired_network(document)) else { continue };
            let name = network.name().clone();
            if networks.insert(name.clone(), network).is_some() {
                rejections.note::<()>(Err(Rejection::invalid(format!("networks.{name}"), "is listed twice")));
            }
        }
        rejections.note(check_overlaps(&networks));
        rejections.or(Self { networks })
    }

    fn desired_network(&self, document: &NetworkDocument) -> Result<Shared<Network>, Rejection> {
        let name = checked_name(&format!("networks.{}", document.name), &document.name)?;
        let spec = NetworkSpec { subnet: document.subnet, vip_prefix: document.vip_prefix };
        let subnet = checked_subnet(&name, &spec)?;
        let earlier = self.networks.get(&name);
        let same_place = earlier.filter(|earlier| earlier.plan() == subnet);

        let mut network = Network::new(name, subnet);
        let needs_sandbox = !document.attachments.is_empty() && !document.services.is_empty();
        if let Some(before) = same_place.filter(|_| needs_sandbox) {
            network.keep_lb_address(before);
        }
        let mut rejections = Rejections::default();
        // No address of a backend may be chosen for a container that did not ask for it.
        let held = network.hold_backends(&document.services);
        network.place_attachments(&document.attachments, same_place.map(|before| &**before), &mut rejections);
        network.let_backends_go(held);
        network.place_services(&document.services, same_place.map(|before| &**before), &mut rejections);
        rejections.note(network.settle_lb_endpoint());
        let network = rejections.or(network)?;

        let Some(earlier) = earlier else { return Ok(Shared::new(network)) };
        let network = network.numbered_after(earlier);
        let unchanged = same_place.is_some()
            && network.generation() == earlier.generation()
            && network.attachments().diff(earlier.attachments()).next().is_none();
        Ok(if unchanged { earlier.clone() } else { Shared::new(network) })
    }
}

/// The order in which addresses are given: those that were chosen before, then those that are asked for by number,
/// then the rest. So neither moves what is in use, and the order in the document means nothing for the first two.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Kept,
    Asked,
    Chosen,
}

impl Network {
    fn place_attachments(
        &mut self,
        documents: &[AttachmentDocument],
        before: Option<&Self>,
        rejections: &mut Rejections,
    ) {
        if documents.len() > MAX_ATTACHMENTS {
            let reason = format!("has more than {MAX_ATTACHMENTS} entries");
            rejections.note::<()>(Err(Rejection::invalid(self.field("attachments"), reason)));
            return;
        }
        let mut netns = HashSet::new();
        let mut in_turn = Vec::with_capacity(documents.len());
        for document in documents {
            let earlier = before.and_then(|network| network.attachments().get(document.name.as_str()));
            let ip = document.ip.or_else(|| earlier.map(|attachment| attachment.ip));
            let turn = turn(document.ip.is_some(), earlier.is_some_and(|earlier| Some(earlier.ip) == ip));
            in_turn.push((turn, document, earlier, ip));
        }
        in_turn.sort_by(|one, two| one.0.cmp(&two.0));
        for (_, document, earlier, ip) in in_turn {
            if rejections.is_full() {
                return;
            }
            let field = self.field(&format!("attachments.{}", document.name));
            let Some(name) = rejections.note(checked_name(&field, &document.name)) else { continue };
            if self.attachments().contains_key(&name) {
                rejections.note::<()>(Err(Rejection::invalid(field, "is listed twice")));
                continue;
            }
            if !netns.insert(document.netns.as_str()) {
                let reason = format!("{:?} is attached twice", document.netns);
                rejections.note::<()>(Err(Rejection::invalid(format!("{field}.netns"), reason)));
                continue;
            }
            let spec = AttachmentSpec { netns: document.netns.clone(), ip };
            if rejections.note(self.place_attachment(&name, &spec)).is_some() {
                self.share_attachment(earlier);
            }
        }
    }

    fn place_services(&mut self, documents: &[ServiceDocument], before: Option<&Self>, rejections: &mut Rejections) {
        if documents.len() > MAX_SERVICES {
            let reason = format!("has more than {MAX_SERVICES} entries");
            rejections.note::<()>(Err(Rejection::invalid(self.field("services"), reason)));
            return;
        }
        let mut in_turn = Vec::with_capacity(documents.len());
        for document in documents {
            let earlier = before.and_then(|network| network.services().get(document.name.as_str()));
            let vip = document.vip.or_else(|| earlier.map(|service| service.vip));
            let turn = turn(document.vip.is_some(), earlier.is_some_and(|earlier| Some(earlier.vip) == vip));
            in_turn.push((turn, document, earlier, vip));
        }
        in_turn.sort_by(|one, two| one.0.cmp(&two.0));
        for (_, document, earlier, vip) in in_turn {
            if rejections.is_full() {
                return;
            }
            let field = self.field(&format!("services.{}", document.name));
            let Some(name) = rejections.note(checked_name(&field, &document.name)) else { continue };
            if self.services().contains_key(&name) {
                rejections.note::<()>(Err(Rejection::invalid(field, "is listed twice")));
                continue;
            }
            let spec =
                ServiceSpec { vip, settings: document.settings.clone(), backends: Some(document.backends.clone()) };
            if rejections.note(self.put_service(&name, &spec)).is_some() {
                self.share_service(earlier);
            }
        }
    }
}

fn turn(asked: bool, kept: bool) -> Turn {
    match (asked, kept) {
        (_, true) => Turn::Kept,
        (true, false) => Turn::Asked,
        (false, false) => Turn::Chosen,
    }
}

/// Sorted by their first address, subnets that overlap are neighbours.
fn check_overlaps(networks: &OrdMap<Name, Shared<Network>>) -> Result<(), Rejection> {
    let mut sorted: Vec<_> = networks.values().collect();
    sorted.sort_by_key(|network| (network.subnet().network(), network.subnet().prefix_len()));
    match sorted.windows(2).find(|pair| pair[0].subnet().contains(&pair[1].subnet())) {
        Some(pair) => Err(overlap(pair[1].name(), pair[1].plan(), pair[0])),
        None => Ok(()),
    }
}
