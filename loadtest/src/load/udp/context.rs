//! What the UDP clients of a run have in common.

use crate::datagram::{Layout, Stamp};
use crate::load::run::Run;
use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// More than any datagram holds.
const BUFFER: usize = 64 * 1024;

/// What the UDP clients of a run have in common.
#[derive(Debug)]
pub(in crate::load) struct Context {
    pub(super) run: Rc<Run>,
    pub(super) layout: Layout,
    /// A number of this run, so that answers to another are known.
    number: u32,
    /// To write datagrams into. Like the next borrowed for a system call and what belongs to it, never across a wait.
    pub(super) outgoing: RefCell<Vec<u8>>,
    /// To receive into.
    pub(super) incoming: RefCell<Vec<u8>>,
}

impl Context {
    pub(in crate::load) fn new(run: Rc<Run>, size_bytes: u64, names: bool) -> Self {
        // The only random numbers of the standard library.
        let random = RandomState::new().build_hasher().finish().to_ne_bytes();
        Self {
            run,
            layout: Layout { size: usize::try_from(size_bytes).unwrap_or(BUFFER), names },
            number: random.first_chunk().copied().map_or(0, u32::from_ne_bytes),
            outgoing: RefCell::default(),
            incoming: RefCell::new(vec![0; BUFFER]),
        }
    }

    /// A stamp for a datagram of this run that is, or should have been, sent at `intended`.
    pub(super) fn stamp(&self, client: u32, sequence: u64, intended: Instant) -> Stamp {
        let sent = intended.saturating_duration_since(self.run.arrivals.started());
        Stamp { run: self.number, client, sequence, sent_ns: u64::try_from(sent.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Whether a stamp is of this run and client.
    pub(super) const fn is_of(&self, stamp: Stamp, client: u32) -> bool {
        stamp.run == self.number && stamp.client == client
    }

    /// How long ago a datagram was, or should have been, sent.
    pub(super) fn since(&self, stamp: Stamp, now: Instant) -> Duration {
        now.saturating_duration_since(self.run.arrivals.started() + Duration::from_nanos(stamp.sent_ns))
    }
}
