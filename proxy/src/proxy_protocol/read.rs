//! Taking a header from the bytes that have come so far.

use super::{Addresses, MAX_VERSION1, MAX_VERSION2, Transport, Version, version1, version2};
use thiserror::Error;

/// How far a header has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is not complete. At least this many bytes are missing (never 0): who receives no more than that at a time
    /// receives nothing that lies behind the header.
    Missing(usize),
    /// It is complete. What lies behind its length is the connection's own.
    Complete(Header),
}

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its number of bytes.
    pub length: usize,
    /// Its version.
    pub version: Version,
    /// Whom the sender relays, [canonical](Addresses::canonical). `None` where it speaks for itself (`LOCAL`, as for a
    /// health check) or cannot tell (`UNKNOWN`, `UNSPEC`, and Unix sockets): the connection's own addresses count.
    pub relayed: Option<(Transport, Addresses)>,
}

/// Why bytes are no header. The specification wants the connection aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyProtocolError {
    /// The first bytes are those of neither version.
    #[error("the connection does not begin with a PROXY protocol header")]
    NotAHeader,
    /// Version 1: a CR without LF or a LF without CR.
    #[error("the PROXY protocol line has a CR or a LF that is not part of its CRLF")]
    LineEnd,
    /// Version 1: no CRLF in time.
    #[error("the PROXY protocol line is longer than {MAX_VERSION1} bytes")]
    LineTooLong,
    /// Version 1: not `TCP4`, `TCP6` or `UNKNOWN`.
    #[error("the PROXY protocol line names no known protocol: TCP4, TCP6 and UNKNOWN are known")]
    Protocol,
    /// Version 1: not exactly two addresses and two ports with one space before each.
    #[error("the PROXY protocol line does not have the four fields source, destination and their ports")]
    Fields,
    /// Version 1: no address of the family that the line names.
    #[error("the PROXY protocol line has an address that is not one of its protocol's family")]
    Address,
    /// Version 1: no number from 0 to 65535 without leading zeros.
    #[error("the PROXY protocol line has a port that is not a plain number from 0 to 65535")]
    Port,
    /// Version 2: a version or a command that is not assigned.
    #[error("the PROXY protocol header has version and command {0:#04x}: 0x20 and 0x21 are known")]
    Command(u8),
    /// Version 2: a combination of address family and protocol that is not assigned.
    #[error("the PROXY protocol header has address family and protocol {0:#04x}, which is not assigned")]
    Family(u8),
    /// Version 2: a length above the limit.
    #[error("the PROXY protocol header has {0} bytes, more than the limit of {MAX_VERSION2}")]
    TooLong(usize),
    /// Version 2: no room for the addresses of its family.
    #[error("the PROXY protocol header has {length} bytes after its fixed part, its addresses need {needed}")]
    TooShort {
        /// The length that it says.
        length: usize,
        /// The length of the family's addresses.
        needed: usize,
    },
    /// Version 2: a TLV that does not end where the header does.
    #[error("the PROXY protocol header has a TLV that reaches beyond its end")]
    TlvLength,
    /// Version 2: a checksum that is not 4 bytes long, or a second one.
    #[error("the PROXY protocol header has a malformed or repeated checksum")]
    ChecksumForm,
    /// Version 2: a checksum that does not fit the header.
    #[error("the PROXY protocol header's checksum does not fit: it was corrupted or forged")]
    Checksum,
}

/// Reads the header that `bytes` begin with.
///
/// The answer to the first bytes that suffice for one is the answer to all bytes that begin with them, however they
/// arrived. No more than the first [`MAX_VERSION2`] bytes are looked at.
///
/// # Errors
/// Any [`ProxyProtocolError`], as soon as it is certain.
pub fn read(bytes: &[u8]) -> Result<Progress, ProxyProtocolError> {
    match bytes.first() {
        // The shorter of the two headers that can be complete without more.
        None => Ok(Progress::Missing(version1::SHORTEST)),
        Some(b'P') => version1::read(bytes),
        Some(b'\r') => version2::read(bytes),
        Some(_) => Err(ProxyProtocolError::NotAHeader),
    }
}

/// Whether `bytes` begin like `signature`, as far as both go.
pub(super) fn begins_like(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(one, two)| one == two)
}
