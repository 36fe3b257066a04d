//! One network with all that belongs to it, and the ways to change it.
//!
//! The functions that change a network may leave it half changed when they fail: [`super::Model`] works on a copy and
//! drops it then.

use super::address::{Addresses, Holder, Refusal};
use super::document::{BackendDocument, ServiceDocument};
use super::limits::{MAX_ATTACHMENTS, MAX_BACKENDS, MAX_SERVICES};
use super::published;
use super::subnet::Subnet;
use super::{
    AttachmentSpec, BackendSpec, Backends, Families, Name, ObservedSandbox, Rejection, ServiceSpec, Services, Weight,
};
use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;
use ringlb_proxy::control::message::{Generation, PublishedPort, ServiceSettings};
use ringlb_proxy::table::pool::Pooled;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;

/// A value in a persistent map. Two are equal only if they are the same one: that makes the comparison of two maps
/// skip what was not touched without looking into it.
pub type Shared<T> = Pooled<T>;

/// A network.
#[derive(Debug, Clone)]
pub struct Network {
    name: Name,
    /// What a source observes of it; none if it is made here.
    observation: Option<Observation>,
    /// Empty in a network that is observed.
    addresses: Addresses,
    generation: Generation,
    /// Empty while there is no LB endpoint.
    lb_address: Families<IpAddr>,
    attachments: OrdMap<Name, Shared<Attachment>>,
    services: Services,
    /// The services that prefer local backends: those that an attachment may matter to.
    local_first: OrdSet<Name>,
    /// How many ports its services publish.
    published: usize,
}

/// What a source observes of a network, but for the services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) source: &'static str,
    pub(super) subnet: Families<IpNet>,
    pub(super) sandbox: Option<ObservedSandbox>,
}

/// A container's leg on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name, unique in the network.
    pub name: Name,
    /// The path of the container's network namespace.
    pub netns: String,
    /// The container's addresses, one in each subnet of the network.
    pub ip: Families<IpAddr>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name, unique in the network.
    pub name: Name,
    /// Its virtual addresses, one in each subnet of the network.
    pub vip: Families<IpAddr>,
    /// What is set for it.
    pub settings: ServiceSettings,
    /// The ports under which it is published, in their order.
    pub published: Vec<PublishedPort>,
    /// The backends by their address.
    pub backends: Backends,
}

/// A backend's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Its share of new connections.
    pub weight: Weight,
    /// Whether it keeps the connections it has and gets no new ones.
    pub draining: bool,
    /// Whether it is used only when no other backend can be.
    pub backup: bool,
    /// Whether it is on this node. Looked at only where the service prefers those, else false.
    pub local: bool,
}

impl Network {
    /// The network's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// All its addresses: a subnet of either address family, or one of each.
    #[must_use]
    pub fn subnet(&self) -> Families<IpNet> {
        if let Some(observation) = &self.observation {
            return observation.subnet;
        }
        self.plan().iter().map(Subnet::net).collect()
    }

