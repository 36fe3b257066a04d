//! Sending datagrams: to backends and to clients.
//!
//! Each is sent at once by a call of its own, not by the ring: the kernel has then done with the buffer when the call
//! returns, and says whether a backend has refused while the datagram is still at hand. A socket never makes the thread
//! wait: what does not fit into its buffer is dropped and counted, as UDP allows.

use super::replies::Reply;
use super::{AtHand, Key, Lost, OpenSession, Receiving};
use crate::flow::Slot;
use crate::ring::Ring;
use crate::worker::Worker;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{MsgHdr, SockAddr, SockRef};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

/// Longer datagrams are not kept for a second try: it is meant for the first words of a client, and a copy must be cheap.
const LONGEST_KEPT: u32 = 1500;
/// Errors that a socket's queue holds at most, for one look at it: its buffer's size bounds them too.
const MOST_ERRORS: usize = 64;

/// What became of a datagram that was to be sent to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was sent, or is lost and counted.
    Done,
    /// It was not sent: the backend has refused what was sent before.
    Refused,
}

/// Where a datagram goes, and by which control messages.
#[derive(Debug, Default)]
struct Way<'a> {
    to: Option<&'a SockAddr>,
    control: Control,
}

impl Worker {
    /// Sends what is at hand to the session's backend.
    pub(super) fn forward(&mut self, slot: Slot, at_hand: AtHand) -> Outcome {
        let Some(session) = self.datagrams.sessions.get(slot) else { return Outcome::Done };
        let Some(socket) = &session.upstream else { return Outcome::Done };
        let sent = send_row(socket, self.ring.datagram_bytes(at_hand.chunk), at_hand.segment, Way::default());
        if sent.error == Some(Errno::EMSGSIZE) {
            clear_errors(socket);
        }
        count_to_backend(session, &sent);
        self.forwarded(&sent)
    }

    /// Sends the session's copy of a datagram to its backend.
    pub(super) fn forward_kept(&mut self, slot: Slot) -> Outcome {
        let Some(session) = self.datagrams.sessions.get(slot) else { return Outcome::Done };
        let (Some(socket), Some(kept)) = (&session.upstream, &session.kept) else { return Outcome::Done };
        let sent = send_row(socket, kept, None, Way::default());
        count_to_backend(session, &sent);
        self.forwarded(&sent)
    }

    fn forwarded(&self, sent: &Sent) -> Outcome {
        let counters = &self.thread.counters;
        counters.datagrams_to_backends.add(sent.datagrams);
        counters.datagram_bytes_to_backends.add(sent.bytes);
        match sent.error.map(reason) {
            None => Outcome::Done,
            // The rest of a row goes with its first, which was sent.
            Some(None) if sent.datagrams == 0 => Outcome::Refused,
            Some(lost) => {
                self.lose(lost.unwrap_or(Lost::Unsendable), sent.left);
                Outcome::Done
            }
        }
    }

    /// Sends what is at hand to the session's client, from where the client sent to.
    pub(super) fn deliver_reply(&mut self, slot: Slot, at_hand: AtHand) {
        let Some(session) = self.datagrams.sessions.get(slot) else { return };
        let bytes = self.ring.datagram_bytes(at_hand.chunk);
        let sent = match &session.reply {
            Reply::Own(socket) => {
                let to = SockAddr::from(session.key.client);
                send_row(socket.as_ref(), bytes, at_hand.segment, Way { to: Some(&to), control: Control::default() })
            }
            Reply::Steered { socket, client } => {
                let Some(receiving) = self.datagrams.sockets.get(*socket) else { return };
                send_back(receiving, &session.key, *client, bytes, at_hand.segment)
            }
            Reply::Published { client } => {
                let place = self.datagrams.published.get(&(session.key.target.address.port(), client.is_ipv6()));
                let Some(receiving) = place.and_then(|&place| self.datagrams.sockets.get(place)) else { return };
                send_back(receiving, &session.key, *client, bytes, at_hand.segment)
            }
        };
        if let Some(seat) = &session.backend {
            seat.count_to_client(at_hand.count().into(), at_hand.chunk.length.into());
        }
        let counters = &self.thread.counters;
        counters.datagrams_to_clients.add(sent.datagrams);
        counters.datagram_bytes_to_clients.add(sent.bytes);
        if let Some(error) = sent.error {
            self.lose(reason(error).unwrap_or(Lost::Unsendable), sent.left);
        }
    }
}

/// Sends to a client by the socket that it sends to, from the address that it sends to.
fn send_back(receiving: &Receiving, key: &Key, client: SocketAddr, bytes: &[u8], segment: Option<u16>) -> Sent {
    let to = SockAddr::from(client);
    let mut control = Control::default();
    control.send_from(key.target.ip(), &client);
    send_row(&receiving.socket, bytes, segment, Way { to: Some(&to), control })
}

fn count_to_backend(session: &OpenSession, sent: &Sent) {
    if let Some(seat) = &session.backend {
        seat.count_to_backend(sent.datagrams, sent.bytes);
    }
}

/// A copy of the datagram at hand, unless it is too long to be kept.
pub(super) fn copy(ring: &Ring, at_hand: AtHand) -> Option<Box<[u8]>> {
    (at_hand.chunk.length <= LONGEST_KEPT).then(|| ring.datagram_bytes(at_hand.chunk).into())
}

/// Has the kernel give datagrams that come together as one row (`UDP_GRO`, Linux 5.0).
pub(super) fn coalesce(socket: &impl AsFd) {
    // Without, they come one by one: slower, and just as well.
    let _ = setsockopt(&socket.as_fd(), sockopt::UdpGroSegment, &true);
}

