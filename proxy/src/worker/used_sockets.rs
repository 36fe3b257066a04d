//! Sockets that are used again: a new connection to a backend takes the socket of one that is over.
//!
//! To make a socket and to free it costs three times as much as to bring it back to its beginning, which a short connection
//! feels (docs/performance.md).

use super::ageing::GROWN;
use super::connections::Connection;
use super::{Timer, Worker};
use nix::errno::Errno;
use rustix::net::connect_unspec;
use socket2::SockRef;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What has not been needed from one look to the next is closed.
const REVIEW: Duration = Duration::from_secs(1);
/// A connection that has moved no more leaves its socket's buffers at the sizes that they began with.
const LITTLE: u64 = 64 * 1024;

impl Worker {
    /// Whether nothing was done to the sockets of a connection that would matter to another one: it got no options of a
    /// service, its buffers have not grown, and no program knows its addresses.
    pub(super) fn leaves_sockets_as_they_were(&self, connection: &Connection) -> bool {
        self.moment().since(connection.opened) < GROWN
            && connection.sent.iter().sum::<u64>() <= LITTLE
            && connection.passing.is_none()
    }

    /// Has the socket at hand for another connection, if that is possible; closes it otherwise.
    pub(super) fn keep_used_socket(&mut self, address: IpAddr, socket: OwnedFd) {
        self.used_sockets.keep(address, socket);
        if !self.reviews_used_sockets {
            self.reviews_used_sockets = true;
            self.timers.add(self.now, REVIEW, Timer::UsedSockets);
        }
    }

    /// Closes the sockets that nobody has needed, and comes back as long as there are others.
    pub(super) fn review_used_sockets(&mut self) {
        self.reviews_used_sockets = self.used_sockets.review();
        if self.reviews_used_sockets {
            self.timers.add(self.now, REVIEW, Timer::UsedSockets);
        }
    }
}

/// The sockets that a data thread has at hand.
#[derive(Debug)]
pub(super) struct UsedSockets {
    v4: Shelf,
    v6: Shelf,
    /// How many there may be.
    most: usize,
}

/// Those of one family, the last one first.
#[derive(Debug, Default)]
struct Shelf {
    sockets: Vec<OwnedFd>,
    /// How many have not been needed since the last review.
    unneeded: usize,
}

impl UsedSockets {
    /// None yet, and so many at most.
    pub(super) fn new(most: usize) -> Self {
        Self { v4: Shelf::default(), v6: Shelf::default(), most }
    }

    /// One that can be connected to that address as if it were new.
    pub(super) fn take(&mut self, address: IpAddr) -> Option<OwnedFd> {
        let shelf = self.shelf(address);
        let socket = shelf.sockets.pop();
        shelf.unneeded = shelf.unneeded.min(shelf.sockets.len());
        socket
    }

    /// Keeps a socket that was connected to that address, if it can be used again; closes it otherwise.
    pub(super) fn keep(&mut self, address: IpAddr, socket: OwnedFd) {
        if self.v4.sockets.len() + self.v6.sockets.len() < self.most && bring_back(&socket) {
            self.shelf(address).sockets.push(socket);
        }
    }

    /// Closes what has not been needed since the last review. Whether there are others.
    pub(super) fn review(&mut self) -> bool {
        let mut are_left = false;
        for shelf in [&mut self.v4, &mut self.v6] {
            shelf.sockets.drain(..shelf.unneeded);
            shelf.unneeded = shelf.sockets.len();
            are_left |= shelf.unneeded > 0;
        }
        are_left
    }

    /// Closes all: descriptors or memory are short.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.most);
    }

    fn shelf(&mut self, address: IpAddr) -> &mut Shelf {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

/// Dissolves the association of a socket whose connection is over (`AF_UNSPEC`, connect(2)). False if that may not be done: as
/// long as the other end has not acknowledged everything, the kernel needs the socket to repeat it. What went wrong after the
/// end is forgotten with the next connect (`tcp_connect_init`).
fn bring_back(socket: &OwnedFd) -> bool {
    let peer = SockRef::from(socket).peer_addr();
    peer.is_err_and(|error| error.raw_os_error() == Some(Errno::ENOTCONN as i32)) && connect_unspec(socket).is_ok()
}
