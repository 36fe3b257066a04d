//! What the program does with a connection that passes.

use super::super::connection_map::{
    ADDRESSES, CLOCK_UNKNOWN, END_BASE, END_CLOCKS, END_HAS, END_LIVES, END_NEXT, HOLD, MODE, PASSES, PASSINGS,
    PORTS as LEG_PORTS, SEEN, SHIFT, SOCKET_BASE, SOCKET_CLOCK, SOCKET_HAS, SOCKET_NEXT, TO_OTHER_CLOCK,
};
use super::super::packet::{FRAME, R1, R2, R3, R4};
use super::find::turn_ports;
use super::frame::{
    ACKNOWLEDGED, ADDRESSES_AFTER, ADDRESSES_BEFORE, AFTER, ANSWERS, BEFORE, BEGINS, BLOCK_SHIFT, CLOCK, ECHO, LEG,
    OTHER, RECORD, SEQUENCE, SIDE, SOCKETS_ACKNOWLEDGED, SOCKETS_SEQUENCE,
};
use super::note::{count_acknowledged, note_end};
use super::{Label, Step};
use crate::bpf::{
    Program, add, add_register, add_word, and, jump_always, jump_if_equal, jump_unless_positive_word, load_word,
    move_register, move_value, or_word_value, shift_word_left, store_word, store_word_of, subtract_word, swap_word,
    xor_register,
};

/// Has the connection pass from this segment on.
pub(super) fn begin(program: &mut Program<Label>) {
    program.label(Label::Begins);
    program.push(store_word(RECORD, MODE as i16, PASSES as i32));
    program.push(load_word(R1, RECORD, PASSINGS as i16));
    program.push(add(R1, 1));
    program.push(store_word_of(RECORD, PASSINGS as i16, R1));
    // Where the sockets are: they have all that came before, and all that they have sent has arrived.
    program.push(load_word(R1, FRAME, SEQUENCE));
    program.push(store_word_of(LEG, SOCKET_HAS as i16, R1));
    program.push(load_word(R2, LEG, SHIFT as i16));
    program.push(subtract_word(R1, R2));
    program.push(swap_word(R1));
    program.push(store_word_of(FRAME, SOCKETS_SEQUENCE, R1));
    program.push(load_word(R1, FRAME, ACKNOWLEDGED));
    program.push(store_word_of(LEG, SOCKET_NEXT as i16, R1));
    program.push(store_word_of(LEG, END_HAS as i16, R1));
    program.push(load_word(R2, OTHER, SHIFT as i16));
    program.push(subtract_word(R1, R2));
    program.push(swap_word(R1));
    program.push(store_word_of(FRAME, SOCKETS_ACKNOWLEDGED, R1));
    program.push(load_word(R1, OTHER, END_NEXT as i16));
    program.push(store_word_of(OTHER, SOCKET_HAS as i16, R1));
    program.push(load_word(R1, OTHER, END_HAS as i16));
    program.push(store_word_of(OTHER, SOCKET_NEXT as i16, R1));
    program.push(store_word(FRAME, BEGINS, 1));
    program.push(store_word(RECORD, HOLD as i16, 0));
    // Each end's clock goes on from the last timestamp that the other one has got. That of the other end is known to be right only
    // when it sends something: until then it is what its last echo must be translated with.
    program.push(load_word(R1, LEG, SEEN as i16));
    program.push(or_word_value(R1, CLOCK_UNKNOWN as i32));
    program.push(store_word_of(LEG, SEEN as i16, R1));
    program.push(load_word(R1, OTHER, SEEN as i16));
    program.push(or_word_value(R1, CLOCK_UNKNOWN as i32));
    program.push(store_word_of(OTHER, SEEN as i16, R1));
    program.push(load_word(R1, FRAME, SIDE));
    program.push(shift_word_left(R1, 2));
    program.push(move_value(R2, 4));
    program.push(xor_register(R1, R2));
    program.push(move_register(R3, RECORD));
    program.push(add_register(R3, R1));
    program.push(load_word(R1, R3, END_CLOCKS as i16));
    program.push(load_word(R2, LEG, SOCKET_CLOCK as i16));
    program.push(subtract_word(R2, R1));
    program.push(store_word_of(OTHER, TO_OTHER_CLOCK as i16, R2));
}

