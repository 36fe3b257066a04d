//! What rules are made of: each expression loads something into a register, compares one, or does something to the packet.

use super::table::NF_ACCEPT;
use super::{Attribute, Family, Set};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const REGISTER_VERDICT: u32 = 0;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;

/// Where values are kept within a rule; each has 16 bytes, or 4 if it is called a word.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Register {
    First = 1,
    Second = 2,
    Third = 3,
    /// The first 4 bytes of the first one, and the next.
    FirstWord = 8,
    SecondWord = 9,
}

/// Which header an offset is counted in, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Header {
    Link = 0,
    Network = 1,
    Transport = 2,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Comparison {
    Equal = 0,
    NotEqual = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// `IPPROTO_*`, one byte.
pub(crate) fn load_transport_protocol(to: Register) -> Attribute {
    const NFT_META_L4PROTO: u32 = 16;
    load_meta(to, NFT_META_L4PROTO)
}

/// `ETH_P_*`, two bytes in network byte order.
pub(crate) fn load_link_protocol(to: Register) -> Attribute {
    const NFT_META_PROTOCOL: u32 = 1;
    load_meta(to, NFT_META_PROTOCOL)
}

/// The index of the interface that the packet has come in by.
pub(crate) fn load_interface(to: Register) -> Attribute {
    const NFT_META_IIF: u32 = 4;
    load_meta(to, NFT_META_IIF)
}

pub(crate) fn load_header(to: Register, header: Header, offset: u32, length: u32) -> Attribute {
    let data = vec![
        Attribute::number(NFTA_PAYLOAD_DREG, to as u32),
        Attribute::number(NFTA_PAYLOAD_BASE, header as u32),
        Attribute::number(NFTA_PAYLOAD_OFFSET, offset),
        Attribute::number(NFTA_PAYLOAD_LEN, length),
    ];
    expression("payload", data)
}

/// Writes a register's first bytes into an IPv6 packet, an even number of them at an even offset, and corrects the
/// transport header's checksum (RFC 1624). `checksum_offset` is that of the checksum in the transport header.
pub(crate) fn write_header(
    from: Register,
    header: Header,
    offset: u32,
    length: u32,
    checksum_offset: u32,
) -> Attribute {
    const NFTA_PAYLOAD_SREG: u16 = 5;
    const NFTA_PAYLOAD_CSUM_TYPE: u16 = 6;
    const NFTA_PAYLOAD_CSUM_OFFSET: u16 = 7;
    const NFTA_PAYLOAD_CSUM_FLAGS: u16 = 8;
    const NFT_PAYLOAD_CSUM_NONE: u32 = 0;
    const NFT_PAYLOAD_CSUM_INET: u32 = 1;
    const NFT_PAYLOAD_L4CSUM_PSEUDOHDR: u32 = 1;
    let (checksum_type, checksum_flags) = match header {
        Header::Link => (NFT_PAYLOAD_CSUM_NONE, 0),
        Header::Network => (NFT_PAYLOAD_CSUM_NONE, NFT_PAYLOAD_L4CSUM_PSEUDOHDR),
        Header::Transport => (NFT_PAYLOAD_CSUM_INET, 0),
    };
    let data = vec![
        Attribute::number(NFTA_PAYLOAD_SREG, from as u32),
        Attribute::number(NFTA_PAYLOAD_BASE, header as u32),
        Attribute::number(NFTA_PAYLOAD_OFFSET, offset),
        Attribute::number(NFTA_PAYLOAD_LEN, length),
        Attribute::number(NFTA_PAYLOAD_CSUM_TYPE, checksum_type),
        Attribute::number(NFTA_PAYLOAD_CSUM_OFFSET, checksum_offset),
        Attribute::number(NFTA_PAYLOAD_CSUM_FLAGS, checksum_flags),
    ];
    expression("payload", data)
}

/// The rule ends here for a packet whose destination is not local by the routing tables. Overwrites a register.
pub(crate) fn destination_is_local(family: Family, scratch: Register) -> Vec<Attribute> {
    // `RTN_*` of include/uapi/linux/rtnetlink.h.
    const LOCAL: u32 = 2;
    const ANYCAST: u32 = 4;
    let load = load_address_type(scratch);
    match family {
        Family::Ipv4 => vec![load, compare(scratch, Comparison::Equal, &LOCAL.to_ne_bytes())],
        // The first address of a prefix is an anycast address, as is a router's (RFC 4291, 2.6.1). What lies in between,
        // broadcast, IPv6 does not have. Bytes are compared in their order in memory, but only one differs from zero.
        Family::Ipv6 | Family::NetworkDevice => vec![
            load,
            compare(scratch, Comparison::AtLeast, &LOCAL.to_ne_bytes()),
            compare(scratch, Comparison::AtMost, &ANYCAST.to_ne_bytes()),
        ],
    }
}

fn load_address_type(to: Register) -> Attribute {
    const NFTA_FIB_DREG: u16 = 1;
    const NFTA_FIB_RESULT: u16 = 2;
    const NFTA_FIB_FLAGS: u16 = 3;
    const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
    const NFTA_FIB_F_DADDR: u32 = 2;
    let data = vec![
        Attribute::number(NFTA_FIB_DREG, to as u32),
        Attribute::number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE),
        Attribute::number(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR),
    ];
    expression("fib", data)
}

