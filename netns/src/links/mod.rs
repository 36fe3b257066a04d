//! The verbs on one network namespace's interfaces, addresses and routes.

mod link;
mod socket;

pub use link::Link;

use crate::name::check_interface_name;
use crate::{Error, Namespace, Result};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use socket::{Refusal, Socket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

/// The loopback interface has this index in every network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
pub(crate) const LOOPBACK_INDEX: u32 = 1;
/// The routing table of the addresses that are the machine's own (rtnetlink(7)).
const LOCAL_TABLE: u8 = 255;

/// The verbs on one namespace's interfaces, addresses and routes, over a netlink socket that was opened inside it: the
/// namespace is entered once. Every verb can be repeated with the same result: what exists as wished stays, what is
/// to go and is not there is done.
///
/// The socket keeps the namespace alive. It is served by a task on the runtime that [`Namespace::links`] was called on,
/// until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Links {
    namespace: Namespace,
    socket: Socket,
}

impl Namespace {
    /// Opens a netlink socket inside the namespace.
    ///
    /// # Errors
    /// Outside a tokio runtime, or if the namespace may not be entered.
    // Asynchronous because it needs a runtime's context, which the type then says.
    #[allow(clippy::unused_async, reason = "an async function cannot be called outside a runtime by mistake")]
    pub async fn links(&self) -> Result<Links> {
        Ok(Links { namespace: self.clone(), socket: Socket::open(self)? })
    }
}

