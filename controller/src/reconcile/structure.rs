//! What of a network is in the kernel: its fabric, the attachments' legs, and the sandbox with its routes and sockets. Of
//! a network that is observed, the fabric and the sandbox's namespace are somebody else's.

use super::orphans::Orphan;
use super::{Settings, names};
use crate::model::{Attachment, Families, Name, Network, ObservedSandbox, Service, Services, Shared};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnet::IpNet;
use ringlb_netns::{
    Addresses, Fabric, Namespace, NetworkPlan, Sandbox, SteeredSockets, Subnets, clear, remove_leftover,
};
use ringlb_proxy::control::message::Protocol;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::Path;
use thiserror::Error;

/// Why a part of a network cannot be made.
#[derive(Debug, Error)]
pub(super) enum StructureError {
    #[error("{0}")]
    Netns(#[from] ringlb_netns::Error),
    #[error("cannot make the control socket {path}: {cause}")]
    ControlSocket { path: String, cause: io::Error },
}

/// What there is while the network needs something on this node.
#[derive(Debug)]
pub(super) struct Structure {
    ground: Ground,
    /// The attachments that were last tried, and among them those that failed.
    attachments: OrdMap<Name, Shared<Attachment>>,
    failed: BTreeMap<Name, String>,
    pub(super) sandbox: Option<Place>,
}

/// What the sandbox stands on.
#[derive(Debug)]
enum Ground {
    /// A fabric of ringlb's own.
    Made(Fabric),
    /// Somebody else's namespace.
    Observed(ObservedSandbox),
}

/// The sandbox and what belongs into it, ready for a proxy.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) sandbox: Sandbox,
    pub(super) lb_address: Families<IpAddr>,
    pub(super) steered: SteeredSockets,
    pub(super) control: OwnedFd,
    vip_prefix: Families<IpNet>,
    /// The services whose VIPs have a route.
    routed: Services,
}

impl Structure {
    pub(super) async fn make(settings: &Settings, network: &Network) -> Result<Self, StructureError> {
        let ground = match network.observed_sandbox() {
            Some(sandbox) => Ground::Observed(sandbox.clone()),
            None => {
                let name = network.name().to_string();
                let plan = NetworkPlan::new(settings.name_prefix.clone(), name, subnets(network));
                let mut fabric = Fabric::ensure(&plan).await?;
                if settings.shortcuts {
                    if let Err(error) = fabric.take_shortcuts().await {
                        tracing::info!(network = %network.name(), %error, "packets take the bridge");
                    }
                } else if let Err(error) = fabric.end_shortcuts().await {
                    log_all(network.name(), "cannot remove the shortcuts of an earlier daemon", &[error]);
                }
                Ground::Made(fabric)
            }
        };
        Ok(Self { ground, attachments: OrdMap::new(), failed: BTreeMap::new(), sandbox: None })
    }

    /// Whether this can become what `network` needs without being taken down.
    pub(super) fn serves(&self, network: &Network) -> bool {
        network.is_on_node()
            && match (&self.ground, network.observed_sandbox()) {
                (Ground::Made(fabric), None) => fabric.plan().subnets == subnets(network),
                (Ground::Observed(sandbox), Some(now)) => sandbox.identity == now.identity,
                _ => false,
            }
    }

    /// Whether the sandbox's namespace is somebody else's.
    pub(super) fn is_observed(&self) -> bool {
        matches!(self.ground, Ground::Observed(_))
    }

    /// Whether the sandbox that is there, if any, is one that `network` needs.
    pub(super) fn sandbox_serves(&self, network: &Network) -> bool {
        self.sandbox.as_ref().is_none_or(|place| {
            network.lb_address() == Some(place.lb_address) && network.vip_prefix() == place.vip_prefix
        })
    }

    /// Whether packets take shortcuts, by which UDP sessions can go past the proxy.
    pub(super) fn has_shortcuts(&self) -> bool {
        matches!(&self.ground, Ground::Made(fabric) if fabric.has_shortcuts())
    }

    /// The map by which the proxy says what goes past it of that protocol, where that is possible.
    pub(super) fn passing_map(&self, network: &Name, protocol: Protocol) -> Option<OwnedFd> {
        let Ground::Made(fabric) = &self.ground else { return None };
        let map = match protocol {
            Protocol::Udp => fabric.session_map(),
            Protocol::Tcp => fabric.connection_map(),
        };
        map.unwrap_or_else(|error| {
            tracing::warn!(%network, ?protocol, %error, "nothing goes past the proxy");
            None
        })
    }

    /// Has no sessions go past a proxy that has ended.
    pub(super) fn forget_sessions(&self, network: &Name) {
        if let Ground::Made(fabric) = &self.ground
            && let Err(error) = fabric.forget_sessions()
        {
            log_all(network, "UDP sessions may go past a proxy that has ended", &[error]);
        }
    }

