//! A backend in a table, and what outlives the table: its identity.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A backend as one table sees it.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its share of new connections.
    pub weight: u16,
    /// Whether it gets no new connections and keeps those it has.
    pub draining: bool,
    /// The counters, the same in every table that this backend is in.
    pub identity: Arc<Identity>,
}

impl Backend {
    /// Whether a new connection may go to it.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.weight > 0 && !self.draining
    }
}

/// What belongs to a backend from the table that it first appears in to the last one.
///
/// All data threads write here, two numbers for each connection and one for each send. A copy for each thread would avoid
/// that, but take 64 bytes for each backend *and thread*, and `p2c` and a removal would have to add up all copies of
/// [`Self::active`], of which a removal needs an exact view. So the numbers are shared: a line that comes from another
/// core costs some tens of nanoseconds, where relaying one message costs ten microseconds. But each backend has lines of
/// its own, so that threads only meet where they serve the same backend.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Identity {
    /// Connections open now, those being established included.
    pub active: AtomicU64,
    /// Connections established.
    pub connections: AtomicU64,
    /// Attempts to connect that failed.
    pub connect_failures: AtomicU64,
    /// Bytes sent to the backend.
    pub bytes_to_backend: AtomicU64,
    /// Bytes received from the backend.
    pub bytes_to_client: AtomicU64,
    removed: AtomicBool,
    drains: AtomicU32,
}

/// Whether a connection was counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It was.
    Entered,
    /// The backend has as many as it may have.
    Full,
    /// The backend has been removed meanwhile: the pick must be made again in the newest table.
    Removed,
}

impl Identity {
    /// Counts a connection in, before the attempt to establish it, if fewer than `limit` are. If the answer is not
    /// [`Entry::Entered`], nothing was counted.
    ///
    /// The order matters. Here: count, then look whether it is removed. In [`Self::remove`]: mark, then look at the
    /// count. So either this call sees the mark or the other one sees the connection.
    #[must_use]
    pub fn enter(&self, limit: u64) -> Entry {
        let more = |active: u64| (active < limit).then_some(active + 1);
        if self.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_err() {
            return Entry::Full;
        }
        if self.removed.load(Ordering::SeqCst) {
            self.leave();
            return Entry::Removed;
        }
        Entry::Entered
    }

    /// Whether `limit` or more connections are open.
    #[must_use]
    pub fn is_full(&self, limit: u64) -> bool {
        self.active.load(Ordering::SeqCst) >= limit
    }

    /// Counts a connection out.
    pub fn leave(&self) {
        self.active.fetch_sub(1, Ordering::SeqCst);
    }

    /// Marks the backend as gone. True if it has connections, which must be reset.
    pub fn remove(&self) -> bool {
        self.removed.store(true, Ordering::SeqCst);
        self.active.load(Ordering::SeqCst) > 0
    }

    /// Whether the backend is in no table any more.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    /// Notes that draining starts or ends; gives the number of this note, by which a later deadline can be told to be
    /// still wanted.
    pub fn note_drain(&self) -> u32 {
        self.drains.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The number of the last note.
    #[must_use]
    pub fn last_drain(&self) -> u32 {
        self.drains.load(Ordering::SeqCst)
    }
}
