//! One direction of a connection: what is read at its source and not yet written at its destination.

use super::Chunk;
use std::collections::VecDeque;

/// Above this many chunks the source is not read further: back-pressure.
pub(super) const QUEUE_HIGH: usize = 8;
/// At this many the source is read again.
pub(super) const QUEUE_LOW: usize = 2;
/// A direction that moved this much, and whose reads fill whole buffers, is bulk: it is worth a pipe. Measured: below
/// 256 KiB the switch costs more than it saves.
const BULK_BYTES: u64 = 256 * 1024;
const BULK_FULL_READS: u8 = 2;

#[derive(Debug)]
pub(super) struct Direction {
    /// Read and not yet written, the one being written included (it is the first).
    pub(super) queue: VecDeque<Chunk>,
    pub(super) receiving: Receiving,
    /// Whether the first chunk of the queue is being written.
    pub(super) sending: bool,
    /// How the source ended.
    pub(super) end: Option<End>,
    /// The destination takes nothing any more: what comes is thrown away.
    pub(super) broken: bool,
    /// All is written and the destination has been told of the end.
    pub(super) done: bool,
    /// The shared buffers were used up at the last read: the next one brings its own.
    pub(super) starved: bool,
    pub(super) mode: Mode,
    /// Bytes read by copying since the direction last began to copy.
    copied: u64,
    full_reads: u8,
}

/// Whether a receive operation is under way at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiving {
    Idle,
    Armed,
    /// Armed, and told to stop.
    Stopping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The source sent its FIN.
    Finished,
    /// The source was reset.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Through buffers.
    Copy,
    /// Through buffers for good: there is no pipe to be had.
    CopyOnly,
    /// Waiting for the last receive and the last send, to go on by splice.
    ToSplice,
    /// Through a pipe, which holds so many bytes.
    Splice { held: u32, step: Step },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is under way: the direction is over.
    Idle,
    /// A splice is due.
    Queued,
    /// Waiting until the source has something.
    AwaitingSource,
    /// Waiting until the destination takes something.
    AwaitingDestination,
    /// Was waiting for the source, and goes back to copying.
    Leaving,
}

impl Direction {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            receiving: Receiving::Idle,
            sending: false,
            end: None,
            broken: false,
            done: false,
            starved: false,
            mode: Mode::Copy,
            copied: 0,
            full_reads: 0,
        }
    }

    /// Takes a chunk in and notices when the direction turns out to be bulk.
    pub(super) fn push(&mut self, chunk: Chunk, full: bool) {
        self.copied += u64::from(chunk.length);
        self.full_reads = if full { self.full_reads.saturating_add(1) } else { 0 };
        self.queue.push_back(chunk);
        if self.mode == Mode::Copy && self.copied >= BULK_BYTES && self.full_reads >= BULK_FULL_READS {
            self.mode = Mode::ToSplice;
        }
    }

    /// Begins to copy, again.
    pub(super) fn copy(&mut self, mode: Mode) {
        self.mode = mode;
        self.copied = 0;
        self.full_reads = 0;
    }

    /// Whether all that was read has been written.
    pub(super) fn is_flushed(&self) -> bool {
        let held = if let Mode::Splice { held, .. } = self.mode { held } else { 0 };
        self.queue.is_empty() && !self.sending && (held == 0 || self.broken)
    }

    /// Whether nothing more can come from the source.
    pub(super) fn is_ended(&self) -> bool {
        self.end.is_some() && self.receiving == Receiving::Idle
    }

    /// The number of operations that will still report.
    pub(super) fn outstanding(&self) -> usize {
        let splicing = matches!(self.mode, Mode::Splice { step, .. } if step != Step::Idle);
        usize::from(self.receiving != Receiving::Idle) + usize::from(self.sending) + usize::from(splicing)
    }

    /// Whether a receive should begin now.
    pub(super) fn wants_receive(&self) -> bool {
        let room = if self.starved { self.queue.is_empty() } else { self.queue.len() <= QUEUE_LOW };
        let copying = matches!(self.mode, Mode::Copy | Mode::CopyOnly);
        self.receiving == Receiving::Idle && self.end.is_none() && !self.broken && copying && room
    }

    /// Whether the receive that is under way should stop now.
    pub(super) fn wants_stop(&self) -> bool {
        self.receiving == Receiving::Armed
            && (self.queue.len() >= QUEUE_HIGH || self.mode == Mode::ToSplice || self.broken)
    }
}
