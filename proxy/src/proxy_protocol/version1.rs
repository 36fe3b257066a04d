//! Version 1: one line of US-ASCII (section 2.1 of the specification).

use super::read::begins_like;
use super::{Addresses, Header, Progress, ProxyProtocolError, Transport, Version};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest line, CRLF included (section 2.1).
pub const MAX_VERSION1: usize = 107;
/// The length of `PROXY UNKNOWN\r\n`.
pub(super) const SHORTEST: usize = 15;

const SIGNATURE: &[u8] = b"PROXY ";

/// Reads a line. The CRLF is waited for before anything else is decoded, as the specification asks for.
pub(super) fn read(bytes: &[u8]) -> Result<Progress, ProxyProtocolError> {
    if !begins_like(bytes, SIGNATURE) {
        return Err(ProxyProtocolError::NotAHeader);
    }
    let Some(end) = find_end(&bytes[..bytes.len().min(MAX_VERSION1)])? else {
        let ending = if bytes.last() == Some(&b'\r') { 1 } else { 2 };
        return Ok(Progress::Missing(SHORTEST.saturating_sub(bytes.len()).max(ending)));
    };
    // A line that ends within the signature has been found not to begin with it.
    let relayed = decode(&bytes[SIGNATURE.len()..end])?;
    Ok(Progress::Complete(Header { length: end + 2, version: Version::One, relayed }))
}

/// Where the CRLF is.
fn find_end(line: &[u8]) -> Result<Option<usize>, ProxyProtocolError> {
    let Some(end) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if line.len() < MAX_VERSION1 { Ok(None) } else { Err(ProxyProtocolError::LineTooLong) };
    };
    match (line[end], line.get(end + 1)) {
        (b'\r', Some(b'\n')) => Ok(Some(end)),
        (b'\r', None) if line.len() < MAX_VERSION1 => Ok(None),
        (b'\r', None) => Err(ProxyProtocolError::LineTooLong),
        _ => Err(ProxyProtocolError::LineEnd),
    }
}

/// Decodes what is between the signature and the CRLF.
fn decode(line: &[u8]) -> Result<Option<(Transport, Addresses)>, ProxyProtocolError> {
    let mut fields = line.split(|&byte| byte == b' ');
    let addresses = match fields.next() {
        // "The receiver must ignore anything presented before the CRLF."
        Some(b"UNKNOWN") => return Ok(None),
        Some(b"TCP4") => addresses::<Ipv4Addr>(fields)?,
        Some(b"TCP6") => addresses::<Ipv6Addr>(fields)?,
        _ => return Err(ProxyProtocolError::Protocol),
    };
    Ok(Some((Transport::Stream, addresses.canonical())))
}

fn addresses<'a, A: FromStr + Into<IpAddr>>(
    mut fields: impl Iterator<Item = &'a [u8]>,
) -> Result<Addresses, ProxyProtocolError> {
    let mut next = || fields.next().ok_or(ProxyProtocolError::Fields);
    let [source, destination, source_port, destination_port] = [next()?, next()?, next()?, next()?];
    if fields.next().is_some() {
        return Err(ProxyProtocolError::Fields);
    }
    let end = |ip, port| Ok(SocketAddr::new(address::<A>(ip)?, self::port(port)?));
    Ok(Addresses { source: end(source, source_port)?, destination: end(destination, destination_port)? })
}

/// The standard library's grammar is the specification's: four decimal numbers without leading zeros, or groups of up to
/// four hexadecimal digits with one `::` at most. It also takes the last 32 bits of an IPv6 address as IPv4, which is how
/// `inet_ntop(3)`, and so HAProxy, writes IPv4-mapped addresses.
fn address<A: FromStr + Into<IpAddr>>(field: &[u8]) -> Result<IpAddr, ProxyProtocolError> {
    let text = std::str::from_utf8(field).map_err(|_| ProxyProtocolError::Address)?;
    text.parse::<A>().map(Into::into).map_err(|_| ProxyProtocolError::Address)
}

fn port(field: &[u8]) -> Result<u16, ProxyProtocolError> {
    let plain = match field {
        [b'0'] => true,
        // A sign, which the standard library would take, is no digit.
        [b'1'..=b'9', rest @ ..] => rest.len() <= 4 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(field).ok().filter(|_| plain);
    text.and_then(|text| text.parse().ok()).ok_or(ProxyProtocolError::Port)
}