impl Links {
    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Makes a bridge with that name. It is up, forwards at once (no spanning tree), and may have ports already if it
    /// existed.
    ///
    /// # Errors
    /// If the name is not usable or an interface of that name is not a bridge.
    pub async fn bridge(&self, name: &str) -> Result<()> {
        check_interface_name(name)?;
        let mut message = link_named(name);
        set_flag_up(&mut message);
        // Without spanning tree there is nothing that a forwarding delay could wait for. And a bridge that snoops keeps
        // neighbour solicitations for a VIP from the sandbox as soon as anybody acts as multicast querier: the sandbox
        // cannot join the multicast groups of a whole prefix.
        let settings = InfoData::Bridge(vec![InfoBridge::ForwardDelay(0), InfoBridge::MulticastSnooping(false)]);
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(settings)]));
        match self.socket.create(RouteNetlinkMessage::NewLink(message)).await {
            Err(refusal) if refusal.is(libc::EEXIST) => {
                if !self.require(name).await?.is_bridge() {
                    return Err(self.differs(name, "a bridge"));
                }
                self.set_up(name).await
            }
            result => result.map_err(|refusal| self.refused(format!("create bridge {name}"), refusal)),
        }
    }

    /// Makes a veth pair in one message: `name` in this namespace, `peer_name` born in `peer_namespace`. `mtu` in bytes
    /// is for both ends; without it, the kernel's default.
    ///
    /// # Errors
    /// If a name is not usable, or one of the two names exists and they are not each other's ends.
    pub async fn veth(&self, name: &str, peer_name: &str, peer_namespace: &Namespace, mtu: Option<u32>) -> Result<()> {
        let leg = Leg { name, master: None, peer_name, peer_namespace, peer_mac: None, mtu, up: false };
        if self.create_leg(&leg).await? {
            return Ok(());
        }
        let peer_links = peer_namespace.links().await?;
        if self.are_ends(name, &peer_links, peer_name).await?.is_none() {
            return Err(
                self.differs(name, &format!("one end of a veth pair with {peer_name} in {}", peer_namespace.label()))
            );
        }
        if let Some(mtu) = mtu {
            self.set_mtu(name, mtu).await?;
            peer_links.set_mtu(peer_name, mtu).await?;
        }
        Ok(())
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// If there is no such interface.
    pub async fn set_up(&self, name: &str) -> Result<()> {
        let mut message = link_named(name);
        set_flag_up(&mut message);
        self.set_link(name, message, "set up").await
    }

    /// Sets an interface's MTU, in bytes.
    ///
    /// # Errors
    /// If there is no such interface or it does not take that MTU.
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        let mut message = link_named(name);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.set_link(name, message, "set the MTU of").await
    }

    /// Sets an interface's hardware address.
    ///
    /// # Errors
    /// If there is no such interface or it does not take that address.
    pub async fn set_mac(&self, name: &str, mac: [u8; 6]) -> Result<()> {
        let mut message = link_named(name);
        message.attributes.push(LinkAttribute::Address(mac.to_vec()));
        self.set_link(name, message, "set the hardware address of").await
    }

    /// Makes an interface a port of a bridge.
    ///
    /// # Errors
    /// If there is no such interface or bridge.
    pub async fn set_master(&self, name: &str, bridge: &str) -> Result<()> {
        let bridge = self.require(bridge).await?;
        let mut message = link_named(name);
        message.attributes.push(LinkAttribute::Controller(bridge.index));
        self.set_link(name, message, "set the bridge of").await
    }

    /// Adds an address to an interface. An IPv6 one is usable at once: whether somebody else has it is not asked
    /// (`nodad`), which would take a second and more.
    ///
    /// # Errors
    /// If there is no such interface, or IPv6 is switched off on it.
    pub async fn add_address(&self, name: &str, address: IpAddr, prefix_len: u8) -> Result<()> {
        let prefix =
            IpNet::new(address, prefix_len).map_err(|_too_long| Error::InvalidPrefixLength { address, prefix_len })?;
        let index = self.require(name).await?.index;
        let mut message = AddressMessage::default();
        message.header.family = family_of(address);
        message.header.prefix_len = prefix_len;
        message.header.index = index;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        match prefix {
            IpNet::V4(prefix) if prefix_len < 31 => {
                message.attributes.push(AddressAttribute::Broadcast(prefix.broadcast()));
            }
            IpNet::V4(_) => {}
            IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
        }
        match self.socket.create(RouteNetlinkMessage::NewAddress(message)).await {
            // The kernel compares the address and the prefix length: what exists is equal.
            Err(refusal) if refusal.is(libc::EEXIST) => Ok(()),
            result => result
                .map_err(|refusal| self.refused(format!("add {address}/{prefix_len} to interface {name}"), refusal)),
        }
    }

    /// The addresses of an interface with their prefix lengths, both families.
    ///
    /// # Errors
    /// If there is no such interface.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpNet>> {
        let index = self.require(name).await?.index;
        self.addresses_of(name, index).await
    }

    /// Makes every address of the prefix one of the namespace's own (AnyIP: `ip route add local PREFIX dev lo`): the
    /// kernel takes its connections and answers pings, and for IPv4 ARP, without an address on any interface. For IPv6 it
    /// does not answer neighbour solicitations; a [`Sandbox`](crate::Sandbox) does. One message.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn add_local_route(&self, prefix: IpNet) -> Result<()> {
        let route = local_route(prefix);
        // Append, not exclusive: then EEXIST means that this very route exists, and a local route of the same prefix
        // that belongs to an interface's address stays the interface's.
        match self.socket.append(RouteNetlinkMessage::NewRoute(route)).await {
            Err(refusal) if refusal.is(libc::EEXIST) => Ok(()),
            result => result.map_err(|refusal| self.refused(format!("add the local route to {prefix}"), refusal)),
        }
    }

    /// Takes back [`Self::add_local_route`]. One message.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn remove_local_route(&self, prefix: IpNet) -> Result<()> {
        match self.socket.change(RouteNetlinkMessage::DelRoute(local_route(prefix))).await {
            Err(refusal) if refusal.is(libc::ESRCH) => Ok(()),
            result => result.map_err(|refusal| self.refused(format!("remove the local route to {prefix}"), refusal)),
        }
    }

    /// The prefixes that [`Self::add_local_route`] added and nobody took back, sorted.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn local_routes(&self) -> Result<Vec<IpNet>> {
        let mut prefixes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.header.table = LOCAL_TABLE;
            filter.header.protocol = RouteProtocol::Static;
            let answers = self
                .socket
                .dump(RouteNetlinkMessage::GetRoute(filter))
                .await
                .map_err(|refusal| self.refused("list the local routes".to_owned(), refusal))?;
            prefixes.extend(answers.iter().filter_map(prefix_of));
        }
        prefixes.sort_unstable();
        Ok(prefixes)
    }

    /// Deletes an interface; with one end of a veth pair goes the other.
    ///
    /// # Errors
    /// If it cannot be deleted, as the loopback interface.
    pub async fn delete_link(&self, name: &str) -> Result<()> {
        check_interface_name(name)?;
        match self.socket.change(RouteNetlinkMessage::DelLink(link_named(name))).await {
            Err(refusal) if refusal.is(libc::ENODEV) => Ok(()),
            result => result.map_err(|refusal| self.refused(format!("delete interface {name}"), refusal)),
        }
    }

    /// Deletes every veth interface and every bridge of the namespace, one by one: the other ends are gone when this
    /// returns. The end of a namespace deletes them too, but later, in the kernel's own time, and not before its last
    /// descriptor is closed. Does all it can and returns every error.
    pub async fn delete_legs(&self) -> Vec<Error> {
        let links = match self.list().await {
            Ok(links) => links,
            Err(error) => return vec![error],
        };
        let mut errors = Vec::new();
        for link in links.iter().filter(|link| link.is_veth() || link.is_bridge()) {
            errors.extend(self.delete_link(&link.name).await.err());
        }
        errors
    }

    /// Whether there is an interface with that name.
    ///
    /// # Errors
    /// If the name is not usable.
    pub async fn link_exists(&self, name: &str) -> Result<bool> {
        Ok(self.link(name).await?.is_some())
    }

    /// The interface with that name.
    ///
    /// # Errors
    /// If the name is not usable.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        check_interface_name(name)?;
        match self.socket.query(RouteNetlinkMessage::GetLink(link_named(name))).await {
            Ok(answers) => Ok(answers.iter().find_map(Link::parse)),
            Err(refusal) if refusal.is(libc::ENODEV) => Ok(None),
            Err(refusal) => Err(self.refused(format!("look up interface {name}"), refusal)),
        }
    }

    /// All interfaces.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn list(&self) -> Result<Vec<Link>> {
        let answers = self
            .socket
            .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
            .await
            .map_err(|refusal| self.refused("list the interfaces".to_owned(), refusal))?;
        Ok(answers.iter().filter_map(Link::parse).collect())
    }

    /// Makes both ends of a veth pair in one message. False if one of the names exists.
    pub(crate) async fn create_leg(&self, leg: &Leg<'_>) -> Result<bool> {
        check_interface_name(leg.name)?;
        check_interface_name(leg.peer_name)?;
        match self.socket.create(RouteNetlinkMessage::NewLink(leg.message())).await {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.is(libc::EEXIST) => Ok(false),
            Err(refusal) => {
                let peer = format!("{} in {}", leg.peer_name, leg.peer_namespace.label());
                Err(self.refused(format!("create the veth pair of {} and {peer}", leg.name), refusal))
            }
        }
    }

    /// The two ends, if `name` here and `peer_name` there are the ends of one veth pair.
    pub(crate) async fn are_ends(
        &self,
        name: &str,
        peer_links: &Self,
        peer_name: &str,
    ) -> Result<Option<(Link, Link)>> {
        let (Some(end), Some(peer)) = (self.link(name).await?, peer_links.link(peer_name).await?) else {
            return Ok(None);
        };
        if end.peer_index != Some(peer.index) || peer.peer_index != Some(end.index) {
            return Ok(None);
        }
        // Indexes repeat from namespace to namespace, so that two pairs may look alike but for the namespace.
        let same_namespace = match end.peer_namespace_id {
            Some(id) => Some(id) == self.id_of(&peer_links.namespace).await?,
            None => self.namespace.identity()? == peer_links.namespace.identity()?,
        };
        Ok(same_namespace.then_some((end, peer)))
    }

    pub(crate) async fn addresses_of(&self, name: &str, index: u32) -> Result<Vec<IpNet>> {
        let mut message = AddressMessage::default();
        // Honoured as a filter because the socket has strict checking on.
        message.header.index = index;
        let answers = self
            .socket
            .dump(RouteNetlinkMessage::GetAddress(message))
            .await
            .map_err(|refusal| self.refused(format!("list the addresses of interface {name}"), refusal))?;
        Ok(answers.iter().filter_map(address_of).collect())
    }

    pub(crate) async fn require(&self, name: &str) -> Result<Link> {
        self.link(name).await?.ok_or_else(|| self.missing(name))
    }

    pub(crate) fn differs(&self, name: &str, expected: &str) -> Error {
        Error::LinkDiffers {
            link: name.to_owned(),
            namespace: self.namespace.label().to_owned(),
            expected: expected.to_owned(),
        }
    }

    async fn set_link(&self, name: &str, message: LinkMessage, action: &str) -> Result<()> {
        check_interface_name(name)?;
        match self.socket.change(RouteNetlinkMessage::SetLink(message)).await {
            Err(refusal) if refusal.is(libc::ENODEV) => Err(self.missing(name)),
            result => result.map_err(|refusal| self.refused(format!("{action} interface {name}"), refusal)),
        }
    }

    /// What this namespace calls another one in its messages (RTM_GETNSID).
    async fn id_of(&self, other: &Namespace) -> Result<Option<i32>> {
        let mut message = NsidMessage::default();
        message.attributes.push(NsidAttribute::Fd(descriptor_number(other)));
        let answers = self.socket.query(RouteNetlinkMessage::GetNsId(message)).await.map_err(|refusal| {
            self.refused(format!("look up the id of network namespace {}", other.label()), refusal)
        })?;
        Ok(answers.iter().find_map(|answer| {
            let RouteNetlinkMessage::NewNsId(message) = answer else { return None };
            message.attributes.iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                _ => None,
            })
        }))
    }

    fn missing(&self, name: &str) -> Error {
        Error::LinkMissing { link: name.to_owned(), namespace: self.namespace.label().to_owned() }
    }

    fn refused(&self, action: String, refusal: Refusal) -> Error {
        Error::Netlink {
            action,
            namespace: self.namespace.label().to_owned(),
            cause: refusal.cause,
            detail: refusal.detail,
        }
    }
}

