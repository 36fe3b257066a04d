//! What a server has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a server has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub active: u64,
    /// Attempts to accept that failed, mostly for want of descriptors. The connections wait in the listener's queue.
    pub accept_failures: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams answered.
    pub datagrams_answered: u64,
    /// Datagrams not answered: the system refused the answer, or too many waited for a delayed one.
    pub datagrams_dropped: u64,
}

/// The same, being counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) active: AtomicU64,
    pub(super) accept_failures: AtomicU64,
    pub(super) datagrams_received: AtomicU64,
    pub(super) datagrams_answered: AtomicU64,
    pub(super) datagrams_dropped: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> ServerCounters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServerCounters {
            accepted: of(&self.accepted),
            active: of(&self.active),
            accept_failures: of(&self.accept_failures),
            datagrams_received: of(&self.datagrams_received),
            datagrams_answered: of(&self.datagrams_answered),
            datagrams_dropped: of(&self.datagrams_dropped),
        }
    }
}
