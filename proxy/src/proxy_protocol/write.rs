//! Making headers.

use super::version2::{FIXED, LOCAL, PROXY, SIGNATURE, TCP4, TCP6, UDP4, UDP6, UNSPEC};
use super::{Addresses, MAX_VERSION1, Transport, Version};
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Deref;

/// The bytes of a header, to be sent at once before anything else.
#[derive(Clone, Copy)]
pub struct HeaderBytes {
    bytes: [u8; MAX_VERSION1],
    length: usize,
}

/// The line of version 1 for a TCP connection.
#[must_use]
pub fn version1(addresses: Addresses) -> HeaderBytes {
    let Addresses { source, destination } = addresses.canonical();
    let ports = format_args!("{} {}\r\n", source.port(), destination.port());
    match one_family(source.ip(), destination.ip()) {
        Pair::V4(source, destination) => {
            let [source, destination] = [source, destination].map(std::net::Ipv4Addr::from);
            HeaderBytes::of_line(format_args!("PROXY TCP4 {source} {destination} {ports}"))
        }
        Pair::V6(source, destination) => {
            let [source, destination] = [source, destination].map(|address| Hexadecimal(address.into()));
            HeaderBytes::of_line(format_args!("PROXY TCP6 {source} {destination} {ports}"))
        }
    }
}

/// The header of version 2.
#[must_use]
pub fn version2(transport: Transport, addresses: Addresses) -> HeaderBytes {
    let Addresses { source, destination } = addresses.canonical();
    let mut header = HeaderBytes::empty();
    let pair = one_family(source.ip(), destination.ip());
    let (family, block) = match (&pair, transport) {
        (Pair::V4(..), Transport::Stream) => (TCP4, 12),
        (Pair::V4(..), Transport::Datagram) => (UDP4, 12),
        (Pair::V6(..), Transport::Stream) => (TCP6, 36),
        (Pair::V6(..), Transport::Datagram) => (UDP6, 36),
    };
    header.push(&SIGNATURE);
    header.push(&[PROXY, family, 0, block]);
    match pair {
        Pair::V4(source, destination) => [source, destination].iter().for_each(|address| header.push(address)),
        Pair::V6(source, destination) => [source, destination].iter().for_each(|address| header.push(address)),
    }
    header.push(&source.port().to_be_bytes());
    header.push(&destination.port().to_be_bytes());
    header
}

/// The header of a connection that relays nobody, such as a health check: `LOCAL`, or `UNKNOWN` in version 1, which has
/// nothing better. Some receivers refuse `UNKNOWN` (section 2.1).
#[must_use]
pub fn unknown(version: Version) -> HeaderBytes {
    let mut header = HeaderBytes::empty();
    match version {
        Version::One => header.push(b"PROXY UNKNOWN\r\n"),
        Version::Two => {
            header.push(&SIGNATURE);
            header.push(&[LOCAL, UNSPEC, 0, 0]);
            debug_assert_eq!(header.len(), FIXED);
        }
    }
    header
}

/// Two addresses in network order, of the same family.
enum Pair {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

fn one_family(source: IpAddr, destination: IpAddr) -> Pair {
    if let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) {
        return Pair::V4(source.octets(), destination.octets());
    }
    let octets = |address| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    Pair::V6(octets(source), octets(destination))
}

/// An IPv6 address in hexadecimal digits only. The standard library writes an IPv4-mapped one with its last part in
/// decimal, which the specification's grammar does not have.
struct Hexadecimal(Ipv6Addr);

impl fmt::Display for Hexadecimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_ipv4_mapped() {
            None => self.0.fmt(formatter),
            Some(_) => {
                let [.., high, low] = self.0.segments();
                write!(formatter, "::ffff:{high:x}:{low:x}")
            }
        }
    }
}

impl HeaderBytes {
    fn empty() -> Self {
        Self { bytes: [0; MAX_VERSION1], length: 0 }
    }

    fn of_line(line: fmt::Arguments<'_>) -> Self {
        let mut header = Self::empty();
        // The longest line fits (section 2.1), and writing to memory has no other error.
        let _ = header.write_fmt(line);
        header
    }

    /// Every header that is made here fits.
    fn push(&mut self, part: &[u8]) {
        let end = self.length + part.len();
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(part);
            self.length = end;
        }
    }
}

impl Write for HeaderBytes {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

impl Deref for HeaderBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Debug for HeaderBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HeaderBytes({})", self.escape_ascii())
    }
}
