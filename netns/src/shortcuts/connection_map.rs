//! The memory that a network's proxies share with the programs of its bridge's ports: which TCP connections the programs may
//! lead past a proxy, and what they must know of these.
//!
//! A relayed connection has two legs, the client's and the backend's, each a TCP connection between an *end* and a socket of the
//! proxy. A program that leads it past the proxy gives what one end sends to the other one, as if the proxy's socket there had
//! sent it: with other addresses, ports, sequence numbers, and timestamps. The proxy's sockets learn nothing of that. Therefore,
//! once a connection is relayed by its proxy again, the programs shift sequence numbers by what has gone past, for as long as
//! there is anything of the connection: neither the ends nor the sockets notice.
//!
//! First there are [`BUCKETS`] buckets of [`WAYS`] slots of [`SLOT_BYTES`] bytes, then [`RECORDS`] records of [`RECORD_BYTES`]
//! bytes, all zero at first. A slot leads from a leg to its record: a leg is in the bucket that its [`hash_of`] gives, wherever
//! there is room, and has the hash's [`tag_of`]. Numbers are of the machine's byte order, but for addresses and ports, which are
//! as in what an end sends: its own before the proxy's.
//!
//! Only programs write into what is marked so, and only while they have the lock; the rest is the proxy's.
//!
//! | slot | bytes | what |
//! |---|---|---|
//! | [`SLOT_TAG`] | 4 | zero if the slot is free; odd if it leads to a record |
//! | [`SLOT_RECORD`] | 4 | the record's number, and in [`SLOT_LEG`] 1 if it is the backend's leg |
//!
//! | record | bytes | what |
//! |---|---|---|
//! | [`LOCK`] | 4 | 1 while a program works on the record (programs) |
//! | [`MODE`] | 4 | one of the modes below (programs, but to take and free the record) |
//! | [`MAY_PASS`] | 4 | 1 if the bases of both legs are right |
//! | [`HOLD`] | 4 | which ends are to be stopped, so that there is a moment at which the connection can begin to pass: [`HOLD_END`], shifted by the leg (the proxy, and programs take it back) |
//! | [`ACTIVITY`] | 4 | how many packets there were (programs) |
//! | [`OVER`] | 4 | which ends and sockets have ended: [`END_IS_OVER`] and [`SOCKET_IS_OVER`], shifted by twice the leg (programs) |
//! | [`PASSINGS`] | 4 | how often the connection has begun to pass (programs) |
//! | [`STAMP`] | 4 | when its proxy was last there: the programs do not care |
//! | [`END_CLOCKS`] | 2 × 4 | the last timestamp of each end (programs) |
//! | [`SCALES`] | 2 × 4 | by how many bits the windows are to be shifted that each end is told |
//! | [`EDGES`] | 2 × 4 | the sequence number up to which each end may send (programs) |
//! | [`LEGS`] | 2 × [`LEG_BYTES`] | the client's leg, and the backend's |
//!
//! | leg | bytes | what |
//! |---|---|---|
//! | [`ADDRESSES`] | 8 | the end's, and the proxy's |
//! | [`PORTS`] | 4 | the same |
//! | [`SEEN`] | 4 | [`END_SEEN`], [`SOCKET_SEEN`], [`CLOCK_UNKNOWN`], [`END_LIVES`] (programs) |
//! | [`END_NEXT`] | 4 | the sequence number after the last byte that the end has sent (programs) |
//! | [`END_HAS`] | 4 | which one the end has acknowledged (programs) |
//! | [`SOCKET_NEXT`] | 4 | the sequence number after the last byte that was sent to the end, as the end sees it (programs) |
//! | [`SOCKET_HAS`] | 4 | which one was acknowledged to the end, as the end sees it (programs) |
//! | [`SHIFT`] | 4 | how many bytes from this end have gone past the proxy (programs) |
//! | [`TO_OTHER_CLOCK`] | 4 | what to add to the end's timestamps for the other end (programs) |
//! | [`END_BASE`] | 4 | the sequence number of the end's first byte, and what has gone past (the proxy, while the connection may not pass; then programs) |
//! | [`SOCKET_BASE`] | 4 | the same of the proxy's first byte, as the end sees it |
//! | [`READ`] | 4 | how many bytes from this end the proxy has read, from the first one on: before it writes them |
//! | [`SOCKET_CLOCK`] | 4 | the last timestamp that was sent to the end (programs) |
//! | [`PASSED_BYTES`] | 8 | how many bytes from this end have gone past and were acknowledged (programs) |

