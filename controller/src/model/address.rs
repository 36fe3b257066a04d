//! The addresses of one network: who has which, and which one is next.
//!
//! VIPs are chosen out of the VIP prefix, from the lowest free address up. Attachments get the lowest free address of
//! the rest of the subnet, and the LB endpoint the highest, where it is least likely to be in the way of an address
//! that somebody asks for by number. The choice depends on nothing but what is taken, and each address family is chosen
//! from by itself.

use super::families::{Families, Family, OfFamily};
use super::listed::Listed;
use super::subnet::{Subnet, not_for_hosts, number};
use super::{Name, RejectionKind};
use imbl::OrdMap;
use std::fmt;
use std::net::IpAddr;

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

/// Who has which address of a network. A copy shares what it does not change.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    books: Families<Book>,
}

impl Addresses {
    pub(super) fn new(subnets: Families<Subnet>) -> Self {
        Self { books: subnets.iter().copied().map(Book::new).collect() }
    }

    pub(super) fn subnets(&self) -> Families<Subnet> {
        self.books.iter().map(|book| book.subnet).collect()
    }

    /// Gives `holder` an address of each family of the network: the one that is asked for, else the one that it holds,
    /// else a chosen one. Those that it holds and does not keep are free then.
    pub(super) fn settle(
        &mut self,
        holder: &Holder,
        asked: Families<IpAddr>,
        held: Families<IpAddr>,
    ) -> Result<Families<IpAddr>, Refusal> {
        for address in asked.iter() {
            self.book(*address)?;
        }
        let mut settled = Families::default();
        for family in [Family::V4, Family::V6] {
            let Some(book) = self.books.get_mut(family) else { continue };
            settled.put(match (asked.get(family), held.get(family)) {
                (Some(asked), Some(held)) if asked == held => *held,
                (None, Some(held)) => *held,
                (Some(asked), held) => {
                    held.into_iter().for_each(|held| book.release(*held));
                    book.take(*asked, holder)?;
                    *asked
                }
                (None, None) => book.choose(holder)?,
            });
        }
        Ok(settled)
    }

    /// Gives a certain address to `holder`.
    pub(super) fn take(&mut self, address: IpAddr, holder: &Holder) -> Result<(), Refusal> {
        self.book(address)?.take(address, holder)
    }

    /// Takes addresses back from their holder.
    pub(super) fn release(&mut self, addresses: Families<IpAddr>) {
        for address in addresses.iter() {
            if let Some(book) = self.books.get_mut(address.family()) {
                book.release(*address);
            }
        }
    }

    /// Counts `address` as a backend of one more service.
    pub(super) fn add_backend(&mut self, address: IpAddr) -> Result<(), Refusal> {
        self.book(address)?.add_backend(address)
    }

    /// Counts `address` as a backend of one service less.
    pub(super) fn remove_backend(&mut self, address: IpAddr) {
        if let Some(book) = self.books.get_mut(address.family()) {
            book.remove_backend(address);
        }
    }

    /// Whether a container attached on this node has `address`.
    pub(super) fn is_attached(&self, address: IpAddr) -> bool {
        let book = self.books.get(address.family());
        book.is_some_and(|book| matches!(book.holders.get(&number(address)), Some(Holder::Attachment(_))))
    }

    /// The book that the address belongs into.
    fn book(&mut self, address: IpAddr) -> Result<&mut Book, Refusal> {
        if let Some(what) = not_for_hosts(address) {
            return Err((RejectionKind::Invalid, format!("{address} {what}")));
        }
        let family = address.family();
        let other = self.books.iter().map(|book| book.subnet).find(|subnet| subnet.family() != family);
        match (self.books.get_mut(family), other) {
            (Some(book), _) => Ok(book),
            (None, other) => {
                let other = other
                    .map_or_else(String::new, |other| format!(", the subnet {} is {}", other.net(), other.family()));
                Err((RejectionKind::Invalid, format!("{address} is an {family} address{other}")))
            }
        }
    }
}

/// Who has which address of one subnet.
#[derive(Debug, Clone)]
struct Book {
    subnet: Subnet,
    holders: OrdMap<u128, Holder>,
    /// The addresses that services list as backends.
    backends: Listed,
    /// No VIP below this one is free, and so with the addresses of the rest: a choice starts here, not at the bottom.
    lowest_vip: u128,
    lowest_host: u128,
}

impl OfFamily for Book {
    fn family(&self) -> Family {
        self.subnet.family()
    }
}

