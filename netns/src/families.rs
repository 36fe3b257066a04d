//! What there is at most one of for each address family: a network's subnets, an interface's addresses.

use crate::{Error, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network's subnets: one of IPv4, one of IPv6, or one of each (dual stack).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Subnets {
    /// The IPv4 subnet.
    pub v4: Option<Ipv4Net>,
    /// The IPv6 subnet.
    pub v6: Option<Ipv6Net>,
}

/// An interface's addresses on a network: at most one of each family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl Subnets {
    /// A dual stack's.
    #[must_use]
    pub fn dual(v4: Ipv4Net, v6: Ipv6Net) -> Self {
        Self { v4: Some(v4), v6: Some(v6) }
    }

    /// Those there are, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + use<> {
        self.v4.map(IpNet::V4).into_iter().chain(self.v6.map(IpNet::V6))
    }

    /// The interface's addresses with the prefix lengths of the subnets that they are in, IPv4 first.
    ///
    /// # Errors
    /// If there is no address, or one is in no subnet.
    pub(crate) fn check(&self, addresses: Addresses) -> Result<Vec<IpNet>> {
        if addresses == Addresses::default() {
            return Err(Error::NoAddress { subnets: *self });
        }
        let in_subnet = |address: IpAddr| {
            let subnet = self.iter().find(|subnet| subnet.contains(&address));
            let prefix = subnet.and_then(|subnet| IpNet::new(address, subnet.prefix_len()).ok());
            prefix.ok_or(Error::AddressOutsideSubnet { address, subnets: *self })
        };
        addresses.iter().map(in_subnet).collect()
    }
}

impl Addresses {
    /// A dual stack's.
    #[must_use]
    pub fn dual(v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self { v4: Some(v4), v6: Some(v6) }
    }

    /// Those there are, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

impl From<IpNet> for Subnets {
    fn from(subnet: IpNet) -> Self {
        Self::from_iter([subnet])
    }
}

impl From<IpAddr> for Addresses {
    fn from(address: IpAddr) -> Self {
        Self::from_iter([address])
    }
}

/// The last one of each family.
impl FromIterator<IpNet> for Subnets {
    fn from_iter<I: IntoIterator<Item = IpNet>>(subnets: I) -> Self {
        subnets.into_iter().fold(Self::default(), |all, subnet| match subnet {
            IpNet::V4(subnet) => Self { v4: Some(subnet), ..all },
            IpNet::V6(subnet) => Self { v6: Some(subnet), ..all },
        })
    }
}

/// The last one of each family.
impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        addresses.into_iter().fold(Self::default(), |all, address| match address {
            IpAddr::V4(address) => Self { v4: Some(address), ..all },
            IpAddr::V6(address) => Self { v6: Some(address), ..all },
        })
    }
}

impl fmt::Display for Subnets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(self.iter(), formatter)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(self.iter(), formatter)
    }
}

fn write_all<T: fmt::Display>(items: impl Iterator<Item = T>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (number, item) in items.enumerate() {
        if number > 0 {
            formatter.write_str(" and ")?;
        }
        item.fmt(formatter)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dual_subnets() -> Subnets {
        Subnets::dual("10.1.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap())
    }

    #[test]
    fn addresses_get_the_prefix_length_of_their_subnet() {
        let addresses = Addresses::dual("10.1.0.9".parse().unwrap(), "fd00::9".parse().unwrap());
        let checked = dual_subnets().check(addresses).unwrap();
        assert_eq!(checked, ["10.1.0.9/24".parse().unwrap(), "fd00::9/64".parse().unwrap()]);
        let one = Addresses::from("fd00::9".parse::<IpAddr>().unwrap());
        assert_eq!(dual_subnets().check(one).unwrap(), ["fd00::9/64".parse().unwrap()]);
    }

    #[test]
    fn an_address_of_no_subnet_is_refused() {
        let addresses = Addresses::dual("10.1.0.9".parse().unwrap(), "fd01::9".parse().unwrap());
        let error = dual_subnets().check(addresses).unwrap_err();
        assert_eq!(error.to_string(), "fd01::9 is not in subnet 10.1.0.0/24 and fd00::/64; choose one that is");
        let v4_only = Subnets::from("10.1.0.0/24".parse::<IpNet>().unwrap());
        let v6 = Addresses::from("fd00::9".parse::<IpAddr>().unwrap());
        assert!(matches!(v4_only.check(v6), Err(Error::AddressOutsideSubnet { .. })));
        assert!(matches!(v4_only.check(Addresses::default()), Err(Error::NoAddress { .. })));
    }
}
