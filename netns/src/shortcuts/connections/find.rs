//! What a packet is, and which record it belongs to.

use super::super::connection_map::{
    ACTIVITY, ADDRESSES, BUCKETS, FIRST_RECORD, FREE, LEG_BYTES, LEGS, LOCK, MODE, PORTS as LEG_PORTS, RECORD_BYTES,
    RECORDS, REPLACED, SLOT_BYTES, SLOT_LEG, SLOT_RECORD, SLOT_TAG, TAKEN, WAYS,
};
use super::super::hash::hash;
use super::super::packet::{
    DESTINATION_MAC, ETHERTYPE_IPV4, FRAGMENT, FRAME, INTERFACE, IS_FRAGMENT, LENGTH, MAC_OF_IPV4, PLAIN_IPV4, PORTS,
    PROTOCOL, R0, R1, R2, R3, R4, R5, SOURCE, SOURCE_MAC, TRANSPORT, VERSION_AND_LENGTH, find_bytes, find_port,
    require_sandbox,
};
use super::frame::{
    ACKNOWLEDGED, ADDRESSES_BEFORE, AFTER, ANSWERS, BEFORE, BEGINS, BLOCK_SHIFT, CLOCK, CONTEXT, DATA_BYTES, ECHO,
    FLAGS, FROM_SOCKET, KEY_ADDRESSES, KEY_PORTS, LEG, MAC, NEXT_HOP, ODD, OTHER, PLAIN, RECORD, SANDBOX_PORT,
    SEQUENCE, SHAPE, SIDE, SYN, TCP, TCP_ACKNOWLEDGED, TCP_BLOCKS, TCP_CLOCK, TCP_ECHO, TCP_FLAGS, TCP_LENGTH,
    TCP_OPTIONS, TCP_SEQUENCE, WITH_CLOCK,
};
use super::{Label, Maps, Step};
use crate::bpf::{
    Program, add, add_register, and, exchange_word, exchange_word_if_same, jump_always, jump_if_any_bit, jump_if_equal,
    jump_if_same_word, jump_unless_equal, jump_unless_same, jump_unless_same_word, load_byte, load_double_word,
    load_half_word, load_map_value, load_word, move_register, move_value, or_word, or_word_value, shift_left,
    shift_word_left, shift_word_right, store_half_word, store_half_word_of, store_word, store_word_of, subtract_word,
    swap_word, xor_register,
};

/// How often a program tries to get a lock. Nobody has it for longer than it takes to compare some numbers, but for a virtual
/// processor that the host has stopped; a packet that is dropped for that will come again.
const TRIES: i32 = 500;
/// Two bytes of padding, timestamps (RFC 7323), which have ten bytes.
const CLOCK_OPTION: i32 = 0x0101_080a;
/// Two bytes of padding, selective acknowledgements (RFC 2018), of one block; each more has eight bytes.
const BLOCK_OPTION: i32 = 0x0101_050a;

