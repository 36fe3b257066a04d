//! Giving a packet what it is to have, and sending it on.

use super::super::packet::{
    BPF_F_PSEUDO_HDR, DESTINATION, DESTINATION_MAC, FRAME, HEADER_CHECKSUM, HELPER_CLONE_REDIRECT, HELPER_CSUM_DIFF,
    HELPER_L3_CSUM_REPLACE, HELPER_L4_CSUM_REPLACE, HELPER_REDIRECT, HELPER_REDIRECT_PEER, HELPER_SKB_CHANGE_TYPE,
    INTERFACE, PACKET_HOST, PORTS, R0, R1, R2, R3, R4, R5, SOURCE, SOURCE_MAC, find_bytes,
};
use super::find::unlock;
use super::frame::{
    ADDRESSES_AFTER, ADDRESSES_BEFORE, AFTER, ANSWERS, BEFORE, BEGINS, BLOCK_SHIFT, BLOCKS_AFTER, BLOCKS_BEFORE,
    CONTEXT, KEPT, MAC, NEXT_HOP, PLAIN, SANDBOX_PORT, SHAPE, SOCKETS_ACKNOWLEDGED, SOCKETS_HEADER, SOCKETS_SEQUENCE,
    TCP, TCP_ACKNOWLEDGED, TCP_BLOCKS, TCP_CHECKSUM, TCP_CLOCK, TCP_ECHO, TCP_OPTIONS, TCP_SEQUENCE, TCP_WINDOW,
    TOTAL_LENGTH, WITH_CLOCK, WORDS,
};
use super::{Label, Maps, Step};
use crate::bpf::{
    Program, add, add_word, and, call, exit, jump_if_equal, jump_unless_equal, jump_unless_word_greater,
    load_half_word, load_map_value, load_word, move_register, move_value, shift_word_right, store_half_word_of,
    store_word, store_word_of, swap_word, xor_word_value,
};

/// Changes the packet. It goes on to the other end's port if there is a next hop, else as it would have.
pub(super) fn rewrite(program: &mut Program<Label>, maps: &Maps<'_>) {
    let label = |number| Label::In(Step::Rewrite, number);
    program.label(Label::Rewrite);
    unlock(program);
    program.push(load_word(R1, FRAME, BEGINS));
    program.jump(jump_if_equal(R1, 0), label(0));
    tell_socket(program, maps);
    program.label(label(0));
    rewrite_blocks(program);
    difference(program, [BEFORE, AFTER], 4 * i32::from(WORDS));
    replace_checksum(program, HELPER_L4_CSUM_REPLACE, TCP_CHECKSUM.into(), 0);
    find_bytes(program, CONTEXT, TCP_OPTIONS.into(), Label::Drop);
    for (word, to) in [PORTS, TCP_SEQUENCE, TCP_ACKNOWLEDGED].into_iter().enumerate() {
        program.push(load_word(R1, FRAME, AFTER + 4 * word as i16));
        program.push(store_word_of(R2, to, R1));
    }
    program.push(load_half_word(R1, FRAME, AFTER + 22));
    program.push(store_half_word_of(R2, TCP_WINDOW, R1));
    program.push(load_word(R1, FRAME, SHAPE));
    program.jump(jump_if_equal(R1, PLAIN), label(1));
    find_bytes(program, CONTEXT, TCP_BLOCKS.into(), Label::Drop);
    for (word, to) in [(3, TCP_CLOCK), (4, TCP_ECHO)] {
        program.push(load_word(R1, FRAME, AFTER + 4 * word));
        program.push(store_word_of(R2, to, R1));
    }
    program.label(label(1));
    program.push(load_word(R1, FRAME, ANSWERS));
    program.jump(jump_unless_equal(R1, 0), label(2));
    program.push(load_word(R1, FRAME, NEXT_HOP));
    program.jump(jump_if_equal(R1, 0), Label::Next);
    hand_over(program);
    program.label(label(2));
    send_back(program);
}

