//! What all programs at a bridge's ports know of packets and of the kernel: include/uapi/linux/bpf.h.

use crate::bpf::{
    Program, add, call, jump_if_greater, jump_if_zero, jump_unless_same, load_half_word, load_map, load_map_value,
    load_word, move_register, store_half_word,
};
use std::os::fd::BorrowedFd;

// Offsets in `struct __sk_buff`.
pub(super) const LENGTH: i16 = 0;
pub(super) const PROTOCOL: i16 = 16;
pub(super) const INTERFACE: i16 = 40;
pub(super) const DATA: i16 = 76;
pub(super) const DATA_END: i16 = 80;
pub(super) const GSO_SEGMENTS: i16 = 164;

// Offsets in a frame with an IPv4 header without options.
pub(super) const DESTINATION_MAC: i16 = 0;
pub(super) const SOURCE_MAC: i16 = 6;
pub(super) const VERSION_AND_LENGTH: i16 = 14;
pub(super) const FRAGMENT: i16 = 20;
pub(super) const TRANSPORT: i16 = 23;
pub(super) const HEADER_CHECKSUM: i32 = 24;
pub(super) const SOURCE: i16 = 26;
pub(super) const DESTINATION: i16 = 30;
pub(super) const PORTS: i16 = 34;
pub(super) const ETHERNET_HEADER: i32 = 14;

/// Of if_ether.h, in network byte order.
pub(super) const ETHERTYPE_IPV4: i32 = 0x0800_u16.to_be() as i32;
pub(super) const ETHERTYPE_IPV6: i32 = 0x86dd_u16.to_be() as i32;
/// Version 4, a header of five words.
pub(super) const PLAIN_IPV4: i32 = 0x45;
/// More fragments, or not the first one, in network byte order.
pub(super) const IS_FRAGMENT: i32 = 0x3fff_u16.to_be() as i32;
/// How hardware addresses begin that follow from an IPv4 address (`fabric::mac_of`).
pub(super) const MAC_OF_IPV4: i32 = u16::from_ne_bytes([0x02, 0x42]) as i32;

const HELPER_MAP_LOOKUP_ELEM: i32 = 1;
pub(super) const HELPER_L3_CSUM_REPLACE: i32 = 10;
pub(super) const HELPER_L4_CSUM_REPLACE: i32 = 11;
pub(super) const HELPER_CLONE_REDIRECT: i32 = 13;
pub(super) const HELPER_REDIRECT: i32 = 23;
pub(super) const HELPER_CSUM_DIFF: i32 = 28;
pub(super) const HELPER_SKB_CHANGE_TYPE: i32 = 32;
pub(super) const HELPER_REDIRECT_PEER: i32 = 155;
pub(super) const BPF_F_PSEUDO_HDR: i32 = 1 << 4;
/// A datagram without a checksum has none afterwards.
pub(super) const BPF_F_MARK_MANGLED_0: i32 = 1 << 5;
pub(super) const PACKET_HOST: i32 = 0;
/// The next program at this port, and after the last one the bridge.
pub(super) const TCX_NEXT: i32 = -1;
pub(super) const TCX_DROP: i32 = 2;

// Registers: the result, the arguments, and the frame. Those from 6 to 9 survive calls.
pub(super) const R0: u8 = 0;
pub(super) const R1: u8 = 1;
pub(super) const R2: u8 = 2;
pub(super) const R3: u8 = 3;
pub(super) const R4: u8 = 4;
pub(super) const R5: u8 = 5;
pub(super) const FRAME: u8 = 10;

/// Has `R2` point to the packet, if it has so many bytes. Calls that change it make that void.
pub(super) fn find_bytes<Label: Copy + PartialEq>(
    program: &mut Program<Label>,
    context: u8,
    bytes: i32,
    otherwise: Label,
) {
    program.push(load_word(R2, context, DATA));
    program.push(load_word(R3, context, DATA_END));
    program.push(move_register(R1, R2));
    program.push(add(R1, bytes));
    program.jump(jump_if_greater(R1, R3), otherwise);
}

/// Has `R0` point to the number of the port that the hardware address at that place of the frame is at.
pub(super) fn find_port<Label: Copy + PartialEq>(
    program: &mut Program<Label>,
    ports: BorrowedFd<'_>,
    mac: i16,
    otherwise: Label,
) {
    program.push(store_half_word(FRAME, mac + 6, 0));
    program.extend(load_map(R1, ports));
    program.push(move_register(R2, FRAME));
    program.push(add(R2, mac.into()));
    program.push(call(HELPER_MAP_LOOKUP_ELEM));
    program.jump(jump_if_zero(R0), otherwise);
}

/// Goes on if the hardware address at that offset of the packet, to which `R2` points, is the sandbox's.
pub(super) fn require_sandbox<Label: Copy + PartialEq>(
    program: &mut Program<Label>,
    sandbox: BorrowedFd<'_>,
    at: i16,
    otherwise: Label,
) {
    program.extend(load_map_value(R3, sandbox));
    for offset in [0, 2, 4] {
        program.push(load_half_word(R1, R2, at + offset));
        program.push(load_half_word(R4, R3, offset));
        program.jump(jump_unless_same(R1, R4), otherwise);
    }
}
