//! Messages as packets.
//!
//! A `SOCK_SEQPACKET` packet is bounded by the socket's send buffer, a table is not. So a message is cut into packets
//! of at most [`MAX_PACKET`] bytes, each with a header of 8 bytes: the magic number (4 bytes), the protocol version
//! (2 bytes) and flags (2 bytes), all little-endian. Flag 1 says that more packets of the same message follow.

use super::version::{Message, PROTOCOL_VERSION, Versions};
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The largest packet, header included. Two of them fit into the kernel's default send buffer (212,992 bytes).
pub const MAX_PACKET: usize = 64 * 1024;
/// The largest message: about a million backends.
pub const MAX_MESSAGE: usize = 64 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"RLB1";
const HEADER: usize = 8;
const FLAG_MORE: u16 = 1;

/// Why a packet was not understood. The connection it came over must be closed: what follows cannot be trusted.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// Shorter than a header.
    #[error("a control packet of {0} bytes is shorter than its header of {HEADER} bytes")]
    Truncated(usize),
    /// Not one of our packets.
    #[error("a control packet does not start with the magic number")]
    Magic,
    /// A packet of a protocol version that is not spoken here.
    #[error("a control packet has protocol version {found}, this end speaks {} to {}", .spoken.least(), .spoken.most())]
    Version {
        /// The packet's version.
        found: u16,
        /// What is spoken.
        spoken: Versions,
    },
    /// A message that the other end does not know.
    #[error("a control message is of protocol version {since}, the other end speaks {version}")]
    TooNew {
        /// The first version that has the message.
        since: u16,
        /// The version that was to be spoken.
        version: u16,
    },
    /// Flags that this version does not define.
    #[error("a control packet has unknown flags {0:#06x}")]
    Flags(u16),
    /// The parts of a message add up to more than [`MAX_MESSAGE`].
    #[error("a control message is larger than {MAX_MESSAGE} bytes")]
    TooLarge,
    /// The message's bytes do not make a message of the expected type.
    #[error("a control message cannot be decoded: {0}")]
    Decode(String),
    /// A value that cannot be written.
    #[error("a control message cannot be encoded: {0}")]
    Encode(String),
}

/// The packets that carry `message` in the newest version, to be sent one by one, in order.
///
/// # Errors
/// [`FrameError::TooLarge`] if the message is larger than [`MAX_MESSAGE`].
pub fn encode<T: Message>(message: &T) -> Result<Vec<Vec<u8>>, FrameError> {
    encode_in(PROTOCOL_VERSION, message)
}

/// The packets that carry `message` in that version.
///
/// # Errors
/// [`FrameError::TooLarge`] if the message is larger than [`MAX_MESSAGE`]; [`FrameError::TooNew`] if the version does not have it.
pub fn encode_in<T: Message>(version: u16, message: &T) -> Result<Vec<Vec<u8>>, FrameError> {
    if message.since() > version {
        return Err(FrameError::TooNew { since: message.since(), version });
    }
    let body = postcard::to_stdvec(message).map_err(|error| FrameError::Encode(error.to_string()))?;
    if body.len() > MAX_MESSAGE {
        return Err(FrameError::TooLarge);
    }
    let parts = body.len().div_ceil(MAX_PACKET - HEADER).max(1);
    let mut packets = Vec::with_capacity(parts);
    for index in 0..parts {
        let start = index * (MAX_PACKET - HEADER);
        let part = &body[start..body.len().min(start + MAX_PACKET - HEADER)];
        let flags = if index + 1 < parts { FLAG_MORE } else { 0 };
        let mut packet = Vec::with_capacity(HEADER + part.len());
        packet.extend_from_slice(&MAGIC);
        packet.extend_from_slice(&version.to_le_bytes());
        packet.extend_from_slice(&flags.to_le_bytes());
        packet.extend_from_slice(part);
        packets.push(packet);
    }
    Ok(packets)
}

/// Puts the packets of one connection together to messages.
#[derive(Debug, Default)]
pub struct Reassembler {
    body: Vec<u8>,
    spoken: Versions,
    version: u16,
}

impl Reassembler {
    /// For an end that speaks these versions.
    #[must_use]
    pub fn new(spoken: Versions) -> Self {
        Self { spoken, ..Self::default() }
    }

    /// The version of the last packet; 0 before the first.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Takes the next packet; gives the message that it completes, if it does.
    ///
    /// # Errors
    /// Any [`FrameError`] but `Encode`. After an error the connection must be closed.
    pub fn push<T: DeserializeOwned>(&mut self, packet: &[u8]) -> Result<Option<T>, FrameError> {
        let (header, part) = packet.split_at_checked(HEADER).ok_or(FrameError::Truncated(packet.len()))?;
        if header[..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        if !self.spoken.contains(version) {
            return Err(FrameError::Version { found: version, spoken: self.spoken });
        }
        self.version = version;
        let flags = u16::from_le_bytes([header[6], header[7]]);
        if flags & !FLAG_MORE != 0 {
            return Err(FrameError::Flags(flags));
        }
        if self.body.len() + part.len() > MAX_MESSAGE {
            return Err(FrameError::TooLarge);
        }
        if flags & FLAG_MORE != 0 {
            self.body.extend_from_slice(part);
            return Ok(None);
        }
        // The common message is one packet: it is decoded where it lies.
        if self.body.is_empty() {
            return decode(part).map(Some);
        }
        self.body.extend_from_slice(part);
        decode(&std::mem::take(&mut self.body)).map(Some)
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let (message, rest) = postcard::take_from_bytes(body).map_err(|error| FrameError::Decode(error.to_string()))?;
    if rest.is_empty() { Ok(message) } else { Err(FrameError::Decode(format!("{} bytes left over", rest.len()))) }
}