/// Gives the packet its addresses and hands it to the other end's port.
fn hand_over(program: &mut Program<Label>) {
    difference(program, [ADDRESSES_BEFORE, ADDRESSES_AFTER], 8);
    program.push(store_word_of(FRAME, KEPT, R0));
    replace_checksum(program, HELPER_L3_CSUM_REPLACE, HEADER_CHECKSUM, 0);
    program.push(load_word(R0, FRAME, KEPT));
    replace_checksum(program, HELPER_L4_CSUM_REPLACE, TCP_CHECKSUM.into(), BPF_F_PSEUDO_HDR);
    find_bytes(program, CONTEXT, TCP_OPTIONS.into(), Label::Drop);
    for offset in [0, 2, 4] {
        program.push(load_half_word(R1, R2, DESTINATION_MAC + offset));
        program.push(store_half_word_of(R2, SOURCE_MAC + offset, R1));
        program.push(load_half_word(R1, FRAME, MAC + offset));
        program.push(store_half_word_of(R2, DESTINATION_MAC + offset, R1));
    }
    store_addresses(program);
    program.push(move_register(R1, CONTEXT));
    program.push(move_value(R2, PACKET_HOST));
    program.push(call(HELPER_SKB_CHANGE_TYPE));
    program.push(load_word(R1, FRAME, NEXT_HOP));
    program.push(move_value(R2, 0));
    program.push(call(HELPER_REDIRECT_PEER));
    program.push(exit());
}

/// Sends the packet back by the port that it has come by. Who sends and who receives change places, which no checksum notices.
fn send_back(program: &mut Program<Label>) {
    find_bytes(program, CONTEXT, TCP_OPTIONS.into(), Label::Drop);
    for offset in [0, 2, 4] {
        program.push(load_half_word(R1, R2, DESTINATION_MAC + offset));
        program.push(load_half_word(R3, R2, SOURCE_MAC + offset));
        program.push(store_half_word_of(R2, SOURCE_MAC + offset, R1));
        program.push(store_half_word_of(R2, DESTINATION_MAC + offset, R3));
    }
    store_addresses(program);
    program.push(load_word(R1, CONTEXT, INTERFACE));
    program.push(move_value(R2, 0));
    program.push(call(HELPER_REDIRECT));
    program.push(exit());
}

fn store_addresses(program: &mut Program<Label>) {
    for (half, to) in [(0, SOURCE), (4, DESTINATION)] {
        program.push(load_word(R1, FRAME, ADDRESSES_AFTER + half));
        program.push(store_word_of(R2, to, R1));
    }
}

/// Moves the blocks of selective acknowledgements.
fn rewrite_blocks(program: &mut Program<Label>) {
    let label = |number| Label::In(Step::Blocks, number);
    program.push(load_word(R1, FRAME, SHAPE));
    program.jump(jump_unless_word_greater(R1, WITH_CLOCK), label(1));
    for word in 0..6 {
        program.push(store_word(FRAME, BLOCKS_BEFORE + 4 * word, 0));
        program.push(store_word(FRAME, BLOCKS_AFTER + 4 * word, 0));
    }
    for block in 0..3_i16 {
        if block > 0 {
            program.push(load_word(R1, FRAME, SHAPE));
            program.jump(jump_unless_word_greater(R1, WITH_CLOCK + 4 + 8 * i32::from(block)), label(4));
        }
        let first = TCP_BLOCKS + 4 + 8 * block;
        find_bytes(program, CONTEXT, i32::from(first) + 8, Label::Drop);
        program.push(load_word(R4, FRAME, BLOCK_SHIFT));
        for word in [0, 4] {
            program.push(load_word(R1, R2, first + word));
            program.push(store_word_of(FRAME, BLOCKS_BEFORE + 8 * block + word, R1));
            program.push(swap_word(R1));
            program.push(add_word(R1, R4));
            program.push(swap_word(R1));
            program.push(store_word_of(FRAME, BLOCKS_AFTER + 8 * block + word, R1));
            program.push(store_word_of(R2, first + word, R1));
        }
    }
    program.label(label(4));
    difference(program, [BLOCKS_BEFORE, BLOCKS_AFTER], 24);
    replace_checksum(program, HELPER_L4_CSUM_REPLACE, TCP_CHECKSUM.into(), 0);
    program.label(label(1));
}

