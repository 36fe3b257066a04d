//! Maglev hashing: a table from clients to backends that changes little when the backends do.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Each backend has
//! a permutation of the table's entries of its own. Backends take turns; in its turn each one takes the first entry of its
//! permutation that is free. The table depends on the addresses and weights alone, not on their order.
//!
//! **Weights.** Backend i takes its turn number j (from 0) at the time j / weight(i). When the table is full at time T,
//! each backend has taken between T·weight and T·weight + 1 entries. So with a share of `s`, in a table of M entries for n
//! backends it has at least s·(M − n), which is 99 % of its exact share or more, as M ≥ 100·n, and at most s·M + 1; and
//! every backend has an entry.
//!
//! **Stability.** A backend that goes moves its own clients and, as the others' turns shift, some more: about 2.5 entries
//! for each backend, which is small only in a table with many more entries than the square of the number of backends.
//! Measured with the [`SIZES`] and n equal backends: adding or removing one moves less than 2/n of all clients up to n = 400,
//! for all but about one of a thousand sets of addresses: two backends whose permutations happen to have nearly the same
//! step get in each other's way more often (the worst seen was 2.6/n). With n = 1,000 it is less than 5/n.
//!
//! **Size.** A table of another size is another table altogether: nearly all clients move. So that this is rare, there are
//! only three sizes, and a service keeps its size when backends go. It changes when the number of eligible backends first
//! grows beyond 20 or 100, and when the proxy of a service that once had more is started anew; between proxies that serve
//! the same backends it can differ for the same reason.

use super::hash::{Purpose, hash};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::IpAddr;

/// The sizes that tables have, each with the most backends it is used for. The last one is used for more, too.
///
/// They are primes, so that each step from 1 to size − 1 leads through all entries. At two bytes an entry they take 10 kB,
/// 131 kB and 1.3 MB. The last one has 100 entries for each of 6,553 backends; the daemon allows 1,000.
pub const SIZES: [(u32, usize); 3] = [(5_003, 20), (65_537, 100), (655_373, 400)];

/// One service's table.
#[derive(Debug, Clone)]
pub struct Maglev {
    size: u32,
    /// For each entry the position of its backend. Empty if there is no backend.
    entries: Box<[u16]>,
}

impl Maglev {
    /// A table of the backends with these addresses and weights, which are above 0, in no smaller size than `least`.
    #[must_use]
    pub fn new(backends: &[(IpAddr, u32)], least: u32) -> Self {
        let size = size_for(backends.len()).max(least);
        Self { size, entries: fill(size, backends) }
    }

    /// The number of entries.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The position of the backend for a client with that hash: that of the client's entry or, if that one is not
    /// acceptable, of the next entry that is.
    #[must_use]
    pub fn find(&self, client: u64, acceptable: impl Fn(usize) -> bool) -> Option<usize> {
        let start = client.checked_rem(self.entries.len() as u64)?;
        let (before, from) = self.entries.split_at(start as usize);
        from.iter().chain(before).map(|&position| usize::from(position)).find(|&position| acceptable(position))
    }
}

fn size_for(backends: usize) -> u32 {
    let [.., (largest, _)] = SIZES;
    SIZES.into_iter().find(|&(_, most)| backends <= most).map_or(largest, |(size, _)| size)
}

/// What stands in an entry that nobody has taken.
const FREE: u16 = u16::MAX;

/// Lets the backends take all entries. Only the first 65,535 take part, as an entry has 16 bits.
fn fill(size: u32, backends: &[(IpAddr, u32)]) -> Box<[u16]> {
    let mut by_address: Vec<_> =
        (0..FREE).zip(backends).map(|(position, &(address, weight))| (address, weight, position)).collect();
    if by_address.is_empty() {
        return Box::default();
    }
    by_address.sort_unstable();
    let mut takers: BinaryHeap<_> = (0u32..)
        .zip(by_address)
        .map(|(order, (address, weight, position))| Taker::new(size, order, address, weight, position))
        .collect();
    let mut entries = vec![FREE; size as usize].into_boxed_slice();
    for _ in 0..size {
        // The heap puts the taker into its new place when this reference is dropped.
        if let Some(mut taker) = takers.peek_mut() {
            taker.take_turn(&mut entries);
        }
    }
    entries
}

/// A backend that takes entries.
#[derive(Debug)]
struct Taker {
    /// The place among those whose turn comes at the same time.
    order: u32,
    weight: u32,
    position: u16,
    /// The next entry of the permutation.
    next: u32,
    skip: u32,
    turns: u32,
}

impl Taker {
    fn new(size: u32, order: u32, address: IpAddr, weight: u32, position: u16) -> Self {
        let below = |purpose, bound: u32| (hash(purpose, address) % u64::from(bound)) as u32;
        let (next, skip) = (below(Purpose::Offset, size), below(Purpose::Skip, size - 1) + 1);
        Self { order, weight, position, next, skip, turns: 0 }
    }

    /// Takes the first free entry of the permutation.
    fn take_turn(&mut self, entries: &mut [u16]) {
        self.turns += 1;
        let size = entries.len() as u32;
        // A permutation visits each entry once, so there is nothing left to find after that many steps.
        for _ in 0..size {
            let here = self.next as usize;
            self.next += self.skip;
            if self.next >= size {
                self.next -= size;
            }
            if entries[here] == FREE {
                entries[here] = self.position;
                return;
            }
        }
    }

    /// Compares when the next turn comes, turns / weight, without division: both products are far below 2⁶⁴.
    fn compare(&self, other: &Self) -> Ordering {
        let (mine, others) =
            (u64::from(self.turns) * u64::from(other.weight), u64::from(other.turns) * u64::from(self.weight));
        mine.cmp(&others).then(self.order.cmp(&other.order))
    }
}

/// The greatest is the one whose turn is next, as the heap's top is its greatest.
impl Ord for Taker {
    fn cmp(&self, other: &Self) -> Ordering {
        other.compare(self)
    }
}

impl PartialOrd for Taker {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Taker {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Taker {}

#[cfg(test)]
mod tests;
