//! Which address a holder gets, where the Engine lets it be chosen.
//!
//! An Engine gives containers the lowest addresses that are free, in whatever order they start. So VIPs come from the upper
//! quarter of the subnet, where they are in nobody's way, and nobody in theirs when the Engine starts all containers anew. The
//! place there follows from the names, so that a holder that was lost gets the same address again.

use crate::hash::hash;
use crate::model::{Families, Family};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many addresses of a family are looked at: enough to pass over those that are taken.
const MOST: u128 = 4096;

/// Addresses of each of the subnets for what is called `name`, the best first, without those that are taken.
pub(super) fn candidates(
    name: &str,
    subnets: Families<IpNet>,
    is_taken: impl Fn(IpAddr) -> bool,
) -> Vec<Families<IpAddr>> {
    let families = subnets.iter().count();
    let mut choices: Vec<_> = subnets.iter().map(|subnet| free(name, *subnet, &is_taken)).collect();
    let candidates = std::iter::from_fn(|| {
        let addresses: Families<IpAddr> = choices.iter_mut().filter_map(Iterator::next).collect();
        (addresses.iter().count() == families && families > 0).then_some(addresses)
    });
    candidates.collect()
}

fn free(name: &str, subnet: IpNet, is_taken: &impl Fn(IpAddr) -> bool) -> impl Iterator<Item = IpAddr> {
    let family = if subnet.addr().is_ipv4() { Family::V4 } else { Family::V6 };
    let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
    let begin = last - (last - first) / 4;
    // The last address of an IPv4 subnet is for everybody.
    let count = last - begin + u128::from(family == Family::V6);
    let start = u128::from(hash(name.as_bytes())).checked_rem(count).unwrap_or_default();
    let addresses = (0..count.min(MOST)).map(move |step| address(family, begin + (start + step) % count));
    addresses.filter(|address| !is_taken(*address))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        // Numbers of IPv4 addresses have 32 bits.
        Family::V4 => Ipv4Addr::from_bits(number as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn subnets(texts: &[&str]) -> Families<IpNet> {
        texts.iter().map(|text| text.parse::<IpNet>().unwrap()).collect()
    }

    fn of(name: &str, texts: &[&str], is_taken: impl Fn(IpAddr) -> bool) -> Vec<String> {
        candidates(name, subnets(texts), is_taken).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn they_are_in_the_upper_quarter_and_each_comes_once() {
        let all = of("net.web", &["10.1.0.0/24"], |_| false);
        let numbers: BTreeSet<u8> =
            all.iter().map(|text| text.strip_prefix("10.1.0.").unwrap().parse().unwrap()).collect();
        assert_eq!(all.len(), numbers.len());
        assert_eq!((numbers.first(), numbers.last()), (Some(&192), Some(&254)));
        assert_eq!(all, of("net.web", &["10.1.0.0/24"], |_| false), "the same name has the same place");
        assert_ne!(all[0], of("net.other", &["10.1.0.0/24"], |_| false)[0]);
    }

    #[test]
    fn those_that_are_taken_are_passed_over() {
        let all = of("net.web", &["10.1.0.0/16"], |_| false);
        let first: IpAddr = all[0].parse().unwrap();
        assert_eq!(of("net.web", &["10.1.0.0/16"], |address| address == first)[0], all[1]);
        assert_eq!(of("net.web", &["10.1.0.0/16"], |_| true), [""; 0]);
    }

    #[test]
    fn there_is_one_of_each_family() {
        let first = of("net.web", &["10.1.0.0/24", "fd00:1::/64"], |_| false).remove(0);
        let (v4, v6) = first.split_once(" and ").unwrap();
        assert!(v4.starts_with("10.1.0.") && v6.contains("fd00:1::"), "{first}");
        assert_eq!(of("net.web", &["10.1.0.0/24", "fd00:1::/64"], |address| address.is_ipv6()), [""; 0]);
        assert_eq!(of("net.web", &[], |_| false), [""; 0]);
    }

    #[test]
    fn small_subnets_have_few_or_none() {
        assert_eq!(of("net.web", &["10.1.0.0/29"], |_| false), ["10.1.0.6"]);
        for text in ["10.1.0.0/30", "10.1.0.0/31", "10.1.0.1/32"] {
            assert_eq!(of("net.web", &[text], |_| false), [""; 0], "{text}");
        }
        assert_eq!(of("net.web", &["fd00::1/128"], |_| false), ["fd00::1"]);
        assert!(of("net.web", &["0.0.0.0/0", "::/0"], |_| false).len() as u128 == MOST);
    }
}
