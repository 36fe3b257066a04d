//! Steering by a BPF program that the kernel asks which socket a new connection or a datagram is for
//! (Documentation/bpf/prog_sk_lookup.rst).

use super::sockets::{Group, Protocol};
use crate::bpf::{
    self, Hook, Instruction, MapKind, Name, Program, add, and, call, jump_always, jump_if_equal, jump_if_zero,
    jump_unless_equal, load_map, load_word, move_register, move_value, store_word_of,
};
use crate::{Namespace, Result};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Steers to the groups of sockets as long as the returned link is open.
pub(super) fn attach(namespace: &Namespace, groups: &[Group]) -> Result<OwnedFd> {
    // The link keeps the program, and the program keeps the map.
    let map = bpf::create_map(&MapKind::sockets(NAME, KEYS))?;
    for group in groups {
        // The kernel chooses among the sockets that share a port (`SO_REUSEPORT`).
        if let Some(socket) = group.sockets.first() {
            bpf::put_socket(map.as_fd(), key_of(group), socket.as_fd())?;
        }
    }
    let mut own_addresses: Vec<_> =
        groups.iter().filter(|group| group.spares_own).map(|group| group.own_address).collect();
    own_addresses.dedup();
    let program = bpf::load_program(Hook::SocketLookup, NAME, &program(&own_addresses, map.as_fd()), c"Apache-2.0")?;
    bpf::attach_to_namespace(program.as_fd(), namespace.as_fd())
}

/// The places in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Protocol,
    Ipv6,
    NotOwn,
    NotLoopback,
    Assign,
    Pass,
}

/// The map's key of a group is the sum of its protocol's and its family's number.
const KEY_TCP: i32 = 0;
const KEY_UDP: i32 = 1;
const KEY_IPV4: i32 = 0;
const KEY_IPV6: i32 = 2;
const KEYS: u32 = 4;
const NAME: Name = Name::new("ringlb");

fn key_of(group: &Group) -> u32 {
    let protocol = match group.protocol {
        Protocol::Tcp => KEY_TCP,
        Protocol::Udp => KEY_UDP,
    };
    let family = if group.own_address.is_ipv4() { KEY_IPV4 } else { KEY_IPV6 };
    (protocol + family).cast_unsigned()
}

// Offsets in `struct bpf_sk_lookup`. Addresses are in network byte order.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;

const HELPER_MAP_LOOKUP_ELEM: i32 = 1;
const HELPER_SK_RELEASE: i32 = 86;
const HELPER_SK_ASSIGN: i32 = 124;
/// A program attached later, by a daemon that could not adopt the sockets, has the last word.
const BPF_SK_LOOKUP_F_REPLACE: i32 = 1;
const SK_PASS: i32 = 1;

// Registers: the result, the arguments, one that survives calls for each thing to remember, and the frame.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const CONTEXT: u8 = 6;
const SOCKET: u8 = 7;
const KEY: u8 = 8;
const FRAME: u8 = 10;

