//! Serving in the place of the kernel's own load balancer, IPVS, for as long as somebody says so.
//!
//! A container engine with IPVS marks the packets that are for a VIP or a published port, and IPVS balances what has its
//! mark, by connection: packets of a connection that it knows need none. So taking the mark away from what is served here
//! gives new connections to the sockets of this namespace and leaves IPVS those it has. In nft(8)'s words:
//! ```text
//! table ip ringlb-takeover {
//!     set vips { type ipv4_addr; flags timeout; }
//!     set ports { type inet_proto . inet_service; flags timeout; }
//!     chain input {
//!         type filter hook input priority mangle + 1; policy accept;
//!         ip daddr @vips meta mark set 0
//!         meta l4proto . th dport @ports meta mark set 0
//!     }
//! }
//! ```
//! The chain comes after the marking, be it at arrival or here, and before IPVS (`NF_IP_PRI_NAT_SRC - 1`). The elements end
//! by themselves: if nobody refreshes them, IPVS has new connections again. Connections that were accepted here meanwhile go
//! on here, as IPVS takes up no TCP connection in its midst (`net.ipv4.vs.sloppy_tcp` is 0); UDP has no beginning, so that
//! datagrams go to IPVS at once.
//!
//! Engines use IPVS for IPv4 only.

use crate::netfilter::{
    Attribute, Chain, Family, Header, Hook, Key, NetfilterSocket, Register, Set, Table, Transaction, is_in_set,
    load_header, load_transport_protocol, remove_table, replace_table, set_mark, set_register,
};
use crate::{Error, Namespace, PortProtocol, Result};
use std::net::Ipv4Addr;
use std::time::Duration;

pub(crate) const TABLE: Table = Table { family: Family::Ipv4, name: "ringlb-takeover" };
const VIPS: Set = Set { name: "vips", key: Key::Ipv4Address };
const PORTS: Set = Set { name: "ports", key: Key::ProtocolAndPort };
const NF_IP_PRI_MANGLE: i32 = -150;
const CHAIN: Chain<'static> =
    Chain { name: "input", hook: Hook::LocalIn, priority: NF_IP_PRI_MANGLE + 1, interface: None };

// Offsets in bytes, in IPv4's header (RFC 791), and in TCP's and UDP's.
const IPV4_DESTINATION: u32 = 16;
const DESTINATION_PORT: u32 = 2;

/// What is served in the place of IPVS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Virtual addresses, with all protocols and ports.
    pub vips: Vec<Ipv4Addr>,
    /// Ports of any address of the namespace.
    pub ports: Vec<(PortProtocol, u16)>,
}

/// The table in a namespace that keeps new connections from IPVS. It holds a socket in the namespace, and nothing else of
/// it. Dropping it leaves the table, whose elements end by themselves.
#[derive(Debug)]
pub struct Takeover {
    socket: NetfilterSocket,
    namespace: String,
}

impl Takeover {
    /// Makes the table, in the place of the one that may be there, with what is served, for that long.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the kernel refuses (`CAP_NET_ADMIN`).
    pub fn begin(namespace: &Namespace, taken_over: &TakenOver, lifetime: Duration) -> Result<Self> {
        let mut transaction = Transaction::begin();
        replace_table(&mut transaction, TABLE, &[VIPS, PORTS], CHAIN, rules());
        replace_elements(&mut transaction, taken_over, lifetime);
        let commit = || {
            let mut socket = NetfilterSocket::open()?;
            socket.commit(transaction)?;
            Ok(socket)
        };
        let label = namespace.label().to_owned();
        match namespace.run(commit)? {
            Ok(socket) => Ok(Self { socket, namespace: label }),
            Err(cause) => Err(Error::Takeover { action: "install the takeover from IPVS", namespace: label, cause }),
        }
    }

    /// From now on this is served, and nothing else, for that long. Takes as long as one system call there and one back.
    ///
    /// # Errors
    /// If the kernel refuses, as it does when the table is gone. Then it is to be begun again.
    pub fn refresh(&mut self, taken_over: &TakenOver, lifetime: Duration) -> Result<()> {
        let mut transaction = Transaction::begin();
        replace_elements(&mut transaction, taken_over, lifetime);
        self.socket.commit(transaction).map_err(|cause| Error::Takeover {
            action: "refresh the takeover from IPVS",
            namespace: self.namespace.clone(),
            cause,
        })
    }

    /// Removes the table, so that IPVS has all new connections. Removing one that is not there is done already.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the kernel refuses.
    pub fn remove(namespace: &Namespace) -> Result<()> {
        let mut transaction = Transaction::begin();
        remove_table(&mut transaction, TABLE);
        namespace.run(|| transaction.commit())?.map_err(|cause| Error::Takeover {
            action: "remove the takeover from IPVS",
            namespace: namespace.label().to_owned(),
            cause,
        })
    }
}

fn rules() -> [Vec<Attribute>; 2] {
    use Register::{First, FirstWord, SecondWord};
    let clear_mark = || [set_register(First, &0u32.to_ne_bytes()), set_mark(First)];
    let mut vips = vec![load_header(First, Header::Network, IPV4_DESTINATION, 4), is_in_set(First, VIPS)];
    vips.extend(clear_mark());
    let mut ports = vec![
        load_transport_protocol(FirstWord),
        load_header(SecondWord, Header::Transport, DESTINATION_PORT, 2),
        is_in_set(FirstWord, PORTS),
    ];
    ports.extend(clear_mark());
    [vips, ports]
}

fn replace_elements(transaction: &mut Transaction, taken_over: &TakenOver, lifetime: Duration) {
    let vips: Vec<_> = taken_over.vips.iter().map(|vip| vip.octets().to_vec()).collect();
    VIPS.replace_elements(transaction, TABLE, &vips, lifetime);
    let ports: Vec<_> = taken_over.ports.iter().map(|(protocol, port)| port_key(*protocol, *port)).collect();
    PORTS.replace_elements(transaction, TABLE, &ports, lifetime);
}

fn port_key(protocol: PortProtocol, port: u16) -> Vec<u8> {
    let protocol = match protocol {
        PortProtocol::Tcp => libc::IPPROTO_TCP as u8,
        PortProtocol::Udp => libc::IPPROTO_UDP as u8,
    };
    let [high, low] = port.to_be_bytes();
    vec![protocol, 0, 0, 0, high, low, 0, 0]
}
