//! Who the client is: read from a header that a trusted peer sends first, told to a backend by a header that goes first.

use super::Worker;
use super::admit::later;
use super::connections::{Connection, Introduction, Reading};
use crate::admission::Refusal;
use crate::flow::termination::Cause;
use crate::flow::{Chunk, Event};
use crate::proxy_protocol::{self, Addresses, MAX_VERSION2, Progress, Transport, Version};
use crate::ring::Slot;
use crate::table::Service;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

/// What is known of the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Address(IpAddr),
    /// It does not matter here.
    NotNeeded,
    /// The client is gone.
    Gone,
}

impl Worker {
    /// Reads what has come of the client's header, and nothing that lies behind it.
    pub(super) fn read_header(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get(slot) else { return };
        let descriptor = connection.sockets[0].as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let Introduction::Reading(reading) = &mut connection.introduction else { return };
        match read_more(descriptor, &mut reading.bytes) {
            Outcome::Missing => self.events.push_back(Event::HeaderMissing),
            Outcome::Read(relayed) => {
                self.waits.remove(&(reading.deadline, slot.index));
                connection.introduction =
                    relayed.map_or(Introduction::None, |addresses| Introduction::Given(Box::new(addresses)));
                self.events.push_back(Event::HeaderRead);
            }
            Outcome::Invalid => {
                self.waits.remove(&(reading.deadline, slot.index));
                self.refuse(slot, Refusal::HeaderInvalid);
            }
            Outcome::Gone => {
                self.waits.remove(&(reading.deadline, slot.index));
                self.events.push_back(Event::ClientGone);
            }
        }
    }

    /// The header that tells the backend who the client is, in a buffer; an event instead if it cannot be told.
    pub(super) fn introduce(&mut self, slot: Slot) -> Result<Option<Chunk>, Event> {
        let Some(connection) = self.connections.get(slot) else { return Ok(None) };
        let Some(version) = connection.backend.as_ref().and_then(|attempt| attempt.told) else { return Ok(None) };
        let addresses = match &connection.introduction {
            Introduction::Given(addresses) => **addresses,
            _ => {
                let source = connection.peer().ok_or(Event::ClientGone)?;
                Addresses { source, destination: connection.target.address }
            }
        };
        let header = match version {
            Version::One => proxy_protocol::version1(addresses),
            Version::Two => proxy_protocol::version2(Transport::Stream, addresses),
        };
        connection.header_left = u8::try_from(header.len()).unwrap_or(u8::MAX);
        match self.ring.fill(&header) {
            Some(chunk) => Ok(Some(chunk)),
            None => {
                connection.cause = Some(Cause::Shortage);
                self.note_refusal(&"there is no buffer for a PROXY protocol header");
                Err(Event::NoBackend)
            }
        }
    }
}

impl Connection {
    /// Until when the client must have introduced itself; `None` if it need not, or has. An event instead if that cannot be
    /// told, as the client is gone: it may have been one that must.
    pub(super) fn must_introduce_itself(&mut self, service: &Service, now: Instant) -> Result<Option<Instant>, Event> {
        if self.introduction != Introduction::Unknown {
            return Ok(None);
        }
        let trusted = &service.clients.introducing;
        // One more system call, so only where it matters.
        let must = !trusted.is_empty() && trusted.contains(self.peer().ok_or(Event::ClientGone)?.ip());
        if !must {
            self.introduction = Introduction::None;
            return Ok(None);
        }
        let deadline = later(now, service.settings.proxy_protocol_timeout.0);
        self.introduction = Introduction::Reading(Box::new(Reading { bytes: Vec::new(), deadline }));
        Ok(Some(deadline))
    }

    /// Whom the limits, the lists and the hashes of the service mean: who introduced itself by a header, or the peer.
    pub(super) fn client(&self, needed: bool) -> Known {
        match &self.introduction {
            _ if !needed => Known::NotNeeded,
            Introduction::Given(addresses) => Known::Address(addresses.source.ip()),
            _ => self.peer().map_or(Known::Gone, |peer| Known::Address(peer.ip())),
        }
    }

    /// The peer's address; `None` if its connection has ended already (`ENOTCONN`, getpeername(2)).
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.sockets[0].as_ref().and_then(|socket| socket2::SockRef::from(socket).peer_addr().ok()?.as_socket())
    }

    /// Whether the client has reset the connection (or the network has), while nothing is received from it.
    pub(super) fn is_client_gone(&self) -> bool {
        let is_gone = |socket: &OwnedFd| {
            let error = recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT).err();
            error.is_some_and(|errno| !matches!(errno, Errno::EAGAIN | Errno::EINTR))
        };
        self.sockets[0].as_ref().is_none_or(is_gone)
    }
}

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Missing,
    Read(Option<Addresses>),
    Invalid,
    Gone,
}

/// Looks at what is there, and takes of it only what belongs to the header: two system calls for one that comes in one piece,
/// of whatever length.
fn read_more(socket: RawFd, bytes: &mut Vec<u8>) -> Outcome {
    let mut ahead = [0; MAX_VERSION2];
    let before = bytes.len();
    let room = MAX_VERSION2.saturating_sub(before).max(1);
    let there = match recv(socket, &mut ahead[..room], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
        // The end, before a whole header.
        Ok(0) => return Outcome::Invalid,
        Ok(there) => there,
        Err(Errno::EAGAIN | Errno::EINTR) => return Outcome::Missing,
        Err(_) => return Outcome::Gone,
    };
    bytes.extend_from_slice(&ahead[..there]);
    let (taken, outcome) = match proxy_protocol::read(bytes) {
        Ok(Progress::Missing(_)) => (there, Outcome::Missing),
        Ok(Progress::Complete(header)) => {
            (header.length.saturating_sub(before), Outcome::Read(header.relayed.map(|(_, addresses)| addresses)))
        }
        Err(_) => return Outcome::Invalid,
    };
    let mut left = taken;
    while left > 0 {
        match recv(socket, &mut ahead[..left], MsgFlags::MSG_DONTWAIT) {
            Ok(length @ 1..) => left = left.saturating_sub(length),
            Err(Errno::EINTR) => {}
            // What was there a moment ago can only be gone because the connection was reset.
            Ok(_) | Err(_) => return Outcome::Gone,
        }
    }
    outcome
}