/// Takes the packet apart: TCP in IPv4, from the sandbox or to it.
pub(super) fn parse(program: &mut Program<Label>, maps: &Maps<'_>) {
    program.push(move_register(CONTEXT, R1));
    program.push(load_word(R1, CONTEXT, PROTOCOL));
    program.jump(jump_unless_equal(R1, ETHERTYPE_IPV4), Label::Next);
    find_bytes(program, CONTEXT, TCP_OPTIONS.into(), Label::Next);
    program.push(load_byte(R1, R2, TRANSPORT));
    program.jump(jump_unless_equal(R1, TCP), Label::Next);
    program.push(load_byte(R1, R2, VERSION_AND_LENGTH));
    program.jump(jump_unless_equal(R1, PLAIN_IPV4), Label::Next);
    program.push(load_half_word(R1, R2, FRAGMENT));
    program.jump(jump_if_any_bit(R1, IS_FRAGMENT), Label::Next);
    program.push(load_word(R3, R2, SOURCE));
    program.push(load_word(R4, R2, SOURCE + 4));
    program.push(load_word(R5, R2, PORTS));
    program.push(store_word_of(FRAME, ADDRESSES_BEFORE, R3));
    program.push(store_word_of(FRAME, ADDRESSES_BEFORE + 4, R4));
    program.push(store_word_of(FRAME, BEFORE, R5));
    program.push(store_word_of(FRAME, KEY_ADDRESSES, R3));
    program.push(store_word_of(FRAME, KEY_ADDRESSES + 4, R4));
    program.push(store_word_of(FRAME, KEY_PORTS, R5));
    program.push(store_word(FRAME, FROM_SOCKET, 0));
    program.push(store_word(FRAME, BEGINS, 0));
    program.push(store_word(FRAME, ANSWERS, 0));
    require_sandbox(program, maps.sandbox, DESTINATION_MAC, Label::NotToSandbox);
    program.jump(jump_always(), Label::Directed);

    program.label(Label::NotToSandbox);
    require_sandbox(program, maps.sandbox, SOURCE_MAC, Label::Next);
    // Whoever sends in the sandbox's name from elsewhere is not the proxy.
    program.push(load_word(R1, R3, SANDBOX_PORT));
    program.push(load_word(R2, CONTEXT, INTERFACE));
    program.jump(jump_unless_same_word(R1, R2), Label::Next);
    // The end comes first.
    program.push(load_word(R3, FRAME, ADDRESSES_BEFORE));
    program.push(load_word(R4, FRAME, ADDRESSES_BEFORE + 4));
    program.push(store_word_of(FRAME, KEY_ADDRESSES, R4));
    program.push(store_word_of(FRAME, KEY_ADDRESSES + 4, R3));
    program.push(load_word(R5, FRAME, BEFORE));
    turn_ports(program, R5, R1);
    program.push(store_word_of(FRAME, KEY_PORTS, R5));
    program.push(store_word(FRAME, FROM_SOCKET, 1));
    program.label(Label::Directed);
}

/// Looks for the leg's record, and locks it. What belongs to none goes on.
pub(super) fn find(program: &mut Program<Label>, maps: &Maps<'_>) {
    find_slot(program, maps);
    program.label(Label::Found);
    program.push(load_word(R1, R3, SLOT_RECORD as i16));
    program.push(move_register(R2, R1));
    program.push(shift_word_right(R2, SLOT_LEG.ilog2() as i32));
    program.push(and(R2, 1));
    program.push(store_word_of(FRAME, SIDE, R2));
    program.push(and(R1, RECORDS as i32 - 1));
    program.push(shift_left(R1, RECORD_BYTES.ilog2() as i32));
    program.extend(load_map_value(RECORD, maps.connections));
    program.push(add(RECORD, FIRST_RECORD as i32));
    program.push(add_register(RECORD, R1));
    program.push(shift_left(R2, LEG_BYTES.ilog2() as i32));
    program.push(move_register(LEG, RECORD));
    program.push(add(LEG, LEGS as i32));
    program.push(move_register(OTHER, LEG));
    program.push(add_register(LEG, R2));
    program.push(move_value(R1, LEG_BYTES as i32));
    program.push(xor_register(R1, R2));
    program.push(add_register(OTHER, R1));
    take_apart(program);
    find_next_hop(program, maps);
    lock(program);
    require_key(program);
    program.push(load_word(R1, RECORD, ACTIVITY as i16));
    program.push(add(R1, 1));
    program.push(store_word_of(RECORD, ACTIVITY as i16, R1));
    program.push(load_word(R1, RECORD, MODE as i16));
    for mode in [FREE, REPLACED, TAKEN] {
        program.jump(jump_if_equal(R1, mode as i32), Label::UnlockAndGoOn);
    }
    program.push(load_word(R1, FRAME, FLAGS));
    program.push(and(R1, SYN));
    program.jump(jump_if_equal(R1, 0), Label::In(Step::Lock, 1));
    program.push(store_word(RECORD, MODE as i16, REPLACED as i32));
    program.jump(jump_always(), Label::UnlockAndGoOn);
    program.label(Label::In(Step::Lock, 1));
    program.push(load_word(R1, FRAME, FROM_SOCKET));
    program.jump(jump_unless_equal(R1, 0), Label::FromSocket);
}