use super::hash;

/// A power of two.
pub const BUCKETS: usize = 2048;
/// A leg is looked for in all slots of one bucket.
pub const WAYS: usize = 8;
/// See the module.
pub const SLOT_BYTES: usize = 8;
/// A power of two.
pub const RECORDS: usize = 4096;
/// A power of two.
pub const RECORD_BYTES: usize = 256;
/// Where the records begin.
pub const FIRST_RECORD: usize = BUCKETS * WAYS * SLOT_BYTES;
/// The size of all of it.
pub const BYTES: usize = FIRST_RECORD + RECORDS * RECORD_BYTES;

/// See the module.
pub const SLOT_TAG: usize = 0;
/// See the module.
pub const SLOT_RECORD: usize = 4;
/// See the module.
pub const SLOT_LEG: u32 = 1 << 16;

/// See the module.
pub const LOCK: usize = 0;
/// See the module.
pub const MODE: usize = 4;
/// See the module.
pub const MAY_PASS: usize = 8;
/// See the module.
pub const HOLD: usize = 12;
/// See the module.
pub const ACTIVITY: usize = 16;
/// See the module.
pub const OVER: usize = 20;
/// See the module.
pub const PASSINGS: usize = 24;
/// See the module.
pub const STAMP: usize = 28;
/// See the module.
pub const END_CLOCKS: usize = 32;
/// See the module.
pub const SCALES: usize = 40;
/// See the module.
pub const EDGES: usize = 48;
/// See the module.
pub const LEGS: usize = 64;

/// The record is free.
pub const FREE: u32 = 0;
/// The proxy relays what there is.
pub const RELAYS: u32 = 1;
/// The connection goes past the proxy.
pub const PASSES: u32 = 2;
/// A connection with the same addresses and ports has begun since then.
pub const REPLACED: u32 = 3;
/// A proxy is about to write the record.
pub const TAKEN: u32 = 4;

/// In [`HOLD`].
pub const HOLD_END: u32 = 1;

/// In [`OVER`].
pub const END_IS_OVER: u32 = 1;
/// In [`OVER`].
pub const SOCKET_IS_OVER: u32 = 2;

/// The size of a leg: a line of memory.
pub const LEG_BYTES: usize = 64;
/// See the module.
pub const ADDRESSES: usize = 0;
/// See the module.
pub const PORTS: usize = 8;
/// See the module.
pub const SEEN: usize = 12;
/// See the module.
pub const END_NEXT: usize = 16;
/// See the module.
pub const END_HAS: usize = 20;
/// See the module.
pub const SOCKET_NEXT: usize = 24;
/// See the module.
pub const SOCKET_HAS: usize = 28;
/// See the module.
pub const SHIFT: usize = 32;
/// See the module.
pub const TO_OTHER_CLOCK: usize = 36;
/// See the module.
pub const END_BASE: usize = 40;
/// See the module.
pub const SOCKET_BASE: usize = 44;
/// See the module.
pub const READ: usize = 48;
/// See the module.
pub const SOCKET_CLOCK: usize = 52;
/// See the module.
pub const PASSED_BYTES: usize = 56;

/// In [`SEEN`]: something was seen that the end has sent.
pub const END_SEEN: u32 = 1;
/// In [`SEEN`]: something was seen that the proxy's socket has sent.
pub const SOCKET_SEEN: u32 = 2;
/// In [`SEEN`]: what to add to the end's timestamps is known only when it sends something.
pub const CLOCK_UNKNOWN: u32 = 4;
/// In [`SEEN`]: something of the end has gone past the proxy since its socket has last asked whether it is still there.
pub const END_LIVES: u32 = 8;

/// The hash of a leg: the end's address, the proxy's, and their ports, each as it lies in memory.
#[must_use]
pub fn hash_of(end: u32, proxy: u32, ports: u32) -> u32 {
    hash::hash_of([end, proxy, ports])
}

/// The bucket that a leg of that hash is in.
#[must_use]
pub fn bucket_of(hash: u32) -> usize {
    hash as usize & (BUCKETS - 1)
}

/// What a slot has of that hash.
#[must_use]
pub fn tag_of(hash: u32) -> u32 {
    hash | 1
}
