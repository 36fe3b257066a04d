//! What connects the nodes: a bridge in a namespace of its own, from which a test can be a client outside of all nodes.

use crate::wait::ip;
use ringlb_netns::Namespace;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

static WIRES: AtomicU32 = AtomicU32::new(1);

/// The bridge `wire` with address 192.0.2.254.
pub(crate) struct Wire {
    pub(crate) namespace: Namespace,
    /// Unique in this process.
    pub(crate) number: u32,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let number = WIRES.fetch_add(1, Ordering::Relaxed);
        let name = format!("wire-{number}");
        let namespace = Namespace::create(&name).unwrap();
        ip(&format!("-n {name} link add wire type bridge mcast_snooping 0"));
        ip(&format!("-n {name} addr add 192.0.2.254/24 dev wire"));
        ip(&format!("-n {name} addr add 2001:db8::fe/64 dev wire nodad"));
        ip(&format!("-n {name} link set wire up"));
        Self { namespace, number }
    }

    /// Connects a namespace as `eth0` with a node's addresses.
    pub(crate) fn connect(&self, node: u8, namespace: &str) {
        let wire = self.name();
        ip(&format!("-n {wire} link add node{node} type veth peer name eth0 netns {namespace}"));
        ip(&format!("-n {wire} link set node{node} master wire up"));
        ip(&format!("-n {namespace} addr add {}/24 dev eth0", address_of(node)));
        ip(&format!("-n {namespace} addr add {}/64 dev eth0 nodad", ipv6_address_of(node)));
        ip(&format!("-n {namespace} link set eth0 up"));
    }

    /// Cuts a node off, or heals it. The node's own interface stays as it is.
    pub(crate) fn set_connected(&self, node: u8, connected: bool) {
        let state = if connected { "master wire" } else { "nomaster" };
        ip(&format!("-n {} link set node{node} {state}", self.name()));
    }

    fn name(&self) -> String {
        format!("wire-{}", self.number)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Nobody is to be told; it ends with this process in any case.
        let _ = Namespace::remove(&self.name());
    }
}

/// A node's address on the wire.
pub(crate) fn address_of(node: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, node).into()
}

/// A node's IPv6 address on the wire.
pub(crate) fn ipv6_address_of(node: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, node.into()).into()
}

/// A port of a node.
pub(crate) fn port_of(node: u8, port: u16) -> SocketAddr {
    SocketAddr::new(address_of(node), port)
}
