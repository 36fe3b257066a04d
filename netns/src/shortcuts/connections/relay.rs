//! What the program does while the proxy relays a connection.

use super::super::connection_map::{
    END_BASE, END_HAS, END_LIVES, END_NEXT, HOLD, MAY_PASS, MODE, OVER, READ, RELAYS, SEEN, SHIFT, SOCKET_BASE,
    SOCKET_HAS, SOCKET_NEXT,
};
use super::super::packet::{FRAME, GSO_SEGMENTS, R1, R2, R3, R4, R5};
use super::ahead::{limit_acknowledgement, limit_sequence, move_edge, raise_sequence, settle};
use super::frame::{
    ACK, ACKNOWLEDGED, AFTER, BEFORE, BLOCK_SHIFT, CLOCK, CONTEXT, DATA_BYTES, FIN, FLAGS, LEG, NEXT_HOP, ODD, OTHER,
    PLAIN, PSH, RECORD, RST, SEQUENCE, SHAPE, URG, WITH_CLOCK,
};
use super::note::{count_acknowledged, note_end, note_socket};
use super::{Label, Step};
use crate::bpf::{
    Program, add, add_word, and, jump_always, jump_if_any_bit, jump_if_equal, jump_if_same_word, jump_if_word_greater,
    jump_unless_equal, jump_unless_same_word, load_half_word, load_word, move_register, negate_word, or_word,
    or_word_value, store_word, store_word_of, subtract_word, swap_word,
};

/// A packet that an end has sent to the proxy.
pub(super) fn from_end(program: &mut Program<Label>) {
    program.push(load_word(R1, RECORD, MODE as i16));
    program.jump(jump_if_equal(R1, RELAYS as i32), Label::Relays);
    // It passes. May it go on doing so?
    program.push(load_word(R1, FRAME, FLAGS));
    program.jump(jump_if_any_bit(R1, FIN | RST | URG), Label::In(Step::FromEnd, 0));
    program.push(load_word(R1, FRAME, SHAPE));
    program.jump(jump_if_equal(R1, PLAIN), Label::In(Step::FromEnd, 0));
    program.jump(jump_if_equal(R1, ODD), Label::UnlockAndDrop);
    program.push(load_word(R1, FRAME, NEXT_HOP));
    program.jump(jump_unless_equal(R1, 0), Label::Passes);
    program.label(Label::In(Step::FromEnd, 0));
    // What it acknowledges counts: the socket must not be told of an acknowledgement of what it has not sent.
    count_acknowledged(program, 0);
    note_end(program, 0);
    come_back(program);

    program.label(Label::Relays);
    may_begin(program);
    stop_holding(program);
    note_end(program, 1);
    // From where the end is to where the socket is.
    program.push(load_word(R1, LEG, SHIFT as i16));
    program.push(load_word(R2, OTHER, SHIFT as i16));
    program.push(negate_word(R1));
    program.push(negate_word(R2));
    program.push(store_word_of(FRAME, BLOCK_SHIFT, R2));
    limit_acknowledgement(program);
    limit_sequence(program);
    program.push(load_word(R3, FRAME, CLOCK));
    shift(program, 0);
}

