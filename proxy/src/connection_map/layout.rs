//! What is where: as `ringlb_netns::connection_map` has it.
#![allow(unsafe_code, reason = "the compiler cannot know what else may write into the memory")]

use super::{LegAddresses, Stamp};
use crate::shared_memory::{self, Shareable};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(super) const BUCKETS: usize = 2048;
pub(super) const WAYS: usize = 8;
pub(super) const RECORDS: usize = 4096;
const SECOND_LEG: u32 = 1 << 16;

/// A slot that is free, and one into which a record is just being put: no tag of a leg is an even number.
pub(super) const NO_TAG: u32 = 0;
const BUSY_TAG: u32 = 2;

const FREE: u32 = 0;
const RELAYS: u32 = 1;
pub(super) const REPLACED: u32 = 3;
const TAKEN: u32 = 4;

/// The client's end is to be stopped.
pub(super) const HOLD_END: u32 = 1;
/// Something was seen of the end, and something of the socket.
pub(super) const BOTH_SEEN: u32 = 3;
/// Both ends and both sockets.
pub(super) const ALL_OVER: u32 = 15;

/// How often to try for a record's lock. Programs have it for less than a microsecond.
const TRIES: usize = 100_000;

#[derive(Debug)]
#[repr(C)]
pub(super) struct Layout {
    pub(super) buckets: [[Slot; WAYS]; BUCKETS],
    pub(super) records: [Record; RECORDS],
}

// SAFETY: all of it are atomic numbers, or nothing that is read.
unsafe impl Shareable for Layout {}

#[derive(Debug)]
#[repr(C)]
pub(super) struct Slot {
    pub(super) tag: AtomicU32,
    pub(super) record: AtomicU32,
}

#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Record {
    lock: AtomicU32,
    pub(super) mode: AtomicU32,
    pub(super) may_pass: AtomicU32,
    pub(super) hold: AtomicU32,
    pub(super) activity: AtomicU32,
    pub(super) over: AtomicU32,
    pub(super) passings: AtomicU32,
    pub(super) stamp: AtomicU32,
    end_clocks: [AtomicU32; 2],
    pub(super) scales: [AtomicU32; 2],
    edges: [AtomicU32; 2],
    pub(super) legs: [Leg; 2],
    _more: [u64; 8],
}

#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Leg {
    addresses: AtomicU64,
    ports: AtomicU32,
    pub(super) seen: AtomicU32,
    pub(super) end_next: AtomicU32,
    pub(super) end_has: AtomicU32,
    pub(super) socket_next: AtomicU32,
    pub(super) socket_has: AtomicU32,
    shift: AtomicU32,
    to_other_clock: AtomicU32,
    pub(super) end_base: AtomicU32,
    pub(super) socket_base: AtomicU32,
    pub(super) read: AtomicU32,
    socket_clock: AtomicU32,
    pub(super) passed_bytes: AtomicU64,
}

/// A leg's addresses and ports as they lie in memory.
pub(super) type Key = ([u32; 2], u32);

impl Slot {
    /// Has the slot lead to a record; false if it is not free.
    pub(super) fn fill(&self, tag: u32, record: u32) -> bool {
        if self.tag.compare_exchange(NO_TAG, BUSY_TAG, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        self.record.store(record, Ordering::Relaxed);
        self.tag.store(tag, Ordering::Release);
        true
    }
}

impl Record {
    /// Takes it, if it is free.
    pub(super) fn take(&self) -> bool {
        self.mode.load(Ordering::Relaxed) == FREE
            && self.mode.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Makes a record that was taken one of a connection of which nothing was seen.
    pub(super) fn begin(&self, legs: [Key; 2], stamp: Stamp) {
        let single = [&self.may_pass, &self.hold, &self.over, &self.passings];
        for number in single.into_iter().chain(&self.end_clocks).chain(&self.scales).chain(&self.edges) {
            number.store(0, Ordering::Relaxed);
        }
        self.stamp.store(stamp, Ordering::Relaxed);
        self.legs.iter().zip(legs).for_each(|(leg, key)| leg.begin(key));
        self.mode.store(RELAYS, Ordering::Release);
    }

    /// Makes it a free one. No program has it afterwards.
    pub(super) fn free(&self) {
        for _ in 0..TRIES {
            if self.lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                break;
            }
            std::hint::spin_loop();
        }
        // Programs look at the addresses once they have the lock.
        self.legs.iter().for_each(|leg| leg.begin(([0; 2], 0)));
        // Nor has anybody else: a proxy that was killed here has left it.
        self.lock.store(0, Ordering::Release);
        self.mode.store(FREE, Ordering::Release);
    }

