//! The program of a bridge's ports.

use super::hash::hash;
use super::packet::{
    BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, DESTINATION, DESTINATION_MAC, ETHERNET_HEADER, ETHERTYPE_IPV4,
    ETHERTYPE_IPV6, FRAGMENT, FRAME, GSO_SEGMENTS, HEADER_CHECKSUM, HELPER_CSUM_DIFF, HELPER_L3_CSUM_REPLACE,
    HELPER_L4_CSUM_REPLACE, HELPER_REDIRECT_PEER, HELPER_SKB_CHANGE_TYPE, IS_FRAGMENT, LENGTH, MAC_OF_IPV4,
    PACKET_HOST, PLAIN_IPV4, PORTS, PROTOCOL, R0, R1, R2, R3, R4, R5, SOURCE, SOURCE_MAC, TCX_DROP, TCX_NEXT,
    TRANSPORT, VERSION_AND_LENGTH, find_bytes, find_port, require_sandbox,
};
use super::session_map::{
    BUCKETS, BYTES, DATAGRAMS, ENTRY_BYTES, KEY_ADDRESSES, KEY_PORTS, NEW_ADDRESSES, NEW_PORTS, PAYLOAD_BYTES,
    SEQUENCE, WAYS,
};
use crate::bpf::{
    Instruction, Program, add, add_register, and, atomic_add, atomic_fetch_add_word, call, exit, jump_always,
    jump_if_any_bit, jump_if_equal, jump_unless_equal, jump_unless_same, jump_unless_zero, load_byte, load_double_word,
    load_half_word, load_map_value, load_word, move_register, move_value, shift_left, store_double_word_of,
    store_half_word, store_half_word_of, store_word_of,
};
use std::os::fd::BorrowedFd;

/// Where a UDP header begins, what it has, and where it ends.
const UDP: i32 = 17;
const UDP_CHECKSUM: i32 = 40;
const HEADERS: i32 = 42;

// Registers that survive calls.
const CONTEXT: u8 = 6;
/// The port that a packet is handed to.
const PORT: u8 = 7;
/// The entry of the session map that a datagram has.
const ENTRY: u8 = 8;
const KEPT: u8 = 9;

// In the frame: a hardware address as a key, and a datagram's addresses and ports before and after.
const MAC: i16 = -8;
const ADDRESSES: i16 = -16;
const PORTS_BEFORE: i16 = -24;
const NEW: i16 = -32;
const PORTS_AFTER: i16 = -40;

/// Where the program looks for sessions.
pub(super) struct SessionMaps<'a> {
    /// [`super::session_map`].
    pub(super) entries: BorrowedFd<'a>,
    /// The sandbox's hardware address.
    pub(super) sandbox: BorrowedFd<'a>,
}

/// The places in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    /// Not IPv4.
    Other,
    /// The entry in that place of the bucket is another one.
    NotIn(usize),
    Found,
    ByMac,
    HandOver,
    OneDatagram,
    Next,
    Drop,
}

/// In C:
/// ```c
/// if (ctx->protocol == htons(ETH_P_IP)) {
///         the session that the datagram is of, if it is one, and its next hop; translate; goto hand over
/// } else if (ctx->protocol != htons(ETH_P_IPV6))
///         return TCX_NEXT;
/// port = bpf_map_lookup_elem(&ports, ethernet header's destination);
/// if (!port) return TCX_NEXT;
/// hand over:
/// bpf_skb_change_type(ctx, PACKET_HOST);
/// return bpf_redirect_peer(*port, 0);
/// ```
/// The type says so far that the packet is for somebody else than the port, and the receiver would drop it for that.
/// Without sessions, what is done for them is left out.
pub(super) fn program(ports: BorrowedFd<'_>, sessions: Option<&SessionMaps<'_>>) -> Vec<Instruction> {
    let mut program = Program::new();
    program.push(move_register(CONTEXT, R1));
    program.push(load_word(R2, CONTEXT, PROTOCOL));
    if let Some(sessions) = sessions {
        program.jump(jump_unless_equal(R2, ETHERTYPE_IPV4), Label::Other);
        find_session(&mut program, sessions);
        find_next_hop(&mut program, ports);
        count(&mut program);
        translate(&mut program);
        program.jump(jump_always(), Label::HandOver);
        program.label(Label::Other);
    }
    program.jump(jump_if_equal(R2, ETHERTYPE_IPV4), Label::ByMac);
    program.jump(jump_unless_equal(R2, ETHERTYPE_IPV6), Label::Next);
    program.label(Label::ByMac);
    find_port_by_mac(&mut program, ports);
    program.label(Label::HandOver);
    program.push(move_register(R1, CONTEXT));
    program.push(move_value(R2, PACKET_HOST));
    program.push(call(HELPER_SKB_CHANGE_TYPE));
    program.push(move_register(R1, PORT));
    program.push(move_value(R2, 0));
    program.push(call(HELPER_REDIRECT_PEER));
    program.push(exit());
    // A kernel takes no program with instructions that are never reached.
    if sessions.is_some() {
        program.label(Label::Drop);
        program.push(move_value(R0, TCX_DROP));
        program.push(exit());
    }
    program.label(Label::Next);
    program.finish(TCX_NEXT)
}