    /// The attachments that could not be made, with the reason.
    pub(super) fn failed_attachments(&self) -> &BTreeMap<Name, String> {
        &self.failed
    }

    /// Connects and disconnects containers. What fails is noted; the rest is done.
    pub(super) async fn attach(&mut self, network: &Network) {
        let wanted = network.attachments();
        for difference in self.attachments.clone().diff(wanted) {
            match difference {
                DiffItem::Add(_, attachment) => self.connect(attachment).await,
                DiffItem::Remove(_, attachment) => self.disconnect(attachment).await,
                DiffItem::Update { old: (_, before), new: (_, attachment) } => {
                    // The same leg again is a repair: whatever is still right of it stays.
                    if **before != **attachment {
                        self.disconnect(before).await;
                    }
                    self.connect(attachment).await;
                }
            }
        }
        self.attachments = wanted.clone();
    }

    /// Tries the attachments again that failed.
    pub(super) async fn attach_failed(&mut self) {
        let names: Vec<_> = self.failed.keys().cloned().collect();
        for name in names {
            if let Some(attachment) = self.attachments.get(&name).cloned() {
                self.connect(&attachment).await;
            }
        }
    }

    /// Makes the sandbox, if it is not there, for so many data threads, and the routes to VIPs outside the VIP prefix.
    pub(super) async fn make_sandbox(
        &mut self,
        settings: &Settings,
        network: &Network,
        lb_address: Families<IpAddr>,
        threads: NonZeroUsize,
    ) -> Result<&mut Place, StructureError> {
        let place = match self.sandbox.take() {
            Some(place) => place,
            None => Place::make(settings, &self.ground, network, lb_address, threads).await?,
        };
        let place = self.sandbox.insert(place);
        place.route(network).await?;
        Ok(place)
    }

    /// Takes over the sandbox with the sockets of a proxy that an earlier daemon has left in it. Gives the number of data
    /// threads that share these.
    ///
    /// Fails, with the reason, if the proxy does not fit what `network` needs.
    pub(super) async fn adopt(
        &mut self,
        network: &Network,
        lb_address: Families<IpAddr>,
        orphan: &mut Orphan,
    ) -> Result<NonZeroUsize, String> {
        let (namespace, threads) = orphan.ground(lb_address.iter().count())?;
        let identity = namespace.identity().map_err(|error| error.to_string())?;
        let is_same = match &self.ground {
            Ground::Made(fabric) => Sandbox::is(fabric.plan(), identity, addresses(lb_address)).await,
            Ground::Observed(sandbox) => Ok(sandbox.identity == identity),
        };
        if !is_same.map_err(|error| error.to_string())? {
            return Err("it is in another sandbox than the network's".to_owned());
        }
        let place = Place::adopt(&self.ground, network, lb_address, orphan).await;
        self.sandbox = Some(place?);
        orphan.forget_foreign_ports();
        Ok(threads)
    }

    /// Removes the legs, and the sandbox, that an earlier daemon has left behind and that `network` does not need.
    pub(super) async fn remove_leftovers(&self, settings: &Settings, network: &Network) {
        let name = network.name();
        if network.lb_address().is_none() {
            // What is left of a proxy that died while its sandbox was being removed.
            remove_control_sockets(settings, name);
            remove_memory_group(settings, name);
            if let Ground::Made(fabric) = &self.ground {
                let errors = remove_leftover(&fabric.plan().sandbox_namespace()).await;
                log_all(name, "cannot remove the sandbox of an earlier daemon", &errors);
            }
        }
        let Ground::Made(fabric) = &self.ground else { return remove_namespaces(settings, name).await };
        let wanted: HashSet<_> = network.attachments().keys().map(|name| names::port_id(name)).collect();
        let ports = fabric.ports().await.unwrap_or_else(|error| {
            log_all(name, "cannot look for legs of an earlier daemon", &[error]);
            Vec::new()
        });
        // Attachments' ports are named so that they are told from the sandbox's.
        for port in ports.iter().filter(|port| names::is_port_id(port) && !wanted.contains(*port)) {
            if let Err(error) = fabric.disconnect(port).await {
                log_all(name, "cannot remove a leg of an earlier daemon", &[error]);
            }
        }
    }

    /// Removes the sandbox, in which there must be no proxy any more. Does all it can.
    pub(super) async fn remove_sandbox(&mut self, settings: &Settings, network: &Name) {
        let Some(place) = self.sandbox.take() else { return };
        remove_control_sockets(settings, network);
        drop((place.steered, place.control));
        remove_memory_group(settings, network);
        abandon(&self.ground, place.sandbox, network).await;
    }

