//! The addresses of one network: who has which, and which one is next.
//!
//! VIPs are chosen out of the VIP prefix, from the lowest free address up. Attachments get the lowest free address of
//! the rest of the subnet, and the LB endpoint the highest, where it is least likely to be in the way of an address
//! that somebody asks for by number. The choice depends on nothing but what is taken.

use super::limits::{MAX_PREFIX, MIN_PREFIX};
use super::{Name, RejectionKind};
use imbl::OrdMap;
use ipnet::{IpNet, Ipv4Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// What is wrong with an address, still without the field that it stands in.
pub(super) type Refusal = (RejectionKind, String);

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// A service has it as its VIP.
    Service(Name),
    /// A container has it.
    Attachment(Name),
    /// The network's sandbox has it.
    LbEndpoint,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(formatter, "the VIP of service `{name}`"),
            Self::Attachment(name) => write!(formatter, "the address of attachment `{name}`"),
            Self::LbEndpoint => formatter.write_str("the address of the network's LB endpoint"),
        }
    }
}

/// A subnet and its VIP prefix, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    net: Ipv4Net,
    vip_prefix: Ipv4Net,
}

impl Subnet {
    /// Checks a subnet; without `vip_prefix` the upper quarter is taken.
    ///
    /// # Errors
    /// The name of the wrong field, and the reason.
    pub(super) fn new(subnet: IpNet, vip_prefix: Option<IpNet>) -> Result<Self, (&'static str, String)> {
        let net = plain_v4(subnet).map_err(|reason| ("subnet", reason))?;
        if !(MIN_PREFIX..=MAX_PREFIX).contains(&net.prefix_len()) {
            return Err(("subnet", format!("{net} is not between /{MIN_PREFIX} and /{MAX_PREFIX}")));
        }
        let first = net.network();
        if first.is_loopback()
            || first.is_multicast()
            || first.is_unspecified()
            || first.octets()[0] >= 240
            || first.octets()[0] == 0
        {
            return Err(("subnet", format!("{net} is not made of unicast addresses for hosts")));
        }
        let Some(vip_prefix) = vip_prefix else {
            let quarter = Ipv4Addr::from(u32::from(net.network()) + (3 << (30 - u32::from(net.prefix_len()))));
            let vip_prefix =
                Ipv4Net::new(quarter, net.prefix_len() + 2).map_err(|error| ("subnet", error.to_string()))?;
            return Ok(Self { net, vip_prefix });
        };
        let vip_prefix = plain_v4(vip_prefix).map_err(|reason| ("vip_prefix", reason))?;
        if !net.contains(&vip_prefix) {
            return Err(("vip_prefix", format!("{vip_prefix} is outside the subnet {net}")));
        }
        if net == vip_prefix {
            return Err(("vip_prefix", format!("{vip_prefix} is the whole subnet: no address is left for containers")));
        }
        Ok(Self { net, vip_prefix })
    }

    pub(super) fn net(&self) -> IpNet {
        self.net.into()
    }

    pub(super) fn vip_prefix(&self) -> IpNet {
        self.vip_prefix.into()
    }

    /// The address as a number, if a host can have it.
    fn usable(&self, address: IpAddr) -> Result<u32, Refusal> {
        let invalid = |reason| Err((RejectionKind::Invalid, reason));
        let IpAddr::V4(v4) = address else {
            return invalid(format!("{address} is an IPv6 address, the subnet {} is IPv4", self.net));
        };
        if !self.net.contains(&v4) {
            return invalid(format!("{address} is outside the subnet {}", self.net));
        }
        if v4 == self.net.network() {
            return invalid(format!("{address} is the network address of {}", self.net));
        }
        if v4 == self.net.broadcast() {
            return invalid(format!("{address} is the broadcast address of {}", self.net));
        }
        Ok(v4.into())
    }

    fn is_for_vips(&self, number: u32) -> bool {
        self.vip_prefix.contains(&Ipv4Addr::from(number))
    }

    /// The addresses that hosts can have, the VIP prefix included.
    fn hosts(&self) -> std::ops::RangeInclusive<u32> {
        u32::from(self.net.network()) + 1..=u32::from(self.net.broadcast()) - 1
    }
}

fn plain_v4(net: IpNet) -> Result<Ipv4Net, String> {
    let IpNet::V4(v4) = net else {
        return Err(format!("{net} is IPv6, which is not supported yet: give an IPv4 subnet"));
    };
    if v4.addr() != v4.network() {
        return Err(format!("{net} has host bits set: write {}", v4.trunc()));
    }
    Ok(v4)
}

/// Who has which address of a network. A copy shares what it does not change.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    subnet: Subnet,
    holders: OrdMap<u32, Holder>,
    /// How many services list an address as a backend.
    backends: OrdMap<u32, u32>,
    /// No VIP below this one is free, and so with the addresses of the rest: a choice starts here, not at the bottom.
    lowest_vip: u32,
    lowest_host: u32,
}