/// Takes out what a socket's error queue holds. As long as there is something in it, waiting for the socket would end at
/// once (ip(7), `IP_RECVERR`).
pub(super) fn clear_errors(socket: &impl AsRawFd) {
    let flags = nix::sys::socket::MsgFlags::MSG_ERRQUEUE | nix::sys::socket::MsgFlags::MSG_DONTWAIT;
    let mut byte = [0];
    for _ in 0..MOST_ERRORS {
        if nix::sys::socket::recv(socket.as_raw_fd(), &mut byte, flags).is_err() {
            return;
        }
    }
}

/// What became of a row.
#[derive(Debug, Default)]
struct Sent {
    datagrams: u64,
    bytes: u64,
    /// Datagrams that were not sent, because of that error.
    left: u32,
    error: Option<Errno>,
}

/// Sends a datagram, or a row of them: as one where the kernel takes it so (`UDP_SEGMENT`, Linux 4.18), else one by one.
/// Boundaries are kept either way.
fn send_row<S: AsFd>(socket: &S, bytes: &[u8], segment: Option<u16>, mut way: Way<'_>) -> Sent {
    let Some(segment) = segment else { return send_each(socket, std::iter::once(bytes), 1, &way) };
    let count = bytes.len().div_ceil(usize::from(segment));
    let plain = way.control.length;
    way.control.cut_into(segment);
    match send_one(socket, bytes, &way) {
        Ok(_) => Sent { datagrams: count as u64, bytes: bytes.len() as u64, left: 0, error: None },
        // A row that is too long or whose datagrams do not fit into the MTU, or a device that cannot.
        Err(Errno::EINVAL | Errno::EMSGSIZE | Errno::EIO | Errno::EOPNOTSUPP) => {
            way.control.length = plain;
            send_each(socket, bytes.chunks(usize::from(segment)), count, &way)
        }
        Err(errno) => Sent { left: count as u32, error: Some(errno), ..Sent::default() },
    }
}

fn send_each<'a, S: AsFd>(socket: &S, datagrams: impl Iterator<Item = &'a [u8]>, count: usize, way: &Way<'_>) -> Sent {
    let mut sent = Sent { left: count as u32, ..Sent::default() };
    for datagram in datagrams {
        match send_one(socket, datagram, way) {
            Ok(length) => {
                sent.datagrams += 1;
                sent.bytes += length as u64;
                sent.left -= 1;
            }
            Err(errno) => {
                sent.error = Some(errno);
                break;
            }
        }
    }
    sent
}

fn send_one<S: AsFd>(socket: &S, bytes: &[u8], way: &Way<'_>) -> Result<usize, Errno> {
    let once = || {
        let socket = SockRef::from(socket);
        match way.to {
            None if way.control.length == 0 => socket.send_with_flags(bytes, libc::MSG_DONTWAIT),
            Some(to) if way.control.length == 0 => socket.send_to_with_flags(bytes, to, libc::MSG_DONTWAIT),
            to => {
                let parts = [IoSlice::new(bytes)];
                let mut message = MsgHdr::new().with_buffers(&parts).with_control(way.control.bytes());
                if let Some(to) = to {
                    message = message.with_addr(to);
                }
                socket.sendmsg(&message, libc::MSG_DONTWAIT)
            }
        }
    };
    let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    match once().map_err(errno) {
        // A shared socket tells of an earlier datagram that another client has refused.
        Err(Errno::ECONNREFUSED) if way.to.is_some() => once().map_err(errno),
        result => result,
    }
}

/// Why a datagram is lost with that error; `None` if the other end, or the way there, has refused an earlier one.
fn reason(errno: Errno) -> Option<Lost> {
    match errno {
        Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => Some(Lost::BufferFull),
        Errno::EMSGSIZE => Some(Lost::TooLarge),
        Errno::EPERM | Errno::EACCES | Errno::EINVAL => Some(Lost::Unsendable),
        _ => None,
    }
}

/// Control messages of sendmsg(2).
#[derive(Debug)]
struct Control {
    bytes: [u8; Self::ROOM],
    length: usize,
}

impl Default for Control {
    fn default() -> Self {
        Self { bytes: [0; Self::ROOM], length: 0 }
    }
}

impl Control {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    /// For the longest of each kind: `struct in6_pktinfo` and a u16.
    const ROOM: usize = 2 * Self::HEADER + 24 + 8;

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    /// The datagram leaves from that address, to `client` (`IP_PKTINFO`, ip(7); `IPV6_PKTINFO`, RFC 3542).
    fn send_from(&mut self, address: IpAddr, client: &SocketAddr) {
        match (address, client) {
            (IpAddr::V4(v4), SocketAddr::V4(_)) => {
                // Interface, source, destination; the kernel chooses the first.
                let mut data = [0; 12];
                data[4..8].copy_from_slice(&v4.octets());
                self.push(libc::SOL_IP, libc::IP_PKTINFO, &data);
            }
            (address, _) => {
                let v6 = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                let mut data = [0; 20];
                data[..16].copy_from_slice(&v6.octets());
                self.push(libc::SOL_IPV6, libc::IPV6_PKTINFO, &data);
            }
        }
    }

    /// The data is a row of datagrams of that length.
    fn cut_into(&mut self, segment: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let length = Self::HEADER + data.len();
        let end = self.length + length.next_multiple_of(align_of::<usize>());
        let Some(place) = self.bytes.get_mut(self.length..end) else { return };
        place[..8].copy_from_slice(&length.to_ne_bytes());
        place[8..12].copy_from_slice(&level.to_ne_bytes());
        place[12..16].copy_from_slice(&kind.to_ne_bytes());
        place[16..length].copy_from_slice(data);
        self.length = end;
    }
}
