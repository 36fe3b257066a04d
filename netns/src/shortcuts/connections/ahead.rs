//! What is done while an end is ahead of the proxy's socket of its leg: after the connection has come back with something still on
//! its way past the proxy. The end has received what the socket does not know that it was sent, or has sent what the socket has not
//! received. It is relayed once more, but until then the two must hear each other: what does not fit into the receiver's window is not
//! looked at, acknowledgement or not (RFC 9293, 3.10.7.4), and with both ends ahead neither would ever be acknowledged anything.

use super::super::connection_map::{
    EDGES, END_BASE, END_HAS, OVER, PASSINGS, SHIFT, SOCKET_BASE, SOCKET_IS_OVER, SOCKET_NEXT,
};
use super::super::packet::{FRAME, R0, R1, R2, R3, R4, R5};
use super::frame::{ACKNOWLEDGED, DATA_BYTES, FIN, FLAGS, LEG, OTHER, RECORD, RST, SEQUENCE, SIDE};
use super::{Label, Step};
use crate::bpf::{
    Program, add, add_register, add_word, and, jump_always, jump_if_any_bit, jump_if_equal, jump_if_positive_word,
    jump_unless_equal, jump_unless_positive_word, load_word, move_register, move_value, shift_word_left,
    shift_word_right_by, store_word_of, subtract_word, xor_register,
};

/// What an end acknowledges of what the socket has not sent: the socket will send it, and is told that it has arrived when it has. It
/// would not listen otherwise. Takes what is too much from `R2`.
pub(super) fn limit_acknowledgement(program: &mut Program<Label>) {
    let label = Label::In(Step::Limit, 0);
    require_passings(program, label);
    program.push(load_word(R3, FRAME, ACKNOWLEDGED));
    program.push(load_word(R4, LEG, SOCKET_NEXT as i16));
    program.push(subtract_word(R4, R3));
    program.jump(jump_if_equal(R4, 0), label);
    program.jump(jump_if_positive_word(R4), label);
    program.push(add_word(R2, R4));
    // If that was the socket's end, it was not that which has arrived: what the end has comes after it. See `settle`.
    program.push(load_word(R3, FRAME, SIDE));
    program.push(shift_word_left(R3, 1));
    program.push(load_word(R4, RECORD, OVER as i16));
    program.push(shift_word_right_by(R4, R3));
    program.push(and(R4, SOCKET_IS_OVER as i32));
    program.jump(jump_if_equal(R4, 0), label);
    program.push(add(R2, -1));
    program.label(label);
}

/// A mere acknowledgement of an end that has sent more than fits into the socket's window has a sequence number beyond that. It gets the
/// last one that fits. Takes what is too much from `R1`.
pub(super) fn limit_sequence(program: &mut Program<Label>) {
    let label = |number| Label::In(Step::Edge, number);
    require_passings(program, label(1));
    require_no_data(program, label(1));
    point_to_edge(program, LEG);
    program.push(load_word(R3, R0, EDGES as i16));
    program.push(load_word(R4, FRAME, SEQUENCE));
    program.push(subtract_word(R4, R3));
    program.jump(jump_unless_positive_word(R4), label(1));
    program.push(subtract_word(R1, R4));
    program.label(label(1));
}

/// A mere acknowledgement of a socket whose end has more than the socket has sent has a sequence number that is old to the end. It gets
/// the one that the end expects, as does a reset, which must have exactly that (RFC 5961, 3.2). What asks whether the end is still there
/// has the one before: so it has afterwards. Adds what is missing to `R1`.
pub(super) fn raise_sequence(program: &mut Program<Label>) {
    let label = |number| Label::In(Step::Raise, number);
    require_passings(program, label(2));
    require_no_data(program, label(2));
    program.push(load_word(R3, LEG, END_HAS as i16));
    program.push(load_word(R4, LEG, SOCKET_NEXT as i16));
    program.push(subtract_word(R3, R4));
    program.jump(jump_unless_positive_word(R3), label(2));
    program.push(load_word(R4, FRAME, FLAGS));
    program.jump(jump_if_any_bit(R4, RST), label(1));
    program.push(add_word(R1, R3));
    program.jump(jump_always(), label(2));
    program.label(label(1));
    program.push(load_word(R1, LEG, END_HAS as i16));
    program.push(load_word(R3, FRAME, SEQUENCE));
    program.push(subtract_word(R1, R3));
    program.label(label(2));
}

/// A socket that ends before it has sent what its end has will not send it: its proxy has died. To the end it would have ended in what is
/// long there, so that the end would not notice. Therefore the socket is taken to have sent it all.
pub(super) fn settle(program: &mut Program<Label>) {
    let label = |number| Label::In(Step::Settle, number);
    program.push(load_word(R1, FRAME, FLAGS));
    program.push(and(R1, FIN));
    program.jump(jump_if_equal(R1, 0), label(2));
    require_passings(program, label(2));
    program.push(load_word(R1, LEG, END_HAS as i16));
    program.push(load_word(R2, LEG, SOCKET_NEXT as i16));
    program.push(move_register(R3, R1));
    program.push(subtract_word(R3, R2));
    program.jump(jump_unless_positive_word(R3), label(2));
    program.push(load_word(R2, FRAME, SEQUENCE));
    program.push(load_word(R3, FRAME, DATA_BYTES));
    program.push(add_word(R2, R3));
    program.push(load_word(R3, OTHER, SHIFT as i16));
    program.push(add_word(R2, R3));
    program.push(subtract_word(R1, R2));
    program.jump(jump_unless_positive_word(R1), label(2));
    for (leg, number) in [(OTHER, SHIFT), (OTHER, END_BASE), (LEG, SOCKET_BASE)] {
        program.push(load_word(R2, leg, number as i16));
        program.push(add_word(R2, R1));
        program.push(store_word_of(leg, number as i16, R2));
    }
    program.label(label(2));
}

/// Moves what the end of a leg may send by `R1`, as its socket has been moved.
pub(super) fn move_edge(program: &mut Program<Label>, leg: u8) {
    point_to_edge(program, leg);
    program.push(load_word(R4, R0, EDGES as i16));
    program.push(add_word(R4, R1));
    program.push(store_word_of(R0, EDGES as i16, R4));
}

/// Has `R0` point to where [`EDGES`] of a leg is, but for the offset.
fn point_to_edge(program: &mut Program<Label>, leg: u8) {
    program.push(load_word(R5, FRAME, SIDE));
    program.push(shift_word_left(R5, 2));
    if leg == OTHER {
        program.push(move_value(R0, 4));
        program.push(xor_register(R5, R0));
    }
    program.push(move_register(R0, RECORD));
    program.push(add_register(R0, R5));
}

fn require_passings(program: &mut Program<Label>, otherwise: Label) {
    program.push(load_word(R3, RECORD, PASSINGS as i16));
    program.jump(jump_if_equal(R3, 0), otherwise);
}

fn require_no_data(program: &mut Program<Label>, otherwise: Label) {
    program.push(load_word(R3, FRAME, DATA_BYTES));
    program.jump(jump_unless_equal(R3, 0), otherwise);
    program.push(load_word(R3, FRAME, FLAGS));
    program.jump(jump_if_any_bit(R3, FIN), otherwise);
}
