//! What is due later.

use crate::ring::Slot;
use crate::table::SharedIdentity;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// What is due. A timer is never taken back: whoever is told looks whether it still matters.
#[derive(Debug)]
pub(super) enum Timer {
    /// An attempt to connect has had its time.
    Connect { slot: Slot, attempt: u8 },
    /// A connection with a reset on one side has had its time to deliver the rest.
    Linger { slot: Slot },
    /// A draining backend has had its time, if no later note was made.
    Drain { identity: SharedIdentity, note: u32 },
    /// Accepting from a listener failed for want of something and may be tried again.
    Accept { listener: u32 },
    /// Receiving from a steered UDP socket failed too often and may be tried again.
    Datagrams { socket: u32 },
    /// Look for splicing directions that have nothing to do.
    Quiet,
    /// Look for sockets at hand that nobody needs.
    UsedSockets,
    /// Look at UDP sessions that go past the proxy.
    Passings,
    /// Look at connections that go past the proxy.
    PassingConnections,
    /// Look for connections that have lasted or been idle for too long.
    Age,
}

/// Timers by time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Due>,
}

#[derive(Debug)]
struct Due {
    at: Instant,
    timer: Timer,
}

impl Timers {
    pub(super) fn add(&mut self, now: Instant, after: Duration, timer: Timer) {
        // A time too far away to be expressed never comes.
        if let Some(at) = now.checked_add(after) {
            self.heap.push(Due { at, timer });
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|due| due.at)
    }

    /// A timer that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? <= now { self.heap.pop().map(|due| due.timer) } else { None }
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The earliest is the greatest, as a `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}
