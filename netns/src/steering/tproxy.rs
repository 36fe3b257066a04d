//! Steering by a netfilter rule (Documentation/networking/tproxy.rst). In nft(8)'s words:
//! ```text
//! table ip ringlb {
//!     chain prerouting {
//!         type filter hook prerouting priority mangle; policy accept;
//!         meta l4proto tcp ip daddr != OWN_ADDRESS ip daddr != 127.0.0.0/8 tproxy to 127.0.0.1:PORT accept
//!     }
//! }
//! ```
//! It sees packets from other namespaces, and those of this namespace to itself as they arrive on the loopback
//! interface. VIPs are local routes, so no routing rule is needed. The numbers are those of
//! include/uapi/linux/netfilter/nf_tables.h.

use super::netfilter::{Attribute, NLM_F_APPEND, NLM_F_CREATE, Transaction};
use crate::{Error, Namespace, Result};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Makes the rule that leads to the listener, in place of the one before it.
pub(super) fn install(namespace: &Namespace, own_address: Ipv4Addr, listener: &TcpListener) -> Result<()> {
    let error = |cause| Error::Tproxy { namespace: namespace.label().to_owned(), cause };
    let SocketAddr::V4(address) = listener.local_addr().map_err(error)? else {
        return Err(error(io::ErrorKind::Unsupported.into()));
    };
    namespace.run(|| transaction(own_address, *address.ip(), address.port()).commit())?.map_err(error)
}

const TABLE: &str = "ringlb";
const CHAIN: &str = "prerouting";

const NFPROTO_IPV4: u8 = 2;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NF_INET_PRE_ROUTING: u32 = 0;
const NF_IP_PRI_MANGLE: i32 = -150;
const NF_ACCEPT: u32 = 1;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const REGISTER_VERDICT: u32 = 0;
const REGISTER_1: u32 = 1;
const REGISTER_2: u32 = 2;

/// Where the destination address is in an IPv4 header (RFC 791).
const DESTINATION_OFFSET: u32 = 16;

fn transaction(own_address: Ipv4Addr, listener: Ipv4Addr, port: u16) -> Transaction {
    let mut transaction = Transaction::begin(NFPROTO_IPV4);
    // Made so that it can be deleted whether it existed or not, and made again, empty.
    transaction.add(NFT_MSG_NEWTABLE, NLM_F_CREATE, vec![Attribute::text(NFTA_TABLE_NAME, TABLE)]);
    transaction.add(NFT_MSG_DELTABLE, 0, vec![Attribute::text(NFTA_TABLE_NAME, TABLE)]);
    transaction.add(NFT_MSG_NEWTABLE, NLM_F_CREATE, vec![Attribute::text(NFTA_TABLE_NAME, TABLE)]);
    transaction.add(NFT_MSG_NEWCHAIN, NLM_F_CREATE, chain());
    transaction.add(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, rule(own_address, listener, port));
    transaction
}

fn chain() -> Vec<Attribute> {
    let hook = vec![
        Attribute::number(NFTA_HOOK_HOOKNUM, NF_INET_PRE_ROUTING),
        Attribute::number(NFTA_HOOK_PRIORITY, NF_IP_PRI_MANGLE.cast_unsigned()),
    ];
    vec![
        Attribute::text(NFTA_CHAIN_TABLE, TABLE),
        Attribute::text(NFTA_CHAIN_NAME, CHAIN),
        Attribute::nested(NFTA_CHAIN_HOOK, hook),
        Attribute::text(NFTA_CHAIN_TYPE, "filter"),
        Attribute::number(NFTA_CHAIN_POLICY, NF_ACCEPT),
    ]
}

