//! What stands in a datagram of the load, so that an answer says to which datagram it is, and shows if it was changed.
//!
//! ```text
//! if the server is to name itself: "ECHO\n" and pattern, NAME_ROOM bytes; a name's line will be written over it
//! 4 bytes  mark
//! 4 bytes  run        a number of this run
//! 4 bytes  client     which client of the run
//! 4 bytes  check      of the other fields
//! 8 bytes  sequence   from 0, for each client
//! 8 bytes  sent       when it was sent, in nanoseconds since the start of the run
//!          pattern    up to the end, at a position that depends on all of the fields
//! ```
//! Numbers are little-endian.

use crate::pattern::{self, split_mix};
use crate::protocol::{Command, MAX_NAME, NameLine, parse_name_line};

/// The largest datagram over IPv4: 65,535 bytes of packet less 20 of IP and 8 of UDP header (RFC 791, RFC 768).
pub(crate) const MAX_SIZE: u64 = 65_507;

const NAME_ROOM: usize = MAX_NAME + 1;
const MARK: [u8; 4] = *b"RLBU";
const STAMP: usize = 32;

/// The smallest datagram.
pub(crate) const fn min_size(names: bool) -> u64 {
    (if names { NAME_ROOM + STAMP } else { STAMP }) as u64
}

/// What all datagrams of a run have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// How many bytes each has: [`min_size`] to [`MAX_SIZE`].
    pub(crate) size: usize,
    /// Whether the server is to name itself.
    pub(crate) names: bool,
}

/// What is particular to a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// A number of this run.
    pub(crate) run: u32,
    /// Which client of the run.
    pub(crate) client: u32,
    /// From 0, for each client.
    pub(crate) sequence: u64,
    /// When it was sent, in nanoseconds since the start of the run.
    pub(crate) sent_ns: u64,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// To which datagram it is.
    pub(crate) stamp: Stamp,
    /// The server's name, if it wrote it.
    pub(crate) name: Option<&'a str>,
}

impl Layout {
    /// Writes a datagram over what `bytes` holds.
    pub(crate) fn write(self, stamp: Stamp, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.extend_from_slice(pattern::chunk(stamp.mixed(), self.size as u64));
        if self.names {
            let line = Command::Echo.line();
            bytes[..line.len()].copy_from_slice(&line);
        }
        let start = self.start();
        bytes[start..start + STAMP].copy_from_slice(&stamp.to_bytes());
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// The first byte that is not as it was sent.
    pub(crate) fn read(self, bytes: &[u8]) -> Result<Answer<'_>, usize> {
        let start = self.start();
        let end = start + STAMP;
        let Some(fields) = bytes.get(start..end).and_then(|bytes| bytes.first_chunk()) else { return Err(bytes.len()) };
        let stamp = Stamp::from_bytes(fields).ok_or(start)?;
        let name = if self.names { read_name(&bytes[..start], stamp)? } else { None };
        if let Some(index) = pattern::first_difference(stamp.mixed().wrapping_add(end as u64), &bytes[end..]) {
            return Err(end + index);
        }
        if bytes.len() == self.size { Ok(Answer { stamp, name }) } else { Err(bytes.len().min(self.size)) }
    }

    const fn start(self) -> usize {
        if self.names { NAME_ROOM } else { 0 }
    }
}

/// Reads what stands where the name is to be. A server that does not know the command leaves it alone.
fn read_name(room: &[u8], stamp: Stamp) -> Result<Option<&str>, usize> {
    let line = Command::Echo.line();
    let mut sent = pattern::chunk(stamp.mixed(), room.len() as u64).to_vec();
    sent[..line.len()].copy_from_slice(&line);
    if room == sent {
        return Ok(None);
    }
    match parse_name_line(room) {
        NameLine::Name { name, length } => {
            let rest = room[length..].iter().zip(&sent[length..]);
            match rest.into_iter().position(|(received, sent)| received != sent) {
                None => Ok(Some(name)),
                Some(index) => Err(length + index),
            }
        }
        NameLine::Invalid(index) => Err(index),
        NameLine::Undecided => Err(room.len()),
    }
}

