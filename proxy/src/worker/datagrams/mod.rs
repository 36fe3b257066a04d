//! The data plane for UDP: datagrams → sessions → operations.
//!
//! A session's story, in the order of the files: `receive` receives what clients send and finds or opens the session,
//! `upstream` finds it a backend and hears what that says, `send` sends to both, `replies` has the sockets by which clients
//! are answered, `passing` has busy sessions go past the proxy, `handover` hands sessions over to another proxy and takes those of another. This file carries out what a session's flow asks for, and ends sessions.

mod handover;
mod passing;
mod receive;
mod replies;
mod send;
mod upstream;

pub(super) use receive::Receiving;
pub(crate) use receive::prepare;

use super::sockets::Sockets;
use super::{Error, Worker};
use crate::admission::Admitted;
use crate::flow::datagram::{Ending, Event, Operation, Session, Sessions};
use crate::flow::{Chunk, Slot};
use crate::ring::Datagram;
use crate::shared::{Counter, LostDatagrams};
use crate::table::{Destination, Identity, ServiceState, SharedIdentity};
use handover::Leaving;
use passing::{Busyness, Passing, Passings};
use replies::{Reply, ReplySockets};
use send::Outcome;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The state of a data thread's UDP side.
#[derive(Debug)]
pub(super) struct Datagrams {
    sockets: Sockets<Receiving>,
    /// The places of the sockets of published ports, by port and by whether they are IPv6 ones.
    published: HashMap<(u16, bool), u32>,
    sessions: Sessions<Key, OpenSession>,
    replies: ReplySockets,
    passings: Passings,
    /// Whether nothing is received from clients until the sessions of another proxy have come.
    holding: bool,
    /// Where the sessions go, while they go to another proxy.
    leaving: Option<Leaving>,
    /// Kept from event to event, so that none allocates.
    operations: Vec<Operation>,
}

/// What makes a session: IPv4 addresses as such, not as IPv6 ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    client: SocketAddr,
    /// What the client sends to: VIP and port, or a published port at one of the node's addresses.
    target: Destination,
}

/// One session and what belongs to it.
#[derive(Debug)]
struct OpenSession {
    flow: Session,
    key: Key,
    /// A backend that was picked, and counts the session in, but is not connected yet.
    picked: Option<Seat>,
    /// The socket to the backend.
    upstream: Option<OwnedFd>,
    /// The backend that the session is counted at.
    backend: Option<Seat>,
    /// Backends that refused. Allocates only if there are any.
    tried: Vec<IpAddr>,
    /// Whether it has had a backend before.
    seated: bool,
    /// The only datagram that its backend has been sent since it last replied.
    kept: Option<Box<[u8]>>,
    /// Why a datagram is lost if there is no backend for it.
    lost: Lost,
    reply: Reply,
    /// What it holds of its service's limits.
    admitted: Admitted,
    busyness: Busyness,
    /// Where its datagrams are sent on without this process, if they are.
    passing: Option<Passing>,
}

/// The backend that a session is counted at.
#[derive(Debug)]
struct Seat {
    address: IpAddr,
    port: u16,
    identity: SharedIdentity,
    service: Arc<ServiceState>,
}

/// A datagram, or a row of some, that has just been received.
#[derive(Debug, Clone, Copy)]
struct AtHand {
    chunk: Chunk,
    segment: Option<u16>,
}

/// Why a datagram is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    NoService,
    NoBackend,
    BufferFull,
    TooLarge,
    AtLimit,
    Unsendable,
    Unanswerable,
    Refused,
}

impl Datagrams {
    pub(super) fn new(steered: Sockets<Receiving>) -> Self {
        Self {
            sockets: steered,
            published: HashMap::new(),
            sessions: Sessions::default(),
            replies: ReplySockets::default(),
            passings: Passings::default(),
            holding: false,
            leaving: None,
            operations: Vec::new(),
        }
    }

    /// When the next session expires if it is not used.
    pub(super) fn next_expiry(&self) -> Option<std::time::Instant> {
        self.sessions.next_expiry()
    }
}

