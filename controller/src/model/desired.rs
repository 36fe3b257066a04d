//! A whole desired state as one change.

use super::address::Holder;
use super::change::{checked_name, checked_plan, observed, overlap};
use super::document::{AttachmentDocument, DOCUMENT_VERSION, NetworkDocument, ServiceDocument};
use super::limits::{MAX_ATTACHMENTS, MAX_NETWORKS, MAX_SERVICES};
use super::published::Ports;
use super::rejection::Rejections;
use super::{
    AttachmentSpec, DesiredState, Families, Model, Name, Network, NetworkSpec, OfFamily, Rejection, ServiceSpec, Shared,
};
use imbl::OrdMap;
use std::collections::HashSet;
use std::net::IpAddr;

impl Model {
    /// The model that `state` describes, and in it what sources observe as it is in this one. Names that this model has too keep the addresses that were chosen for them,
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
        let observed = self.networks.iter().filter(|(_, network)| network.source().is_some());
        let mut ports = Ports::default();
        for network in observed.clone().map(|(_, network)| network).chain(networks.values()) {
            for service in network.services().in_order() {
                rejections.note(ports.publish(network, service));
            }
        }
        networks.extend(observed.map(|(name, network)| (name.clone(), network.clone())));
        rejections.or(Self { networks, ports, ..self.clone() })
    }

    fn desired_network(&self, document: &NetworkDocument) -> Result<Shared<Network>, Rejection> {
        let name = checked_name(&format!("networks.{}", document.name), &document.name)?;
        let spec = NetworkSpec { subnet: document.subnet, vip_prefix: document.vip_prefix };
        let plan = checked_plan(&name, &spec)?;
        let earlier = self.networks.get(&name);
        if let Some(source) = earlier.and_then(|earlier| earlier.source()) {
            return Err(observed(&name, source));
        }
        let same_place = earlier.filter(|earlier| earlier.plan() == plan);

        let mut network = Network::new(name, plan);
        let publishes = document.services.iter().any(|service| !service.published.is_empty());
        let needs_sandbox = !document.services.is_empty() && (publishes || !document.attachments.is_empty());
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

        let Some(earlier) = earlier else { return Ok(Shared::new(self.numbered_first(network))) };
        let network = network.numbered_after(earlier);
        let unchanged = same_place.is_some()
            && network.generation() == earlier.generation()
            && network.attachments().diff(earlier.attachments()).next().is_none();
        Ok(if unchanged { earlier.clone() } else { Shared::new(network) })
    }
}

/// An entry of a list that can be placed in the network, as far as its addresses allow.
struct Entry<'a, D, T> {
    name: Name,
    document: &'a D,
    earlier: Option<&'a Shared<T>>,
    addresses: Request,
}

/// The addresses that an entry is to have.
struct Request {
    holder: Holder,
    /// What the addresses are called in an error.
    field: String,
    asked: Families<IpAddr>,
    earlier: Families<IpAddr>,
    /// Those that it has so far.
    held: Families<IpAddr>,
    refused: bool,
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
        let (mut names, mut netns) = (HashSet::new(), HashSet::new());
        let mut entries = Vec::with_capacity(documents.len());
        for document in documents {
            let field = self.field(&format!("attachments.{}", document.name));
            let Some(name) = rejections.note(new_name(&field, &document.name, &mut names)) else { continue };
            if !netns.insert(document.netns.as_str()) {
                let reason = format!("{:?} is attached twice", document.netns);
                rejections.note::<()>(Err(Rejection::invalid(format!("{field}.netns"), reason)));
                continue;
            }
            let earlier = before.and_then(|network| network.attachments().get(&name));
            let held_before = earlier.map(|attachment| attachment.ip).unwrap_or_default();
            let holder = Holder::Attachment(name.clone());
            let addresses = Request::new(holder, format!("{field}.ip"), document.ip, held_before);
            entries.push(Entry { name, document, earlier, addresses });
        }
        self.reserve_all(entries.iter_mut().map(|entry| &mut entry.addresses).collect(), rejections);
        for Entry { name, document, earlier, addresses } in entries {
            if addresses.refused || rejections.is_full() {
                continue;
            }
            let spec = AttachmentSpec { netns: document.netns.clone(), ip: addresses.held };
            if rejections.note(self.place_attachment(&name, &spec, addresses.held)).is_some() {
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
        let mut names = HashSet::new();
        let mut entries = Vec::with_capacity(documents.len());
        for document in documents {
            let field = self.field(&format!("services.{}", document.name));
            let Some(name) = rejections.note(new_name(&field, &document.name, &mut names)) else { continue };
            let earlier = before.and_then(|network| network.services().get(&name));
            let held_before = earlier.map(|service| service.vip).unwrap_or_default();
            let holder = Holder::Service(name.clone());
            let addresses = Request::new(holder, format!("{field}.vip"), document.vip, held_before);
            entries.push(Entry { name, document, earlier, addresses });
        }
        self.reserve_all(entries.iter_mut().map(|entry| &mut entry.addresses).collect(), rejections);
        for Entry { name, document, earlier, addresses } in entries {
            if addresses.refused || rejections.is_full() {
                continue;
            }
            let (vip, backends) = (addresses.held, Some(document.backends.clone()));
            let (settings, published) = (document.settings.clone(), document.published.clone());
            let spec = ServiceSpec { vip, settings, published, backends };
            if rejections.note(self.place_service(&name, &spec, addresses.held)).is_some() {
                self.share_service(earlier);
            }
        }
    }

    /// Gives all addresses that are known: those that were chosen or given before, then those that are asked for by
    /// number. The rest is chosen later. So neither moves what is in use, and the order in the document means nothing
    /// for the first two.
    fn reserve_all(&mut self, mut requests: Vec<&mut Request>, rejections: &mut Rejections) {
        for kept in [true, false] {
            for request in &mut requests {
                let wanted = request.asked.or(request.earlier);
                let is_kept = |address: &&IpAddr| request.earlier.get(address.family()) == Some(*address);
                for address in wanted.iter().filter(|address| is_kept(address) == kept) {
                    if rejections.note(self.reserve(*address, &request.holder, &request.field)).is_some() {
                        request.held.put(*address);
                    } else {
                        request.refused = true;
                    }
                }
            }
        }
    }
}

impl Request {
    fn new(holder: Holder, field: String, asked: Families<IpAddr>, earlier: Families<IpAddr>) -> Self {
        Self { holder, field, asked, earlier, held: Families::default(), refused: false }
    }
}

/// The name of an entry, if it is a good one and not among `names` yet.
fn new_name(field: &str, name: &str, names: &mut HashSet<Name>) -> Result<Name, Rejection> {
    let name = checked_name(field, name)?;
    if names.insert(name.clone()) { Ok(name) } else { Err(Rejection::invalid(field, "is listed twice")) }
}

/// Sorted by their first address, subnets that overlap are neighbours.
fn check_overlaps(networks: &OrdMap<Name, Shared<Network>>) -> Result<(), Rejection> {
    let mut sorted = Vec::new();
    for network in networks.values() {
        sorted.extend(network.subnet().iter().map(|subnet| (*subnet, network.name())));
    }
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0].0.contains(&pair[1].0)) {
        Some(&[(outer, holder), (inner, name)]) => Err(overlap(name, inner, outer, holder)),
        Some(_) => Ok(()),
        None => Ok(()),
    }
}
