//! Steering by a BPF program that the kernel asks which socket a new connection is for (Documentation/bpf/prog_sk_lookup.rst).

use super::bpf::{self, Instruction};
use crate::{Namespace, Result};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Steers connections to the listener as long as the returned link is open.
pub(super) fn attach(namespace: &Namespace, own_address: Ipv4Addr, listener: &TcpListener) -> Result<OwnedFd> {
    // The link keeps the program, and the program keeps the map.
    let map = bpf::create_socket_map()?;
    bpf::put_socket(map.as_fd(), listener.as_fd())?;
    let program = bpf::load_sk_lookup(&program(own_address, map.as_fd()), c"Apache-2.0")?;
    bpf::attach_sk_lookup(program.as_fd(), namespace.as_fd())
}

// Offsets in `struct bpf_sk_lookup`. Addresses are in network byte order.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;

const HELPER_MAP_LOOKUP_ELEM: i32 = 1;
const HELPER_SK_RELEASE: i32 = 86;
const HELPER_SK_ASSIGN: i32 = 124;
/// A program attached later, by a daemon that could not adopt the listener, has the last word.
const BPF_SK_LOOKUP_F_REPLACE: i32 = 1;
const SK_PASS: i32 = 1;

// Registers: the result, the arguments, one that survives calls for each thing to remember, and the frame.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const CONTEXT: u8 = 6;
const SOCKET: u8 = 7;
const FRAME: u8 = 10;

/// In C:
/// ```c
/// if (ctx->family != AF_INET || ctx->protocol != IPPROTO_TCP) return SK_PASS;
/// if (ctx->local_ip4 == OWN_ADDRESS || (ctx->local_ip4 & 255.0.0.0) == 127.0.0.0) return SK_PASS;
/// struct bpf_sock *socket = bpf_map_lookup_elem(&map, &(__u32){0});
/// if (!socket) return SK_PASS;
/// bpf_sk_assign(ctx, socket, BPF_SK_LOOKUP_F_REPLACE);
/// bpf_sk_release(socket);
/// return SK_PASS;
/// ```
/// `SK_PASS` without an assigned socket means the usual lookup: nobody listens there, so the client is refused.
fn program(own_address: Ipv4Addr, map: BorrowedFd<'_>) -> Vec<Instruction> {
    let in_memory = |octets| i32::from_ne_bytes(octets);
    let mut program = vec![
        move_register(CONTEXT, R1),
        load_word(R2, CONTEXT, FAMILY),
        jump_unless_equal(R2, libc::AF_INET),
        load_word(R2, CONTEXT, PROTOCOL),
        jump_unless_equal(R2, libc::IPPROTO_TCP),
        load_word(R2, CONTEXT, LOCAL_IP4),
        jump_if_equal(R2, in_memory(own_address.octets())),
        and(R2, in_memory([255, 0, 0, 0])),
        jump_if_equal(R2, in_memory([127, 0, 0, 0])),
        store_word(FRAME, -4, 0),
        load_map(R1, map),
        load_map_second_half(),
        move_register(R2, FRAME),
        add(R2, -4),
        call(HELPER_MAP_LOOKUP_ELEM),
        jump_if_zero(R0),
        move_register(SOCKET, R0),
        move_register(R1, CONTEXT),
        move_register(R2, SOCKET),
        move_value(R3, BPF_SK_LOOKUP_F_REPLACE),
        call(HELPER_SK_ASSIGN),
        move_register(R1, SOCKET),
        call(HELPER_SK_RELEASE),
    ];
    // Every jump goes to what follows; its offset counts the instructions in between.
    for (instruction, distance) in program.iter_mut().rev().zip(0..) {
        if instruction.is_jump() {
            *instruction = instruction.with_offset(distance);
        }
    }
    program.extend([move_value(R0, SK_PASS), exit()]);
    program
}

// The instruction set: Documentation/bpf/standardization/instruction-set.rst.

const fn move_register(to: u8, from: u8) -> Instruction {
    Instruction::new(0xbf, to, from, 0, 0)
}

const fn move_value(to: u8, value: i32) -> Instruction {
    Instruction::new(0xb7, to, 0, 0, value)
}

const fn add(to: u8, value: i32) -> Instruction {
    Instruction::new(0x07, to, 0, 0, value)
}

/// On the lower 32 bits; the upper become zero.
const fn and(to: u8, value: i32) -> Instruction {
    Instruction::new(0x54, to, 0, 0, value)
}

const fn load_word(to: u8, from: u8, offset: i16) -> Instruction {
    Instruction::new(0x61, to, from, offset, 0)
}

const fn store_word(to: u8, offset: i16, value: i32) -> Instruction {
    Instruction::new(0x62, to, 0, offset, value)
}

/// Compares the lower 32 bits: the 64-bit comparison would extend an address's sign.
const fn jump_if_equal(register: u8, value: i32) -> Instruction {
    Instruction::new(0x16, register, 0, 0, value)
}

const fn jump_unless_equal(register: u8, value: i32) -> Instruction {
    Instruction::new(0x56, register, 0, 0, value)
}

/// Compares all 64 bits, as the verifier wants for pointers.
const fn jump_if_zero(register: u8) -> Instruction {
    Instruction::new(0x15, register, 0, 0, 0)
}

/// `BPF_PSEUDO_MAP_FD`: the kernel puts the map's address where the descriptor's number is.
fn load_map(to: u8, map: BorrowedFd<'_>) -> Instruction {
    Instruction::new(0x18, to, 1, 0, map.as_raw_fd())
}

const fn load_map_second_half() -> Instruction {
    Instruction::new(0, 0, 0, 0, 0)
}

const fn call(helper: i32) -> Instruction {
    Instruction::new(0x85, 0, 0, 0, helper)
}

const fn exit() -> Instruction {
    Instruction::new(0x95, 0, 0, 0, 0)
}
