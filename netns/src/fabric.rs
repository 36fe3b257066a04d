//! A network's bridge, and the legs that connect namespaces to it.

use crate::links::Leg;
use crate::name::is_interface_name;
use crate::shortcuts::{self, Shortcuts};
use crate::{Addresses, Error, Link, Links, Namespace, NetworkPlan, Result};
use ipnet::IpNet;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

const BRIDGE: &str = "br0";

/// A network on this node: a bridge in a namespace of its own, to which namespaces are connected by legs. A leg is a
/// veth pair whose one end is an interface of the namespace and whose other end is a port of the bridge.
#[derive(Debug, Clone)]
pub struct Fabric {
    plan: NetworkPlan,
    links: Links,
    bridge_index: u32,
    shortcuts: Option<Arc<Shortcuts>>,
}

impl Fabric {
    /// Makes the network's bridge, or takes over the one that is there with its legs.
    ///
    /// # Errors
    /// If the plan cannot be carried out, or the process lacks the capabilities.
    pub async fn ensure(plan: &NetworkPlan) -> Result<Self> {
        plan.check()?;
        let namespace = Namespace::create(&plan.bridge_namespace())?;
        // Frames between containers are not the business of the host's packet filter, and its look at each of them costs
        // 13 % of CPU per connection. These parameters are there only while br_netfilter is loaded.
        namespace.set_sysctls(
            &[],
            &[
                ("net/bridge/bridge-nf-call-iptables", "0"),
                ("net/bridge/bridge-nf-call-ip6tables", "0"),
                ("net/bridge/bridge-nf-call-arptables", "0"),
                // The bridge itself is nobody's neighbour: without addresses of its own, it and its ports keep quiet.
                ("net/ipv6/conf/all/disable_ipv6", "1"),
                ("net/ipv6/conf/default/disable_ipv6", "1"),
            ],
        )?;
        let links = namespace.links().await?;
        links.bridge(BRIDGE).await?;
        links.set_mtu(BRIDGE, plan.mtu).await?;
        let bridge_index = links.require(BRIDGE).await?.index;
        Ok(Self { plan: plan.clone(), links, bridge_index, shortcuts: None })
    }

    /// Lets IP packets between the legs that are connected from now on go straight from one to the other, past the bridge. That
    /// outlives this fabric and the process: legs that have such shortcuts from an earlier one keep them, with the sessions that go
    /// past the proxy. Whoever captures packets sees them at the ends of legs, not at the bridge, and XDP programs of the
    /// receiving interface do not get them.
    ///
    /// # Errors
    /// If `bpf(2)` is refused, or the kernel has no `tcx` (before Linux 6.6). No leg has a shortcut then.
    pub async fn take_shortcuts(&mut self) -> Result<()> {
        let ports = self.port_links().await?;
        match Shortcuts::new(self.namespace(), &ports) {
            Ok(shortcuts) => {
                self.shortcuts = Some(Arc::new(shortcuts));
                Ok(())
            }
            Err(error) => {
                // The first error is the one to report.
                drop(self.end_shortcuts_of(&ports));
                Err(error)
            }
        }
    }