    /// Whether nobody has put a stamp into it for so long.
    pub(super) fn is_abandoned(&self, now: Stamp, after: Stamp) -> bool {
        // One that is just being taken has its stamp soon.
        let in_use = !matches!(self.mode.load(Ordering::Acquire), FREE | TAKEN);
        let age = now.wrapping_sub(self.stamp.load(Ordering::Relaxed)).cast_signed();
        in_use && age > after.cast_signed()
    }
}

impl Leg {
    fn begin(&self, ([end, socket], ports): Key) {
        let [a, b, c, d] = end.to_ne_bytes();
        let [e, f, g, h] = socket.to_ne_bytes();
        self.addresses.store(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), Ordering::Relaxed);
        self.ports.store(ports, Ordering::Relaxed);
        for number in [
            &self.seen,
            &self.end_next,
            &self.end_has,
            &self.socket_next,
            &self.socket_has,
            &self.shift,
            &self.to_other_clock,
            &self.end_base,
            &self.socket_base,
            &self.read,
            &self.socket_clock,
        ] {
            number.store(0, Ordering::Relaxed);
        }
        self.passed_bytes.store(0, Ordering::Relaxed);
    }

    pub(super) fn key(&self) -> Key {
        let [a, b, c, d, e, f, g, h] = self.addresses.load(Ordering::Relaxed).to_ne_bytes();
        let addresses = [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])];
        (addresses, self.ports.load(Ordering::Relaxed))
    }
}

pub(super) fn key_of(leg: LegAddresses) -> Key {
    let LegAddresses { end, socket } = leg;
    let ([a, b], [c, d]) = (end.port().to_be_bytes(), socket.port().to_be_bytes());
    let addresses = [end, socket].map(|address| u32::from_ne_bytes(address.ip().octets()));
    (addresses, u32::from_ne_bytes([a, b, c, d]))
}

pub(super) fn hash_of(([end, socket], ports): Key) -> u32 {
    shared_memory::hash_of([end, socket, ports])
}

pub(super) fn bucket_of(hash: u32) -> usize {
    hash as usize & (BUCKETS - 1)
}

pub(super) fn tag_of(hash: u32) -> u32 {
    hash | 1
}

pub(super) fn slot_value(record: usize, leg: usize) -> u32 {
    // There are fewer records than that has room for.
    record as u32 | if leg == 0 { 0 } else { SECOND_LEG }
}

#[cfg(test)]
pub(super) const MODES: [u32; 5] = [FREE, RELAYS, 2, REPLACED, TAKEN];

#[cfg(test)]
mod offsets {
    use super::{Leg, Record};
    use std::mem::offset_of;

    impl Record {
        /// Where each number is, in their order.
        pub(crate) fn offsets() -> Vec<usize> {
            let first =
                [offset_of!(Self, lock), offset_of!(Self, mode), offset_of!(Self, may_pass), offset_of!(Self, hold)];
            let then = [offset_of!(Self, activity), offset_of!(Self, over), offset_of!(Self, passings)];
            let last = [offset_of!(Self, stamp), offset_of!(Self, end_clocks), offset_of!(Self, scales)];
            [&first[..], &then, &last, &[offset_of!(Self, edges), offset_of!(Self, legs)]].concat()
        }
    }

    impl Leg {
        /// The same.
        pub(crate) fn offsets() -> Vec<usize> {
            let first = [offset_of!(Self, addresses), offset_of!(Self, ports), offset_of!(Self, seen)];
            let then = [offset_of!(Self, end_next), offset_of!(Self, end_has), offset_of!(Self, socket_next)];
            let more = [offset_of!(Self, socket_has), offset_of!(Self, shift), offset_of!(Self, to_other_clock)];
            let last = [offset_of!(Self, end_base), offset_of!(Self, socket_base), offset_of!(Self, read)];
            [&first[..], &then, &more, &last, &[offset_of!(Self, socket_clock), offset_of!(Self, passed_bytes)]]
                .concat()
        }
    }
}
