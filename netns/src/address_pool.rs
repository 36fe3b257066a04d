//! Which of a subnet's addresses are in use.

use crate::{Error, Result};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of a subnet: those in use, those never to be used, and the lowest that is free. It takes memory for the
/// gaps between used addresses, not for the subnet: a /8 that is in use from its start on takes as much as a /30.
#[derive(Debug, Clone)]
pub struct AddressPool {
    subnet: IpNet,
    excluded: Ranges,
    /// In use or excluded.
    taken: Ranges,
}

impl AddressPool {
    /// A pool in which nothing is in use. Never handed out are the addresses in `reserved` (as far as they are in the
    /// subnet), the network address, and with IPv4 the broadcast address; a subnet of one or two addresses (RFC 3021,
    /// RFC 6164) has neither.
    #[must_use]
    pub fn new(subnet: IpNet, reserved: &[IpNet]) -> Self {
        let subnet = subnet.trunc();
        let mut excluded = Ranges::default();
        let whole = Range::of(subnet);
        if subnet.max_prefix_len() - subnet.prefix_len() >= 2 {
            excluded.add(Range { first: whole.first, last: whole.first });
            if matches!(subnet, IpNet::V4(_)) {
                excluded.add(Range { first: whole.last, last: whole.last });
            }
        }
        for range in reserved.iter().filter(|range| range.addr().is_ipv4() == subnet.addr().is_ipv4()) {
            let range = Range::of(*range);
            let (first, last) = (range.first.max(whole.first), range.last.min(whole.last));
            if first <= last {
                excluded.add(Range { first, last });
            }
        }
        Self { subnet, taken: excluded.clone(), excluded }
    }

    /// The subnet.
    #[must_use]
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// Takes an address that somebody chose.
    ///
    /// # Errors
    /// If it is not one of the subnet's, is never to be used, or is in use.
    pub fn reserve(&mut self, address: IpAddr) -> Result<()> {
        let subnet = self.subnet;
        if !subnet.contains(&address) {
            return Err(Error::AddressOutsideSubnet { address, subnets: subnet.into() });
        }
        let number = number_of(address);
        if self.excluded.contains(number) {
            return Err(Error::AddressReserved { address, subnet });
        }
        if self.taken.contains(number) {
            return Err(Error::AddressTaken { address, subnet });
        }
        self.taken.add(Range { first: number, last: number });
        Ok(())
    }

    /// Takes the lowest free address.
    ///
    /// # Errors
    /// If none is free.
    pub fn allocate(&mut self) -> Result<IpAddr> {
        let whole = Range::of(self.subnet);
        let free = self.taken.first_gap(whole.first).filter(|number| *number <= whole.last);
        let number = free.ok_or(Error::SubnetFull { subnet: self.subnet })?;
        self.taken.add(Range { first: number, last: number });
        Ok(address_of(number, self.subnet))
    }

    /// Gives an address back. False if it was not in use, which changes nothing.
    pub fn release(&mut self, address: IpAddr) -> bool {
        if !self.is_in_use(address) {
            return false;
        }
        self.taken.remove(number_of(address));
        true
    }

    /// Whether the address was taken and not given back.
    #[must_use]
    pub fn is_in_use(&self, address: IpAddr) -> bool {
        let number = number_of(address);
        self.subnet.contains(&address) && self.taken.contains(number) && !self.excluded.contains(number)
    }
}

/// Both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u128,
    last: u128,
}

impl Range {
    fn of(prefix: IpNet) -> Self {
        Self { first: number_of(prefix.network()), last: number_of(prefix.broadcast()) }
    }
}

/// A set of numbers, as ranges that neither overlap nor touch: first to last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges {
    last_by_first: BTreeMap<u128, u128>,
}

impl Ranges {
    fn contains(&self, number: u128) -> bool {
        self.at_or_below(number).is_some_and(|range| number <= range.last)
    }

    /// The lowest number from `from` on that is not in the set.
    fn first_gap(&self, from: u128) -> Option<u128> {
        match self.at_or_below(from) {
            Some(range) if from <= range.last => range.last.checked_add(1),
            _ => Some(from),
        }
    }