/// A packet that the proxy's socket has sent to an end.
pub(super) fn from_socket(program: &mut Program<Label>) {
    program.label(Label::FromSocket);
    program.push(load_word(R1, RECORD, MODE as i16));
    program.jump(jump_if_equal(R1, RELAYS as i32), Label::In(Step::FromSocket, 1));
    // A mere acknowledgement, which was late: the end has a better one. All else is something that the socket wants.
    program.push(load_word(R1, FRAME, FLAGS));
    program.jump(jump_unless_equal(R1, ACK), Label::In(Step::FromSocket, 0));
    program.push(load_word(R1, FRAME, DATA_BYTES));
    program.jump(jump_unless_equal(R1, 0), Label::In(Step::FromSocket, 0));
    program.push(load_word(R1, FRAME, SEQUENCE));
    program.push(load_word(R2, OTHER, SHIFT as i16));
    program.push(add_word(R1, R2));
    program.push(load_word(R2, LEG, SOCKET_NEXT as i16));
    program.jump(jump_if_same_word(R1, R2), Label::UnlockAndDrop);
    // A question whether the end is still there (RFC 9293, 3.8.4): it is, if something of it has passed since the last one.
    program.push(add(R1, 1));
    program.jump(jump_unless_same_word(R1, R2), Label::In(Step::FromSocket, 0));
    program.push(load_word(R1, FRAME, SHAPE));
    program.jump(jump_unless_equal(R1, WITH_CLOCK), Label::In(Step::FromSocket, 0));
    program.push(load_word(R1, LEG, SEEN as i16));
    program.jump(jump_if_any_bit(R1, END_LIVES as i32), Label::Answers);
    program.label(Label::In(Step::FromSocket, 0));
    come_back(program);
    // The proxy has died: one that lives ends a connection that passes with a reset, or has it come back first. The socket says it again,
    // when what is on its way now has arrived and is acknowledged.
    program.push(load_word(R1, FRAME, FLAGS));
    program.jump(jump_if_any_bit(R1, FIN), Label::UnlockAndDrop);

    program.label(Label::In(Step::FromSocket, 1));
    settle(program);
    note_socket(program);
    program.push(load_word(R1, OTHER, SHIFT as i16));
    program.push(load_word(R2, LEG, SHIFT as i16));
    program.push(store_word_of(FRAME, BLOCK_SHIFT, R2));
    raise_sequence(program);
    program.push(load_word(R3, FRAME, CLOCK));
    shift(program, 1);
}

/// Goes on at [`Step::FromEnd`] 1 unless the segment is one with which the connection begins to pass.
fn may_begin(program: &mut Program<Label>) {
    let stays = Label::In(Step::FromEnd, 1);
    program.push(load_word(R1, RECORD, MAY_PASS as i16));
    program.jump(jump_if_equal(R1, 0), stays);
    program.push(load_word(R1, RECORD, OVER as i16));
    program.jump(jump_unless_equal(R1, 0), stays);
    // One segment with data, or an acknowledgement, and no other news, to an end that is here.
    program.push(load_word(R1, FRAME, FLAGS));
    program.push(or_word_value(R1, PSH));
    program.jump(jump_unless_equal(R1, ACK | PSH), stays);
    program.push(load_word(R1, FRAME, SHAPE));
    program.jump(jump_unless_equal(R1, WITH_CLOCK), stays);
    program.push(load_word(R1, FRAME, NEXT_HOP));
    program.jump(jump_if_equal(R1, 0), stays);
    program.push(load_word(R1, CONTEXT, GSO_SEGMENTS));
    program.jump(jump_if_word_greater(R1, 1), stays);
    // It is the next one, and the proxy has read all that came before.
    program.push(load_word(R1, FRAME, SEQUENCE));
    program.push(load_word(R2, LEG, END_NEXT as i16));
    program.jump(jump_unless_same_word(R1, R2), stays);
    program.push(load_word(R2, LEG, END_BASE as i16));
    program.push(subtract_word(R1, R2));
    program.push(load_word(R3, LEG, READ as i16));
    program.jump(jump_unless_same_word(R1, R3), stays);
    // The other end has it all.
    program.push(load_word(R1, OTHER, END_HAS as i16));
    program.push(load_word(R2, OTHER, SOCKET_BASE as i16));
    program.push(subtract_word(R1, R2));
    program.jump(jump_unless_same_word(R1, R3), stays);
    // So it is in the other direction: the proxy has read all that the other end has sent, and this one has it.
    program.push(load_word(R1, FRAME, ACKNOWLEDGED));
    program.push(load_word(R2, LEG, SOCKET_BASE as i16));
    program.push(subtract_word(R1, R2));
    program.push(load_word(R3, OTHER, READ as i16));
    program.jump(jump_unless_same_word(R1, R3), stays);
    program.push(load_word(R1, OTHER, END_NEXT as i16));
    program.push(load_word(R2, OTHER, END_BASE as i16));
    program.push(subtract_word(R1, R2));
    program.jump(jump_if_same_word(R1, R3), Label::Begins);
    program.label(stays);
}