/// In C:
/// ```c
/// __u32 key;
/// switch (ctx->protocol) {
/// case IPPROTO_TCP: key = KEY_TCP; break;
/// case IPPROTO_UDP: key = KEY_UDP; break;
/// default: return SK_PASS;
/// }
/// switch (ctx->family) {
/// case AF_INET:
///     if (ctx->local_ip4 == OWN_ADDRESS || (ctx->local_ip4 & 255.0.0.0) == 127.0.0.0) return SK_PASS;
///     key += KEY_IPV4; break;
/// case AF_INET6:
///     if (ctx->local_ip6 == OWN_ADDRESS || ctx->local_ip6 == ::1) return SK_PASS;
///     if ((ctx->local_ip6 & ffc0::) == fe80::) return SK_PASS;
///     key += KEY_IPV6; break;
/// default: return SK_PASS;
/// }
/// struct bpf_sock *socket = bpf_map_lookup_elem(&map, &key);
/// if (!socket) return SK_PASS;
/// bpf_sk_assign(ctx, socket, BPF_SK_LOOKUP_F_REPLACE);
/// bpf_sk_release(socket);
/// return SK_PASS;
/// ```
/// `SK_PASS` without an assigned socket means the usual lookup: nobody listens there, so the client is refused.
fn program(own_addresses: &[IpAddr], map: BorrowedFd<'_>) -> Vec<Instruction> {
    let mut program = Program::new();
    program.push(move_register(CONTEXT, R1));
    choose_protocol(&mut program);
    choose_family(&mut program, own_addresses);
    program.label(Label::Assign);
    program.push(store_word_of(FRAME, -4, KEY));
    program.extend(load_map(R1, map));
    program.push(move_register(R2, FRAME));
    program.push(add(R2, -4));
    program.push(call(HELPER_MAP_LOOKUP_ELEM));
    program.jump(jump_if_zero(R0), Label::Pass);
    program.push(move_register(SOCKET, R0));
    program.push(move_register(R1, CONTEXT));
    program.push(move_register(R2, SOCKET));
    program.push(move_value(R3, BPF_SK_LOOKUP_F_REPLACE));
    program.push(call(HELPER_SK_ASSIGN));
    program.push(move_register(R1, SOCKET));
    program.push(call(HELPER_SK_RELEASE));
    program.label(Label::Pass);
    program.finish(SK_PASS)
}

fn choose_protocol(program: &mut Program<Label>) {
    program.push(load_word(R2, CONTEXT, PROTOCOL));
    program.push(move_value(KEY, KEY_TCP));
    program.jump(jump_if_equal(R2, libc::IPPROTO_TCP), Label::Protocol);
    program.push(move_value(KEY, KEY_UDP));
    program.jump(jump_unless_equal(R2, libc::IPPROTO_UDP), Label::Pass);
    program.label(Label::Protocol);
}

/// A family that the LB endpoint does not have has no socket in the map.
fn choose_family(program: &mut Program<Label>, own_addresses: &[IpAddr]) {
    let in_memory = |octets| i32::from_ne_bytes(octets);
    program.push(load_word(R2, CONTEXT, FAMILY));
    program.jump(jump_if_equal(R2, libc::AF_INET6), Label::Ipv6);
    program.jump(jump_unless_equal(R2, libc::AF_INET), Label::Pass);
    program.push(add(KEY, KEY_IPV4));
    program.push(load_word(R2, CONTEXT, LOCAL_IP4));
    for address in own_addresses {
        if let IpAddr::V4(address) = address {
            program.jump(jump_if_equal(R2, in_memory(address.octets())), Label::Pass);
        }
    }
    program.push(and(R2, in_memory([255, 0, 0, 0])));
    program.jump(jump_if_equal(R2, in_memory([127, 0, 0, 0])), Label::Pass);
    program.jump(jump_always(), Label::Assign);

    program.label(Label::Ipv6);
    program.push(add(KEY, KEY_IPV6));
    for address in own_addresses {
        if let IpAddr::V6(address) = address {
            pass_if_local_ip6_is(program, address.octets(), Label::NotOwn);
        }
    }
    program.label(Label::NotOwn);
    pass_if_local_ip6_is(program, Ipv6Addr::LOCALHOST.octets(), Label::NotLoopback);
    program.label(Label::NotLoopback);
    program.push(load_word(R2, CONTEXT, LOCAL_IP6));
    program.push(and(R2, in_memory([0xff, 0xc0, 0, 0])));
    program.jump(jump_if_equal(R2, in_memory([0xfe, 0x80, 0, 0])), Label::Pass);
}

/// Goes to `otherwise` as soon as a word of the address differs.
fn pass_if_local_ip6_is(program: &mut Program<Label>, address: [u8; 16], otherwise: Label) {
    let (words, _rest) = address.as_chunks::<4>();
    for (word, offset) in words.iter().zip((LOCAL_IP6..).step_by(4)) {
        program.push(load_word(R2, CONTEXT, offset));
        program.jump(jump_unless_equal(R2, i32::from_ne_bytes(*word)), otherwise);
    }
    program.jump(jump_always(), Label::Pass);
}
