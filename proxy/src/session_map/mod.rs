//! Which UDP sessions go past this proxy: memory that it shares with the programs of its network's ports, which send
//! datagrams on in the kernel.
//!
//! The layout is that of `ringlb_netns::session_map`, where it is described. Several data threads, and two proxies while one
//! takes the other's place, write into it: whoever makes the sequence of a free entry odd has it until he makes it even again, and
//! whoever has filled it frees it. All may be zero from one moment to the next, when the daemon forgets the sessions of a proxy
//! that has ended. A datagram that is on its way when an entry is freed is not counted.

use crate::shared_memory::{Memory, Shareable, hash_of};
use std::net::SocketAddrV4;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A power of two.
const BUCKETS: usize = 1024;
const WAYS: usize = 8;

/// Where datagrams come from and where they go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Who sends.
    pub source: SocketAddrV4,
    /// To whom.
    pub destination: SocketAddrV4,
}

/// How many datagrams were sent on, and the bytes in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes, without headers.
    pub bytes: u64,
}

/// One direction of a session in the map.
#[derive(Debug)]
pub struct Place {
    bucket: usize,
    way: usize,
    key: Key,
}

/// The map of one network.
#[derive(Debug)]
pub struct SessionMap(Memory<Buckets>);

#[derive(Debug)]
#[repr(transparent)]
struct Buckets([[Entry; WAYS]; BUCKETS]);

// SAFETY: an entry is nothing but atomic numbers, and one that is not read.
#[allow(unsafe_code, reason = "the compiler cannot know what else may write into the memory")]
unsafe impl Shareable for Buckets {}

/// A tuple as it lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    addresses: u64,
    ports: u32,
}

/// A line of memory, as `ringlb_netns::session_map` describes it.
#[derive(Debug)]
#[repr(C, align(64))]
struct Entry {
    sequence: AtomicU32,
    _unused: u32,
    key_addresses: AtomicU64,
    key_ports: AtomicU32,
    new_ports: AtomicU32,
    new_addresses: AtomicU64,
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

impl SessionMap {
    /// The map that the daemon has sent. The descriptor is not needed any more.
    ///
    /// # Errors
    /// If the descriptor is of no such memory, or there is no room for it.
    pub fn new(descriptor: &impl AsFd) -> nix::Result<Self> {
        Memory::map(descriptor).map(Self)
    }

    /// Has datagrams from `from.source` to `from.destination` go on from `to.source` to `to.destination`. `None` if there is no
    /// room, or somebody has said where they go already.
    pub fn put(&self, from: Tuple, to: Tuple) -> Option<Place> {
        let (key, new) = (Key::of(from), Key::of(to));
        let bucket = key.bucket();
        let entries = &self.0.0[bucket];
        if entries.iter().any(|entry| entry.key() == key) {
            return None;
        }
        (0..WAYS).find(|&way| entries[way].fill(key, new)).map(|way| Place { bucket, way, key })
    }

    /// What went that way so far; `None` if nothing goes any more, as the map was cleared.
    pub fn passed(&self, place: &Place) -> Option<Passed> {
        let entry = self.entry(place)?;
        let passed = entry.passed();
        (entry.key() == place.key).then_some(passed)
    }

    /// Takes an entry back; gives what went that way.
    pub fn remove(&self, place: &Place) -> Option<Passed> {
        let entry = self.entry(place)?;
        // Without the lock, which somebody may have who looks whether the entry is free: as it is not, nobody else writes.
        let passed = (entry.key() == place.key).then(|| entry.passed());
        if passed.is_some() {
            entry.free();
        }
        passed
    }

    fn entry(&self, place: &Place) -> Option<&Entry> {
        self.0.0.get(place.bucket)?.get(place.way)
    }
}

impl Entry {
    /// Makes a free entry this; false if it is not free.
    fn fill(&self, key: Key, new: Key) -> bool {
        if self.key() != Key::NONE {
            return false;
        }
        let Some(sequence) = self.lock() else { return false };
        // Somebody may have been faster.
        let is_free = self.key() == Key::NONE;
        if is_free {
            self.new_addresses.store(new.addresses, Ordering::Relaxed);
            self.new_ports.store(new.ports, Ordering::Relaxed);
            self.datagrams.store(0, Ordering::Relaxed);
            self.bytes.store(0, Ordering::Relaxed);
            self.set_key(key);
        }
        self.unlock(sequence);
        is_free
    }

    /// Gives the sequence to [`unlock`](Self::unlock) with; `None` if another one has the entry.
    fn lock(&self) -> Option<u32> {
        let sequence = self.sequence.load(Ordering::Relaxed);
        let locked = sequence.wrapping_add(1);
        if !sequence.is_multiple_of(2) {
            return None;
        }
        self.sequence.compare_exchange(sequence, locked, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        // What is written comes after the odd number for whoever reads.
        std::sync::atomic::fence(Ordering::SeqCst);
        Some(sequence)
    }

    fn unlock(&self, sequence: u32) {
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    fn key(&self) -> Key {
        Key { addresses: self.key_addresses.load(Ordering::Relaxed), ports: self.key_ports.load(Ordering::Relaxed) }
    }

    fn set_key(&self, key: Key) {
        self.key_addresses.store(key.addresses, Ordering::Relaxed);
        self.key_ports.store(key.ports, Ordering::Relaxed);
    }

    /// After what was read of it before.
    fn free(&self) {
        self.key_ports.store(Key::NONE.ports, Ordering::Release);
        self.key_addresses.store(Key::NONE.addresses, Ordering::Release);
    }

    fn passed(&self) -> Passed {
        Passed { datagrams: self.datagrams.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

impl Key {
    /// Of a free entry: no datagram has a port 0 as its source and its destination.
    const NONE: Self = Self { addresses: 0, ports: 0 };

    fn of(tuple: Tuple) -> Self {
        let Tuple { source, destination } = tuple;
        let [a, b, c, d] = source.ip().octets();
        let [e, f, g, h] = destination.ip().octets();
        let ([i, j], [k, l]) = (source.port().to_be_bytes(), destination.port().to_be_bytes());
        Self { addresses: u64::from_ne_bytes([a, b, c, d, e, f, g, h]), ports: u32::from_ne_bytes([i, j, k, l]) }
    }

    fn bucket(self) -> usize {
        let [a, b, c, d, e, f, g, h] = self.addresses.to_ne_bytes();
        let words = [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]), self.ports];
        hash_of(words) as usize & (BUCKETS - 1)
    }
}

#[cfg(test)]
mod tests;
