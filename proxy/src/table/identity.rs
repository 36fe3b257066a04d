//! What outlives tables of a backend: its identity.

use super::pool::Pooled;
use once_cell::race::OnceBox;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// What belongs to a backend from the table that it first appears in to the last one.
///
/// All data threads write here, two numbers for each connection and one for each send. A copy for each thread would avoid
/// that, but take 128 bytes for each backend *and thread*, and `p2c` and a removal would have to add up all copies of
/// [`Self::active`], of which a removal needs an exact view. So the numbers are shared: a line that comes from another
/// core costs some tens of nanoseconds, where relaying one message costs ten microseconds.
#[derive(Debug, Default)]
pub struct Identity {
    /// Connections and UDP sessions open now, connections being established included.
    pub active: AtomicU64,
    /// Connections established, and UDP sessions begun.
    pub connections: AtomicU64,
    /// Attempts to connect that failed, and UDP sessions that were refused.
    pub connect_failures: AtomicU64,
    /// Bytes sent to the backend.
    pub bytes_to_backend: AtomicU64,
    /// Bytes received from the backend.
    pub bytes_to_client: AtomicU64,
    /// Made with the first UDP session: most backends never have one.
    datagrams: OnceBox<DatagramCounters>,
    removed: AtomicBool,
    failures_in_a_row: AtomicU16,
    drains: AtomicU32,
}

/// An identity as all refer to it. In its pool it has a line of the processor's cache for itself.
pub type SharedIdentity = Pooled<Identity>;

/// What is counted of a backend's UDP sessions.
#[derive(Debug, Default)]
pub struct DatagramCounters {
    /// Of [`Identity::active`], UDP sessions.
    pub active_sessions: AtomicU64,
    /// Of [`Identity::connections`], UDP sessions.
    pub sessions: AtomicU64,
    /// Datagrams sent to the backend.
    pub to_backend: AtomicU64,
    /// Datagrams received from the backend.
    pub to_client: AtomicU64,
}

/// The value of [`Identity::failures_in_a_row`] when there were too many and that is not dealt with yet.
const TOO_MANY: u16 = 1 << 15;

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

    /// The counters of its UDP sessions, to count one.
    pub fn datagrams(&self) -> &DatagramCounters {
        self.datagrams.get_or_init(Box::default)
    }

    /// The counters of its UDP sessions, if it has had any.
    #[must_use]
    pub fn counted_datagrams(&self) -> Option<&DatagramCounters> {
        self.datagrams.get()
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

    /// Notes that the backend could not be reached. True if it was `limit` times in a row now; then not again until
    /// [`Self::forgive`]. A limit of 0 is never reached.
    #[must_use]
    pub fn note_failure(&self, limit: u16) -> bool {
        let next = |failures: u16| match failures {
            TOO_MANY.. => None,
            _ if limit == 0 => None,
            failures if failures + 1 >= limit => Some(TOO_MANY),
            failures => Some(failures + 1),
        };
        let before = self.failures_in_a_row.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.is_ok_and(|failures| next(failures) == Some(TOO_MANY))
    }

    /// Notes that the backend was reached. Writes only if there was a failure before, as this is done for each connection.
    pub fn note_success(&self) {
        if self.failures_in_a_row.load(Ordering::Relaxed) > 0 {
            self.failures_in_a_row.fetch_and(TOO_MANY, Ordering::Relaxed);
        }
    }

    /// Counts failures in a row anew.
    pub fn forgive(&self) {
        self.failures_in_a_row.store(0, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So that it is in one line.
    #[test]
    fn an_identity_is_small() {
        assert_eq!((size_of::<Identity>(), align_of::<Identity>()), (56, 8));
    }

    #[test]
    fn failures_in_a_row_are_reported_once() {
        let identity = Identity::default();
        assert!((0..10).all(|_| !identity.note_failure(0)), "0 is for never");
        assert!(!identity.note_failure(3) && !identity.note_failure(3));
        identity.note_success();
        assert_eq!([0; 6].map(|_| identity.note_failure(3)), [false, false, true, false, false, false]);
        identity.note_success();
        assert!(!identity.note_failure(1), "it is reported already");
        identity.forgive();
        assert!(!identity.note_failure(5) && !identity.note_failure(5) && !identity.note_failure(5));
        assert!(identity.note_failure(2), "a lower limit counts for what was before");
        identity.forgive();
        assert!(identity.note_failure(1));
    }
}