fn rule(own_address: Ipv4Addr, listener: Ipv4Addr, port: u16) -> Vec<Attribute> {
    const LOOPBACK_FIRST_OCTET: u8 = 127;
    const TCP: u8 = 6;
    let expressions = vec![
        load_transport_protocol(),
        compare(Comparison::Equal, &[TCP]),
        load_network_header(DESTINATION_OFFSET, 4),
        compare(Comparison::NotEqual, &own_address.octets()),
        load_network_header(DESTINATION_OFFSET, 1),
        compare(Comparison::NotEqual, &[LOOPBACK_FIRST_OCTET]),
        set_register(REGISTER_1, &listener.octets()),
        set_register(REGISTER_2, &port.to_be_bytes()),
        assign_to_listener(REGISTER_1, REGISTER_2),
        accept(),
    ];
    vec![
        Attribute::text(NFTA_RULE_TABLE, TABLE),
        Attribute::text(NFTA_RULE_CHAIN, CHAIN),
        Attribute::nested(NFTA_RULE_EXPRESSIONS, expressions),
    ]
}

enum Comparison {
    Equal = 0,
    NotEqual = 1,
}

fn load_transport_protocol() -> Attribute {
    const NFTA_META_DREG: u16 = 1;
    const NFTA_META_KEY: u16 = 2;
    const NFT_META_L4PROTO: u32 = 16;
    let data = vec![Attribute::number(NFTA_META_DREG, REGISTER_1), Attribute::number(NFTA_META_KEY, NFT_META_L4PROTO)];
    expression("meta", data)
}

fn load_network_header(offset: u32, length: u32) -> Attribute {
    const NFTA_PAYLOAD_DREG: u16 = 1;
    const NFTA_PAYLOAD_BASE: u16 = 2;
    const NFTA_PAYLOAD_OFFSET: u16 = 3;
    const NFTA_PAYLOAD_LEN: u16 = 4;
    const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
    let data = vec![
        Attribute::number(NFTA_PAYLOAD_DREG, REGISTER_1),
        Attribute::number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER),
        Attribute::number(NFTA_PAYLOAD_OFFSET, offset),
        Attribute::number(NFTA_PAYLOAD_LEN, length),
    ];
    expression("payload", data)
}

/// The rule ends here for a packet for which the comparison does not hold.
fn compare(comparison: Comparison, value: &[u8]) -> Attribute {
    const NFTA_CMP_SREG: u16 = 1;
    const NFTA_CMP_OP: u16 = 2;
    const NFTA_CMP_DATA: u16 = 3;
    let data = vec![
        Attribute::number(NFTA_CMP_SREG, REGISTER_1),
        Attribute::number(NFTA_CMP_OP, comparison as u32),
        Attribute::nested(NFTA_CMP_DATA, vec![Attribute::bytes(NFTA_DATA_VALUE, value)]),
    ];
    expression("cmp", data)
}

fn set_register(register: u32, value: &[u8]) -> Attribute {
    immediate(register, Attribute::bytes(NFTA_DATA_VALUE, value))
}

fn accept() -> Attribute {
    let verdict = vec![Attribute::number(NFTA_VERDICT_CODE, NF_ACCEPT)];
    immediate(REGISTER_VERDICT, Attribute::nested(NFTA_DATA_VERDICT, verdict))
}

fn immediate(register: u32, value: Attribute) -> Attribute {
    const NFTA_IMMEDIATE_DREG: u16 = 1;
    const NFTA_IMMEDIATE_DATA: u16 = 2;
    let data =
        vec![Attribute::number(NFTA_IMMEDIATE_DREG, register), Attribute::nested(NFTA_IMMEDIATE_DATA, vec![value])];
    expression("immediate", data)
}

fn assign_to_listener(address_register: u32, port_register: u32) -> Attribute {
    const NFTA_TPROXY_FAMILY: u16 = 1;
    const NFTA_TPROXY_REG_ADDR: u16 = 2;
    const NFTA_TPROXY_REG_PORT: u16 = 3;
    let data = vec![
        Attribute::number(NFTA_TPROXY_FAMILY, NFPROTO_IPV4.into()),
        Attribute::number(NFTA_TPROXY_REG_ADDR, address_register),
        Attribute::number(NFTA_TPROXY_REG_PORT, port_register),
    ];
    expression("tproxy", data)
}

fn expression(name: &str, data: Vec<Attribute>) -> Attribute {
    let expression = vec![Attribute::text(NFTA_EXPR_NAME, name), Attribute::nested(NFTA_EXPR_DATA, data)];
    Attribute::nested(NFTA_LIST_ELEM, expression)
}
