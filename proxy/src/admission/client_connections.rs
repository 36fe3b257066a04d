//! How many connections at once of one client.

use super::{Client, Scope};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Threads rarely meet at one of so many.
const SHARDS: usize = 64;
/// A shard with room for no more than this is not worth making smaller.
const SMALL: usize = 64;

/// Never 0.
type Counts = HashMap<(Scope, Client), u32>;

/// Counts the open connections of each client of each service, exact across threads. It holds nothing for a client without
/// connections, so that its memory is bounded by the number of open ones.
#[derive(Debug)]
pub struct ClientConnections {
    /// Random, so that nobody can choose addresses that meet in one place.
    hasher: RandomState,
    shards: Box<[Mutex<Counts>]>,
}

impl Default for ClientConnections {
    fn default() -> Self {
        let hasher = RandomState::new();
        Self { hasher, shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl ClientConnections {
    /// Counts a connection in, if the client has fewer than `limit`. Each one that was counted in must be counted out by
    /// [`Self::leave`].
    #[must_use]
    pub fn try_enter(&self, scope: Scope, client: Client, limit: u32) -> bool {
        if limit == 0 {
            return false;
        }
        match self.shard(scope, client).entry((scope, client)) {
            Entry::Occupied(mut count) if *count.get() < limit => *count.get_mut() += 1,
            Entry::Occupied(_) => return false,
            Entry::Vacant(place) => {
                place.insert(1);
            }
        }
        true
    }

    /// Counts a connection out.
    pub fn leave(&self, scope: Scope, client: Client) {
        let mut shard = self.shard(scope, client);
        match shard.entry((scope, client)) {
            Entry::Occupied(mut count) if *count.get() > 1 => *count.get_mut() -= 1,
            Entry::Occupied(count) => {
                count.remove();
                // Not before an eighth is used, so that a count that goes up and down does not allocate each time.
                if shard.capacity() > SMALL.max(shard.len() * 8) {
                    let room = shard.len() * 2;
                    shard.shrink_to(room);
                }
            }
            Entry::Vacant(_) => debug_assert!(false, "a connection was counted out that had not been counted in"),
        }
    }

    /// How many connections the client has.
    #[must_use]
    pub fn count(&self, scope: Scope, client: Client) -> u32 {
        self.shard(scope, client).get(&(scope, client)).copied().unwrap_or_default()
    }

    fn shard(&self, scope: Scope, client: Client) -> MutexGuard<'_, Counts> {
        let index = self.hasher.hash_one((scope, client)) as usize % SHARDS;
        // No count is ever half changed.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn client(number: u32) -> Client {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    impl ClientConnections {
        fn held(&self) -> (usize, usize) {
            let shards = self.shards.iter().map(|shard| shard.lock().unwrap());
            shards.fold((0, 0), |(held, room), shard| (held + shard.len(), room + shard.capacity()))
        }
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_plain_list(
            steps in prop::collection::vec((0u64..2, 0u32..4, 0u32..5, any::<bool>()), 0..200),
        ) {
            let (counted, mut plain) = (ClientConnections::default(), Vec::new());
            for (scope, number, limit, enter) in steps {
                let open = plain.iter().filter(|&&open| open == (scope, number)).count() as u32;
                if enter {
                    let entered = counted.try_enter(scope, client(number), limit);
                    prop_assert_eq!(entered, open < limit);
                    plain.extend(entered.then_some((scope, number)));
                } else if let Some(position) = plain.iter().position(|&open| open == (scope, number)) {
                    plain.swap_remove(position);
                    counted.leave(scope, client(number));
                }
                let open = plain.iter().filter(|&&open| open == (scope, number)).count() as u32;
                prop_assert_eq!(counted.count(scope, client(number)), open);
            }
            let mut clients = plain.clone();
            clients.sort_unstable();
            clients.dedup();
            prop_assert_eq!(counted.held().0, clients.len());
        }
    }

    #[test]
    fn memory_goes_when_connections_go() {
        let counted = ClientConnections::default();
        for number in 0..200_000 {
            assert!(counted.try_enter(1, client(number), 1));
        }
        assert!(counted.held().1 >= 200_000);
        for number in 0..200_000 {
            counted.leave(1, client(number));
        }
        let (held, room) = counted.held();
        assert!(held == 0 && room <= SHARDS * 2 * SMALL, "{held} held, room for {room}");
    }

    #[test]
    fn exact_across_threads() {
        const LIMIT: u32 = 3;
        let counted = ClientConnections::default();
        let inside: Vec<_> = (0..4).map(|_| std::sync::atomic::AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..8u32 {
                let (counted, inside) = (&counted, &inside);
                scope.spawn(move || {
                    for turn in 0..20_000 {
                        let number = (turn + thread) % 4;
                        if counted.try_enter(0, client(number), LIMIT) {
                            let before = inside[number as usize].fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            assert!(before < LIMIT);
                            std::thread::yield_now();
                            inside[number as usize].fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            counted.leave(0, client(number));
                        }
                    }
                });
            }
        });
        assert_eq!(counted.held().0, 0);
    }
}
