//! Receiving datagrams, each with the address that it came from and the one that it was sent to.
//!
//! Datagrams have buffers of their own, as each takes a whole one whatever its length, and the longest must fit. Only
//! the pages that a datagram reaches into are ever used, so the memory that they take is that of the traffic, not that
//! of the longest datagram there could be.

use super::Error;
use super::provided::ProvidedBuffers;
use crate::flow::Chunk;
use io_uring::IoUring;
use io_uring::types::RecvMsgOut;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The number of buffers for datagrams; a power of two. So many datagrams can be received in one turn.
pub const DATAGRAM_BUFFERS: u16 = 128;
/// The longest datagram, or row of datagrams of one length that the kernel has put together (`UDP_GRO`, udp(7)).
pub const LONGEST_DATAGRAM: usize = 65_535;
/// The kernel's name for the group of these buffers.
const GROUP: u16 = 1;

/// Room for a source address, the longer of the two kinds (`struct sockaddr_in6`).
const NAME_ROOM: usize = size_of::<libc::sockaddr_in6>();
/// Room for control messages: the destination's address and port, once more as packet information where whoever made
/// the socket asked for it, and the length of the datagrams of a row.
const CONTROL_ROOM: usize = 192;
/// Room for all that the kernel writes before the datagram (`struct io_uring_recvmsg_out` and the two above): a page, so
/// that buffers begin at pages and a short datagram uses one.
const HEADER_ROOM: usize = 4096;
const SIZE: usize = HEADER_ROOM + 64 * 1024;

/// A datagram in a buffer, or a row of datagrams of one source.
#[derive(Debug, Clone, Copy)]
pub struct Datagram {
    /// Its bytes. The buffer is not free before [`release_datagram`](super::Ring::release_datagram).
    pub chunk: Chunk,
    /// Where it came from. `None` on a connected socket, where it is known.
    pub source: Option<SocketAddr>,
    /// Where it was sent to (`IP_RECVORIGDSTADDR`), if the socket was told to say.
    pub destination: Option<SocketAddr>,
    /// If this is a row of datagrams: the length of each, but for the last one, which can be shorter.
    pub segment: Option<u16>,
    /// Whether it did not fit, so that its end is lost.
    pub truncated: bool,
}

/// The buffers, and the form in which the kernel fills them.
#[derive(Debug)]
pub(super) struct DatagramBuffers {
    provided: ProvidedBuffers,
    /// Says how much room addresses and control messages have. It is read by the kernel at any submission of a receive,
    /// so it is never freed.
    form: &'static libc::msghdr,
}

// SAFETY: the form's pointers are all null and it never changes.
unsafe impl Send for DatagramBuffers {}

impl DatagramBuffers {
    pub(super) fn register(ring: &IoUring) -> Result<Self, Error> {
        // SAFETY: all bytes zero is a `msghdr` without name, parts and control messages.
        let mut form: libc::msghdr = unsafe { std::mem::zeroed() };
        form.msg_namelen = NAME_ROOM as u32;
        form.msg_controllen = CONTROL_ROOM;
        let provided = ProvidedBuffers::register(ring, GROUP, DATAGRAM_BUFFERS, SIZE)?;
        Ok(Self { provided, form: Box::leak(Box::new(form)) })
    }

    /// The operation that receives datagrams until it fails, ends or is cancelled.
    pub(super) fn receive(&self, socket: io_uring::types::Fd) -> io_uring::squeue::Entry {
        io_uring::opcode::RecvMsgMulti::new(socket, std::ptr::from_ref(self.form), GROUP).build()
    }

    /// What a receive has put into the buffer; `None` if that is no datagram, which the kernel never does.
    pub(super) fn datagram(&self, buffer: u32, written: u32) -> Option<Datagram> {
        let written = (written as usize).min(SIZE);
        let bytes = self.slice(buffer, 0, written)?;
        let received = RecvMsgOut::parse(bytes, self.form).ok()?;
        let payload = received.payload_data();
        let start = u32::try_from(written.checked_sub(payload.len())?).ok()?;
        let mut datagram = Datagram {
            chunk: Chunk { buffer, start, length: u32::try_from(payload.len()).ok()? },
            source: address(received.name_data()),
            destination: None,
            segment: None,
            truncated: received.is_payload_truncated(),
        };
        for (level, kind, data) in ControlMessages(received.control_data()) {
            match (level, kind) {
                (libc::SOL_IP, libc::IP_ORIGDSTADDR) | (libc::SOL_IPV6, libc::IPV6_ORIGDSTADDR) => {
                    datagram.destination = address(data);
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    // An int.
                    let length = data.first_chunk().map(|&bytes| i32::from_ne_bytes(bytes));
                    let length = length.and_then(|length| u16::try_from(length).ok());
                    datagram.segment = length.filter(|&length| length > 0 && usize::from(length) < payload.len());
                }
                _ => {}
            }
        }
        Some(datagram)
    }

