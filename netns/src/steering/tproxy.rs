//! Steering by netfilter rules (Documentation/networking/tproxy.rst). In nft(8)'s words, for IPv4; IPv6 has the same:
//! ```text
//! table ip ringlb {
//!     chain prerouting {
//!         type filter hook prerouting priority mangle; policy accept;
//!         meta l4proto tcp ip daddr != OWN_ADDRESS ip daddr != 127.0.0.0/8 fib daddr type local \
//!             tproxy to 127.0.0.1:PORT accept
//!         meta l4proto udp …
//!     }
//! }
//! ```
//! They see packets from other namespaces, and those of this namespace to itself as they arrive on the loopback
//! interface. VIPs are local routes, so no routing rule is needed.

use crate::netfilter::{
    Attribute, Chain, Comparison, Family, Header, Hook, Register, Table, Transaction, accept, assign_to_socket,
    compare, destination_is_local, load_header, load_transport_protocol, replace_table, set_register,
};
use crate::steering::sockets::{Group, Protocol};
use crate::{Error, Namespace, Result};
use std::net::{IpAddr, Ipv6Addr};

const NF_IP_PRI_MANGLE: i32 = -150;
/// Where the destination address is in the header: RFC 791, RFC 8200.
const IPV4_DESTINATION: u32 = 16;
const IPV6_DESTINATION: u32 = 24;
const IPV4_LOOPBACK_FIRST_BYTE: u8 = 127;
/// Of all link-local addresses, and of no address that can be a VIP.
const IPV6_LINK_LOCAL_FIRST_BYTE: u8 = 0xfe;

/// Makes the rules that lead to the groups of sockets, in place of those before them.
pub(super) fn install(namespace: &Namespace, groups: &[Group]) -> Result<()> {
    let mut transaction = Transaction::begin();
    let chain = Chain { name: "prerouting", hook: Hook::Arrival, priority: NF_IP_PRI_MANGLE, interface: None };
    for (family, is_ipv4) in [(Family::Ipv4, true), (Family::Ipv6, false)] {
        let rules: Vec<_> = groups.iter().filter(|group| group.own_address.is_ipv4() == is_ipv4).map(rule).collect();
        if !rules.is_empty() {
            replace_table(&mut transaction, Table::of(family), &[], chain, rules);
        }
    }
    namespace
        .run(|| transaction.commit())?
        .map_err(|cause| Error::Tproxy { namespace: namespace.label().to_owned(), cause })
}

fn rule(group: &Group) -> Vec<Attribute> {
    use Comparison::{Equal, NotEqual};
    use Register::{First, Second};
    let protocol = match group.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP as u8,
        Protocol::Udp => libc::IPPROTO_UDP as u8,
    };
    let mut rule = vec![load_transport_protocol(First), compare(First, Equal, &[protocol])];
    match group.own_address {
        IpAddr::V4(own_address) => {
            rule.push(load_header(First, Header::Network, IPV4_DESTINATION, 4));
            rule.extend(group.spares_own.then(|| compare(First, NotEqual, &own_address.octets())));
            rule.push(load_header(First, Header::Network, IPV4_DESTINATION, 1));
            rule.push(compare(First, NotEqual, &[IPV4_LOOPBACK_FIRST_BYTE]));
        }
        IpAddr::V6(own_address) => {
            rule.push(load_header(First, Header::Network, IPV6_DESTINATION, 16));
            rule.extend(group.spares_own.then(|| compare(First, NotEqual, &own_address.octets())));
            rule.push(compare(First, NotEqual, &Ipv6Addr::LOCALHOST.octets()));
            rule.push(load_header(First, Header::Network, IPV6_DESTINATION, 1));
            rule.push(compare(First, NotEqual, &[IPV6_LINK_LOCAL_FIRST_BYTE]));
        }
    }
    let (family, address) = match group.address.ip() {
        IpAddr::V4(address) => (Family::Ipv4, set_register(First, &address.octets())),
        IpAddr::V6(address) => (Family::Ipv6, set_register(First, &address.octets())),
    };
    // Datagrams to everybody (broadcast and multicast) are not for a VIP.
    rule.extend(destination_is_local(family, First));
    rule.extend([
        address,
        set_register(Second, &group.address.port().to_be_bytes()),
        assign_to_socket(family, First, Second),
        accept(),
    ]);
    rule
}
