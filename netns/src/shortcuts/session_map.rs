//! The memory that a network's proxy shares with the programs of its bridge's ports: which UDP datagrams they send on past
//! the proxy, and how many they were.
//!
//! It has [`BUCKETS`] buckets of [`WAYS`] entries of [`ENTRY_BYTES`] bytes, all zero at first. An entry says from which
//! addresses and ports (its key) to which other ones datagrams are translated; a session has two, one for each direction. It is
//! in the bucket that [`bucket_of`] gives, wherever there is room. Numbers are of the machine's byte order, but for addresses
//! and ports, which are as in a packet: the source before the destination.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | [`SEQUENCE`] | 4 | odd while the entry is being written; another number after that |
//! | [`KEY_ADDRESSES`] | 8 | of datagrams that come |
//! | [`KEY_PORTS`] | 4 | the same; zero if the entry is free |
//! | [`NEW_PORTS`] | 4 | with which they go on |
//! | [`NEW_ADDRESSES`] | 8 | the same |
//! | [`DATAGRAMS`] | 8 | how many went on so |
//! | [`PAYLOAD_BYTES`] | 8 | how many bytes they had, without headers |

use super::hash;

/// A power of two.
pub const BUCKETS: usize = 1024;
/// A datagram is looked for in all entries of one bucket. Of 2,000 sessions, which have 4,000 entries, one in seventy finds a
/// bucket full.
pub const WAYS: usize = 8;
/// A line of memory.
pub const ENTRY_BYTES: usize = 64;
/// The size of all of it.
pub const BYTES: usize = BUCKETS * WAYS * ENTRY_BYTES;

/// See the module.
pub const SEQUENCE: usize = 0;
/// See the module.
pub const KEY_ADDRESSES: usize = 8;
/// See the module.
pub const KEY_PORTS: usize = 16;
/// See the module.
pub const NEW_PORTS: usize = 20;
/// See the module.
pub const NEW_ADDRESSES: usize = 24;
/// See the module.
pub const DATAGRAMS: usize = 32;
/// See the module.
pub const PAYLOAD_BYTES: usize = 40;

/// The bucket of a key: its source, its destination and its ports, each as it lies in memory.
#[must_use]
pub fn bucket_of(source: u32, destination: u32, ports: u32) -> usize {
    hash::hash_of([source, destination, ports]) as usize & (BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions of many clients, or of one with many ports, by one LB endpoint.
    #[test]
    fn sessions_spread_over_the_buckets() {
        let address = |last: u32| (0x0a00_0000 | last).to_be();
        let ports = |source: u16, destination: u16| u32::from(source.to_be()) | u32::from(destination.to_be()) << 16;
        let following: Vec<_> = (0..2000).map(|n| (address(2), address(0xff01), ports(32_768 + 2 * n, 53))).collect();
        let clients: Vec<_> = (0..2000).map(|n| (address(0x1000 + n), address(0xff01), ports(40_000, 53))).collect();
        let answers: Vec<_> = (0..2000).map(|n| (address(7), address(2), ports(53, 40_000 + 7 * n))).collect();
        for keys in [following, clients, answers] {
            let mut sizes = [0usize; BUCKETS];
            keys.iter().for_each(|&(source, destination, ports)| sizes[bucket_of(source, destination, ports)] += 1);
            let without_room: usize = sizes.iter().map(|size| size.saturating_sub(WAYS)).sum();
            assert!(without_room <= 20, "{without_room} of 2000 find no room");
        }
    }
}