impl Stamp {
    /// Depends on every bit of every field.
    const fn mixed(self) -> u64 {
        let who = split_mix(((self.run as u64) << 32) | self.client as u64);
        split_mix(split_mix(who ^ self.sequence) ^ self.sent_ns)
    }

    fn to_bytes(self) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        let check = self.mixed().to_be_bytes();
        bytes[..4].copy_from_slice(&MARK);
        bytes[4..8].copy_from_slice(&self.run.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.client.to_le_bytes());
        bytes[12..16].copy_from_slice(&check[..4]);
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..].copy_from_slice(&self.sent_ns.to_le_bytes());
        bytes
    }

    /// `None` if the mark or the check is wrong.
    fn from_bytes(bytes: &[u8; STAMP]) -> Option<Self> {
        let short = |at: usize| bytes[at..].first_chunk().copied().map(u32::from_le_bytes);
        let long = |at: usize| bytes[at..].first_chunk().copied().map(u64::from_le_bytes);
        let stamp = Self { run: short(4)?, client: short(8)?, sequence: long(16)?, sent_ns: long(24)? };
        (stamp.to_bytes() == *bytes).then_some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::answer_datagram;

    const STAMP_OF_ALL: Stamp = Stamp { run: 7, client: 4711, sequence: 1 << 40, sent_ns: 123_456_789 };

    fn layouts() -> impl Iterator<Item = Layout> {
        [false, true].into_iter().flat_map(|names| {
            [min_size(names), min_size(names) + 1, 1400, MAX_SIZE]
                .map(|size| Layout { size: usize::try_from(size).unwrap(), names })
        })
    }

    #[test]
    fn an_echoed_datagram_reads_back() {
        for layout in layouts() {
            let mut bytes = Vec::new();
            layout.write(STAMP_OF_ALL, &mut bytes);
            assert_eq!(bytes.len(), layout.size);
            assert_eq!(layout.read(&bytes), Ok(Answer { stamp: STAMP_OF_ALL, name: None }), "{layout:?}");
        }
    }

    #[test]
    fn a_server_that_names_itself_is_known() {
        for layout in layouts().filter(|layout| layout.names) {
            for name in ["b", "four", "backend-1", &"x".repeat(MAX_NAME)] {
                let mut bytes = Vec::new();
                layout.write(STAMP_OF_ALL, &mut bytes);
                assert_eq!(answer_datagram(&mut bytes, format!("{name}\n").as_bytes()), layout.size);
                assert_eq!(layout.read(&bytes), Ok(Answer { stamp: STAMP_OF_ALL, name: Some(name) }), "{layout:?}");
            }
        }
    }

    #[test]
    fn every_changed_byte_shows() {
        for layout in layouts().filter(|layout| layout.size < 2000) {
            let mut bytes = Vec::new();
            layout.write(STAMP_OF_ALL, &mut bytes);
            if layout.names {
                answer_datagram(&mut bytes, b"backend-1\n");
            }
            for index in 0..bytes.len() {
                bytes[index] ^= 0x20;
                match layout.read(&bytes) {
                    Err(_) => {}
                    // A changed name is a name.
                    Ok(answer) => assert!(layout.names && index < 9 && answer.name != Some("backend-1"), "{index}"),
                }
                bytes[index] ^= 0x20;
            }
        }
    }

    #[test]
    fn other_lengths_show() {
        for layout in layouts() {
            let mut bytes = Vec::new();
            layout.write(STAMP_OF_ALL, &mut bytes);
            for length in [0, 1, layout.start(), layout.start() + STAMP - 1, layout.size - 1] {
                assert_eq!(layout.read(&bytes[..length]), Err(length), "{layout:?}");
            }
            let next = pattern::chunk(STAMP_OF_ALL.mixed().wrapping_add(layout.size as u64), 1);
            bytes.extend_from_slice(next);
            assert_eq!(layout.read(&bytes), Err(layout.size), "{layout:?}");
        }
    }
}