    fn add(&mut self, mut range: Range) {
        // Whatever starts at or below the number after the range, and ends at or above the number before it, joins it.
        while let Some(neighbour) = self.at_or_below(range.last.saturating_add(1)) {
            if neighbour.last.saturating_add(1) < range.first {
                break;
            }
            self.last_by_first.remove(&neighbour.first);
            range = Range { first: range.first.min(neighbour.first), last: range.last.max(neighbour.last) };
        }
        self.last_by_first.insert(range.first, range.last);
    }

    fn remove(&mut self, number: u128) {
        let Some(range) = self.at_or_below(number).filter(|range| number <= range.last) else { return };
        self.last_by_first.remove(&range.first);
        if range.first < number {
            self.last_by_first.insert(range.first, number - 1);
        }
        if number < range.last {
            self.last_by_first.insert(number + 1, range.last);
        }
    }

    fn at_or_below(&self, number: u128) -> Option<Range> {
        let (first, last) = self.last_by_first.range(..=number).next_back()?;
        Some(Range { first: *first, last: *last })
    }
}

fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address with that number in the subnet's family. The number is one of the subnet's.
fn address_of(number: u128, subnet: IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(subnet) => u32::try_from(number).map_or(subnet.network(), Ipv4Addr::from_bits).into(),
        IpNet::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn pool(subnet: &str, reserved: &[&str]) -> AddressPool {
        let reserved: Vec<IpNet> = reserved.iter().map(|range| range.parse().unwrap()).collect();
        AddressPool::new(subnet.parse().unwrap(), &reserved)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn hands_out_the_lowest_free_address() {
        let mut pool = pool("10.1.0.9/29", &["10.1.0.2/32"]);
        let addresses: Vec<_> = (0..5).map(|_| pool.allocate().unwrap()).collect();
        assert_eq!(addresses, ["10.1.0.9", "10.1.0.10", "10.1.0.11", "10.1.0.12", "10.1.0.13"].map(ip));
        assert!(pool.release(ip("10.1.0.11")));
        assert!(pool.release(ip("10.1.0.10")));
        assert_eq!(pool.allocate().unwrap(), ip("10.1.0.10"));
    }

    #[test]
    fn says_when_the_subnet_is_full() {
        let mut pool = pool("10.1.0.0/29", &["10.1.0.1/32", "10.1.0.4/30"]);
        assert_eq!(pool.allocate().unwrap(), ip("10.1.0.2"));
        assert_eq!(pool.allocate().unwrap(), ip("10.1.0.3"));
        assert!(matches!(pool.allocate(), Err(Error::SubnetFull { .. })));
        assert!(pool.release(ip("10.1.0.3")));
        assert_eq!(pool.allocate().unwrap(), ip("10.1.0.3"));
    }

    #[test]
    fn small_subnets_have_no_network_and_broadcast_address() {
        let mut two = pool("10.1.0.2/31", &[]);
        assert_eq!([two.allocate().unwrap(), two.allocate().unwrap()], [ip("10.1.0.2"), ip("10.1.0.3")]);
        assert!(two.allocate().is_err());
        let mut one = pool("255.255.255.255/32", &[]);
        assert_eq!(one.allocate().unwrap(), ip("255.255.255.255"));
        assert!(one.allocate().is_err());
        let mut last = pool("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127", &[]);
        assert!(last.allocate().is_ok() && last.allocate().is_ok() && last.allocate().is_err());
    }

    #[test]
    fn ipv6_has_no_broadcast_address() {
        let mut pool = pool("fd00::/126", &["10.0.0.0/8"]);
        let addresses: Vec<_> = (0..3).map(|_| pool.allocate().unwrap()).collect();
        assert_eq!(addresses, ["fd00::1", "fd00::2", "fd00::3"].map(ip));
        assert!(pool.allocate().is_err());
    }

    #[test]
    fn refuses_what_cannot_be_reserved() {
        let mut pool = pool("10.1.0.0/24", &["10.1.0.128/25"]);
        pool.reserve(ip("10.1.0.7")).unwrap();
        assert!(matches!(pool.reserve(ip("10.1.0.7")), Err(Error::AddressTaken { .. })));
        for address in ["10.1.0.0", "10.1.0.255", "10.1.0.128", "10.1.0.200"] {
            assert!(matches!(pool.reserve(ip(address)), Err(Error::AddressReserved { .. })), "{address}");
        }
        for address in ["10.1.1.0", "10.0.255.255", "::a01:7"] {
            assert!(matches!(pool.reserve(ip(address)), Err(Error::AddressOutsideSubnet { .. })), "{address}");
        }
        for address in ["10.1.0.0", "10.1.0.255", "10.1.0.128", "10.1.1.0", "10.1.0.8", "::a01:7"] {
            assert!(!pool.release(ip(address)), "{address}");
        }
    }

    #[test]
    fn memory_follows_the_gaps_not_the_subnet() {
        let mut pool = pool("10.0.0.0/8", &["10.200.0.0/16"]);
        for _ in 0..1_000_000 {
            pool.allocate().unwrap();
        }
        // The used start with the network address, the reserved range, the broadcast address.
        assert_eq!(pool.taken.last_by_first.len(), 3);
        for number in 0..100 {
            assert!(pool.release(IpAddr::from([10, 1, 0, number * 2])));
        }
        assert_eq!(pool.taken.last_by_first.len(), 103);
    }

    #[test]
    fn the_largest_ipv6_subnets_take_no_more_memory() {
        for (subnet, last) in [
            ("fd00::/64", "fd00::ffff:ffff:ffff:ffff"),
            ("fd00::/8", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let mut pool = pool(subnet, &["fd00::1:0/112"]);
            let first = pool.subnet().network();
            assert!(matches!(pool.reserve(first), Err(Error::AddressReserved { .. })), "{subnet}");
            assert!(matches!(pool.reserve(ip("fd00::1:ff")), Err(Error::AddressReserved { .. })), "{subnet}");
            // There is no broadcast address.
            pool.reserve(ip(last)).unwrap();
            assert!(pool.is_in_use(ip(last)), "{subnet}");
            for number in 1..=70_000 {
                let address = pool.allocate().unwrap();
                // The reserved range is passed over, where it is in the way.
                let skipped = if number >= 0x1_0000 && subnet != "::/0" { 0x1_0000 } else { 0 };
                assert_eq!(number_of(address), number_of(first) + number + skipped, "{subnet}");
            }
            assert!(pool.taken.last_by_first.len() <= 3, "{subnet}");
            assert!(pool.release(ip(last)) && !pool.release(ip(last)), "{subnet}");
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Allocate,
        Reserve(u8),
        Release(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Allocate),
            1 => any::<u8>().prop_map(Step::Reserve),
            2 => any::<u8>().prop_map(Step::Release),
        ];
        prop::collection::vec(step, 0..400)
    }

    proptest! {
        /// Against a set of single addresses.
        #[test]
        fn behaves_like_a_set(
            prefix_len in 25u8..=32,
            host in any::<u8>(),
            reserved in prop::collection::vec((any::<u8>(), 26u8..=32), 0..4),
            steps in steps(),
        ) {
            let at = |byte: u8| IpAddr::from([192, 168, 7, byte]);
            let subnet = IpNet::new(at(host), prefix_len).unwrap().trunc();
            let reserved: Vec<_> = reserved.into_iter().map(|(byte, length)| IpNet::new(at(byte), length).unwrap()).collect();
            let mut usable: BTreeSet<IpAddr> = (0..=255).map(at).filter(|address| subnet.contains(address)).collect();
            usable.retain(|address| !reserved.iter().any(|range| range.contains(address)));
            if prefix_len < 31 {
                usable.remove(&subnet.network());
                usable.remove(&subnet.broadcast());
            }
            let mut used = BTreeSet::new();
            let mut pool = AddressPool::new(subnet, &reserved);
            for step in steps {
                match step {
                    Step::Allocate => {
                        let lowest = usable.difference(&used).next().copied();
                        prop_assert_eq!(pool.allocate().ok(), lowest);
                        used.extend(lowest);
                    }
                    Step::Reserve(byte) => {
                        let free = usable.contains(&at(byte)) && !used.contains(&at(byte));
                        prop_assert_eq!(pool.reserve(at(byte)).is_ok(), free);
                        if free {
                            used.insert(at(byte));
                        }
                    }
                    Step::Release(byte) => prop_assert_eq!(pool.release(at(byte)), used.remove(&at(byte))),
                }
                for byte in 0..=255 {
                    prop_assert_eq!(pool.is_in_use(at(byte)), used.contains(&at(byte)));
                }
            }
            // Once everything is given back, nothing remembers that it was in use.
            for address in used {
                pool.release(address);
            }
            prop_assert_eq!(&pool.taken, &AddressPool::new(subnet, &reserved).taken);
        }
    }
}