/// An end that has stopped, and asks whether it may go on, has waited for too long (a window probe: RFC 9293, 3.8.6.1).
fn stop_holding(program: &mut Program<Label>) {
    let label = Label::In(Step::Hold, 0);
    for needed in [FLAGS, DATA_BYTES] {
        program.push(load_word(R1, FRAME, needed));
        program.jump(jump_unless_equal(R1, if needed == FLAGS { ACK } else { 0 }), label);
    }
    program.push(load_word(R1, FRAME, SEQUENCE));
    program.push(load_word(R2, LEG, END_NEXT as i16));
    program.jump(jump_if_same_word(R1, R2), label);
    program.push(store_word(RECORD, HOLD as i16, 0));
    program.label(label);
}

/// Has the proxy relay what comes from now on. Its sockets are where the ends have acknowledged all.
fn come_back(program: &mut Program<Label>) {
    for (from, to) in [(LEG, OTHER), (OTHER, LEG)] {
        // How far the one is to whom it goes, as the one sees it from whom it comes.
        program.push(load_word(R1, to, END_HAS as i16));
        program.push(store_word_of(to, SOCKET_NEXT as i16, R1));
        program.push(load_word(R2, to, SOCKET_BASE as i16));
        program.push(load_word(R3, from, END_BASE as i16));
        program.push(subtract_word(R1, R2));
        program.push(add_word(R1, R3));
        // And how much that is more than the socket has.
        program.push(load_word(R4, from, SOCKET_HAS as i16));
        program.push(store_word_of(from, SOCKET_HAS as i16, R1));
        program.push(subtract_word(R1, R4));
        move_edge(program, from);
        program.push(load_word(R4, from, SHIFT as i16));
        program.push(add_word(R4, R1));
        program.push(store_word_of(from, SHIFT as i16, R4));
        program.push(add_word(R2, R1));
        program.push(store_word_of(to, SOCKET_BASE as i16, R2));
        program.push(add_word(R3, R1));
        program.push(store_word_of(from, END_BASE as i16, R3));
    }
    program.push(store_word(RECORD, MODE as i16, RELAYS as i32));
}

/// Goes on with the packet, with `R1` added to its sequence number, `R2` to its acknowledgement, and `R3` as its timestamp.
fn shift(program: &mut Program<Label>, time: u8) {
    let label = |number| Label::In(Step::Shift(time), number);
    program.push(store_word(FRAME, NEXT_HOP, 0));
    program.push(move_register(R4, R1));
    program.push(or_word(R4, R2));
    program.push(load_word(R5, FRAME, SHAPE));
    program.jump(jump_unless_equal(R5, ODD), label(0));
    // What it has in its options is not known.
    program.jump(jump_if_equal(R4, 0), Label::UnlockAndGoOn);
    program.jump(jump_always(), Label::UnlockAndDrop);
    program.label(label(0));
    program.jump(jump_unless_equal(R4, 0), label(1));
    program.push(load_word(R5, FRAME, BEFORE + 12));
    program.push(swap_word(R5));
    program.jump(jump_unless_same_word(R3, R5), label(1));
    program.push(load_half_word(R4, FRAME, BEFORE + 22));
    program.push(load_half_word(R5, FRAME, AFTER + 22));
    program.jump(jump_if_same_word(R4, R5), Label::UnlockAndGoOn);
    program.label(label(1));
    program.push(load_word(R4, FRAME, SEQUENCE));
    program.push(add_word(R4, R1));
    program.push(swap_word(R4));
    program.push(store_word_of(FRAME, AFTER + 4, R4));
    program.push(load_word(R4, FRAME, BEFORE + 8));
    program.push(load_word(R5, FRAME, FLAGS));
    program.push(and(R5, ACK));
    program.jump(jump_if_equal(R5, 0), label(2));
    program.push(load_word(R4, FRAME, ACKNOWLEDGED));
    program.push(add_word(R4, R2));
    program.push(swap_word(R4));
    program.label(label(2));
    program.push(store_word_of(FRAME, AFTER + 8, R4));
    program.push(swap_word(R3));
    program.push(store_word_of(FRAME, AFTER + 12, R3));
    for same in [0, 16] {
        program.push(load_word(R4, FRAME, BEFORE + same));
        program.push(store_word_of(FRAME, AFTER + same, R4));
    }
    program.jump(jump_always(), Label::Rewrite);
}