/// Looks for the session of a datagram: what it is translated to is in the frame then. All else goes on by its hardware
/// address. Only what was sent to the sandbox can be a proxy's: nobody else's datagrams are led astray by what it says.
fn find_session(program: &mut Program<Label>, maps: &SessionMaps<'_>) {
    find_bytes(program, CONTEXT, HEADERS, Label::ByMac);
    program.push(load_byte(R1, R2, TRANSPORT));
    program.jump(jump_unless_equal(R1, UDP), Label::ByMac);
    program.push(load_byte(R1, R2, VERSION_AND_LENGTH));
    program.jump(jump_unless_equal(R1, PLAIN_IPV4), Label::ByMac);
    program.push(load_half_word(R1, R2, FRAGMENT));
    program.jump(jump_if_any_bit(R1, IS_FRAGMENT), Label::ByMac);
    require_sandbox(program, maps.sandbox, DESTINATION_MAC, Label::ByMac);
    program.push(load_word(R3, R2, SOURCE));
    program.push(load_word(R4, R2, DESTINATION));
    program.push(load_word(R5, R2, PORTS));
    program.push(store_word_of(FRAME, ADDRESSES, R3));
    program.push(store_word_of(FRAME, ADDRESSES + 4, R4));
    program.push(store_word_of(FRAME, PORTS_BEFORE, R5));
    // The bucket, as `session_map::bucket_of` has it.
    program.push(move_register(R0, R5));
    hash(program, [R3, R4]);
    program.push(and(R3, BUCKETS as i32 - 1));
    program.push(shift_left(R3, (WAYS * ENTRY_BYTES).ilog2() as i32));
    program.extend(load_map_value(ENTRY, maps.entries));
    program.push(add_register(ENTRY, R3));
    program.push(load_double_word(R4, FRAME, ADDRESSES));
    for way in 0..WAYS {
        for (load, key) in
            [(load_double_word(R1, ENTRY, KEY_ADDRESSES as i16), R4), (load_word(R1, ENTRY, KEY_PORTS as i16), R5)]
        {
            program.push(load);
            program.jump(jump_unless_same(R1, key), Label::NotIn(way));
        }
        program.jump(jump_always(), Label::Found);
        program.label(Label::NotIn(way));
        program.push(add(ENTRY, ENTRY_BYTES as i32));
    }
    program.jump(jump_always(), Label::ByMac);
    program.label(Label::Found);
    // Whoever writes makes the number odd before and another one after. To add nothing is a load that comes before all later
    // ones and after all earlier ones.
    program.push(move_value(KEPT, 0));
    program.push(atomic_fetch_add_word(ENTRY, SEQUENCE as i16, KEPT));
    program.jump(jump_if_any_bit(KEPT, 1), Label::ByMac);
    program.push(load_double_word(R1, ENTRY, KEY_ADDRESSES as i16));
    program.jump(jump_unless_same(R1, R4), Label::ByMac);
    program.push(load_word(R1, ENTRY, KEY_PORTS as i16));
    program.jump(jump_unless_same(R1, R5), Label::ByMac);
    program.push(load_double_word(R1, ENTRY, NEW_ADDRESSES as i16));
    program.push(store_double_word_of(FRAME, NEW, R1));
    program.push(load_word(R1, ENTRY, NEW_PORTS as i16));
    program.push(store_word_of(FRAME, PORTS_AFTER, R1));
    program.push(move_value(R1, 0));
    program.push(atomic_fetch_add_word(ENTRY, SEQUENCE as i16, R1));
    program.jump(jump_unless_same(R1, KEPT), Label::ByMac);
}

