//! One connection: what is under way for it, and its two ends, of which position alone says what they send.

use super::faults::Faults;
use crate::admission::{Admitted, Ticket};
use crate::flow::{Chunk, Ending, Event, Flow, Operation, Phase, Side};
use crate::table::{Destination, SharedIdentity};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

pub(super) const SIDES: [Side; 2] = [Side::Client, Side::Backend];

/// One end.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) total: u64,
    /// Read from it by the proxy.
    pub(super) read: u64,
    /// What it has received from the other end.
    pub(super) received: u64,
    told_end: bool,
    /// It resets once so much has been read from it.
    pub(super) reset_at: Option<u64>,
    pub(super) reset: bool,
    /// Whether a receive has seen the reset or the end.
    pub(super) end_seen: bool,
    pub(super) receive: Option<Receive>,
    pub(super) send: Option<(Chunk, bool)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Receive {
    pub(super) private: bool,
    pub(super) stopping: bool,
}

/// A direction's pipe and the wait or splice that is under way, by source.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) pipe: Option<(u64, u64)>,
    pub(super) splice: Option<bool>,
    pub(super) wait: Option<(bool, bool)>,
}

/// The backend that the connection is counted at.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) address: IpAddr,
    pub(super) identity: SharedIdentity,
    pub(super) abandoned: bool,
    pub(super) deadline: Duration,
}

/// A wait for a place at a backend.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) deadline: Duration,
}

/// What has been done to the connection that may end it.
#[derive(Debug, Default)]
pub(super) struct Excuses {
    pub(super) refused: bool,
    pub(super) no_backend: bool,
    pub(super) aborted: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) random: fastrand::Rng,
    pub(super) faulty: bool,
    /// Whether its attempts to connect take long.
    slow: bool,
    pub(super) flow: Flow,
    pub(super) target: Destination,
    pub(super) client: IpAddr,
    pub(super) admitted: Option<Admitted>,
    pub(super) waiting: Option<Waiting>,
    pub(super) backend: Option<Attempt>,
    pub(super) tried: Vec<IpAddr>,
    pub(super) attempts: u8,
    /// Whether an attempt is under way, and then whether it was told to stop.
    pub(super) connecting: Option<bool>,
    pub(super) excuses: Excuses,
    /// The table that it was opened in.
    pub(super) generation: u64,
    pub(super) peers: [Peer; 2],
    pub(super) ways: [Way; 2],
    /// Bytes of its header that have not been read, if the client must introduce itself.
    pub(super) header_in: Option<u64>,
    /// The buffer with the header for the backend, its bytes and how many are sent.
    pub(super) header_out: Option<(u32, u32, u32)>,
    pub(super) buffers: HashMap<u32, (Side, u64)>,
    pub(super) next_buffer: u32,
    linger: bool,
    pub(super) lingered: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    Connect,
    ConnectTimeout,
    HeaderTimeout,
    Receive(Side),
    Send(Side),
    Splice(Side),
    Wait(Side),
    Quiet(Side),
    LingerOver,
    Abort,
}

impl Connection {
    pub(super) fn new(
        faulty: bool,
        generation: u64,
        target: Destination,
        mut random: fastrand::Rng,
    ) -> (Self, Vec<Operation>) {
        let mut operations = Vec::new();
        let flow = Flow::new(&mut operations);
        let peers = SIDES.map(|_| {
            let total = match random.u8(..4) {
                0 => 0,
                1 => random.u64(..200),
                2 => random.u64(..100_000),
                _ => random.u64(..3_000_000),
            };
            let reset_at = (faulty && random.u8(..3) == 0).then(|| random.u64(..=total));
            Peer { total, reset_at, ..Peer::default() }
        });
        let connection = Self {
            faulty,
            slow: random.u8(..4) == 0,
            flow,
            target,
            client: IpAddr::from([192, 0, 2, random.u8(..)]),
            admitted: None,
            waiting: None,
            backend: None,
            tried: Vec::new(),
            attempts: 0,
            connecting: None,
            excuses: Excuses::default(),
            generation,
            peers,
            ways: [Way::default(), Way::default()],
            header_in: random.bool().then(|| random.u64(1..100)),
            header_out: None,
            buffers: HashMap::new(),
            next_buffer: 0,
            linger: false,
            lingered: false,
            random,
        };
        (connection, operations)
    }

    pub(super) fn is_relaying(&self) -> bool {
        self.flow.phase == Phase::Relaying
    }

