//! What the kernel says of an interface.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

/// A network interface as it was when it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is set up.
    pub up: bool,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// For one end of a veth pair, the other end's index in its own namespace.
    pub peer_index: Option<u32>,
    /// This namespace's number for the namespace of the other end; `None` if it is the same namespace.
    pub(crate) peer_namespace_id: Option<i32>,
    kind: Option<InfoKind>,
}

impl Link {
    /// Whether it is a bridge.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.kind == Some(InfoKind::Bridge)
    }

    /// Whether it is one end of a veth pair.
    #[must_use]
    pub fn is_veth(&self) -> bool {
        self.kind == Some(InfoKind::Veth)
    }

    /// `None` for messages about something else.
    pub(super) fn parse(answer: &RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewLink(message) = answer else { return None };
        Some(Self::from_message(message))
    }

    fn from_message(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            up: message.header.flags.contains(LinkFlags::Up),
            mtu: 0,
            mac: None,
            master: None,
            peer_index: None,
            peer_namespace_id: None,
            kind: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
                LinkAttribute::Controller(index) if *index != 0 => link.master = Some(*index),
                LinkAttribute::Link(index) if *index != 0 => link.peer_index = Some(*index),
                LinkAttribute::LinkNetNsId(id) if *id >= 0 => link.peer_namespace_id = Some(*id),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.clone()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}