    /// The source that observes it; none if it is made here.
    #[must_use]
    pub fn source(&self) -> Option<&'static str> {
        self.observation.as_ref().map(|observation| observation.source)
    }

    /// The sandbox that a source observes, while there is one.
    #[must_use]
    pub fn observed_sandbox(&self) -> Option<&ObservedSandbox> {
        self.observation.as_ref()?.sandbox.as_ref()
    }

    /// The part of each subnet out of which VIPs are chosen. None if somebody else chooses them.
    #[must_use]
    pub fn vip_prefix(&self) -> Families<IpNet> {
        self.plan().iter().map(Subnet::vip_prefix).collect()
    }

    /// The number of its table: it grows with every batch that changes a service or a backend.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The addresses of the LB endpoint, one in each subnet. They are there exactly while the network needs a proxy:
    /// while it has a service, and an attachment or a published port; and if it is observed, while it has a service and a
    /// sandbox.
    #[must_use]
    pub fn lb_address(&self) -> Option<Families<IpAddr>> {
        (!self.lb_address.is_empty()).then_some(self.lb_address)
    }

    /// Whether anything of a network that is made here has to be on this node.
    #[must_use]
    pub fn is_on_node(&self) -> bool {
        !self.attachments.is_empty() || !self.lb_address.is_empty()
    }

    /// The attachments by name.
    #[must_use]
    pub fn attachments(&self) -> &OrdMap<Name, Shared<Attachment>> {
        &self.attachments
    }

    /// The services by name.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.services
    }

    pub(super) fn new(name: Name, plan: Families<Subnet>) -> Self {
        Self {
            name,
            observation: None,
            addresses: Addresses::new(plan),
            generation: 1,
            lb_address: Families::default(),
            attachments: OrdMap::new(),
            services: Services::default(),
            local_first: OrdSet::new(),
            published: 0,
        }
    }

    /// A network as a source observes it.
    pub(super) fn observed(name: Name, observation: Observation, services: Services) -> Self {
        let lb_address = observation.sandbox.as_ref().map(|sandbox| sandbox.lb_address).unwrap_or_default();
        let lb_address = if services.is_empty() { Families::default() } else { lb_address };
        Self { observation: Some(observation), lb_address, services, ..Self::new(name, Families::default()) }
    }

    /// A copy to be changed, which can be compared with this network at the cost of what is changed.
    pub(super) fn begin_change(&self) -> Self {
        let mut network = self.clone();
        network.services.begin_change();
        network
    }

    pub(super) fn observation(&self) -> Option<&Observation> {
        self.observation.as_ref()
    }

    /// This network in a generation that is at least `least`.
    pub(super) fn at_least(mut self, least: Generation) -> Self {
        self.generation = self.generation.max(least);
        self
    }

    /// An empty network that only says what its next state has to go on from.
    pub(super) fn remembered(
        name: Name,
        plan: Families<Subnet>,
        generation: Generation,
        lb_address: Families<IpAddr>,
    ) -> Self {
        Self { generation, lb_address, ..Self::new(name, plan) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.attachments.is_empty() && self.services.is_empty()
    }

    pub(super) fn plan(&self) -> Families<Subnet> {
        self.addresses.subnets()
    }

    /// Where something of this network stands, as errors name it.
    pub(super) fn field(&self, rest: &str) -> String {
        format!("networks.{}.{rest}", self.name)
    }

    pub(super) fn put_attachment(&mut self, name: &Name, spec: &AttachmentSpec) -> Result<(), Rejection> {
        let same_netns = |other: &&Shared<Attachment>| other.name != *name && other.netns == spec.netns;
        if let Some(other) = self.attachments.values().find(same_netns) {
            let reason = format!("{:?} is already attached to this network as `{}`", spec.netns, other.name);
            return Err(Rejection::conflict(self.field(&format!("attachments.{name}.netns")), reason));
        }
        let held = self.attachments.get(name).map(|attachment| attachment.ip).unwrap_or_default();
        self.place_attachment(name, spec, held)
    }

    /// As [`Self::put_attachment`], for a caller that knows that no other attachment has the namespace, and which
    /// addresses the attachment holds already.
    pub(super) fn place_attachment(
        &mut self,
        name: &Name,
        spec: &AttachmentSpec,
        held: Families<IpAddr>,
    ) -> Result<(), Rejection> {
        let field = self.field(&format!("attachments.{name}"));
        check_path(&spec.netns).map_err(|reason| Rejection::invalid(format!("{field}.netns"), reason))?;
        if !self.attachments.contains_key(name) && self.attachments.len() >= MAX_ATTACHMENTS {
            return Err(limit(field, MAX_ATTACHMENTS, "attachments", "a network"));
        }
        let holder = Holder::Attachment(name.clone());
        let ip = self.addresses.settle(&holder, spec.ip, held).map_err(at(&format!("{field}.ip")))?;
        // The same again counts as a change: it asks for a look at the leg, which the container may have lost.
        let attachment = Attachment { name: name.clone(), netns: spec.netns.clone(), ip };
        self.attachments.insert(name.clone(), Shared::new(attachment));
        for address in held.iter().chain(ip.iter()) {
            self.settle_locality(*address);
        }
        Ok(())
    }

    pub(super) fn remove_attachment(&mut self, name: &str) -> Result<(), Rejection> {
        let attachment = self
            .attachments
            .remove(name)
            .ok_or_else(|| Rejection::not_found(self.field(&format!("attachments.{name}"))))?;
        self.addresses.release(attachment.ip);
        for address in attachment.ip.iter() {
            self.settle_locality(*address);
        }
        Ok(())
    }

    pub(super) fn put_service(&mut self, name: &Name, spec: &ServiceSpec) -> Result<(), Rejection> {
        let held = self.services.get(name).map(|service| service.vip).unwrap_or_default();
        self.place_service(name, spec, held)
    }

    /// As [`Self::put_service`], for a caller that knows which addresses the service holds already.
    pub(super) fn place_service(
        &mut self,
        name: &Name,
        spec: &ServiceSpec,
        held: Families<IpAddr>,
    ) -> Result<(), Rejection> {
        let field = self.field(&format!("services.{name}"));
        let before = self.services.get(name).cloned();
        if before.is_none() && self.services.len() >= MAX_SERVICES {
            return Err(limit(field, MAX_SERVICES, "services", "a network"));
        }
        spec.settings.check().map_err(|(setting, reason)| Rejection::invalid(format!("{field}.{setting}"), reason))?;
        let ports = published::checked(&field, &spec.published)?;
        let holder = Holder::Service(name.clone());
        let vip = self.addresses.settle(&holder, spec.vip, held).map_err(at(&format!("{field}.vip")))?;
        let backends = match (&spec.backends, before.as_deref()) {
            (Some(listed), before) => self.list_backends(&field, listed, spec.settings.prefer_local, before)?,
            (None, Some(before)) if before.settings.prefer_local == spec.settings.prefer_local => {
                before.backends.clone()
            }
            (None, Some(before)) => self.located(&before.backends, spec.settings.prefer_local),
            (None, None) => Backends::default(),
        };
        if spec.settings.prefer_local {
            self.local_first.insert(name.clone());
        } else {
            self.local_first.remove(name);
        }
        self.published += ports.len();
        self.published -= before.as_ref().map_or(0, |before| before.published.len());
        let service = Service { name: name.clone(), vip, settings: spec.settings.clone(), published: ports, backends };
        if before.as_deref() != Some(&service) {
            self.services.put(Shared::new(service));
        }
        Ok(())
    }

    pub(super) fn remove_service(&mut self, name: &str) -> Result<(), Rejection> {
        let service =
            self.services.remove(name).ok_or_else(|| Rejection::not_found(self.field(&format!("services.{name}"))))?;
        self.local_first.remove(name);
        self.published -= service.published.len();
        self.addresses.release(service.vip);
        for address in service.backends.addresses() {
            self.addresses.remove_backend(address);
        }
        Ok(())
    }

    pub(super) fn put_backend(&mut self, service: &str, address: IpAddr, spec: BackendSpec) -> Result<(), Rejection> {
        let before = self.service_to_change(service, address)?;
        let field = || self.field(&format!("services.{service}.backends.{address}"));
        let local = before.settings.prefer_local && self.addresses.is_attached(address);
        let backend = Backend { weight: spec.weight, draining: spec.drain, backup: spec.backup, local };
        match before.backends.get(&address) {
            Some(same) if *same == backend => return Ok(()),
            Some(_) => {}
            None => {
                if before.backends.len() >= MAX_BACKENDS {
                    return Err(limit(field(), MAX_BACKENDS, "backends", "a service"));
                }
                let field = field();
                self.addresses.add_backend(address).map_err(at(&field))?;
            }
        }
        let mut service = Service::clone(&before);
        service.backends.insert(address, backend);
        self.services.put(Shared::new(service));
        Ok(())
    }

    pub(super) fn drain_backend(&mut self, service: &str, address: IpAddr) -> Result<(), Rejection> {
        let before = self.service_to_change(service, address)?;
        let Some(backend) = before.backends.get(&address) else {
            return Err(Rejection::not_found(self.field(&format!("services.{service}.backends.{address}"))));
        };
        let spec = BackendSpec { weight: backend.weight, drain: true, backup: backend.backup };
        self.put_backend(service, address, spec)
    }

    pub(super) fn remove_backend(&mut self, service: &str, address: IpAddr) -> Result<(), Rejection> {
        let mut changed = Service::clone(self.service_to_change(service, address)?.deref());
        if changed.backends.remove(&address).is_none() {
            return Err(Rejection::not_found(self.field(&format!("services.{service}.backends.{address}"))));
        }
        self.addresses.remove_backend(address);
        self.services.put(Shared::new(changed));
        Ok(())
    }

    /// Gives the LB endpoint its addresses or takes them back, as the network needs it now.
    pub(super) fn settle_lb_endpoint(&mut self) -> Result<(), Rejection> {
        let held = std::mem::take(&mut self.lb_address);
        if self.services.is_empty() || self.attachments.is_empty() && self.published == 0 {
            self.addresses.release(held);
            return Ok(());
        }
        let settled = self.addresses.settle(&Holder::LbEndpoint, Families::default(), held);
        self.lb_address = settled.map_err(at(&self.field("lb_address")))?;
        Ok(())
    }

    /// This network in the generation after `before`, if it differs from it in what a table shows.
    pub(super) fn numbered_after(mut self, before: &Self) -> Self {
        let changed = self.services.differences(&before.services).next().is_some();
        self.generation = before.generation + u64::from(changed);
        self
    }

    /// Puts back the value that `before` had for an attachment, if it is the same, so that the two can be seen to be.
    pub(super) fn share_attachment(&mut self, before: Option<&Shared<Attachment>>) {
        if let Some(before) = before
            && self.attachments.get(&before.name).is_some_and(|now| **now == **before)
        {
            self.attachments.insert(before.name.clone(), before.clone());
        }
    }

    /// As [`Self::share_attachment`], for a service.
    pub(super) fn share_service(&mut self, before: Option<&Shared<Service>>) {
        if let Some(before) = before
            && self.services.get(&before.name).is_some_and(|now| **now == **before)
        {
            self.services.put(before.clone());
        }
    }

    /// Counts the backends of services that are still to be put. Those that cannot be are refused later, with their
    /// field.
    pub(super) fn hold_backends(&mut self, services: &[ServiceDocument]) -> Vec<IpAddr> {
        let listed = services.iter().flat_map(|service| &service.backends).map(|backend| backend.ip);
        listed.filter(|ip| self.addresses.add_backend(*ip).is_ok()).collect()
    }

    /// Takes [`Self::hold_backends`] back.
    pub(super) fn let_backends_go(&mut self, held: Vec<IpAddr>) {
        for address in held {
            self.addresses.remove_backend(address);
        }
    }

    /// An empty network that keeps from `before` what the same names are to keep: the LB endpoint's addresses.
    pub(super) fn keep_lb_address(&mut self, before: &Self) {
        let taken =
            before.lb_address.iter().filter(|address| self.addresses.take(**address, &Holder::LbEndpoint).is_ok());
        self.lb_address = taken.copied().collect();
    }

    /// Gives `address` to what stands at `field`, and is still to be placed.
    pub(super) fn reserve(&mut self, address: IpAddr, holder: &Holder, field: &str) -> Result<(), Rejection> {
        self.addresses.take(address, holder).map_err(at(field))
    }

    /// Sees to it that backends with that address are local or not, as there is an attachment with it or not.
    fn settle_locality(&mut self, address: IpAddr) {
        let local = self.addresses.is_attached(address);
        for name in &self.local_first {
            let Some(service) = self.services.get(name) else { continue };
            let Some(backend) = service.backends.get(&address).filter(|backend| backend.local != local) else {
                continue;
            };
            let mut changed = Service::clone(service);
            changed.backends.insert(address, Backend { local, ..*backend });
            self.services.put(Shared::new(changed));
        }
    }

    /// The same backends, with their place looked at or not.
    fn located(&self, backends: &Backends, prefer_local: bool) -> Backends {
        let locate = |(address, backend): (&IpAddr, &Backend)| {
            (*address, Backend { local: prefer_local && self.addresses.is_attached(*address), ..*backend })
        };
        backends.iter().map(locate).collect()
    }

    /// The service of that name, whose backend with that address is going to be changed.
    fn service_to_change(&self, name: &str, address: IpAddr) -> Result<Shared<Service>, Rejection> {
        let service = self.services.get_to_change(name).cloned();
        let service = service.ok_or_else(|| Rejection::not_found(self.field(&format!("services.{name}"))))?;
        service.backends.fetch_for(address);
        Ok(service)
    }

    /// The backends of a list, counted in the address book in place of those that the service had before.
    fn list_backends(
        &mut self,
        field: &str,
        listed: &[BackendDocument],
        prefer_local: bool,
        before: Option<&Service>,
    ) -> Result<Backends, Rejection> {
        if listed.len() > MAX_BACKENDS {
            return Err(limit(format!("{field}.backends"), MAX_BACKENDS, "backends", "a service"));
        }
        for address in before.iter().flat_map(|service| service.backends.addresses()) {
            self.addresses.remove_backend(address);
        }
        let mut backends = BTreeMap::new();
        for BackendDocument { ip, weight, drain, backup } in listed {
            let entry = || format!("{field}.backends.{ip}");
            let local = prefer_local && self.addresses.is_attached(*ip);
            let backend = Backend { weight: *weight, draining: *drain, backup: *backup, local };
            if backends.insert(*ip, backend).is_some() {
                return Err(Rejection::invalid(entry(), "is listed twice"));
            }
            self.addresses.add_backend(*ip).map_err(at(&entry()))?;
        }
        Ok(backends.into_iter().collect())
    }
}

fn check_path(path: &str) -> Result<(), String> {
    match path {
        "" => Err("is empty: give the path of a network namespace such as `/run/netns/c1`".to_owned()),
        path if !path.starts_with('/') => Err(format!("{path:?} is not an absolute path")),
        path if path.len() > 4095 || path.contains('\0') => Err("is not a path that the kernel would take".to_owned()),
        _ => Ok(()),
    }
}

fn limit(field: String, limit: usize, what: &str, of: &str) -> Rejection {
    Rejection::conflict(field, format!("the limit of {limit} {what} for {of} is reached"))
}

/// Puts an address's refusal into a field.
fn at(field: &str) -> impl FnOnce(Refusal) -> Rejection {
    let field = field.to_owned();
    move |(kind, reason)| Rejection::new(kind, field, reason)
}