    /// One of the things that can happen to it now; none while it waits for a place or for a slow backend.
    pub(super) fn choose(&mut self, now: Duration) -> Option<Action> {
        let mut actions = Vec::with_capacity(10);
        if let Some(stopping) = self.connecting {
            let late = self.backend.as_ref().is_some_and(|attempt| attempt.deadline <= now);
            let timed_out = late && !stopping && self.flow.is_connecting();
            let reports = !self.slow || self.random.u8(..16) == 0;
            if timed_out || reports {
                actions.push(if timed_out { Action::ConnectTimeout } else { Action::Connect });
            }
        }
        for side in SIDES {
            if self.peers[side.index()].receive.is_some() {
                actions.push(Action::Receive(side));
            }
            if self.peers[side.index()].send.is_some() {
                actions.push(Action::Send(side));
            }
            if self.ways[side.index()].splice.is_some() {
                actions.push(Action::Splice(side));
            }
            if self.ways[side.index()].wait.is_some() {
                actions.push(Action::Wait(side));
                if self.random.u8(..8) == 0 {
                    actions.push(Action::Quiet(side));
                }
            }
        }
        if self.linger && (actions.is_empty() || self.random.u8(..40) == 0) {
            actions.push(Action::LingerOver);
        }
        if self.faulty && self.flow.is_introducing() && self.random.u8(..10) == 0 {
            actions.push(Action::HeaderTimeout);
        }
        let waits = self.waiting.is_some() || self.slow && self.connecting.is_some();
        assert!(waits || !actions.is_empty(), "nothing is under way and the connection is not closed: {self:?}");
        // What comes before the relaying has few steps.
        let early = self.flow.is_connecting() || self.flow.is_introducing();
        if self.faulty && self.random.u16(..if early { 50 } else { 2000 }) == 0 {
            actions.push(Action::Abort);
        }
        (!actions.is_empty()).then(|| actions[self.random.usize(..actions.len())])
    }

    /// Lets one thing happen that concerns no backend and no other connection.
    pub(super) fn act(&mut self, action: Action, faults: &mut Faults) -> Option<Event> {
        Some(match action {
            Action::Connect => unreachable!("the world has the backends"),
            Action::ConnectTimeout => {
                faults.connect_timeouts += 1;
                self.connecting = Some(true);
                return None;
            }
            Action::HeaderTimeout => {
                faults.headers_late += 1;
                self.excuses.refused = true;
                Event::Refused
            }
            Action::Receive(side) => self.receive(side, faults),
            Action::Send(side) => self.send(side, faults),
            Action::Splice(from) => self.splice(from, faults),
            Action::Wait(from) => {
                self.ways[from.index()].wait = None;
                Event::Ready { from }
            }
            Action::Quiet(from) => {
                faults.quiet += 1;
                Event::Quiet { from }
            }
            Action::LingerOver => {
                self.linger = false;
                self.lingered = true;
                faults.lingers_over += 1;
                Event::LingerOver
            }
            Action::Abort => {
                faults.aborts += 1;
                faults.aborts_while_connecting += u64::from(self.connecting.is_some());
                faults.aborts_while_introducing += u64::from(self.flow.is_introducing());
                faults.aborts_while_waiting += u64::from(self.waiting.is_some());
                self.abort()
            }
        })
    }

    pub(super) fn abort(&mut self) -> Event {
        self.lingered = true;
        self.excuses.aborted = true;
        Event::Abort
    }

    pub(super) fn header_for_backend(&mut self, faults: &mut Faults) -> Option<Chunk> {
        if self.random.bool() {
            return None;
        }
        let (buffer, length) = (self.next_buffer, self.random.u32(28..108));
        self.next_buffer += 1;
        self.buffers.insert(buffer, (Side::Client, 0));
        if self.flow.is_connecting() {
            faults.headers_out += 1;
            self.header_out = Some((buffer, length, 0));
        } else {
            faults.headers_out_unused += 1;
        }
        Some(Chunk { buffer, start: 0, length })
    }

    pub(super) fn read_header(&mut self, faults: &mut Faults) -> Event {
        let left = self.header_in.unwrap();
        let come = self.random.u64(0..=left);
        match self.random.u8(..20) {
            0 if self.faulty => {
                faults.headers_refused += 1;
                self.excuses.refused = true;
                Event::Refused
            }
            1 if self.faulty => {
                faults.headers_reset += 1;
                self.peers[0].reset = true;
                Event::ClientGone
            }
            2..10 if come < left => {
                faults.headers_split += 1;
                self.header_in = Some(left - come);
                Event::HeaderMissing
            }
            _ => {
                faults.headers_in += 1;
                self.header_in = Some(0);
                Event::HeaderRead
            }
        }
    }

    pub(super) fn is_header_sent(&self) -> bool {
        self.header_out.is_none_or(|(_, length, sent)| length == sent)
    }

