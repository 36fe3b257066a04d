//! The acknowledgement that ends a handshake with a backend. It waits for the client's first bytes and goes with them, where
//! these can be expected at once: one packet less.

use super::Worker;
use super::connections::Connection;
use crate::flow::Side;
use crate::ring::Slot;
use socket2::SockRef;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long it waits. A client that does many things at a time may need longer to send its bytes than a backend of this node
/// to answer.
const GRACE: Duration = Duration::from_millis(5);

/// A connection whose backend has not heard of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unheard {
    slot: Slot,
    since: Instant,
}

/// Has the backend's answer to the connect acknowledged with the first data instead of by a packet of its own (`TCP_QUICKACK`,
/// tcp(7)), or after 200 ms. It is for this one acknowledgement: the answer makes the kernel acknowledge at once again
/// (`tcp_rcv_synsent_state_process`).
pub(super) fn acknowledge_with_data(socket: &OwnedFd) {
    // Without it there is one more packet.
    let _ = SockRef::from(socket).set_tcp_quickack(false);
}

impl Worker {
    /// Takes note of a connection that is established, and not yet at its backend's end.
    pub(super) fn is_unheard(&mut self, slot: Slot) {
        self.unheard.push_back(Unheard { slot, since: self.now });
    }

    /// When the first of them is to be looked at.
    pub(super) fn next_unheard(&self) -> Option<Instant> {
        self.unheard.front().map(|unheard| unheard.since + GRACE)
    }

    /// Tells backends of connections whose clients say nothing.
    pub(super) fn review_unheard(&mut self) {
        while let Some(&Unheard { slot, since }) = self.unheard.front() {
            let connection = self.connections.get(slot).filter(|connection| connection.read == [0; 2]);
            if connection.is_some() && self.now < since + GRACE {
                return;
            }
            self.unheard.pop_front();
            if let Some(connection) = connection {
                connection.sockets[Side::Backend.index()].iter().for_each(acknowledge_now);
                if let Some(admitted) = &connection.admitted {
                    admitted.service.tcp_ports.note_silence(connection.backend_port);
                }
            }
        }
    }
}

impl Connection {
    /// Remembers who speaks first on such connections.
    pub(super) fn note_first_speaker(&self, side: Side) {
        if let Some(admitted) = &self.admitted {
            admitted.service.tcp_ports.note_first_speaker(self.backend_port, side);
        }
    }
}

fn acknowledge_now(socket: &OwnedFd) {
    // It fails only for a connection that is over.
    let _ = SockRef::from(socket).set_tcp_quickack(true);
}