    /// Removes all of it. Does all it can.
    pub(super) async fn remove(mut self, settings: &Settings, network: &Name) {
        self.remove_sandbox(settings, network).await;
        if let Ground::Made(fabric) = self.ground
            && let Err(errors) = fabric.remove().await
        {
            log_all(network, "cannot remove the fabric", &errors);
        }
    }

    async fn connect(&mut self, attachment: &Attachment) {
        let Ground::Made(fabric) = &self.ground else { return };
        let network = &fabric.plan().network;
        let result = match Namespace::open_path(Path::new(&attachment.netns)) {
            Ok(namespace) => {
                let interface = names::interface(network);
                let (port, addresses) = (names::port_id(&attachment.name), addresses(attachment.ip));
                fabric.connect(&port, &namespace, &interface, addresses).await
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                self.failed.remove(&attachment.name);
                let (name, ip) = (&attachment.name, attachment.ip);
                tracing::info!(%network, attachment = %name, %ip, "attached");
            }
            Err(error) => {
                let name = &attachment.name;
                let reason = error.to_string();
                if self.failed.insert(name.clone(), reason).is_none() {
                    tracing::error!(%network, attachment = %name, %error, "cannot attach");
                }
            }
        }
    }

    async fn disconnect(&mut self, attachment: &Attachment) {
        self.failed.remove(&attachment.name);
        let Ground::Made(fabric) = &self.ground else { return };
        let (network, name) = (&fabric.plan().network, &attachment.name);
        match fabric.disconnect(&names::port_id(name)).await {
            Ok(()) => tracing::info!(%network, attachment = %name, "detached"),
            Err(error) => tracing::error!(%network, attachment = %name, %error, "cannot detach"),
        }
    }
}

impl Ground {
    async fn sandbox(&self, lb_address: Families<IpAddr>) -> Result<Sandbox, ringlb_netns::Error> {
        match self {
            Self::Made(fabric) => Sandbox::ensure(fabric.plan(), fabric, addresses(lb_address)).await,
            Self::Observed(sandbox) => Sandbox::enter(&sandbox.path, sandbox.identity, addresses(lb_address)).await,
        }
    }
}

impl Place {
    /// The name of the sandbox's namespace, or the path of one that has none.
    pub(super) fn namespace(&self) -> String {
        self.sandbox.namespace().to_string()
    }

    async fn make(
        settings: &Settings,
        ground: &Ground,
        network: &Network,
        lb_address: Families<IpAddr>,
        threads: NonZeroUsize,
    ) -> Result<Self, StructureError> {
        let sandbox = ground.sandbox(lb_address).await?;
        let (steered, control) = match Self::equip(settings, &sandbox, network, lb_address, threads) {
            Ok(equipment) => equipment,
            Err(error) => {
                abandon(ground, sandbox, network.name()).await;
                return Err(error);
            }
        };
        let (vip_prefix, routed) = (network.vip_prefix(), Services::default());
        let mut place = Self { sandbox, lb_address, steered, control, vip_prefix, routed };
        // An earlier daemon may have left some behind, of VIPs that are somebody else's addresses by now.
        if let Err(error) = place.renew_routes(network).await {
            abandon(ground, place.sandbox, network.name()).await;
            return Err(error);
        }
        tracing::info!(
            network = %network.name(), sandbox = place.namespace(), %lb_address,
            steering = %place.steered.steering.kind(), "the sandbox is ready"
        );
        Ok(place)
    }

    async fn adopt(
        ground: &Ground,
        network: &Network,
        lb_address: Families<IpAddr>,
        orphan: &mut Orphan,
    ) -> Result<Self, String> {
        let sandbox = ground.sandbox(lb_address).await.map_err(|error| error.to_string())?;
        let (steered, control) = orphan.take_sockets()?;
        let (vip_prefix, routed) = (network.vip_prefix(), Services::default());
        let mut place = Self { sandbox, lb_address, steered, control, vip_prefix, routed };
        place.renew_routes(network).await.map_err(|error| error.to_string())?;
        Ok(place)
    }

    /// Makes the routes that are missing and removes those that are too many.
    async fn renew_routes(&mut self, network: &Network) -> Result<(), StructureError> {
        let prefixes = network.vip_prefix();
        for vip_prefix in prefixes.iter() {
            self.sandbox.add_vip_route(*vip_prefix).await?;
        }
        self.route(network).await?;
        let vips: HashSet<_> = network.services().values().flat_map(|service| service.vip.iter()).copied().collect();
        for route in self.sandbox.vip_routes().await? {
            let is_prefix = prefixes.iter().any(|prefix| *prefix == route);
            let is_vip = route.prefix_len() == route.max_prefix_len() && vips.contains(&route.addr());
            if !is_prefix && !is_vip {
                self.sandbox.remove_vip_route(route).await?;
            }
        }
        Ok(())
    }