/// Sends the proxy's socket the segment without its data, and puts the packet back in order.
///
/// The IPv4 header says that the packet ends before the data, and the kernel cuts there what it receives. The checksum is that of
/// the shorter packet, for senders that compute theirs; the others' is not looked at.
fn tell_socket(program: &mut Program<Label>, maps: &Maps<'_>) {
    const PSEUDO_HEADER: i16 = 12;
    let header = SOCKETS_HEADER + PSEUDO_HEADER;
    find_bytes(program, CONTEXT, TCP_BLOCKS.into(), Label::Drop);
    for half in [0, 4] {
        program.push(load_word(R1, FRAME, ADDRESSES_BEFORE + half));
        program.push(store_word_of(FRAME, SOCKETS_HEADER + half, R1));
    }
    program.push(store_word(FRAME, SOCKETS_HEADER + 8, ((TCP << 16) | WITH_CLOCK).to_be()));
    for word in 0..WITH_CLOCK as i16 / 4 {
        program.push(load_word(R1, R2, PORTS + 4 * word));
        program.push(store_word_of(FRAME, header + 4 * word, R1));
    }
    for (from, to) in [(SOCKETS_SEQUENCE, TCP_SEQUENCE), (SOCKETS_ACKNOWLEDGED, TCP_ACKNOWLEDGED)] {
        program.push(load_word(R1, FRAME, from));
        program.push(store_word_of(FRAME, header + to - PORTS, R1));
        program.push(store_word_of(R2, to, R1));
    }
    for (kept, from) in [(KEPT, TOTAL_LENGTH), (KEPT + 4, HEADER_CHECKSUM as i16), (KEPT + 8, TCP_CHECKSUM)] {
        program.push(load_half_word(R1, R2, from));
        program.push(store_word_of(FRAME, kept, R1));
    }
    program.push(move_value(R1, 0));
    program.push(store_half_word_of(FRAME, header + TCP_CHECKSUM - PORTS, R1));
    const SHORT: u16 = 20 + WITH_CLOCK as u16;
    program.push(move_value(R1, SHORT.to_be().into()));
    program.push(store_half_word_of(R2, TOTAL_LENGTH, R1));
    // The sum of the whole shorter packet: of nothing before.
    program.push(move_value(R1, 0));
    program.push(move_value(R2, 0));
    program.push(move_register(R3, FRAME));
    program.push(add(R3, SOCKETS_HEADER.into()));
    program.push(move_value(R4, i32::from(PSEUDO_HEADER) + WITH_CLOCK));
    program.push(move_value(R5, 0));
    program.push(call(HELPER_CSUM_DIFF));
    for _ in 0..2 {
        program.push(move_register(R1, R0));
        program.push(shift_word_right(R1, 16));
        program.push(and(R0, 0xffff));
        program.push(add_word(R0, R1));
    }
    program.push(xor_word_value(R0, 0xffff));
    find_bytes(program, CONTEXT, TCP_BLOCKS.into(), Label::Drop);
    program.push(store_half_word_of(R2, TCP_CHECKSUM, R0));
    program.push(move_register(R1, CONTEXT));
    program.push(move_value(R2, HEADER_CHECKSUM));
    program.push(load_word(R3, FRAME, KEPT));
    program.push(move_value(R4, SHORT.to_be().into()));
    program.push(move_value(R5, 2));
    program.push(call(HELPER_L3_CSUM_REPLACE));
    program.extend(load_map_value(R1, maps.sandbox));
    program.push(load_word(R2, R1, SANDBOX_PORT));
    program.push(move_register(R1, CONTEXT));
    program.push(move_value(R3, 0));
    program.push(call(HELPER_CLONE_REDIRECT));
    find_bytes(program, CONTEXT, TCP_BLOCKS.into(), Label::Drop);
    for (kept, to) in [(KEPT, TOTAL_LENGTH), (KEPT + 4, HEADER_CHECKSUM as i16), (KEPT + 8, TCP_CHECKSUM)] {
        program.push(load_word(R1, FRAME, kept));
        program.push(store_half_word_of(R2, to, R1));
    }
}

/// Has `R0` be what two parts of the frame differ by, for a checksum.
fn difference(program: &mut Program<Label>, [before, after]: [i16; 2], bytes: i32) {
    program.push(move_register(R1, FRAME));
    program.push(add(R1, before.into()));
    program.push(move_value(R2, bytes));
    program.push(move_register(R3, FRAME));
    program.push(add(R3, after.into()));
    program.push(move_value(R4, bytes));
    program.push(move_value(R5, 0));
    program.push(call(HELPER_CSUM_DIFF));
}

/// Adds `R0` to a checksum of the packet.
fn replace_checksum(program: &mut Program<Label>, helper: i32, at: i32, flags: i32) {
    program.push(move_register(R4, R0));
    program.push(move_register(R1, CONTEXT));
    program.push(move_value(R2, at));
    program.push(move_value(R3, 0));
    program.push(move_value(R5, flags));
    program.push(call(helper));
}
