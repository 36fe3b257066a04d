//! What the program takes note of: how far each end is, and each of the proxy's sockets.

use super::super::connection_map::{
    EDGES, END_CLOCKS, END_HAS, END_IS_OVER, END_NEXT, END_SEEN, HOLD, HOLD_END, OVER, PASSED_BYTES, SCALES, SEEN,
    SHIFT, SOCKET_CLOCK, SOCKET_HAS, SOCKET_IS_OVER, SOCKET_NEXT, SOCKET_SEEN,
};
use super::super::packet::{FRAME, R0, R1, R2, R3, R4, R5};
use super::frame::{
    ACK, ACKNOWLEDGED, AFTER, BEFORE, CLOCK, DATA_BYTES, FIN, FLAGS, LEG, OTHER, PLAIN, RECORD, RST, SEQUENCE, SHAPE,
    SIDE,
};
use super::{Label, Step};
use crate::bpf::{
    Program, add_register, add_word, and, jump_always, jump_if_any_bit, jump_if_equal, jump_if_positive_word,
    jump_unless_positive_word, jump_unless_word_greater, load_double_word, load_half_word, load_word, move_register,
    move_value, or_word, or_word_value, shift_word_left, shift_word_left_by, shift_word_right_by, store_double_word_of,
    store_half_word_of, store_word_of, subtract_word, swap_half_word,
};

/// By how many bits a window may be shifted (RFC 7323, 2.3), as a mask.
const LARGEST_SCALE: i32 = 15;

/// Counts what this end acknowledges of what has gone past the proxy to it.
pub(super) fn count_acknowledged(program: &mut Program<Label>, time: u8) {
    let label = |number| Label::In(Step::Count(time), number);
    program.push(load_word(R1, FRAME, FLAGS));
    program.push(and(R1, ACK));
    program.jump(jump_if_equal(R1, 0), label(1));
    program.push(load_word(R1, FRAME, ACKNOWLEDGED));
    program.push(load_word(R2, LEG, END_HAS as i16));
    program.push(subtract_word(R1, R2));
    program.jump(jump_unless_positive_word(R1), label(1));
    program.push(load_double_word(R2, OTHER, PASSED_BYTES as i16));
    program.push(add_register(R2, R1));
    program.push(store_double_word_of(OTHER, PASSED_BYTES as i16, R2));
    program.label(label(1));
}

/// Takes note of how far an end is.
pub(super) fn note_end(program: &mut Program<Label>, time: u8) {
    let label = |number| Label::In(Step::NoteEnd(time), number);
    note_over(program, END_IS_OVER, label(0));
    program.push(load_word(R5, LEG, SEEN as i16));
    end_of_data(program);
    raise(program, [R5, LEG, R1], END_NEXT, END_SEEN, [label(2), label(3)]);
    program.push(load_word(R1, FRAME, FLAGS));
    program.push(and(R1, ACK));
    program.jump(jump_if_equal(R1, 0), label(4));
    program.push(load_word(R1, FRAME, ACKNOWLEDGED));
    raise(program, [R5, LEG, R1], END_HAS, END_SEEN, [label(5), label(6)]);
    program.push(or_word_value(R5, END_SEEN as i32));
    program.push(store_word_of(LEG, SEEN as i16, R5));
    program.label(label(4));
    program.push(load_word(R1, FRAME, SHAPE));
    program.jump(jump_unless_word_greater(R1, PLAIN), label(8));
    program.push(load_word(R1, FRAME, CLOCK));
    program.push(load_word(R2, FRAME, SIDE));
    program.push(shift_word_left(R2, 2));
    program.push(move_register(R3, RECORD));
    program.push(add_register(R3, R2));
    program.push(store_word_of(R3, END_CLOCKS as i16, R1));
    program.label(label(8));
}

/// Takes note of how far the proxy's socket is, as the end sees it, and puts the clock right.
pub(super) fn note_socket(program: &mut Program<Label>) {
    let label = |number| Label::In(Step::NoteSocket, number);
    note_over(program, SOCKET_IS_OVER, label(0));
    program.push(load_word(R5, LEG, SEEN as i16));
    end_of_data(program);
    program.push(load_word(R2, OTHER, SHIFT as i16));
    program.push(add_word(R1, R2));
    raise(program, [R5, LEG, R1], SOCKET_NEXT, SOCKET_SEEN, [label(2), label(3)]);
    program.push(load_word(R1, FRAME, FLAGS));
    program.push(and(R1, ACK));
    program.jump(jump_if_equal(R1, 0), label(4));
    program.push(load_word(R1, FRAME, ACKNOWLEDGED));
    program.push(load_word(R2, LEG, SHIFT as i16));
    program.push(add_word(R1, R2));
    raise(program, [R5, LEG, R1], SOCKET_HAS, SOCKET_SEEN, [label(5), label(6)]);
    limit_window(program);
    program.label(label(4));
    program.push(load_word(R1, FRAME, SHAPE));
    program.jump(jump_unless_word_greater(R1, PLAIN), label(9));
    // The end's last timestamp came from the other end, whose clock may be ahead.
    program.push(load_word(R1, FRAME, CLOCK));
    raise(program, [R5, LEG, R1], SOCKET_CLOCK, SOCKET_SEEN, [label(8), label(10)]);
    program.push(load_word(R1, LEG, SOCKET_CLOCK as i16));
    program.push(store_word_of(FRAME, CLOCK, R1));
    program.push(or_word_value(R5, SOCKET_SEEN as i32));
    program.push(store_word_of(LEG, SEEN as i16, R5));
    program.label(label(9));
}

