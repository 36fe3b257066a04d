//! The connections that are open, each in a slot.

use super::clock::{Microseconds, Moment, Tick};
use super::passing::{Busyness, Passing};
use super::pipes::LeasedPipe;
use crate::admission::{Admitted, Ticket};
use crate::flow::termination::Cause;
use crate::flow::{Flow, Side};
use crate::proxy_protocol::{Addresses, Version};
use crate::ring::{GENERATION_MASK, Slot};
use crate::table::{Destination, SharedIdentity};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

/// One connection and what belongs to it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) flow: Flow,
    /// By [`Side::index`].
    pub(super) sockets: [Option<OwnedFd>; 2],
    /// What the client connected to: VIP and port, or a published port.
    pub(super) target: Destination,
    /// The port of the backend of the last attempt.
    pub(super) backend_port: u16,
    /// Who the client says that it is.
    pub(super) introduction: Introduction,
    /// What it holds of its service's limits, once it was let in.
    pub(super) admitted: Option<Admitted>,
    /// Its place in the queue for a backend. Allocates only there.
    pub(super) waiting: Option<Box<Waiting>>,
    /// Bytes of the header for the backend that are not sent yet.
    pub(super) header_left: u8,
    /// The backend that the connection is counted at.
    pub(super) backend: Option<Attempt>,
    /// Backends that could not be reached. Allocates only if there are any.
    pub(super) tried: Vec<IpAddr>,
    /// By source: the pipe of a direction that splices.
    pub(super) pipes: [Option<Box<LeasedPipe>>; 2],
    /// By source: what a receive that does not use shared buffers is at.
    pub(super) private: [Private; 2],
    /// Counts attempts, so that a timeout is not taken for one of a later attempt.
    pub(super) attempts: u8,
    /// When it was accepted.
    pub(super) opened: Moment,
    /// What the attempt that succeeded took.
    pub(super) connect_time: Option<Microseconds>,
    /// The lower half of how many bytes were received, by [`Side::index`] of the end that they came from.
    pub(super) read: [u32; 2],
    /// Bytes sent so far, by [`Side::index`] of the end that they were sent to.
    pub(super) sent: [u64; 2],
    /// Why it ends, or found no backend, if that is known.
    pub(super) cause: Option<Cause>,
    /// The client's address, if the access log needs it.
    pub(super) client: Option<Box<SocketAddr>>,
    /// When data was last sent to one of its ends.
    pub(super) moved: Tick,
    pub(super) busyness: Busyness,
    /// What there is once it may go past the proxy.
    pub(super) passing: Option<Box<Passing>>,
}

/// The backend that a connection goes to.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) address: IpAddr,
    pub(super) identity: SharedIdentity,
    /// How it is told who the client is.
    pub(super) told: Option<Version>,
    /// Whether the client is expected to speak first, and at once, so that its bytes are the first that the backend gets.
    pub(super) is_asked: bool,
    /// Whether it must end, even if it has succeeded before its cancellation: the backend was removed, or its drain deadline
    /// passed.
    pub(super) abandoned: bool,
    /// When it began.
    pub(super) started: Moment,
}

/// Who the client says that it is. Allocates only where clients introduce themselves.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Introduction {
    /// It has not been looked at whether it must.
    Unknown,
    /// Nothing: its own address counts.
    None,
    /// Its header is being read.
    Reading(Box<Reading>),
    /// By a header.
    Given(Box<Addresses>),
}

/// A header that has not come whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) bytes: Vec<u8>,
    pub(super) deadline: Instant,
}

/// A wait for a place at a backend.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) deadline: Instant,
}

/// A receive into a private buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Private {
    /// There is none.
    No,
    /// It waits until a buffer is free.
    Waiting,
    /// It is under way.
    Into(u32),
}

impl Connection {
    /// The descriptor of that side; -1, which every operation refuses, if there is none.
    pub(super) fn descriptor(&self, side: Side) -> RawFd {
        self.sockets[side.index()].as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    entries: Vec<Entry>,
    free: Vec<u32>,
    open: usize,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    connection: Option<Connection>,
}

impl Connections {
    /// The number of open connections.
    pub(super) fn len(&self) -> usize {
        self.open
    }

    /// Gives the connection a slot.
    pub(super) fn insert(&mut self, connection: Connection) -> Slot {
        self.open += 1;
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.connection = Some(connection);
            return Slot { index, generation: entry.generation };
        }
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(Entry { generation: 0, connection: Some(connection) });
        Slot { index, generation: 0 }
    }

    /// The connection in that slot, unless it is another one by now.
    pub(super) fn get(&mut self, slot: Slot) -> Option<&mut Connection> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        if entry.generation == slot.generation { entry.connection.as_mut() } else { None }
    }

    /// Frees the slot.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Connection> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        if entry.generation != slot.generation {
            return None;
        }
        let connection = entry.connection.take()?;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        self.free.push(slot.index);
        self.open -= 1;
        Some(connection)
    }

    /// All open connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Connection)> {
        (0u32..).zip(&self.entries).filter_map(|(index, entry)| {
            let slot = Slot { index, generation: entry.generation };
            entry.connection.as_ref().map(|connection| (slot, connection))
        })
    }

    /// The slots of the connections that `wanted` accepts.
    pub(super) fn find(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<Slot> {
        self.iter().filter(|(_, connection)| wanted(connection)).map(|(slot, _)| slot).collect()
    }
}
