//! The namespace in which a network's proxy lives.

use crate::announcer::Announcer;
use crate::fabric::mac_of;
use crate::neighbours::answer_solicitations;
use crate::steering::BACKLOG;
use crate::{Addresses, Error, Fabric, Links, Namespace, NetworkPlan, Result, Subnets};
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
        set_parameters(&namespace, addresses)?;
        fabric.connect(PORT_ID, &namespace, INTERFACE, addresses).await?;
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
        let backlog = BACKLOG.to_string();
        let if_present =
            [&SOCKET_PARAMETERS_IF_PRESENT[..], &NEIGHBOUR_PARAMETERS, &backlog_parameters(&backlog)].concat();
        namespace.set_sysctls(&SOCKET_PARAMETERS, &if_present)?;
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

    /// Leaves a namespace that was entered by [`Self::enter`], and takes back the routes to these prefixes. Does all it
    /// can and returns every error.
    ///
    /// # Errors
    /// Those of [`Self::remove_vip_route`].
    pub async fn leave(self, prefixes: impl IntoIterator<Item = IpNet>) -> std::result::Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        for prefix in prefixes {
            errors.extend(self.remove_vip_route(prefix).await.err());
        }
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

fn set_parameters(namespace: &Namespace, addresses: Addresses) -> Result<()> {
    let ipv6 = [
        // The loopback interface needs it for the VIPs' routes.
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/all/forwarding", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
    ];
    if addresses.v6.is_some() {
        namespace.set_sysctls(&ipv6, &[])?;
    }
    let backlog = BACKLOG.to_string();
    // A new namespace starts with the host's settings of these. A router's, a strict reverse path filter or a silent ARP
    // would each make VIPs unreachable or packets for others leave.
    let network = [
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv4/conf/all/arp_ignore", "0"),
        ("net/ipv4/conf/default/arp_ignore", "0"),
    ];
    let required = [&SOCKET_PARAMETERS[..], &network].concat();
    let if_present = [&SOCKET_PARAMETERS_IF_PRESENT[..], &backlog_parameters(&backlog)].concat();
    namespace.set_sysctls(&required, &if_present)
}

/// A kernel parameter and its value.
type Parameter = (&'static str, &'static str);

/// What a proxy's sockets need.
const SOCKET_PARAMETERS: [Parameter; 3] = [
    // 15,000 short connections a second to two backends use up the default 28,000 ports within seconds, with the
    // ports of closed connections waiting. The steered sockets' ports are below this range.
    ("net/ipv4/ip_local_port_range", "1024 65535"),
    // A proxy without capabilities replies to datagrams from sockets that are bound to a VIP and any of its ports.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/tcp_tw_reuse", "1"),
];

/// The same that only some kernels have. In milliseconds, Linux 6.14 and later; before, a port can be used again after a
/// second.
const SOCKET_PARAMETERS_IF_PRESENT: [Parameter; 1] = [("net/ipv4/tcp_tw_reuse_delay", "1")];

/// In a network that somebody else makes, a backend can be known before its neighbour entry is there. Asked for again after
/// the usual second, a connection would have waited for that long; in milliseconds, three times (`mcast_solicit`).
const NEIGHBOUR_PARAMETERS: [Parameter; 1] = [("net/ipv4/neigh/eth0/retrans_time_ms", "100")];

/// Not there in a namespace that belongs to a user namespace; the kernel's default is 4096 then.
fn backlog_parameters(backlog: &str) -> [(&'static str, &str); 2] {
    [("net/core/somaxconn", backlog), ("net/ipv4/tcp_max_syn_backlog", backlog)]
}