/// Takes note of how far the end may send, after which `R1` is acknowledged to it. If it is to be stopped, it may send no more than
/// it has been told before: what it is told now ends there, or where what it has sent ends. The other end may have told it more, and
/// what is lost of that must be repeated at once.
fn limit_window(program: &mut Program<Label>) {
    let label = |number| Label::In(Step::Window, number);
    program.push(load_word(R2, FRAME, SIDE));
    program.push(load_word(R0, RECORD, HOLD as i16));
    program.push(shift_word_right_by(R0, R2));
    program.push(shift_word_left(R2, 2));
    program.push(move_register(R3, RECORD));
    program.push(add_register(R3, R2));
    program.push(load_half_word(R2, FRAME, BEFORE + 22));
    program.push(swap_half_word(R2));
    program.push(load_word(R4, R3, SCALES as i16));
    program.push(and(R4, LARGEST_SCALE));
    program.push(shift_word_left_by(R2, R4));
    program.push(add_word(R2, R1));
    program.jump(jump_if_any_bit(R0, HOLD_END as i32), label(0));
    program.push(store_word_of(R3, EDGES as i16, R2));
    program.jump(jump_always(), label(2));
    program.label(label(0));
    program.push(load_word(R0, R3, EDGES as i16));
    program.push(load_word(R5, LEG, END_NEXT as i16));
    program.push(subtract_word(R5, R0));
    program.jump(jump_if_positive_word(R5), label(1));
    program.push(move_value(R5, 0));
    program.label(label(1));
    program.push(add_word(R0, R5));
    program.push(move_register(R5, R2));
    program.push(subtract_word(R5, R0));
    program.jump(jump_unless_positive_word(R5), label(2));
    program.push(subtract_word(R0, R1));
    program.jump(jump_if_positive_word(R0), label(4));
    program.push(move_value(R0, 0));
    program.label(label(4));
    program.push(shift_word_right_by(R0, R4));
    program.push(swap_half_word(R0));
    program.push(store_half_word_of(FRAME, AFTER + 22, R0));
    program.label(label(2));
    program.push(load_word(R5, LEG, SEEN as i16));
}

/// Takes note that an end or a socket has ended.
fn note_over(program: &mut Program<Label>, who: u32, otherwise: Label) {
    program.push(load_word(R1, FRAME, FLAGS));
    program.push(and(R1, FIN | RST));
    program.jump(jump_if_equal(R1, 0), otherwise);
    program.push(load_word(R1, FRAME, SIDE));
    program.push(move_value(R2, who as i32));
    program.push(shift_word_left(R1, 1));
    program.push(shift_word_left_by(R2, R1));
    program.push(load_word(R1, RECORD, OVER as i16));
    program.push(or_word(R1, R2));
    program.push(store_word_of(RECORD, OVER as i16, R1));
    program.label(otherwise);
}

/// Has `R1` be the sequence number after the packet: a FIN has one, too (RFC 9293, 3.4).
fn end_of_data(program: &mut Program<Label>) {
    program.push(load_word(R1, FRAME, SEQUENCE));
    program.push(load_word(R2, FRAME, DATA_BYTES));
    program.push(add_word(R1, R2));
    program.push(load_word(R2, FRAME, FLAGS));
    program.push(and(R2, FIN));
    program.push(add_word(R1, R2));
}

/// Raises a number of a leg to that one, if it is later, or unless something was seen before.
fn raise(
    program: &mut Program<Label>,
    [seen, leg, number]: [u8; 3],
    offset: usize,
    bit: u32,
    [raise, end]: [Label; 2],
) {
    program.push(move_register(R2, seen));
    program.push(and(R2, bit as i32));
    program.jump(jump_if_equal(R2, 0), raise);
    program.push(load_word(R2, leg, offset as i16));
    program.push(move_register(R3, number));
    program.push(subtract_word(R3, R2));
    program.jump(jump_if_positive_word(R3), raise);
    program.jump(jump_always(), end);
    program.label(raise);
    program.push(store_word_of(leg, offset as i16, number));
    program.label(end);
}
