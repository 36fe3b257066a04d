//! Who may be in the middle of a handshake.
//!
//! Anybody who reaches the port can connect and say nothing. A worker's handshake takes milliseconds, so whoever came last
//! gets a place, and who has had one for longest gives way: first among those of the same client, then among those of the
//! client that has most. So nobody can keep a worker out by holding places, and none holds many.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

/// The most handshakes at once.
pub(super) const MAX: usize = 256;

/// The most of one client.
pub(super) const MAX_PER_CLIENT: usize = 8;

/// The places, each with what ends the handshake that has it.
#[derive(Debug)]
pub(super) struct Places<T> {
    /// The oldest first.
    taken: VecDeque<(Client, T)>,
    max: usize,
    max_per_client: usize,
}

/// Whom an address stands for: an IPv4 address, or the /64 of an IPv6 address, all of which one machine can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client(IpAddr);

impl<T> Places<T> {
    pub(super) fn new(max: usize, max_per_client: usize) -> Self {
        Self { taken: VecDeque::new(), max, max_per_client }
    }

    /// Takes a place; gives what gives way for it.
    pub(super) fn take(&mut self, address: IpAddr, place: T) -> Option<T> {
        let client = Client::of(address);
        let gives_way = self.taken_too_much(client).and_then(|client| {
            let oldest = self.taken.iter().position(|(other, _)| *other == client)?;
            self.taken.remove(oldest)
        });
        self.taken.push_back((client, place));
        gives_way.map(|(_, place)| place)
    }

    /// Gives the place back.
    pub(super) fn give_back(&mut self, is_it: impl Fn(&T) -> bool) {
        self.taken.retain(|(_, place)| !is_it(place));
    }

    /// The client that must give a place back before `newcomer` takes one.
    fn taken_too_much(&self, newcomer: Client) -> Option<Client> {
        let mut counts = HashMap::new();
        for (client, _) in &self.taken {
            *counts.entry(*client).or_insert(0_usize) += 1;
        }
        if counts.get(&newcomer).is_some_and(|count| *count >= self.max_per_client) {
            return Some(newcomer);
        }
        if self.taken.len() < self.max {
            return None;
        }
        let most = counts.values().max()?;
        self.taken.iter().map(|(client, _)| *client).find(|client| counts.get(client) == Some(most))
    }
}

impl Client {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() & (u128::MAX << 64);
                Self(Ipv6Addr::from_bits(network).into())
            }
            address => Self(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &mut Places<u32>, address: &str, place: u32) -> Option<u32> {
        places.take(address.parse().unwrap(), place)
    }

    #[test]
    fn a_client_that_has_all_its_places_gives_way_to_itself() {
        let mut places = Places::new(10, 2);
        assert_eq!(take(&mut places, "192.0.2.1", 1), None);
        assert_eq!(take(&mut places, "192.0.2.2", 2), None);
        assert_eq!(take(&mut places, "::ffff:192.0.2.1", 3), None);
        assert_eq!(take(&mut places, "192.0.2.1", 4), Some(1));
        assert_eq!(take(&mut places, "192.0.2.1", 5), Some(3));
        places.give_back(|place| *place == 4);
        assert_eq!(take(&mut places, "192.0.2.1", 6), None);
    }

    #[test]
    fn when_all_are_taken_the_client_with_most_gives_way() {
        let mut places = Places::new(4, 3);
        for (place, address) in ["192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.3"].iter().enumerate() {
            assert_eq!(take(&mut places, address, u32::try_from(place).unwrap()), None);
        }
        assert_eq!(take(&mut places, "192.0.2.4", 4), Some(1));
        // All have one each now: the oldest goes.
        assert_eq!(take(&mut places, "192.0.2.5", 5), Some(0));
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one_client() {
        let mut places = Places::new(10, 1);
        assert_eq!(take(&mut places, "2001:db8::1", 1), None);
        assert_eq!(take(&mut places, "2001:db8:0:1::1", 2), None);
        assert_eq!(take(&mut places, "2001:db8::ffff:1", 3), Some(1));
    }
}