impl Addresses {
    pub(super) fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            holders: OrdMap::new(),
            backends: OrdMap::new(),
            lowest_vip: subnet.vip_prefix.network().into(),
            lowest_host: *subnet.hosts().start(),
        }
    }

    pub(super) fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Gives a certain address to `holder`.
    pub(super) fn take(&mut self, address: IpAddr, holder: Holder) -> Result<(), Refusal> {
        let number = self.subnet.usable(address)?;
        if matches!(holder, Holder::Attachment(_)) && self.subnet.is_for_vips(number) {
            let prefix = self.subnet.vip_prefix;
            return Err((
                RejectionKind::Invalid,
                format!("{address} is inside the VIP prefix {prefix}, which is for VIPs only"),
            ));
        }
        if let Some(other) = self.holders.get(&number) {
            return Err((RejectionKind::Conflict, format!("{address} is already {other}")));
        }
        if self.backends.contains_key(&number) && !matches!(holder, Holder::Attachment(_)) {
            return Err((RejectionKind::Conflict, format!("{address} is already the address of a backend")));
        }
        self.holders.insert(number, holder);
        Ok(())
    }

    /// Chooses a VIP.
    pub(super) fn choose_vip(&mut self, service: &Name) -> Result<IpAddr, Refusal> {
        let (first, last) =
            (u32::from(self.subnet.vip_prefix.network()), u32::from(self.subnet.vip_prefix.broadcast()));
        let hosts = self.subnet.hosts();
        let mut candidates = self.lowest_vip.max(*hosts.start()).max(first)..=last.min(*hosts.end());
        let Some(number) = candidates.find(|number| self.is_free(*number)) else {
            let prefix = self.subnet.vip_prefix;
            return Err((RejectionKind::Conflict, format!("no address of the VIP prefix {prefix} is free")));
        };
        self.lowest_vip = number.saturating_add(1);
        Ok(self.hold(number, Holder::Service(service.clone())))
    }

    /// Chooses an address for a container.
    pub(super) fn choose_host(&mut self, attachment: &Name) -> Result<IpAddr, Refusal> {
        let mut number = self.lowest_host;
        let last = *self.subnet.hosts().end();
        while number <= last && !self.is_free(number) || self.subnet.is_for_vips(number) {
            number = if self.subnet.is_for_vips(number) { self.after_vips() } else { number + 1 };
        }
        if number > last {
            return Err(self.no_host_free());
        }
        self.lowest_host = number + 1;
        Ok(self.hold(number, Holder::Attachment(attachment.clone())))
    }

    /// Chooses the LB endpoint's address.
    pub(super) fn choose_lb_endpoint(&mut self) -> Result<IpAddr, Refusal> {
        let mut number = *self.subnet.hosts().end();
        let first = *self.subnet.hosts().start();
        while number >= first {
            if self.subnet.is_for_vips(number) {
                number = u32::from(self.subnet.vip_prefix.network()) - 1;
            } else if self.is_free(number) {
                return Ok(self.hold(number, Holder::LbEndpoint));
            } else {
                number -= 1;
            }
        }
        Err(self.no_host_free())
    }

    /// Takes an address back from its holder.
    pub(super) fn release(&mut self, address: IpAddr) {
        if let Some(number) = number(address)
            && self.holders.remove(&number).is_some()
        {
            self.lower(number);
        }
    }

    /// Counts `address` as a backend of one more service.
    pub(super) fn add_backend(&mut self, address: IpAddr) -> Result<(), Refusal> {
        let number = self.subnet.usable(address)?;
        match self.holders.get(&number) {
            None | Some(Holder::Attachment(_)) => {}
            Some(other) => return Err((RejectionKind::Conflict, format!("{address} is {other}"))),
        }
        if self.subnet.is_for_vips(number) {
            let prefix = self.subnet.vip_prefix;
            return Err((
                RejectionKind::Invalid,
                format!("{address} is inside the VIP prefix {prefix}, which is for VIPs only"),
            ));
        }
        *self.backends.entry(number).or_insert(0) += 1;
        Ok(())
    }

    /// Counts `address` as a backend of one service less.
    pub(super) fn remove_backend(&mut self, address: IpAddr) {
        let Some(number) = number(address) else { return };
        match self.backends.get_mut(&number) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.backends.remove(&number);
                self.lower(number);
            }
            None => {}
        }
    }

    /// Whether a container attached on this node has `address`.
    pub(super) fn is_attached(&self, address: IpAddr) -> bool {
        let holder = number(address).and_then(|number| self.holders.get(&number));
        matches!(holder, Some(Holder::Attachment(_)))
    }

    fn is_free(&self, number: u32) -> bool {
        !self.holders.contains_key(&number) && !self.backends.contains_key(&number)
    }

    fn hold(&mut self, number: u32, holder: Holder) -> IpAddr {
        self.holders.insert(number, holder);
        Ipv4Addr::from(number).into()
    }

    fn lower(&mut self, number: u32) {
        let lowest = if self.subnet.is_for_vips(number) { &mut self.lowest_vip } else { &mut self.lowest_host };
        *lowest = number.min(*lowest);
    }

    fn after_vips(&self) -> u32 {
        u32::from(self.subnet.vip_prefix.broadcast()).saturating_add(1)
    }

    fn no_host_free(&self) -> Refusal {
        let Subnet { net, vip_prefix } = self.subnet;
        (RejectionKind::Conflict, format!("no address of the subnet {net} is free outside the VIP prefix {vip_prefix}"))
    }
}

fn number(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(v4) => Some(v4.into()),
        IpAddr::V6(_) => None,
    }
}