/// A veth pair to be made.
pub(crate) struct Leg<'a> {
    pub(crate) name: &'a str,
    /// The index of the bridge that this end is to be a port of.
    pub(crate) master: Option<u32>,
    pub(crate) peer_name: &'a str,
    pub(crate) peer_namespace: &'a Namespace,
    pub(crate) peer_mac: Option<[u8; 6]>,
    pub(crate) mtu: Option<u32>,
    /// Whether this end is to be up. The other cannot be yet: it is made first, and the kernel does not set up an end that
    /// has no other (`veth_open`).
    pub(crate) up: bool,
}

impl Leg<'_> {
    fn message(&self) -> LinkMessage {
        let mut peer = link_named(self.peer_name);
        // The kernel looks the descriptor up in the sending process when it gets the message.
        peer.attributes.push(LinkAttribute::NetNsFd(self.peer_namespace.as_fd().as_raw_fd()));
        peer.attributes.extend(self.peer_mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        peer.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        let mut message = link_named(self.name);
        message.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(self.master.map(LinkAttribute::Controller));
        if self.up {
            set_flag_up(&mut message);
        }
        let peer = InfoData::Veth(InfoVeth::Peer(peer));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(peer)]));
        message
    }
}

fn link_named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn set_flag_up(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn local_route(prefix: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(prefix.addr());
    message.header.destination_prefix_length = prefix.prefix_len();
    message.header.table = LOCAL_TABLE;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Host;
    message.header.kind = RouteType::Local;
    message.attributes =
        vec![RouteAttribute::Destination(prefix.network().into()), RouteAttribute::Oif(LOOPBACK_INDEX)];
    message
}

/// The prefix of a route like those that [`local_route`] describes.
fn prefix_of(answer: &RouteNetlinkMessage) -> Option<IpNet> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    let header = &message.header;
    let ours = header.table == LOCAL_TABLE
        && header.protocol == RouteProtocol::Static
        && header.kind == RouteType::Local
        && message.attributes.contains(&RouteAttribute::Oif(LOOPBACK_INDEX));
    if !ours {
        return None;
    }
    // A route to everything has no destination.
    let network = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    });
    let unspecified = match header.address_family {
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    IpNet::new(network.unwrap_or(unspecified), header.destination_prefix_length).ok()
}

fn address_of(answer: &RouteNetlinkMessage) -> Option<IpNet> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    // On a point-to-point interface `Address` is the other side's; IPv6 has no `Local` elsewhere.
    let address = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    })
    .or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    IpNet::new(address, message.header.prefix_len).ok()
}

fn descriptor_number(namespace: &Namespace) -> u32 {
    namespace.as_fd().as_raw_fd().cast_unsigned()
}