    /// The bytes of a datagram; none if there is no such buffer.
    pub(super) fn bytes(&self, chunk: Chunk) -> &[u8] {
        self.slice(chunk.buffer, chunk.start as usize, chunk.length as usize).unwrap_or(&[])
    }

    /// Takes a buffer back.
    pub(super) fn release(&mut self, buffer: u32) {
        if let Ok(id) = u16::try_from(buffer) {
            self.provided.offer(id);
        }
    }

    fn slice(&self, buffer: u32, start: usize, length: usize) -> Option<&[u8]> {
        let address = self.provided.address(buffer)?;
        start.checked_add(length).filter(|&end| end <= SIZE)?;
        // SAFETY: the part was checked to be inside the buffer, whose memory is initialised and never freed. The kernel
        // writes into it only between an offer and the completion that names it; offers need `&mut self`, and until then
        // this shared borrow lasts at most.
        Some(unsafe { std::slice::from_raw_parts(address.as_ptr().add(start), length) })
    }
}

/// A socket address as the kernel writes it; `None` for other families than IPv4 and IPv6.
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let address: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(address), port).into())
        }
        libc::AF_INET6 => {
            let address: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            // The flow label is each packet's own, not a part of who sent it.
            Some(SocketAddrV6::new(address.into(), port, 0, scope).into())
        }
        _ => None,
    }
}

/// The control messages in a buffer (cmsg(3)): level, type, data.
struct ControlMessages<'a>(&'a [u8]);

impl<'a> Iterator for ControlMessages<'a> {
    type Item = (i32, i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const HEADER: usize = size_of::<libc::cmsghdr>();
        let length = usize::from_ne_bytes(*self.0.first_chunk()?);
        let level = i32::from_ne_bytes(*self.0.get(8..)?.first_chunk()?);
        let kind = i32::from_ne_bytes(*self.0.get(12..)?.first_chunk()?);
        let data = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(align_of::<usize>())..).unwrap_or(&[]);
        Some((level, kind, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        for text in ["192.0.2.1:53", "[2001:db8::1]:443", "[fe80::1%7]:1"] {
            let expected: SocketAddr = text.parse().unwrap();
            let mut bytes = vec![0u8; if expected.is_ipv4() { 16 } else { 28 }];
            match expected {
                SocketAddr::V4(v4) => {
                    bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                    bytes[2..4].copy_from_slice(&v4.port().to_be_bytes());
                    bytes[4..8].copy_from_slice(&v4.ip().octets());
                }
                SocketAddr::V6(v6) => {
                    bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                    bytes[2..4].copy_from_slice(&v6.port().to_be_bytes());
                    bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
                    bytes[8..24].copy_from_slice(&v6.ip().octets());
                    bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                }
            }
            assert_eq!(address(&bytes), Some(expected));
            assert_eq!(address(&bytes[..bytes.len() / 2 - 1]), None);
        }
        assert_eq!(address(&[]), None);
        assert_eq!(address(&[1, 0, 0, 0]), None);
    }

    #[test]
    fn control_messages_that_are_cut_off_end_the_list() {
        let message = |length: usize, data: &[u8]| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(17i32.to_ne_bytes());
            bytes.extend(104i32.to_ne_bytes());
            bytes.extend(data);
            bytes
        };
        let mut two = message(20, &[1, 2, 3, 4, 0, 0, 0, 0]);
        two.extend(message(17, &[9]));
        let all: Vec<_> = ControlMessages(&two).collect();
        assert_eq!(all, [(17, 104, &[1u8, 2, 3, 4][..]), (17, 104, &[9][..])]);
        assert_eq!(ControlMessages(&message(500, &[])).count(), 0);
        assert_eq!(ControlMessages(&message(3, &[])).count(), 0);
        assert_eq!(ControlMessages(&two[..30]).count(), 1);
        assert_eq!(ControlMessages(&[0; 64]).count(), 0);
    }
}
