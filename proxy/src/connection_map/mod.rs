//! Which TCP connections may go past this proxy: memory that it shares with the programs of its network's ports, which lead them
//! past it in the kernel.
//!
//! The layout is that of `ringlb_netns::connection_map`, where it is described. Several data threads, and two proxies while one
//! takes the other's place, write into it: whoever makes a free record a taken one has it, and a slot goes to whoever is the first to
//! put something into it. A record is needed for longer than its connection is known here, as the kernel ends it; and what a proxy
//! leaves behind that was killed is needed for a while, too. Therefore each proxy puts a stamp into its records, and takes away those
//! of others whose stamp is old.

mod layout;

use crate::shared_memory::Memory;
use layout::{Layout, Leg, Record};
use std::net::SocketAddrV4;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

/// One of a relayed connection's two TCP connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegAddresses {
    /// The client's or the backend's.
    pub end: SocketAddrV4,
    /// The proxy's.
    pub socket: SocketAddrV4,
}

/// What the kernel knows of the proxy's socket of a leg (`TCP_INFO`, tcp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Bytes that it has received.
    pub received: u32,
    /// Bytes that it has sent, each once.
    pub sent: u32,
    /// Bytes that the end has acknowledged.
    pub acknowledged: u32,
}

/// How far a proxy's socket has got at least, by what a program has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    socket_next: u32,
    socket_has: u32,
}

/// Where a leg has begun: at which sequence number the end, and at which one the proxy's socket.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bases {
    end: Bounds,
    socket: Bounds,
}

/// What a sequence number is at least, and at most.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds(Option<(u32, u32)>);

impl Bases {
    /// Whether they are certain.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.end.is_certain() && self.socket.is_certain()
    }
}

impl Bounds {
    fn narrow(&mut self, least: u32, most: u32) {
        // They are near each other, on a circle.
        let is_before = |one: u32, other: u32| one.wrapping_sub(other).cast_signed() < 0;
        let (before_least, before_most) = self.0.unwrap_or((least, most));
        let least = if is_before(before_least, least) { least } else { before_least };
        let most = if is_before(most, before_most) { most } else { before_most };
        self.0 = Some((least, most));
    }

    fn is_certain(self) -> bool {
        self.0.is_some_and(|(least, most)| least == most)
    }

    fn least(self) -> u32 {
        self.0.map_or(0, |(least, _)| least)
    }
}

/// A moment, in seconds of the machine's monotonic clock.
pub type Stamp = u32;

/// For how long a record stays whose proxy puts no stamp into it. Longer than the kernel needs for a connection that nobody has
/// any more (`tcp_fin_timeout`, ip(7), is a minute).
const ABANDONED: Stamp = 120;

/// The map of one network.
#[derive(Debug)]
pub struct ConnectionMap {
    memory: Memory<Layout>,
    /// Where to look for a free record first.
    next: AtomicUsize,
}

/// A connection in the map, until it is [freed](Self::free).
#[derive(Debug)]
#[must_use]
pub struct Entry {
    map: Arc<ConnectionMap>,
    record: usize,
    slots: [(usize, usize); 2],
}

impl ConnectionMap {
    /// The map that the daemon has sent. The descriptor is not needed any more.
    ///
    /// # Errors
    /// If the descriptor is of no such memory, or there is no room for it.
    pub fn new(descriptor: &impl AsFd) -> nix::Result<Self> {
        Ok(Self { memory: Memory::map(descriptor)?, next: AtomicUsize::new(0) })
    }

    /// Has the programs take note of a connection; the client's leg first. `None` if there is no room, or one of the legs is there
    /// already.
    pub fn put(self: &Arc<Self>, legs: [LegAddresses; 2], stamp: Stamp) -> Option<Entry> {
        let number = self.take_record()?;
        let record = &self.memory.records[number];
        record.begin(legs.map(layout::key_of), stamp);
        let mut slots = [(0, 0); 2];
        for leg in 0..2 {
            let Some(slot) = self.fill_slot(number, leg, legs[leg]) else {
                slots[..leg].iter().for_each(|slot| self.empty_slot(*slot));
                record.free();
                return None;
            };
            slots[leg] = slot;
        }
        Some(Entry { map: Arc::clone(self), record: number, slots })
    }

    fn take_record(&self) -> Option<usize> {
        let first = self.next.load(Ordering::Relaxed);
        let mut numbers = (0..layout::RECORDS).map(|number| (first + number) % layout::RECORDS);
        let number = numbers.find(|&number| self.memory.records[number].take())?;
        self.next.store((number + 1) % layout::RECORDS, Ordering::Relaxed);
        Some(number)
    }

    fn fill_slot(&self, record: usize, leg: usize, addresses: LegAddresses) -> Option<(usize, usize)> {
        let (hash, value) = (layout::hash_of(layout::key_of(addresses)), layout::slot_value(record, leg));
        let (bucket, tag) = (layout::bucket_of(hash), layout::tag_of(hash));
        let slots = &self.memory.buckets[bucket];
        // A program looks at the first one that has the tag.
        if slots.iter().any(|slot| slot.tag.load(Ordering::Relaxed) == tag) {
            return None;
        }
        let way = slots.iter().position(|slot| slot.fill(tag, value))?;
        Some((bucket, way))
    }

    fn empty_slot(&self, (bucket, way): (usize, usize)) {
        self.memory.buckets[bucket][way].tag.store(layout::NO_TAG, Ordering::Release);
    }