/// The rule ends here for a packet for which the comparison does not hold.
pub(crate) fn compare(register: Register, comparison: Comparison, value: &[u8]) -> Attribute {
    const NFTA_CMP_SREG: u16 = 1;
    const NFTA_CMP_OP: u16 = 2;
    const NFTA_CMP_DATA: u16 = 3;
    let data = vec![
        Attribute::number(NFTA_CMP_SREG, register as u32),
        Attribute::number(NFTA_CMP_OP, comparison as u32),
        Attribute::nested(NFTA_CMP_DATA, vec![Attribute::bytes(NFTA_DATA_VALUE, value)]),
    ];
    expression("cmp", data)
}

/// The rule ends here for a packet for which what the register and those after it hold is not in the set, which is in the
/// same table.
pub(crate) fn is_in_set(register: Register, set: Set) -> Attribute {
    const NFTA_LOOKUP_SET: u16 = 1;
    const NFTA_LOOKUP_SREG: u16 = 2;
    let data = vec![Attribute::text(NFTA_LOOKUP_SET, set.name), Attribute::number(NFTA_LOOKUP_SREG, register as u32)];
    expression("lookup", data)
}

/// Gives the packet the register's first 4 bytes as its mark.
pub(crate) fn set_mark(from: Register) -> Attribute {
    const NFT_META_MARK: u32 = 3;
    const NFTA_META_KEY: u16 = 2;
    const NFTA_META_SREG: u16 = 3;
    let data = vec![Attribute::number(NFTA_META_KEY, NFT_META_MARK), Attribute::number(NFTA_META_SREG, from as u32)];
    expression("meta", data)
}

pub(crate) fn set_register(register: Register, value: &[u8]) -> Attribute {
    immediate(register as u32, Attribute::bytes(NFTA_DATA_VALUE, value))
}

pub(crate) fn accept() -> Attribute {
    let verdict = vec![Attribute::number(NFTA_VERDICT_CODE, NF_ACCEPT)];
    immediate(REGISTER_VERDICT, Attribute::nested(NFTA_DATA_VERDICT, verdict))
}

/// Gives the packet to the transparent socket that is bound to the address and port, or to its connection's socket.
pub(crate) fn assign_to_socket(family: Family, address: Register, port: Register) -> Attribute {
    const NFTA_TPROXY_FAMILY: u16 = 1;
    const NFTA_TPROXY_REG_ADDR: u16 = 2;
    const NFTA_TPROXY_REG_PORT: u16 = 3;
    let data = vec![
        Attribute::number(NFTA_TPROXY_FAMILY, family as u32),
        Attribute::number(NFTA_TPROXY_REG_ADDR, address as u32),
        Attribute::number(NFTA_TPROXY_REG_PORT, port as u32),
    ];
    expression("tproxy", data)
}

/// Sends the frame out as it is.
pub(crate) fn send_out_of(interface: Register) -> Attribute {
    const NFTA_FWD_SREG_DEV: u16 = 1;
    expression("fwd", vec![Attribute::number(NFTA_FWD_SREG_DEV, interface as u32)])
}

fn load_meta(to: Register, key: u32) -> Attribute {
    const NFTA_META_DREG: u16 = 1;
    const NFTA_META_KEY: u16 = 2;
    expression("meta", vec![Attribute::number(NFTA_META_DREG, to as u32), Attribute::number(NFTA_META_KEY, key)])
}

fn immediate(register: u32, value: Attribute) -> Attribute {
    const NFTA_IMMEDIATE_DREG: u16 = 1;
    const NFTA_IMMEDIATE_DATA: u16 = 2;
    let data =
        vec![Attribute::number(NFTA_IMMEDIATE_DREG, register), Attribute::nested(NFTA_IMMEDIATE_DATA, vec![value])];
    expression("immediate", data)
}

fn expression(name: &str, data: Vec<Attribute>) -> Attribute {
    let expression = vec![Attribute::text(NFTA_EXPR_NAME, name), Attribute::nested(NFTA_EXPR_DATA, data)];
    Attribute::nested(NFTA_LIST_ELEM, expression)
}