/// Has `R3` point to the slot of the packet's leg.
fn find_slot(program: &mut Program<Label>, maps: &Maps<'_>) {
    program.push(load_word(R3, FRAME, KEY_ADDRESSES));
    program.push(load_word(R4, FRAME, KEY_ADDRESSES + 4));
    program.push(load_word(R0, FRAME, KEY_PORTS));
    // As `connection_map::hash_of` has it.
    hash(program, [R3, R4]);
    program.push(move_register(R4, R3));
    program.push(move_register(R1, R4));
    program.push(or_word_value(R4, 1));
    program.push(and(R1, BUCKETS as i32 - 1));
    program.push(shift_left(R1, (WAYS * SLOT_BYTES).ilog2() as i32));
    program.extend(load_map_value(R3, maps.connections));
    program.push(add_register(R3, R1));
    for way in 0..WAYS {
        program.push(load_word(R1, R3, SLOT_TAG as i16));
        program.jump(jump_if_same_word(R1, R4), Label::Found);
        if way + 1 < WAYS {
            program.push(add(R3, SLOT_BYTES as i32));
        }
    }
    program.jump(jump_always(), Label::Next);
}

/// Puts down what the TCP header has, in the machine's byte order, and the words that may change.
fn take_apart(program: &mut Program<Label>) {
    find_bytes(program, CONTEXT, TCP_OPTIONS.into(), Label::Drop);
    for (word, (from, to)) in [(TCP_SEQUENCE, SEQUENCE), (TCP_ACKNOWLEDGED, ACKNOWLEDGED)].into_iter().enumerate() {
        program.push(load_word(R1, R2, from));
        program.push(store_word_of(FRAME, BEFORE + 4 * (word as i16 + 1), R1));
        program.push(swap_word(R1));
        program.push(store_word_of(FRAME, to, R1));
    }
    program.push(load_byte(R1, R2, TCP_FLAGS));
    program.push(store_word_of(FRAME, FLAGS, R1));
    // As two halves: the word begins at an odd one.
    for half in [0, 2] {
        program.push(load_half_word(R1, R2, TCP_LENGTH + half));
        program.push(store_half_word_of(FRAME, BEFORE + 20 + half, R1));
        program.push(store_half_word_of(FRAME, AFTER + 20 + half, R1));
    }
    // How long the header is: four bits that count words.
    program.push(load_byte(R4, R2, TCP_LENGTH));
    program.push(shift_word_right(R4, 4));
    program.push(shift_word_left(R4, 2));
    program.push(load_word(R1, CONTEXT, LENGTH));
    program.push(add(R1, -i32::from(PORTS)));
    program.push(subtract_word(R1, R4));
    program.push(store_word_of(FRAME, DATA_BYTES, R1));
    for offset in [BEFORE + 12, BEFORE + 16, CLOCK, ECHO] {
        program.push(store_word(FRAME, offset, 0));
    }
    program.push(store_word_of(FRAME, SHAPE, R4));
    program.jump(jump_if_equal(R4, PLAIN), Label::In(Step::Parse, 3));
    find_bytes(program, CONTEXT, TCP_BLOCKS.into(), Label::In(Step::Parse, 1));
    program.push(load_word(R1, R2, TCP_OPTIONS));
    program.push(swap_word(R1));
    program.jump(jump_unless_equal(R1, CLOCK_OPTION), Label::In(Step::Parse, 1));
    for (word, (from, to)) in [(TCP_CLOCK, CLOCK), (TCP_ECHO, ECHO)].into_iter().enumerate() {
        program.push(load_word(R1, R2, from));
        program.push(store_word_of(FRAME, BEFORE + 4 * (word as i16 + 3), R1));
        program.push(swap_word(R1));
        program.push(store_word_of(FRAME, to, R1));
    }
    program.push(load_word(R4, FRAME, SHAPE));
    program.jump(jump_if_equal(R4, WITH_CLOCK), Label::In(Step::Parse, 3));
    find_bytes(program, CONTEXT, (TCP_BLOCKS + 4).into(), Label::In(Step::Parse, 1));
    program.push(load_word(R1, R2, TCP_BLOCKS));
    program.push(swap_word(R1));
    for blocks in 1..=3 {
        program.push(move_value(R3, WITH_CLOCK + 4 + 8 * blocks));
        program.jump(jump_unless_same_word(R4, R3), Label::In(Step::Parse, 3 + blocks as u8));
        program.jump(jump_if_equal(R1, BLOCK_OPTION + 8 * (blocks - 1)), Label::In(Step::Parse, 3));
        program.label(Label::In(Step::Parse, 3 + blocks as u8));
    }
    program.label(Label::In(Step::Parse, 1));
    program.push(store_word(FRAME, SHAPE, ODD));
    program.label(Label::In(Step::Parse, 3));
}