    /// Lets the packets of all legs take the bridge, also of those that have a shortcut from an earlier fabric.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn end_shortcuts(&mut self) -> Result<()> {
        let ports = self.port_links().await?;
        self.end_shortcuts_of(&ports)
    }

    fn end_shortcuts_of(&mut self, ports: &[Link]) -> Result<()> {
        self.shortcuts = None;
        let ports: Vec<_> = ports.iter().map(|port| port.index).collect();
        shortcuts::detach(self.namespace(), &ports)
    }

    /// Says which hardware address the network's sandbox has: only what is sent there can go past its proxy.
    pub(crate) fn set_sandbox(&self, mac: [u8; 6]) {
        let Some(Err(error)) = self.shortcuts.as_ref().map(|shortcuts| shortcuts.set_sandbox(mac)) else { return };
        tracing::warn!(namespace = self.namespace().label(), %error, "UDP sessions do not go past the proxy");
    }

    /// The memory by which the network's proxy says which UDP sessions go past it ([`session_map`](crate::session_map)), where
    /// there are shortcuts. It is made by the first call, and takes no memory before.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn session_map(&self) -> Result<Option<OwnedFd>> {
        self.shortcuts.as_ref().map(|shortcuts| shortcuts.session_map()).transpose()
    }

    /// The memory by which the network's proxies say which TCP connections may go past them
    /// ([`connection_map`](crate::connection_map)), where there are shortcuts. It is made by the first call, and takes no memory
    /// before.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn connection_map(&self) -> Result<Option<OwnedFd>> {
        self.shortcuts.as_ref().map(|shortcuts| shortcuts.connection_map()).transpose()
    }

    /// Whether the network has shortcuts.
    #[must_use]
    pub fn has_shortcuts(&self) -> bool {
        self.shortcuts.is_some()
    }

    /// Has no sessions go past the proxies that have the map, as one of them has ended. Others put theirs in again.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forget_sessions(&self) -> Result<()> {
        self.shortcuts.as_ref().map_or(Ok(()), |shortcuts| shortcuts.forget_sessions())
    }

    /// What the network was made from.
    #[must_use]
    pub fn plan(&self) -> &NetworkPlan {
        &self.plan
    }

    /// The namespace that the bridge is in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        self.links.namespace()
    }

    /// Connects a namespace: makes `interface` in it, with the addresses and their subnets' prefix lengths, up, and the
    /// other end a port of the bridge. A leg of that `port_id` that is complete stays; one that is half made, or leads
    /// elsewhere, is made anew. If something fails, no half leg stays behind. IPv6 is switched on on the interface if it
    /// gets an IPv6 address, and off if not, whatever the namespace's default is.
    ///
    /// The interface's hardware address follows from its IPv4 address, or the IPv6 one if it is the only one, so that
    /// neighbours that remember the address still reach it after the leg was made anew.
    ///
    /// # Errors
    /// If there is no address, one is not in the network's subnets, or the namespace has an interface of that name that
    /// is not this leg's.
    pub async fn connect(
        &self,
        port_id: &str,
        namespace: &Namespace,
        interface: &str,
        addresses: impl Into<Addresses>,
    ) -> Result<()> {
        let addresses = addresses.into();
        let prefixes = self.plan.subnets.check(addresses)?;
        let port = Self::port_name(port_id);
        let leg = Leg {
            name: &port,
            master: Some(self.bridge_index),
            peer_name: interface,
            peer_namespace: namespace,
            peer_mac: mac_of(addresses),
            mtu: Some(self.plan.mtu),
            up: true,
        };
        let peer_links = namespace.links().await?;
        if !self.links.create_leg(&leg).await? {
            if self.is_complete(&leg, &peer_links, &prefixes).await? {
                self.shorten(&leg).await;
                return Ok(());
            }
            self.links.delete_link(&port).await?;
            if !self.links.create_leg(&leg).await? {
                let expected = format!("the leg of port {port_id} on network {}", self.plan.network);
                return Err(peer_links.differs(interface, &expected));
            }
        }
        let completed = self.complete(&peer_links, interface, &prefixes).await;
        match completed {
            Ok(()) => self.shorten(&leg).await,
            // The first error is the one to report.
            Err(_) => drop(self.links.delete_link(&port).await),
        }
        completed
    }

    /// Takes back [`Self::connect`]: the interface is gone when this returns. A leg that is not there is done already.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn disconnect(&self, port_id: &str) -> Result<()> {
        let port = Self::port_name(port_id);
        if let Some(Err(error)) = self.shortcuts.as_ref().map(|shortcuts| shortcuts.remove(&port)) {
            tracing::warn!(namespace = self.namespace().label(), port, %error, "cannot remove a shortcut");
        }
        self.links.delete_link(&port).await
    }

    /// The bridge's ports, by the names that [`Self::port_name`] gives them, sorted.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn ports(&self) -> Result<Vec<String>> {
        let mut ports: Vec<_> = self.port_links().await?.into_iter().map(|link| link.name).collect();
        ports.sort_unstable();
        Ok(ports)
    }

    async fn port_links(&self) -> Result<Vec<Link>> {
        let mut links = self.links.list().await?;
        links.retain(|link| link.master == Some(self.bridge_index));
        Ok(links)
    }

    /// The name of the bridge's port with that id: the id itself if it can be an interface's name, else one that follows
    /// from it.
    #[must_use]
    pub fn port_name(port_id: &str) -> String {
        const DERIVED: &str = "p-";
        if is_interface_name(port_id) && !matches!(port_id, "lo" | BRIDGE) && !port_id.starts_with(DERIVED) {
            return port_id.to_owned();
        }
        // 13 of 16 digits fit: two ids out of a million meet with a probability of one in nine thousand.
        let digits = format!("{:016x}", fnv1a(port_id.as_bytes()));
        format!("{DERIVED}{}", &digits[..13])
    }

    /// Removes the network's bridge and all its legs. Does all it can and returns every error.
    ///
    /// # Errors
    /// Those of [`Self::disconnect`] and [`Namespace::remove`].
    pub async fn remove(self) -> std::result::Result<(), Vec<Error>> {
        let mut errors = self.links.delete_legs().await;
        errors.extend(Namespace::remove(&self.plan.bridge_namespace()).err());
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Gives a leg its shortcut. Without, its packets need longer, and nothing else.
    async fn shorten(&self, leg: &Leg<'_>) {
        let (Some(shortcuts), Some(mac)) = (&self.shortcuts, leg.peer_mac) else { return };
        let port = leg.name;
        let result = match self.links.require(port).await {
            Ok(link) => shortcuts.add(port, link.index, mac),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(namespace = self.namespace().label(), port, %error, "a leg's packets take the bridge");
        }
    }

    async fn complete(&self, peer_links: &Links, interface: &str, prefixes: &[IpNet]) -> Result<()> {
        set_interface_parameters(peer_links.namespace(), interface, prefixes)?;
        for prefix in prefixes {
            peer_links.add_address(interface, prefix.addr(), prefix.prefix_len()).await?;
        }
        peer_links.set_up(interface).await
    }

    async fn is_complete(&self, leg: &Leg<'_>, peer_links: &Links, prefixes: &[IpNet]) -> Result<bool> {
        let Some((port, interface)) = self.links.are_ends(leg.name, peer_links, leg.peer_name).await? else {
            return Ok(false);
        };
        let as_wished = port.master == leg.master
            && port.up
            && interface.up
            && interface.mac == leg.peer_mac
            && [port.mtu, interface.mtu] == [self.plan.mtu; 2];
        if !as_wished {
            return Ok(false);
        }
        let mut addresses = peer_links.addresses_of(leg.peer_name, interface.index).await?;
        // Link-local addresses are the kernel's affair.
        addresses.retain(|address| !matches!(address, IpNet::V6(address) if address.addr().is_unicast_link_local()));
        addresses.sort_unstable();
        Ok(addresses == prefixes)
    }
}