impl Book {
    fn new(subnet: Subnet) -> Self {
        let (lowest_vip, lowest_host) = (*subnet.vips().start(), *subnet.hosts().start());
        Self { subnet, holders: OrdMap::new(), backends: Listed::default(), lowest_vip, lowest_host }
    }

    fn take(&mut self, address: IpAddr, holder: &Holder) -> Result<(), Refusal> {
        let number = self.subnet.usable(address)?;
        if matches!(holder, Holder::Attachment(_)) {
            self.check_is_not_for_vips(number)?;
        }
        if let Some(other) = self.holders.get(&number) {
            return Err((RejectionKind::Conflict, format!("{address} is already {other}")));
        }
        if self.backends.contains(number) && !matches!(holder, Holder::Attachment(_)) {
            return Err((RejectionKind::Conflict, format!("{address} is already the address of a backend")));
        }
        self.holders.insert(number, holder.clone());
        Ok(())
    }

    fn choose(&mut self, holder: &Holder) -> Result<IpAddr, Refusal> {
        let number = match holder {
            Holder::Service(_) => self.free_vip()?,
            Holder::Attachment(_) => self.free_host()?,
            Holder::LbEndpoint => self.highest_free_host()?,
        };
        self.holders.insert(number, holder.clone());
        Ok(self.subnet.address(number))
    }

    fn free_vip(&mut self) -> Result<u128, Refusal> {
        let (vips, hosts) = (self.subnet.vips(), self.subnet.hosts());
        let mut candidates = self.lowest_vip.max(*hosts.start()).max(*vips.start())..=*vips.end().min(hosts.end());
        let Some(number) = candidates.find(|number| self.is_free(*number)) else {
            let prefix = self.subnet.vip_prefix();
            return Err((RejectionKind::Conflict, format!("no address of the VIP prefix {prefix} is free")));
        };
        self.lowest_vip = number + 1;
        Ok(number)
    }

    fn free_host(&mut self) -> Result<u128, Refusal> {
        let mut number = self.lowest_host;
        let (vips, last) = (self.subnet.vips(), *self.subnet.hosts().end());
        while number <= last && !self.is_free(number) || vips.contains(&number) {
            number = if vips.contains(&number) { vips.end() + 1 } else { number + 1 };
        }
        if number > last {
            return Err(self.no_host_free());
        }
        self.lowest_host = number + 1;
        Ok(number)
    }

    fn highest_free_host(&self) -> Result<u128, Refusal> {
        let (vips, hosts) = (self.subnet.vips(), self.subnet.hosts());
        let mut number = *hosts.end();
        while number >= *hosts.start() {
            if vips.contains(&number) {
                number = vips.start() - 1;
            } else if self.is_free(number) {
                return Ok(number);
            } else {
                number -= 1;
            }
        }
        Err(self.no_host_free())
    }

    fn release(&mut self, address: IpAddr) {
        let number = number(address);
        if self.holders.remove(&number).is_some() {
            self.lower(number);
        }
    }

    fn add_backend(&mut self, address: IpAddr) -> Result<(), Refusal> {
        let number = self.subnet.usable(address)?;
        match self.holders.get(&number) {
            None | Some(Holder::Attachment(_)) => {}
            Some(other) => return Err((RejectionKind::Conflict, format!("{address} is {other}"))),
        }
        self.check_is_not_for_vips(number)?;
        self.backends.add(number);
        Ok(())
    }

    fn remove_backend(&mut self, address: IpAddr) {
        let number = number(address);
        if self.backends.remove(number) {
            self.lower(number);
        }
    }

    fn check_is_not_for_vips(&self, number: u128) -> Result<(), Refusal> {
        if !self.subnet.vips().contains(&number) {
            return Ok(());
        }
        let (address, prefix) = (self.subnet.address(number), self.subnet.vip_prefix());
        let reason = format!("{address} is inside the VIP prefix {prefix}, which is for VIPs only");
        Err((RejectionKind::Invalid, reason))
    }

    fn is_free(&self, number: u128) -> bool {
        !self.holders.contains_key(&number) && !self.backends.contains(number)
    }

    fn lower(&mut self, number: u128) {
        let is_vip = self.subnet.vips().contains(&number);
        let lowest = if is_vip { &mut self.lowest_vip } else { &mut self.lowest_host };
        *lowest = number.min(*lowest);
    }

    fn no_host_free(&self) -> Refusal {
        let (net, vip_prefix) = (self.subnet.net(), self.subnet.vip_prefix());
        (RejectionKind::Conflict, format!("no address of the subnet {net} is free outside the VIP prefix {vip_prefix}"))
    }
}