    /// Starts what the flow asks for, and checks that it may; what comes at once is returned.
    pub(super) fn carry_out(&mut self, operation: Operation, faults: &mut Faults) -> Option<Event> {
        match operation {
            Operation::ReadHeader => {
                let waits = self.ways[Side::Client.index()].wait.is_some();
                assert!(!waits && self.header_in.is_some_and(|left| left > 0), "reads behind the header");
                return Some(self.read_header(faults));
            }
            Operation::Receive { side, private } => {
                let peer = &mut self.peers[side.index()];
                assert!(peer.receive.is_none() && !peer.end_seen);
                assert!(self.header_in.is_none_or(|left| left == 0), "a header is received as data");
                peer.receive = Some(Receive { private, stopping: false });
            }
            Operation::StopReceive { side } => {
                let receive = self.peers[side.index()].receive.as_mut().unwrap();
                assert!(!std::mem::replace(&mut receive.stopping, true), "stopped twice");
            }
            Operation::Send { side, chunk } => {
                assert!(self.buffers.contains_key(&chunk.buffer), "sends a buffer that is free");
                assert!(!self.peers[side.index()].told_end);
                assert_eq!(self.peers[side.index()].send.replace((chunk, false)), None);
            }
            Operation::StopSend { side } => self.peers[side.index()].send.as_mut().unwrap().1 = true,
            Operation::Release { buffer } => {
                assert!(self.buffers.remove(&buffer).is_some(), "buffer {buffer} freed twice");
                let in_use = self.peers.iter().any(|peer| peer.send.is_some_and(|(chunk, _)| chunk.buffer == buffer));
                assert!(!in_use, "buffer {buffer} freed while it is being sent");
            }
            Operation::Splice { from, read } => {
                assert!(self.is_header_sent());
                assert!(self.peers[from.index()].receive.is_none() && self.peers[from.other().index()].send.is_none());
                assert!(!read || !self.peers[from.index()].end_seen);
                assert_eq!(self.ways[from.index()].splice.replace(read), None);
            }
            Operation::AwaitReadable { from } | Operation::AwaitWritable { from } => {
                let readable = matches!(operation, Operation::AwaitReadable { .. });
                assert_eq!(self.ways[from.index()].wait.replace((readable, false)), None);
            }
            Operation::StopAwait { from } => self.ways[from.index()].wait.as_mut().unwrap().1 = true,
            Operation::ClosePipe { from } => {
                let (_, held) = self.ways[from.index()].pipe.take().unwrap();
                assert_eq!(held, 0, "a pipe with bytes in it was given back");
            }
            Operation::Shutdown { side } => {
                let (other, peer) = (&self.peers[side.other().index()], &self.peers[side.index()]);
                assert_eq!(other.total, peer.received, "an end was told before all was delivered");
                assert!(!std::mem::replace(&mut self.peers[side.index()].told_end, true), "told twice");
            }
            Operation::Linger => assert!(!std::mem::replace(&mut self.linger, true), "lingers twice"),
            Operation::Connect | Operation::StopConnect | Operation::Close { .. } => {
                unreachable!("the world has the backends")
            }
        }
        let held = [Side::Client, Side::Backend].map(|s| self.buffers.values().filter(|(side, _)| *side == s).count());
        assert!(held.iter().all(|&count| count <= 64), "one direction holds too many buffers: {held:?}");
        None
    }

    /// Checks that nothing is left of it, and that it ended for a reason.
    pub(super) fn check_end(&self, reset: bool, ending: Ending, faults: &mut Faults) {
        assert!(self.buffers.is_empty(), "buffers are lost: {:?}", self.buffers);
        assert!(self.connecting.is_none() && self.waiting.is_none());
        for index in 0..2 {
            assert!(self.peers[index].receive.is_none() && self.peers[index].send.is_none());
            assert!(self.ways[index].splice.is_none() && self.ways[index].wait.is_none());
        }
        let [client, backend] = &self.peers;
        let all_delivered = client.received == backend.total && backend.received == client.total;
        match ending {
            Ending::Completed => {
                assert!(!reset && all_delivered && self.is_header_sent());
                faults.completed += 1;
            }
            Ending::ClientReset => assert!(reset && client.reset),
            Ending::BackendReset => {
                assert!(reset && backend.reset);
                // What the backend said before its reset has reached the client, unless that took too long.
                assert!(self.lingered || client.reset || client.received == backend.read);
            }
            Ending::NoBackend => assert!(reset && self.excuses.no_backend && client.read == 0),
            Ending::Refused => assert!(reset && self.excuses.refused && client.read == 0),
            Ending::Aborted => assert!(reset && self.excuses.aborted, "nobody has asked for this reset"),
        }
    }
}
