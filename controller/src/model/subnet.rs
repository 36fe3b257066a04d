//! A network's subnets, and what their addresses are for.

use super::RejectionKind;
use super::address::Refusal;
use super::families::{Families, Family, OfFamily};
use super::limits::{MAX_PREFIX, MAX_PREFIX_V6, MIN_PREFIX, MIN_PREFIX_V6};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// A subnet and its VIP prefix, checked. Addresses are numbers here, in the order of the family's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    net: IpNet,
    vip_prefix: IpNet,
}

/// Checks a network's subnets; one without a VIP prefix gets its upper quarter.
///
/// # Errors
/// The name of the wrong field, and the reason.
pub(super) fn checked(
    subnets: Families<IpNet>,
    vip_prefixes: Families<IpNet>,
) -> Result<Families<Subnet>, (&'static str, String)> {
    let subnet = |net: &IpNet| Subnet::new(*net, vip_prefixes.get(net.family()).copied());
    let checked = subnets.iter().map(subnet).collect::<Result<Families<_>, _>>()?;
    match vip_prefixes.iter().find(|prefix| subnets.get(prefix.family()).is_none()) {
        Some(prefix) => {
            let family = prefix.family();
            Err(("vip_prefix", format!("{prefix} is {family}, the network has no {family} subnet but {subnets}")))
        }
        None => Ok(checked),
    }
}

impl Subnet {
    fn new(net: IpNet, vip_prefix: Option<IpNet>) -> Result<Self, (&'static str, String)> {
        let net = without_host_bits(net).map_err(|reason| ("subnet", reason))?;
        let (shortest, longest) = match net.family() {
            Family::V4 => (MIN_PREFIX, MAX_PREFIX),
            Family::V6 => (MIN_PREFIX_V6, MAX_PREFIX_V6),
        };
        if !(shortest..=longest).contains(&net.prefix_len()) {
            return Err(("subnet", format!("{net} is not between /{shortest} and /{longest}")));
        }
        if let Some((range, what)) = NOT_FOR_HOSTS.iter().find(|(range, _)| overlap(range, &net)) {
            let reason = format!("{net} is not made of unicast addresses for hosts: {range} is {what}");
            return Err(("subnet", reason));
        }
        let Some(vip_prefix) = vip_prefix else {
            return Ok(Self { net, vip_prefix: upper_quarter(net).map_err(|reason| ("subnet", reason))? });
        };
        let vip_prefix = without_host_bits(vip_prefix).map_err(|reason| ("vip_prefix", reason))?;
        if !net.contains(&vip_prefix) {
            return Err(("vip_prefix", format!("{vip_prefix} is outside the subnet {net}")));
        }
        if net == vip_prefix {
            return Err(("vip_prefix", format!("{vip_prefix} is the whole subnet: no address is left for containers")));
        }
        Ok(Self { net, vip_prefix })
    }

    pub(super) fn net(&self) -> IpNet {
        self.net
    }

    pub(super) fn vip_prefix(&self) -> IpNet {
        self.vip_prefix
    }

    /// The number of an address, if a host can have it.
    pub(super) fn usable(&self, address: IpAddr) -> Result<u128, Refusal> {
        let Self { net, .. } = self;
        let reason = if !net.contains(&address) {
            format!("{address} is outside the subnet {net}")
        } else if address == net.network() {
            match net.family() {
                Family::V4 => format!("{address} is the network address of {net}"),
                Family::V6 => format!("{address} is the subnet-router anycast address of {net} (RFC 4291)"),
            }
        } else if address == net.broadcast() && net.family() == Family::V4 {
            format!("{address} is the broadcast address of {net}")
        } else {
            return Ok(number(address));
        };
        Err((RejectionKind::Invalid, reason))
    }

    /// The address of a number.
    pub(super) fn address(&self, number: u128) -> IpAddr {
        match self.net.family() {
            // Numbers of IPv4 addresses have 32 bits.
            Family::V4 => Ipv4Addr::from(number as u32).into(),
            Family::V6 => Ipv6Addr::from(number).into(),
        }
    }

    /// The addresses that hosts can have, the VIP prefix included.
    pub(super) fn hosts(&self) -> RangeInclusive<u128> {
        let broadcast = u128::from(self.net.family() == Family::V4);
        number(self.net.network()) + 1..=number(self.net.broadcast()) - broadcast
    }

    /// The VIP prefix.
    pub(super) fn vips(&self) -> RangeInclusive<u128> {
        number(self.vip_prefix.network())..=number(self.vip_prefix.broadcast())
    }
}

impl OfFamily for Subnet {
    fn family(&self) -> Family {
        self.net.family()
    }
}

/// What an address is, if no host of any network can have it.
pub(super) fn not_for_hosts(address: IpAddr) -> Option<String> {
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Some(format!("is an IPv4-mapped IPv6 address: write {v4}"));
    }
    let (range, what) = NOT_FOR_HOSTS.iter().find(|(range, _)| range.contains(&address))?;
    Some(format!("is not a unicast address for a host: {range} is {what}"))
}

/// Prefixes that no network is made of, the longest of those that overlap first. Of IPv6 all of `fe00::/8`, as what
/// answers neighbour solicitations for VIPs leaves out link-local addresses by their first byte.
const NOT_FOR_HOSTS: [(IpNet, &str); 11] = [
    (v4(0, 8), "for hosts without an address (RFC 6890)"),
    (v4(127, 8), "for loopback (RFC 6890)"),
    (v4(224, 4), "for multicast (RFC 5771)"),
    (v4(240, 4), "reserved (RFC 6890)"),
    (v6(0, 1, 128), "for loopback (RFC 4291)"),
    (v6(0, 0, 128), "the unspecified address (RFC 4291)"),
    (v6(0, 0xffff_0000_0000, 96), "for IPv4-mapped addresses (RFC 4291)"),
    (v6(0, 0, 8), "reserved (RFC 4291)"),
    (v6(0xfe80, 0, 10), "for link-local addresses (RFC 4291)"),
    (v6(0xfe00, 0, 8), "reserved, or for site-local addresses (RFC 3879)"),
    (v6(0xff00, 0, 8), "for multicast (RFC 4291)"),
];

const fn v4(first: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(first, 0, 0, 0), length))
}

const fn v6(first: u16, rest: u128, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits((first as u128) << 112 | rest), length))
}

fn upper_quarter(net: IpNet) -> Result<IpNet, String> {
    let length = net.prefix_len() + 2;
    let quarter = number(net.network()) + (3 << (net.max_prefix_len() - length));
    let first = Subnet { net, vip_prefix: net }.address(quarter);
    IpNet::new(first, length).map_err(|error| error.to_string())
}

fn without_host_bits(net: IpNet) -> Result<IpNet, String> {
    if net.addr() == net.network() { Ok(net) } else { Err(format!("{net} has host bits set: write {}", net.trunc())) }
}

/// Whether two prefixes have an address in common.
pub(super) fn overlap(one: &IpNet, two: &IpNet) -> bool {
    one.contains(two) || two.contains(one)
}

/// An address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}
