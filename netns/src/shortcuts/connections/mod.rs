//! The program that leads TCP connections past the proxy.
//!
//! It looks at what the sandbox sends and what is sent to it. What belongs to a connection of the [`connection_map`] is dealt
//! with under the lock of its record, so that packets of both ends, on whatever processors, come one after the other:
//!
//! - While the proxy relays, the program notes how far both ends and both sockets are. What has gone past the proxy before is
//!   taken off, or added: the sockets go on where they were.
//! - A connection begins to pass with a segment of which is certain: all that was sent before it, in both directions, has been
//!   read by the proxy, written by it, and acknowledged by the other end. The proxy says how much it has written; the rest is in
//!   the segment and in the record. The proxy's socket gets the segment without its data: what it has sent is acknowledged now,
//!   so that it has nothing to repeat.
//! - While it passes, segments go from end to end. Their acknowledgements do, too: each end is answered by the other one, with its
//!   windows, and repeats what the other one has not got.
//! - A socket that asks whether its end is still there is answered in the end's name, if something of the end has passed.
//! - What is not plain data or an acknowledgement brings the connection back to the proxy, and is its business: the end of a
//!   connection, a reset, what a socket sends by itself. The sockets are then where both ends have acknowledged all; what is not
//!   acknowledged will be repeated, and the proxy relays it.
//!
//! [`connection_map`]: super::connection_map

mod ahead;
mod attached;
mod find;
mod frame;
mod note;
mod pass;
mod relay;
mod rewrite;

pub(super) use attached::Connections;

use super::packet::{R0, TCX_DROP, TCX_NEXT};
use crate::bpf::{Instruction, Program, exit, jump_always, move_value};
use std::os::fd::BorrowedFd;

/// What the program needs to know.
struct Maps<'a> {
    /// From hardware addresses to ports.
    ports: BorrowedFd<'a>,
    /// The sandbox's hardware address.
    sandbox: BorrowedFd<'a>,
    /// [`super::connection_map`].
    connections: BorrowedFd<'a>,
}

/// The places in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    /// The first one to jump to in the way back from the sandbox.
    NotToSandbox,
    Directed,
    Found,
    /// The packet is from the proxy's socket.
    FromSocket,
    /// Of a choice within one step, by the step and a number.
    In(Step, u8),
    Relays,
    Begins,
    Passes,
    Answers,
    Rewrite,
    UnlockAndGoOn,
    UnlockAndDrop,
    Drop,
    Next,
}

/// A step of the program, for labels within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Parse,
    Lock,
    FromEnd,
    FromSocket,
    /// By the time that it is done.
    NoteEnd(u8),
    NoteSocket,
    /// By the time that it is done.
    Count(u8),
    /// By the time that it is done.
    Shift(u8),
    Hold,
    Limit,
    Edge,
    Raise,
    Settle,
    Window,
    Pass,
    Blocks,
    Rewrite,
}

fn program(maps: &Maps<'_>) -> Vec<Instruction> {
    let mut program = Program::new();
    find::parse(&mut program, maps);
    find::find(&mut program, maps);
    relay::from_end(&mut program);
    relay::from_socket(&mut program);
    pass::answer(&mut program);
    pass::begin(&mut program);
    pass::pass(&mut program);
    rewrite::rewrite(&mut program, maps);
    program.label(Label::UnlockAndDrop);
    find::unlock(&mut program);
    program.label(Label::Drop);
    program.push(move_value(R0, TCX_DROP));
    program.push(exit());
    program.label(Label::UnlockAndGoOn);
    find::unlock(&mut program);
    program.jump(jump_always(), Label::Next);
    program.label(Label::Next);
    program.finish(TCX_NEXT)
}