/// Sets what must be set before the interface is up.
fn set_interface_parameters(namespace: &Namespace, interface: &str, prefixes: &[IpNet]) -> Result<()> {
    let path = |parameter| format!("net/ipv6/conf/{interface}/{parameter}");
    if prefixes.iter().all(|prefix| prefix.addr().is_ipv4()) {
        return namespace.set_sysctl_if_present(&path("disable_ipv6"), "1");
    }
    // Container runtimes switch IPv6 off in a container's namespace. Its addresses and routes come from us alone, and are
    // usable at once: nobody else on the network has them. The link-local address is made from the hardware address; the
    // kernel needs one to ask whether a neighbour that it knows is still there.
    let parameters =
        [("disable_ipv6", "0"), ("addr_gen_mode", "0"), ("accept_dad", "0"), ("accept_ra", "0"), ("autoconf", "0")];
    let parameters = parameters.map(|(parameter, value)| (path(parameter), value));
    let parameters: Vec<_> = parameters.iter().map(|(path, value)| (path.as_str(), *value)).collect();
    namespace.set_sysctls(&parameters, &[])
}

/// A locally administered hardware address, unique on the network because the IP address is. The program of the
/// bridge's ports knows the rule for IPv4 addresses (`shortcuts/program.rs`).
pub(crate) fn mac_of(addresses: Addresses) -> Option<[u8; 6]> {
    match addresses {
        Addresses { v4: Some(address), .. } => {
            let [a, b, c, d] = address.octets();
            Some([0x02, 0x42, a, b, c, d])
        }
        Addresses { v4: None, v6: Some(address) } => Some(mac_of_ipv6(address)),
        Addresses { v4: None, v6: None } => None,
    }
}

/// 40 bits of a hash: two of 1,000 addresses meet with a probability of one in two millions.
fn mac_of_ipv6(address: Ipv6Addr) -> [u8; 6] {
    let [a, b, c, d, e, ..] = fnv1a(&address.octets()).to_be_bytes();
    [0x06, a, b, c, d, e]
}

/// FNV-1a, 64 bits: the same in every build, as the names of ports must outlive the daemon.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn port_names_are_usable_and_differ() {
        let long = ["a-container-with-a-long-name-1", "a-container-with-a-long-name-2"];
        let odd = ["", "a/b", "a b", "br0", "lo", "all", "default", ".", "..", "p-x", "eth%d"];
        let plain = ["web-1", "lb", "fifteen-bytes-x"];
        let ids: Vec<_> = long.into_iter().chain(odd).chain(plain).collect();
        let names: HashSet<_> = ids.iter().map(|id| Fabric::port_name(id)).collect();
        assert_eq!(names.len(), ids.len());
        for name in &names {
            assert!(is_interface_name(name) && name != BRIDGE && name != "lo", "{name}");
        }
        assert_eq!(Fabric::port_name("web-1"), "web-1");
        assert_eq!(Fabric::port_name(long[0]), "p-".to_owned() + &format!("{:016x}", fnv1a(long[0].as_bytes()))[..13]);
    }

    #[test]
    fn fnv1a_is_the_published_function() {
        // Test vectors of the FNV specification (draft-eastlake-fnv).
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