/// Answers the proxy's socket in the name of the end, which need not hear that it was asked.
pub(super) fn answer(program: &mut Program<Label>) {
    program.label(Label::Answers);
    program.push(load_word(R1, LEG, SEEN as i16));
    program.push(and(R1, !END_LIVES as i32));
    program.push(store_word_of(LEG, SEEN as i16, R1));
    // What the socket has acknowledged is the end's number; and its next one, what the end has.
    program.push(load_word(R1, FRAME, BEFORE + 8));
    program.push(store_word_of(FRAME, AFTER + 4, R1));
    program.push(load_word(R1, FRAME, SEQUENCE));
    program.push(add(R1, 1));
    program.push(swap_word(R1));
    program.push(store_word_of(FRAME, AFTER + 8, R1));
    for (from, to) in [(12, 16), (16, 12)] {
        program.push(load_word(R1, FRAME, BEFORE + from));
        program.push(store_word_of(FRAME, AFTER + to, R1));
    }
    program.push(load_word(R1, FRAME, BEFORE));
    turn_ports(program, R1, R2);
    program.push(store_word_of(FRAME, AFTER, R1));
    for (half, turned) in [(0, 4), (4, 0)] {
        program.push(load_word(R1, FRAME, ADDRESSES_BEFORE + half));
        program.push(store_word_of(FRAME, ADDRESSES_AFTER + turned, R1));
    }
    program.push(store_word(FRAME, ANSWERS, 1));
    program.jump(jump_always(), Label::Rewrite);
}

/// Makes of what an end has sent what the other one gets.
pub(super) fn pass(program: &mut Program<Label>) {
    let label = |number| Label::In(Step::Pass, number);
    program.label(Label::Passes);
    count_acknowledged(program, 1);
    note_end(program, 2);
    program.push(load_word(R4, FRAME, CLOCK));
    program.push(load_word(R1, LEG, SEEN as i16));
    program.push(or_word_value(R1, END_LIVES as i32));
    program.push(store_word_of(LEG, SEEN as i16, R1));
    program.push(move_register(R2, R1));
    program.push(and(R2, CLOCK_UNKNOWN as i32));
    program.jump(jump_if_equal(R2, 0), label(0));
    program.push(and(R1, !CLOCK_UNKNOWN as i32));
    program.push(store_word_of(LEG, SEEN as i16, R1));
    program.push(load_word(R2, OTHER, SOCKET_CLOCK as i16));
    program.push(subtract_word(R2, R4));
    program.push(store_word_of(LEG, TO_OTHER_CLOCK as i16, R2));
    program.label(label(0));
    program.push(load_word(R2, LEG, TO_OTHER_CLOCK as i16));
    program.push(add_word(R4, R2));
    program.push(load_word(R2, OTHER, SOCKET_CLOCK as i16));
    program.push(move_register(R3, R4));
    program.push(subtract_word(R3, R2));
    program.jump(jump_unless_positive_word(R3), label(2));
    program.push(store_word_of(OTHER, SOCKET_CLOCK as i16, R4));
    program.label(label(2));
    program.push(swap_word(R4));
    program.push(store_word_of(FRAME, AFTER + 12, R4));
    program.push(load_word(R1, FRAME, ECHO));
    program.push(load_word(R2, OTHER, TO_OTHER_CLOCK as i16));
    program.push(subtract_word(R1, R2));
    program.push(swap_word(R1));
    program.push(store_word_of(FRAME, AFTER + 16, R1));

    program.push(load_word(R1, FRAME, SEQUENCE));
    program.push(load_word(R2, OTHER, SOCKET_BASE as i16));
    program.push(add_word(R1, R2));
    program.push(load_word(R2, LEG, END_BASE as i16));
    program.push(subtract_word(R1, R2));
    program.push(swap_word(R1));
    program.push(store_word_of(FRAME, AFTER + 4, R1));
    program.push(load_word(R2, OTHER, END_BASE as i16));
    program.push(load_word(R1, LEG, SOCKET_BASE as i16));
    program.push(subtract_word(R2, R1));
    program.push(store_word_of(FRAME, BLOCK_SHIFT, R2));
    program.push(load_word(R1, FRAME, ACKNOWLEDGED));
    program.push(add_word(R1, R2));
    program.push(swap_word(R1));
    program.push(store_word_of(FRAME, AFTER + 8, R1));

    program.push(load_word(R1, OTHER, LEG_PORTS as i16));
    turn_ports(program, R1, R2);
    program.push(store_word_of(FRAME, AFTER, R1));
    for (half, turned) in [(0, 4), (4, 0)] {
        program.push(load_word(R1, OTHER, ADDRESSES as i16 + half));
        program.push(store_word_of(FRAME, ADDRESSES_AFTER + turned, R1));
    }
    program.jump(jump_always(), Label::Rewrite);
}