impl Seat {
    /// Counts what was sent to the backend.
    fn count_to_backend(&self, datagrams: u64, bytes: u64) {
        self.identity.datagrams().to_backend.fetch_add(datagrams, Ordering::Relaxed);
        self.identity.bytes_to_backend.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts what came from the backend, for the client.
    fn count_to_client(&self, datagrams: u64, bytes: u64) {
        self.identity.datagrams().to_client.fetch_add(datagrams, Ordering::Relaxed);
        self.identity.bytes_to_client.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl AtHand {
    /// How many datagrams there are.
    fn count(self) -> u32 {
        self.segment.map_or(1, |segment| self.chunk.length.div_ceil(u32::from(segment)))
    }
}

impl From<&Datagram> for AtHand {
    fn from(datagram: &Datagram) -> Self {
        Self { chunk: datagram.chunk, segment: datagram.segment }
    }
}

impl Lost {
    fn counter(self, counters: &LostDatagrams) -> &Counter {
        match self {
            Self::NoService => &counters.no_service,
            Self::NoBackend => &counters.no_backend,
            Self::BufferFull => &counters.buffer_full,
            Self::TooLarge => &counters.too_large,
            Self::AtLimit => &counters.at_limit,
            Self::Unsendable => &counters.unsendable,
            Self::Unanswerable => &counters.unanswerable,
            Self::Refused => &counters.refused,
        }
    }
}

impl Worker {
    /// Tells the session what happened and carries out what it asks for. `at_hand` is what the event has brought.
    fn tell_session(&mut self, mut slot: Slot, event: Event, at_hand: Option<AtHand>) -> Result<(), Error> {
        let mut operations = std::mem::take(&mut self.datagrams.operations);
        let mut next = Some(event);
        while let Some(event) = next.take() {
            if let Some(session) = self.datagrams.sessions.get(slot) {
                session.flow.on(event, &mut operations);
            }
            for operation in operations.drain(..) {
                // Only the last operation of an event leads to another event.
                next = self.carry_out_for_session(&mut slot, operation, at_hand)?;
            }
        }
        self.datagrams.operations = operations;
        Ok(())
    }

    fn carry_out_for_session(
        &mut self,
        slot: &mut Slot,
        operation: Operation,
        at_hand: Option<AtHand>,
    ) -> Result<Option<Event>, Error> {
        let Some(session) = self.datagrams.sessions.get(*slot) else { return Ok(None) };
        match operation {
            Operation::Connect => return self.connect_session(*slot).map(Some),
            Operation::Disconnect { failed } => *slot = self.disconnect_session(*slot, failed)?,
            Operation::ForgetTried => session.tried = Vec::new(),
            Operation::Forward => {
                if let Some(at_hand) = at_hand {
                    let outcome = self.forward(*slot, at_hand);
                    return Ok(refusal(outcome, at_hand.count()));
                }
            }
            Operation::Keep => session.kept = at_hand.and_then(|at_hand| send::copy(&self.ring, at_hand)),
            Operation::ForwardKept => {
                let outcome = self.forward_kept(*slot);
                return Ok(refusal(outcome, 1));
            }
            Operation::DropKept => session.kept = None,
            Operation::Deliver => {
                if let Some(at_hand) = at_hand {
                    self.deliver_reply(*slot, at_hand);
                }
            }
            Operation::Lose => {
                let lost = session.lost;
                self.lose(lost, at_hand.map_or(1, AtHand::count));
            }
            Operation::Close { ending } => self.close_session(*slot, ending),
        }
        Ok(None)
    }

    /// Frees what belongs to a session whose flow has ended.
    fn close_session(&mut self, slot: Slot, ending: Ending) {
        let Some(session) = self.datagrams.sessions.remove(slot) else { return };
        self.datagrams.replies.give_back(session.reply, session.key.target.address);
        self.shared.gate.leave(session.admitted);
        self.thread.leave_session();
        // Whoever evicts takes its place.
        if ending != Ending::Evicted {
            self.shared.connections.give_back();
        }
    }

    /// Ends the session that has been idle for the longest time; its place in the descriptor budget is the caller's then.
    /// False if there are none.
    pub(super) fn evict_session(&mut self) -> Result<bool, Error> {
        let Some(slot) = self.longest_idle_session()? else { return Ok(false) };
        self.thread.counters.sessions_evicted.add(1);
        self.tell_session(slot, Event::End(Ending::Evicted), None)?;
        Ok(true)
    }

    fn longest_idle_session(&mut self) -> Result<Option<Slot>, Error> {
        for _ in 0..self.datagrams.sessions.len() {
            // What has passed since the last look was not seen to be used.
            match self.datagrams.sessions.longest_unused() {
                Some(slot) if self.note_passed(slot)? => {}
                longest => return Ok(longest),
            }
        }
        Ok(self.datagrams.sessions.longest_unused())
    }

    /// Ends the sessions that have been idle for their time.
    pub(super) fn expire_sessions(&mut self) -> Result<(), Error> {
        while let Some(slot) = self.datagrams.sessions.expired(self.now) {
            if self.note_passed(slot)? {
                continue;
            }
            self.tell_session(slot, Event::End(Ending::Idle), None)?;
        }
        Ok(())
    }

    /// Gives the sessions of the backends that `wanted` accepts another backend.
    pub(super) fn move_sessions(&mut self, wanted: impl Fn(&Identity) -> bool) -> Result<(), Error> {
        let is_concerned = |session: &OpenSession| session.backend.as_ref().is_some_and(|seat| wanted(&seat.identity));
        for slot in self.datagrams.sessions.select(is_concerned) {
            self.tell_session(slot, Event::BackendGone, None)?;
        }
        Ok(())
    }

    /// Ends the sessions of a published port whose clients cannot be answered any more, as the port has no socket of their
    /// address family.
    pub(super) fn end_sessions_without_socket(&mut self, port: u16) -> Result<(), Error> {
        let published = &self.datagrams.published;
        let is_concerned = |session: &OpenSession| match session.reply {
            Reply::Published { client } => {
                session.key.target.address.port() == port && !published.contains_key(&(port, client.is_ipv6()))
            }
            Reply::Steered { .. } | Reply::Own(_) => false,
        };
        for slot in self.datagrams.sessions.select(is_concerned) {
            self.tell_session(slot, Event::End(Ending::Stopped), None)?;
        }
        Ok(())
    }

    pub(super) fn end_all_sessions(&mut self) -> Result<(), Error> {
        for slot in self.datagrams.sessions.select(|_| true) {
            self.tell_session(slot, Event::End(Ending::Stopped), None)?;
        }
        Ok(())
    }

    fn lose(&self, lost: Lost, count: u32) {
        lost.counter(&self.thread.counters.lost).add(u64::from(count));
    }
}

fn refusal(outcome: Outcome, count: u32) -> Option<Event> {
    match outcome {
        Outcome::Refused => Some(Event::ForwardRefused { count }),
        Outcome::Done => None,
    }
}
