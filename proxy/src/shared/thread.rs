//! What one data thread shares with the control thread.

use super::{Counters, Mailbox};
use std::sync::atomic::{AtomicU64, Ordering};

/// The part of the shared state that belongs to one data thread.
#[derive(Debug)]
pub struct DataThread {
    /// What it counts.
    pub counters: Counters,
    /// Orders for it.
    pub mailbox: Mailbox,
    active: AtomicU64,
    sessions: AtomicU64,
}

impl DataThread {
    pub(super) fn new() -> Result<Self, nix::Error> {
        Ok(Self {
            counters: Counters::default(),
            mailbox: Mailbox::new()?,
            active: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
        })
    }

    /// Counts a connection in. To be called before any backend's [`Identity::enter`], so that a change of the table that
    /// sees the connection there sees it here too, and wakes this thread.
    ///
    /// [`Identity::enter`]: crate::table::Identity::enter
    pub fn enter(&self) {
        self.active.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a connection out, after its backend's count.
    pub fn leave(&self) {
        self.active.fetch_sub(1, Ordering::SeqCst);
    }

    /// The number of its open connections.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::SeqCst)
    }

    /// Counts a UDP session in; the same applies as to [`Self::enter`].
    pub fn enter_session(&self) {
        self.sessions.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a UDP session out, after its backend's count.
    pub fn leave_session(&self) {
        self.sessions.fetch_sub(1, Ordering::SeqCst);
    }

    /// The number of its open UDP sessions.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::SeqCst)
    }

    /// Whether it has connections or UDP sessions.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.active() > 0 || self.sessions() > 0
    }
}