/// Looks for the port of the other end.
fn find_next_hop(program: &mut Program<Label>, maps: &Maps<'_>) {
    program.push(store_word(FRAME, NEXT_HOP, 0));
    program.push(store_half_word(FRAME, MAC, MAC_OF_IPV4));
    program.push(load_word(R1, OTHER, ADDRESSES as i16));
    program.push(store_word_of(FRAME, BLOCK_SHIFT, R1));
    for offset in [0, 2] {
        program.push(load_half_word(R1, FRAME, BLOCK_SHIFT + offset));
        program.push(store_half_word_of(FRAME, MAC + 2 + offset, R1));
    }
    find_port(program, maps.ports, MAC, Label::In(Step::Parse, 9));
    program.push(load_word(R1, R0, 0));
    program.push(store_word_of(FRAME, NEXT_HOP, R1));
    program.label(Label::In(Step::Parse, 9));
}

fn lock(program: &mut Program<Label>) {
    program.push(move_value(R1, 0));
    let again = program.here();
    program.push(move_value(R0, 0));
    program.push(move_value(R2, 1));
    program.push(exchange_word_if_same(RECORD, LOCK as i16, R2));
    program.jump(jump_if_equal(R0, 0), Label::In(Step::Lock, 0));
    program.push(add(R1, 1));
    program.jump_back(jump_unless_equal(R1, TRIES), again);
    program.jump(jump_always(), Label::Drop);
    program.label(Label::In(Step::Lock, 0));
}

pub(super) fn unlock(program: &mut Program<Label>) {
    program.push(move_value(R1, 0));
    program.push(exchange_word(RECORD, LOCK as i16, R1));
}

/// Goes on with the packet if the record is another one's by now.
fn require_key(program: &mut Program<Label>) {
    program.push(load_double_word(R1, LEG, ADDRESSES as i16));
    program.push(load_double_word(R2, FRAME, KEY_ADDRESSES));
    program.jump(jump_unless_same(R1, R2), Label::UnlockAndGoOn);
    program.push(load_word(R1, LEG, LEG_PORTS as i16));
    program.push(load_word(R2, FRAME, KEY_PORTS));
    program.jump(jump_unless_same(R1, R2), Label::UnlockAndGoOn);
}

/// Exchanges two ports, or two addresses' halves.
pub(super) fn turn_ports(program: &mut Program<Label>, ports: u8, scratch: u8) {
    program.push(move_register(scratch, ports));
    program.push(shift_word_right(scratch, 16));
    program.push(shift_word_left(ports, 16));
    program.push(or_word(ports, scratch));
}
