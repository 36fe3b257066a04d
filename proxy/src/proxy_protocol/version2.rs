//! Version 2: binary (section 2.2 of the specification).

use super::checksum::crc32c;
use super::read::begins_like;
use super::{Addresses, Header, Progress, ProxyProtocolError, Transport, Version};
use std::net::{IpAddr, SocketAddr};

/// The largest header that is taken, TLVs included. The specification allows 65,551 bytes and wants headers to fit into
/// the smallest segment, 536 bytes; the certificate of a TLS client, which some senders add, is larger. Every connection
/// may make the proxy hold that much before anything is known about it.
pub const MAX_VERSION2: usize = 4096;

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The part that is always there: signature, version and command, family and protocol, length of what follows.
pub(super) const FIXED: usize = 16;
pub(super) const LOCAL: u8 = 0x20;
pub(super) const PROXY: u8 = 0x21;
pub(super) const UNSPEC: u8 = 0x00;
pub(super) const TCP4: u8 = 0x11;
pub(super) const UDP4: u8 = 0x12;
pub(super) const TCP6: u8 = 0x21;
pub(super) const UDP6: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DATAGRAM: u8 = 0x32;
const TLV_CHECKSUM: u8 = 0x03;

/// Reads a header.
pub(super) fn read(bytes: &[u8]) -> Result<Progress, ProxyProtocolError> {
    if !begins_like(bytes, &SIGNATURE) {
        return Err(ProxyProtocolError::NotAHeader);
    }
    let command = bytes.get(12).copied();
    if let Some(command) = command
        && !matches!(command, LOCAL | PROXY)
    {
        return Err(ProxyProtocolError::Command(command));
    }
    // The family of a LOCAL header is to be ignored (section 2.2).
    let form = match bytes.get(13) {
        Some(&family) if command == Some(PROXY) => Form::of(family)?,
        _ => Form::Unspecified,
    };
    let Some(&[high, low]) = bytes.get(14..FIXED) else { return Ok(Progress::Missing(FIXED - bytes.len())) };
    let body = usize::from(u16::from_be_bytes([high, low]));
    let length = FIXED + body;
    if length > MAX_VERSION2 {
        return Err(ProxyProtocolError::TooLong(length));
    }
    if body < form.length() {
        return Err(ProxyProtocolError::TooShort { length: body, needed: form.length() });
    }
    let Some(header) = bytes.get(..length) else { return Ok(Progress::Missing(length - bytes.len())) };
    let (addresses, tlvs) = header[FIXED..].split_at(form.length());
    if form != Form::Unspecified {
        check_tlvs(header, tlvs)?;
    }
    let relayed = match form {
        Form::Unspecified | Form::Unix => None,
        Form::V4(transport) => Some((transport, decode::<4>(addresses))),
        Form::V6(transport) => Some((transport, decode::<16>(addresses))),
    };
    let relayed = relayed.and_then(|(transport, addresses)| Some((transport, addresses?.canonical())));
    Ok(Progress::Complete(Header { length, version: Version::Two, relayed }))
}

/// What the block of addresses looks like. Where nothing is specified nothing is known of what follows, not even where
/// TLVs begin: all of it is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Unspecified,
    V4(Transport),
    V6(Transport),
    Unix,
}

impl Form {
    fn of(family: u8) -> Result<Self, ProxyProtocolError> {
        Ok(match family {
            UNSPEC => Self::Unspecified,
            TCP4 => Self::V4(Transport::Stream),
            UDP4 => Self::V4(Transport::Datagram),
            TCP6 => Self::V6(Transport::Stream),
            UDP6 => Self::V6(Transport::Datagram),
            UNIX_STREAM | UNIX_DATAGRAM => Self::Unix,
            other => return Err(ProxyProtocolError::Family(other)),
        })
    }

    fn length(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4(_) => 2 * (4 + 2),
            Self::V6(_) => 2 * (16 + 2),
            Self::Unix => 2 * 108,
        }
    }
}

/// Two addresses of `N` bytes and two ports. `None` for a block of another length, which [`Form::length`] rules out.
fn decode<const N: usize>(block: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let &[source_high, source_low, destination_high, destination_low] = rest else { return None };
    let end = |ip: &[u8; N], port| SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(port));
    Some(Addresses {
        source: end(source, [source_high, source_low]),
        destination: end(destination, [destination_high, destination_low]),
    })
}

/// Walks over the TLVs, which must fill the header's rest exactly; checks the checksum if there is one.
fn check_tlvs(header: &[u8], tlvs: &[u8]) -> Result<(), ProxyProtocolError> {
    let mut rest = tlvs;
    let mut checksum = None;
    while !rest.is_empty() {
        let &[kind, high, low, ref after @ ..] = rest else { return Err(ProxyProtocolError::TlvLength) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, after) = after.split_at_checked(length).ok_or(ProxyProtocolError::TlvLength)?;
        if kind == TLV_CHECKSUM {
            let value = <[u8; 4]>::try_from(value).map_err(|_| ProxyProtocolError::ChecksumForm)?;
            if checksum.replace((header.len() - after.len() - value.len(), value)).is_some() {
                return Err(ProxyProtocolError::ChecksumForm);
            }
        }
        rest = after;
    }
    let Some((at, expected)) = checksum else { return Ok(()) };
    let zeroed = header.iter().enumerate().map(|(index, &byte)| if index.wrapping_sub(at) < 4 { 0 } else { byte });
    if crc32c(zeroed) == u32::from_be_bytes(expected) { Ok(()) } else { Err(ProxyProtocolError::Checksum) }
}
