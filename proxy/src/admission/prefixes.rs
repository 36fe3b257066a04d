//! A set of addresses, given as prefixes.

use ipnet::IpNet;
use std::net::IpAddr;

/// Addresses of both families, immutable. Prefixes that overlap or touch are merged when the set is made, so that a look
/// is one binary search, and of two sets with the same addresses each equals the other.
///
/// IPv4-mapped IPv6 addresses and prefixes (`::ffff:0:0/96` and longer; RFC 4291, section 2.5.5.2) count as IPv4. A shorter
/// IPv6 prefix, `::/0` included, holds no IPv4 address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl PrefixSet {
    /// Whether the address is in one of the prefixes.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(address.to_bits()),
        }
    }

    /// Whether no address is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.0.is_empty() && self.v6.0.is_empty()
    }
}

impl FromIterator<IpNet> for PrefixSet {
    /// Bits of an address behind its prefix's length mean nothing.
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            // Both ends of a prefix within `::ffff:0:0/96` are IPv4-mapped; only the last of a shorter one can be.
            match (prefix.network().to_canonical(), prefix.broadcast().to_canonical()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                _ => {
                    if let IpNet::V6(prefix) = prefix {
                        v6.push((prefix.network().to_bits(), prefix.broadcast().to_bits()));
                    }
                }
            }
        }
        Self { v4: Ranges::merged(v4), v6: Ranges::merged(v6) }
    }
}

/// Ranges, ends included, in order, with a gap between each two.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ranges<N>(Box<[(N, N)]>);

impl<N> Default for Ranges<N> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<N: Copy + Ord + Successor> Ranges<N> {
    fn merged(mut ranges: Vec<(N, N)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(N, N)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                // Touches or overlaps. Nothing comes after a range that ends with the last number.
                Some((_, end)) if end.successor().is_none_or(|next| first <= next) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged.into_boxed_slice())
    }

    fn contains(&self, number: N) -> bool {
        let behind = self.0.partition_point(|&(first, _)| first <= number);
        behind.checked_sub(1).is_some_and(|index| number <= self.0[index].1)
    }
}

trait Successor: Sized {
    fn successor(self) -> Option<Self>;
}

impl Successor for u32 {
    fn successor(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Successor for u128 {
    fn successor(self) -> Option<Self> {
        self.checked_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn set(prefixes: &[&str]) -> PrefixSet {
        prefixes.iter().map(|prefix| prefix.parse::<IpNet>().unwrap()).collect()
    }

    fn has(set: &PrefixSet, address: &str) -> bool {
        set.contains(address.parse().unwrap())
    }

    #[test]
    fn the_empty_set_and_the_full_one() {
        assert!(set(&[]).is_empty() && !has(&set(&[]), "0.0.0.0") && !has(&set(&[]), "::"));
        let all = set(&["0.0.0.0/0", "::/0", "10.0.0.0/8", "ffff::/16"]);
        for address in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert!(has(&all, address), "{address}");
        }
        assert_eq!(all, set(&["0.0.0.0/1", "128.0.0.0/1", "::/0"]));
    }

    #[test]
    fn families_are_apart_but_for_mapped_addresses() {
        assert!(!has(&set(&["::/0"]), "192.0.2.1") && !has(&set(&["::/0"]), "::ffff:192.0.2.1"));
        assert!(!has(&set(&["::ffff:0:0/95"]), "192.0.2.1"));
        assert!(!has(&set(&["::fffe:0:0/95"]), "192.0.2.1"));
        assert!(!has(&set(&["0.0.0.0/0"]), "2001:db8::1"));
        assert!(has(&set(&["::ffff:192.0.2.0/120"]), "192.0.2.1"));
        assert!(has(&set(&["::ffff:0:0/96"]), "255.255.255.255"));
        assert!(has(&set(&["192.0.2.0/24"]), "::ffff:192.0.2.1"));
        // Not mapped but "compatible", which is deprecated (RFC 4291, section 2.5.5.1): an IPv6 address like any other.
        assert!(!has(&set(&["192.0.2.0/24"]), "::192.0.2.1"));
    }

    #[test]
    fn ten_thousand_prefixes() {
        let even = (0..10_000u32).map(|n| IpNet::from(Ipv4Net::new_assert(Ipv4Addr::from_bits(n << 9), 24)));
        let set: PrefixSet = even.collect();
        for n in 0..10_000u32 {
            assert!(set.contains(Ipv4Addr::from_bits((n << 9) + 255).into()));
            assert!(!set.contains(Ipv4Addr::from_bits((n << 9) + 256).into()));
        }
    }

    /// Addresses with few different bits, so that prefixes overlap, touch and repeat.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            prop::sample::select(vec![0u32, 1, 0x8000_0000, 0x0a00_0000, 0x0a00_0100, u32::MAX])
                .prop_flat_map(|base| (0u32..4).prop_map(move |low| Ipv4Addr::from_bits(base ^ low).into())),
            prop::sample::select(vec![
                0u128,
                1 << 127,
                0xffff_0000_0000,
                0xffff_0a00_0000,
                0xfffe_ffff_ffff,
                u128::MAX
            ])
            .prop_flat_map(|base| (0u128..4).prop_map(move |low| Ipv6Addr::from_bits(base ^ low).into())),
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from),
        ]
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        (address(), 0u8..=128).prop_map(|(address, length)| match address {
            IpAddr::V4(address) => Ipv4Net::new_assert(address, length % 33).into(),
            IpAddr::V6(address) => Ipv6Net::new_assert(address, length).into(),
        })
    }

    /// The definition, bit by bit: not by way of ranges, and not by `ipnet`.
    fn naive(prefixes: &[IpNet], address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        let is_v4 = |bits: u128| bits >> 32 == 0xffff;
        prefixes.iter().any(|prefix| {
            let length = match prefix {
                IpNet::V4(prefix) => 96 + u32::from(prefix.prefix_len()),
                IpNet::V6(prefix) => u32::from(prefix.prefix_len()),
            };
            let same = (bits(prefix.addr()) ^ bits(address)).leading_zeros() >= length;
            same && (!is_v4(bits(address)) || length >= 96)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_look_finds_what_a_scan_finds(
            prefixes in prop::collection::vec(prefix(), 0..30),
            addresses in prop::collection::vec(address(), 1..30),
        ) {
            let set: PrefixSet = prefixes.iter().copied().collect();
            let edges = prefixes.iter().flat_map(|prefix| [prefix.network(), prefix.broadcast()]);
            let beside = edges.clone().flat_map(|edge| match edge {
                IpAddr::V4(edge) => [edge.to_bits().wrapping_sub(1), edge.to_bits().wrapping_add(1)]
                    .map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))),
                IpAddr::V6(edge) => [edge.to_bits().wrapping_sub(1), edge.to_bits().wrapping_add(1)]
                    .map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))),
            });
            for address in addresses.into_iter().chain(edges.clone()).chain(beside) {
                prop_assert_eq!(set.contains(address), naive(&prefixes, address), "{}", address);
            }
            let separate = set.v4.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0)
                && set.v6.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0);
            prop_assert!(separate, "ranges are not merged");
        }
    }
}
