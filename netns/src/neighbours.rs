//! Answers to neighbour solicitations for IPv6 VIPs.
//!
//! The kernel answers ARP for whatever its routing tables call local, but neighbour solicitations (RFC 4861) only for
//! the addresses of the interface that they come in by, and for single addresses that it is told to answer for
//! (`proxy_ndp`); and each of these makes the interface join a multicast group. One netfilter rule does for IPv6 what the
//! kernel does for IPv4: it turns a solicitation for a local address into the advertisement, in place, and sends it back.
//! So one local route makes a whole prefix of VIPs reachable for ordinary on-link neighbours. In nft(8)'s words, as far
//! as it has any:
//! ```text
//! table netdev ringlb {
//!     chain neighbours {
//!         type filter hook ingress device eth0 priority 0; policy accept;
//!         icmpv6 type nd-neighbor-solicit icmpv6 taddr != OWN_ADDRESS ip6 saddr != :: \
//!             ip6 daddr set icmpv6 taddr fib daddr type local \
//!             ip6 daddr set ip6 saddr ip6 saddr set icmpv6 taddr icmpv6 type set nd-neighbor-advert … \
//!             ether daddr set ether saddr ether saddr set OWN_MAC fwd to eth0
//!     }
//! }
//! ```
//! Solicitations for the interface's own addresses stay the kernel's, and so do those of a machine that asks whether an
//! address is taken (source `::`).

use crate::netfilter::{
    Attribute, Chain, Comparison, Family, Header, Hook, Register, Table, Transaction, compare, destination_is_local,
    load_header, load_interface, load_link_protocol, load_transport_protocol, replace_table, send_out_of, set_register,
    write_header,
};
use crate::{Error, Namespace, Result};
use std::net::Ipv6Addr;

/// Makes the rule, in place of the one before it.
pub(crate) fn answer_solicitations(
    namespace: &Namespace,
    interface: &str,
    own_address: Ipv6Addr,
    own_mac: [u8; 6],
) -> Result<()> {
    let mut transaction = Transaction::begin();
    let chain = Chain { name: "neighbours", hook: Hook::Arrival, priority: 0, interface: Some(interface) };
    replace_table(&mut transaction, Table::of(Family::NetworkDevice), &[], chain, [rule(own_address, own_mac)]);
    namespace
        .run(|| transaction.commit())?
        .map_err(|cause| Error::NeighbourResponder { namespace: namespace.label().to_owned(), cause })
}

// Offsets in bytes: Ethernet's header, IPv6's (RFC 8200), and a solicitation's or advertisement's (RFC 4861, 4.3, 4.4).
const LINK_DESTINATION: u32 = 0;
const LINK_SOURCE: u32 = 6;
const HOP_LIMIT: u32 = 7;
const SOURCE: u32 = 8;
const DESTINATION: u32 = 24;
const TYPE_AND_CODE: u32 = 0;
const CHECKSUM: u32 = 2;
const FLAGS: u32 = 4;
const TARGET: u32 = 8;
const OPTION_TYPE_AND_LENGTH: u32 = 24;
const OPTION_MAC: u32 = 26;

const MAC_LENGTH: u32 = 6;
const ADDRESS_LENGTH: u32 = 16;

const ETH_P_IPV6: [u8; 2] = [0x86, 0xdd];
const IPPROTO_ICMPV6: u8 = 58;
const SOLICITATION: [u8; 2] = [135, 0];
const ADVERTISEMENT: [u8; 2] = [136, 0];
const SOLICITED_AND_OVERRIDE: [u8; 4] = [0x60, 0, 0, 0];
/// Type and length in units of 8 bytes.
const SOURCE_MAC_OPTION: [u8; 2] = [1, 1];
const TARGET_MAC_OPTION: [u8; 2] = [2, 1];
/// Of all link-local addresses, and of no address that can be a VIP.
const LINK_LOCAL_FIRST_BYTE: u8 = 0xfe;

fn rule(own_address: Ipv6Addr, own_mac: [u8; 6]) -> Vec<Attribute> {
    use Comparison::{Equal, NotEqual};
    use Register::{First, Second, Third};
    let mut rule = vec![
        load_transport_protocol(First),
        compare(First, Equal, &[IPPROTO_ICMPV6]),
        load_link_protocol(First),
        compare(First, Equal, &ETH_P_IPV6),
        load_header(First, Header::Transport, TYPE_AND_CODE, 2),
        compare(First, Equal, &SOLICITATION),
        // What comes from farther away than the link has less.
        load_header(First, Header::Network, HOP_LIMIT, 1),
        compare(First, Equal, &[255]),
        load_header(First, Header::Transport, OPTION_TYPE_AND_LENGTH, 2),
        compare(First, Equal, &SOURCE_MAC_OPTION),
        load_header(First, Header::Transport, TARGET, 1),
        compare(First, NotEqual, &[LINK_LOCAL_FIRST_BYTE]),
        load_header(First, Header::Network, SOURCE, ADDRESS_LENGTH),
        compare(First, NotEqual, &Ipv6Addr::UNSPECIFIED.octets()),
        load_header(Second, Header::Transport, TARGET, ADDRESS_LENGTH),
        compare(Second, NotEqual, &own_address.octets()),
        // The routing tables can be asked about the packet's destination only. If it is not local, nobody here wants the
        // packet, whatever its destination.
        write_header(Second, Header::Network, DESTINATION, ADDRESS_LENGTH, CHECKSUM),
    ];
    rule.extend(destination_is_local(Family::NetworkDevice, Third));
    rule.extend([
        write_header(Second, Header::Network, SOURCE, ADDRESS_LENGTH, CHECKSUM),
        write_header(First, Header::Network, DESTINATION, ADDRESS_LENGTH, CHECKSUM),
    ]);
    for (offset, bytes) in [
        (TYPE_AND_CODE, ADVERTISEMENT.as_slice()),
        (FLAGS, &SOLICITED_AND_OVERRIDE),
        (OPTION_TYPE_AND_LENGTH, &TARGET_MAC_OPTION),
        (OPTION_MAC, &own_mac),
    ] {
        rule.push(set_register(Third, bytes));
        rule.push(write_header(Third, Header::Transport, offset, bytes.len() as u32, CHECKSUM));
    }
    rule.extend([
        load_header(Third, Header::Link, LINK_SOURCE, MAC_LENGTH),
        write_header(Third, Header::Link, LINK_DESTINATION, MAC_LENGTH, CHECKSUM),
        set_register(Third, &own_mac),
        write_header(Third, Header::Link, LINK_SOURCE, MAC_LENGTH, CHECKSUM),
        load_interface(Third),
        send_out_of(Third),
    ]);
    rule
}