    fn equip(
        settings: &Settings,
        sandbox: &Sandbox,
        network: &Network,
        lb_address: Families<IpAddr>,
        threads: NonZeroUsize,
    ) -> Result<(SteeredSockets, OwnedFd), StructureError> {
        // Where the LB endpoint's address is a VIP, as that of a container that holds one.
        let own_is_vip =
            network.services().values().any(|service| service.vip.iter().any(|vip| is_own(lb_address, *vip)));
        let open = if own_is_vip { SteeredSockets::open_on_own } else { SteeredSockets::open };
        let steered = open(sandbox.namespace(), addresses(lb_address), threads, None)?;
        match settings.control.listen(network.name()) {
            Ok(control) => Ok((steered, control)),
            Err(cause) => {
                let path = settings.control.path_of(network.name()).display().to_string();
                Err(StructureError::ControlSocket { path, cause })
            }
        }
    }

    /// The one route for each VIP prefix is there; a VIP elsewhere in the subnet needs one of its own.
    async fn route(&mut self, network: &Network) -> Result<(), StructureError> {
        let own_routes = |services: Option<&Shared<Service>>| {
            let vips: Vec<_> = services.iter().flat_map(|service| service.vip.iter()).copied().collect();
            vips.into_iter().filter(|vip| {
                !is_own(self.lb_address, *vip) && !self.vip_prefix.iter().any(|prefix| prefix.contains(vip))
            })
        };
        let mut added = HashSet::new();
        let mut removed = HashSet::new();
        for (before, after) in network.services().differences(&self.routed) {
            removed.extend(own_routes(before));
            added.extend(own_routes(after));
        }
        for vip in added.difference(&removed) {
            self.sandbox.add_vip_route((*vip).into()).await?;
        }
        for vip in removed.difference(&added) {
            self.sandbox.remove_vip_route((*vip).into()).await?;
        }
        self.routed = network.services().clone();
        Ok(())
    }
}

/// Removes all that an earlier daemon has left behind of a network. Does all it can.
pub(super) async fn remove_leftovers(settings: &Settings, network: &Name) {
    remove_control_sockets(settings, network);
    remove_memory_group(settings, network);
    remove_namespaces(settings, network).await;
}

/// Removes the control sockets of proxies that have ended.
fn remove_control_sockets(settings: &Settings, network: &Name) {
    if let Err(error) = settings.control.remove_all(network) {
        tracing::error!(%network, %error, "cannot remove a control socket");
    }
}

/// Removes the control group of a proxy that has ended.
fn remove_memory_group(settings: &Settings, network: &Name) {
    if let Err(error) = settings.memory.remove(network) {
        tracing::error!(%network, %error, "cannot remove the control group of a proxy");
    }
}

/// Leaves the namespace of a proxy that has ended as it was before, but for what ends with the namespace if it is the
/// network's own. Does all it can.
pub(super) async fn restore(network: &Name, namespace: &Namespace) {
    let (_, errors) = clear(namespace).await;
    log_all(network, "cannot remove what an earlier daemon has left in a sandbox", &errors);
}

/// Removes the namespaces that an earlier daemon made for a network.
async fn remove_namespaces(settings: &Settings, network: &Name) {
    let plan = NetworkPlan::new(settings.name_prefix.clone(), network.to_string(), Subnets::default());
    for namespace in [plan.sandbox_namespace(), plan.bridge_namespace()] {
        let errors = remove_leftover(&namespace).await;
        log_all(network, "cannot remove what an earlier daemon has left behind", &errors);
    }
}

/// Removes a sandbox, or leaves it as it was if it is somebody else's.
async fn abandon(ground: &Ground, sandbox: Sandbox, network: &Name) {
    let abandoned = match ground {
        Ground::Made(fabric) => sandbox.remove(fabric).await,
        Ground::Observed(_) => sandbox.leave().await,
    };
    if let Err(errors) = abandoned {
        log_all(network, "cannot remove the sandbox", &errors);
    }
}

/// Whether the kernel has a route for it by itself.
fn is_own(lb_address: Families<IpAddr>, vip: IpAddr) -> bool {
    lb_address.iter().any(|own| *own == vip)
}

fn subnets(network: &Network) -> Subnets {
    network.subnet().iter().copied().collect()
}

fn addresses(listed: Families<IpAddr>) -> Addresses {
    listed.iter().copied().collect()
}

fn log_all(network: &Name, what: &str, errors: &[ringlb_netns::Error]) {
    for error in errors {
        tracing::error!(%network, %error, "{what}");
    }
}