    /// Takes away the records of proxies that are not there any more.
    pub fn sweep(&self, now: Stamp) {
        for (number, record) in self.memory.records.iter().enumerate() {
            if !record.is_abandoned(now, ABANDONED) {
                continue;
            }
            for (leg, state) in record.legs.iter().enumerate() {
                let hash = layout::hash_of(state.key());
                let (bucket, value) = (layout::bucket_of(hash), layout::slot_value(number, leg));
                let slots = self.memory.buckets[bucket].iter().enumerate();
                for (way, slot) in slots {
                    if slot.tag.load(Ordering::Acquire) == layout::tag_of(hash)
                        && slot.record.load(Ordering::Relaxed) == value
                    {
                        self.empty_slot((bucket, way));
                    }
                }
            }
            record.free();
        }
    }
}

impl Entry {
    /// What is to be asked before the socket of that leg is asked for its [`Standing`]. `None` as long as nothing was seen of
    /// the leg.
    #[must_use]
    pub fn seen(&self, leg: usize) -> Option<Seen> {
        let leg = self.leg(leg);
        if leg.seen.load(Ordering::Acquire) & layout::BOTH_SEEN != layout::BOTH_SEEN {
            return None;
        }
        let seen = Seen {
            socket_next: leg.socket_next.load(Ordering::Relaxed),
            socket_has: leg.socket_has.load(Ordering::Relaxed),
        };
        fence(Ordering::SeqCst);
        Some(seen)
    }

    /// Comes closer to the sequence numbers at which a leg has begun.
    ///
    /// What a socket had sent when a program saw it is at most what it has sent now; what an end has acknowledged, as a program
    /// sees it, is at least what the socket knows to be acknowledged; and so in the other direction.
    pub fn narrow(&self, leg: usize, seen: Seen, standing: Standing, bases: &mut Bases) {
        fence(Ordering::SeqCst);
        let leg = self.leg(leg);
        bases.socket.narrow(
            seen.socket_next.wrapping_sub(standing.sent),
            leg.end_has.load(Ordering::Relaxed).wrapping_sub(standing.acknowledged),
        );
        bases.end.narrow(
            seen.socket_has.wrapping_sub(standing.received),
            leg.end_next.load(Ordering::Relaxed).wrapping_sub(standing.received),
        );
    }

    /// Has the connection go past the proxy from the next segment on that allows it. All bases must be known, and it must have
    /// been said how much was read, and that be said from now on.
    pub fn allow(&self, bases: [Bases; 2]) {
        for (leg, bases) in self.record().legs.iter().zip(bases) {
            leg.end_base.store(bases.end.least(), Ordering::Relaxed);
            leg.socket_base.store(bases.socket.least(), Ordering::Relaxed);
        }
        self.record().may_pass.store(1, Ordering::Release);
    }

    /// Says by how many bits the windows are shifted that the ends are told.
    pub fn set_scales(&self, scales: [u32; 2]) {
        for (scale, value) in self.record().scales.iter().zip(scales) {
            scale.store(value, Ordering::Relaxed);
        }
    }

    /// Has the ends of those legs stop when they have sent what they were told that they may send, until the connection begins to
    /// pass, or one of them has stopped for too long.
    pub fn hold(&self, legs: &[usize]) {
        let ends = legs.iter().fold(0, |ends, leg| ends | layout::HOLD_END << leg);
        self.record().hold.store(ends, Ordering::Relaxed);
    }

    /// Says how many bytes from the end of that leg the proxy has read, from the first one on. They are not yet written to the other
    /// leg.
    pub fn set_read(&self, leg: usize, bytes: u32) {
        self.leg(leg).read.store(bytes, Ordering::Release);
    }

    /// How many bytes from the client, and from the backend, have gone past the proxy.
    #[must_use]
    pub fn passed(&self) -> [u64; 2] {
        [0, 1].map(|leg| self.leg(leg).passed_bytes.load(Ordering::Relaxed))
    }

    /// How often the connection has begun to go past the proxy.
    #[must_use]
    pub fn passings(&self) -> u32 {
        self.record().passings.load(Ordering::Relaxed)
    }

    /// A number that is another one after each packet.
    #[must_use]
    pub fn activity(&self) -> u32 {
        self.record().activity.load(Ordering::Relaxed)
    }

    /// Whether nobody sends anything more, but for what was lost.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.record().over.load(Ordering::Relaxed) == layout::ALL_OVER || self.is_replaced()
    }

    /// Whether an end, or a socket, has begun to end the connection. It does not pass any more then.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.record().over.load(Ordering::Relaxed) != 0
    }

    /// Whether another connection has the same addresses and ports by now. It cannot be in the map as long as this one is, and what
    /// is sent is its own.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.record().mode.load(Ordering::Relaxed) == layout::REPLACED
    }

    /// Says that there is still somebody who has this entry.
    pub fn stamp(&self, now: Stamp) {
        self.record().stamp.store(now, Ordering::Relaxed);
    }

    /// Takes the connection out of the map. If anything has gone past the proxy, nothing more may come of the connection: the
    /// ends and the sockets do not understand each other any more.
    pub fn free(self) {
        self.slots.iter().for_each(|slot| self.map.empty_slot(*slot));
        self.record().free();
    }

    fn record(&self) -> &Record {
        &self.map.memory.records[self.record]
    }

    fn leg(&self, leg: usize) -> &Leg {
        &self.record().legs[leg]
    }
}

#[cfg(test)]
mod tests;
