//! The namespace in which a network's proxy lives.

use crate::announcer::Announcer;
use crate::fabric::mac_of;
use crate::neighbours::answer_solicitations;
use crate::{Addresses, Error, Fabric, Links, Namespace, NetworkPlan, Result, Subnets, clear, parameters};
use ipnet::IpNet;
use std::path::Path;

const INTERFACE: &str = "eth0";
const PORT_ID: &str = "lb";

/// The namespace in which a network's proxy lives on this node. Its interface `eth0` has the LB endpoint's
/// addresses, one for each family of the network; VIPs are local routes.
#[derive(Debug, Clone)]
pub struct Sandbox {
    links: Links,
    addresses: Addresses,
    announcer: Option<Announcer>,
}

impl Sandbox {
    /// Makes the network's sandbox, connected to its bridge, or takes over the one that is there with its VIPs.
    ///
    /// # Errors
    /// If there is not one address in each of the network's subnets, or the process lacks the capabilities.
    pub async fn ensure(plan: &NetworkPlan, fabric: &Fabric, lb_addresses: impl Into<Addresses>) -> Result<Self> {
        let addresses = lb_addresses.into();
        plan.check()?;
        check(plan.subnets, addresses)?;
        let namespace = Namespace::create(&plan.sandbox_namespace())?;
        parameters::set(&namespace, addresses)?;
        fabric.connect(PORT_ID, &namespace, INTERFACE, addresses).await?;
        if let Some(mac) = mac_of(addresses) {
            fabric.set_sandbox(mac);
        }
        let links = namespace.links().await?;
        if let (Some(own_address), Some(mac)) = (addresses.v6, mac_of(addresses)) {
            answer_solicitations(&namespace, INTERFACE, own_address, mac)?;
        }
        let announcer = Announcer::of(&links, INTERFACE).await?;
        Ok(Self { links, addresses, announcer })
    }

    /// Takes somebody else's namespace as the sandbox, if it is the one with that identity ([`Namespace::identity`]). Its
    /// interfaces, addresses, rules and forwarding stay as they are; what is set is what the sockets of a proxy need.
    ///
    /// # Errors
    /// If there is no namespace at the path, or another one, or the process lacks the capabilities.
    pub async fn enter(path: &Path, identity: (u64, u64), lb_addresses: impl Into<Addresses>) -> Result<Self> {
        let namespace = Namespace::open_path(path)?;
        if namespace.identity()? != identity {
            return Err(Error::AnotherNamespace { path: path.to_owned() });
        }
        parameters::set_in_foreign(&namespace)?;
        let links = namespace.links().await?;
        let announcer = Announcer::of(&links, INTERFACE).await?;
        Ok(Self { links, addresses: lb_addresses.into(), announcer })
    }

    /// Whether the network's sandbox is that namespace, and its interface has the LB endpoint's addresses: what was made
    /// for them still fits.
    ///
    /// # Errors
    /// If there is no such sandbox, or the kernel refuses.
    pub async fn is(plan: &NetworkPlan, identity: (u64, u64), lb_addresses: impl Into<Addresses>) -> Result<bool> {
        let namespace = Namespace::open(&plan.sandbox_namespace())?;
        if namespace.identity()? != identity {
            return Ok(false);
        }
        let present = namespace.links().await?.addresses(INTERFACE).await?;
        let has = |address| present.iter().any(|present| present.addr() == address);
        Ok(lb_addresses.into().iter().all(has))
    }

    /// Leaves a namespace that was entered by [`Self::enter`], and takes back what was done there, as [`clear`] does. Does
    /// all it can and returns every error.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the kernel refuses.
    pub async fn leave(self) -> std::result::Result<(), Vec<Error>> {
        let (_, errors) = clear(self.namespace()).await;
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        self.links.namespace()
    }

    /// The LB endpoint's addresses.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Makes every address of the prefix the sandbox's own: it answers ARP or neighbour solicitations, and pings, and what
    /// is sent to it reaches the steered sockets. One netlink message. A VIP inside a prefix that was added needs none.
    /// A single address is announced to the neighbours, who may have asked for it in vain.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn add_vip_route(&self, prefix: IpNet) -> Result<()> {
        self.links.add_local_route(prefix).await?;
        if let Some(Err(cause)) = self.announcer.as_ref().map(|announcer| announcer.announce(prefix)) {
            tracing::debug!(namespace = self.namespace().label(), %prefix, %cause, "cannot announce the VIP");
        }
        Ok(())
    }

    /// Takes back [`Self::add_vip_route`]. One netlink message.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn remove_vip_route(&self, prefix: IpNet) -> Result<()> {
        self.links.remove_local_route(prefix).await
    }

    /// The prefixes that were added and not taken back, sorted: what a daemon that takes the sandbox over finds.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn vip_routes(&self) -> Result<Vec<IpNet>> {
        self.links.local_routes().await
    }

    /// Disconnects the sandbox from the network and removes it. Does all it can and returns every error. The processes
    /// in it are the caller's to end.
    ///
    /// # Errors
    /// Those of [`Fabric::disconnect`] and [`Namespace::remove`].
    pub async fn remove(self, fabric: &Fabric) -> std::result::Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        errors.extend(fabric.disconnect(PORT_ID).await.err());
        errors.extend(Namespace::remove(&fabric.plan().sandbox_namespace()).err());
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Whether the LB endpoint has an address in each subnet.
fn check(subnets: Subnets, addresses: Addresses) -> Result<()> {
    subnets.check(addresses)?;
    if subnets.v4.is_some() != addresses.v4.is_some() || subnets.v6.is_some() != addresses.v6.is_some() {
        return Err(Error::AddressMissing { addresses, subnets });
    }
    Ok(())
}