/// Looks for the port of the new destination; if there is none, the proxy gets the datagram.
fn find_next_hop(program: &mut Program<Label>, ports: BorrowedFd<'_>) {
    program.push(store_half_word(FRAME, MAC, MAC_OF_IPV4));
    for offset in [0, 2] {
        program.push(load_half_word(R1, FRAME, NEW + 4 + offset));
        program.push(store_half_word_of(FRAME, MAC + 2 + offset, R1));
    }
    find_port(program, ports, MAC, Label::ByMac);
    program.push(load_word(PORT, R0, 0));
}

/// Counts the datagrams, of which there are several in one packet if they are yet to be cut (`UDP_SEGMENT`).
fn count(program: &mut Program<Label>) {
    program.push(load_word(R1, CONTEXT, GSO_SEGMENTS));
    program.jump(jump_unless_zero(R1), Label::OneDatagram);
    program.push(move_value(R1, 1));
    program.label(Label::OneDatagram);
    program.push(atomic_add(ENTRY, DATAGRAMS as i16, R1));
    program.push(load_word(R1, CONTEXT, LENGTH));
    program.push(add(R1, -HEADERS));
    program.push(atomic_add(ENTRY, PAYLOAD_BYTES as i16, R1));
}

/// Gives the datagram its new addresses, ports and checksums. It comes from the hardware address that it was for.
fn translate(program: &mut Program<Label>) {
    program.push(move_register(R1, FRAME));
    program.push(add(R1, ADDRESSES.into()));
    program.push(move_value(R2, 8));
    program.push(move_register(R3, FRAME));
    program.push(add(R3, NEW.into()));
    program.push(move_value(R4, 8));
    program.push(move_value(R5, 0));
    program.push(call(HELPER_CSUM_DIFF));
    program.push(move_register(KEPT, R0));
    program.push(move_register(R1, CONTEXT));
    program.push(move_value(R2, HEADER_CHECKSUM));
    program.push(move_value(R3, 0));
    program.push(move_register(R4, KEPT));
    program.push(move_value(R5, 0));
    program.push(call(HELPER_L3_CSUM_REPLACE));
    program.push(move_register(R1, CONTEXT));
    program.push(move_value(R2, UDP_CHECKSUM));
    program.push(move_value(R3, 0));
    program.push(move_register(R4, KEPT));
    program.push(move_value(R5, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0));
    program.push(call(HELPER_L4_CSUM_REPLACE));
    program.push(move_register(R1, CONTEXT));
    program.push(move_value(R2, UDP_CHECKSUM));
    program.push(load_word(R3, FRAME, PORTS_BEFORE));
    program.push(load_word(R4, FRAME, PORTS_AFTER));
    program.push(move_value(R5, BPF_F_MARK_MANGLED_0 | 4));
    program.push(call(HELPER_L4_CSUM_REPLACE));
    find_bytes(program, CONTEXT, HEADERS, Label::Drop);
    for offset in [0, 2, 4] {
        program.push(load_half_word(R1, R2, DESTINATION_MAC + offset));
        program.push(store_half_word_of(R2, SOURCE_MAC + offset, R1));
        program.push(load_half_word(R1, FRAME, MAC + offset));
        program.push(store_half_word_of(R2, DESTINATION_MAC + offset, R1));
    }
    for (to, from) in [(SOURCE, NEW), (DESTINATION, NEW + 4), (PORTS, PORTS_AFTER)] {
        program.push(load_word(R1, FRAME, from));
        program.push(store_word_of(R2, to, R1));
    }
}

fn find_port_by_mac(program: &mut Program<Label>, ports: BorrowedFd<'_>) {
    find_bytes(program, CONTEXT, ETHERNET_HEADER, Label::Next);
    for offset in [0, 2, 4] {
        program.push(load_half_word(R1, R2, DESTINATION_MAC + offset));
        program.push(store_half_word_of(FRAME, MAC + offset, R1));
    }
    find_port(program, ports, MAC, Label::Next);
    program.push(load_word(PORT, R0, 0));
}

const _: () = assert!((WAYS * ENTRY_BYTES).is_power_of_two() && BUCKETS.is_power_of_two() && BYTES < 1 << 30);
