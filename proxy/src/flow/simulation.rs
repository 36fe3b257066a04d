//! A connection in a made-up world: every completion comes when a seeded random generator says so, faults included.
//!
//! After every step it is checked that each operation was allowed, that bytes arrive in order without loss or
//! duplicate, and in the end that every buffer is free and nothing is under way. A failure prints the seed; run it again
//! with `RINGLB_SEED=<seed>`.

use super::*;
use std::collections::HashMap;

const BUFFER: u64 = 16 * 1024;
const PIPE: u64 = 1024 * 1024;
const WORLDS: u64 = 60_000;

#[derive(Debug, Default)]
struct Faults {
    connect_failures: u64,
    no_backend: u64,
    refused: u64,
    clients_gone: u64,
    headers_in: u64,
    headers_split: u64,
    headers_refused: u64,
    headers_late: u64,
    headers_reset: u64,
    aborts_while_introducing: u64,
    headers_out: u64,
    headers_out_short: u64,
    headers_out_unused: u64,
    starved: u64,
    lost_more: u64,
    short_sends: u64,
    resets: [u64; 2],
    resets_before_data: u64,
    send_failures: u64,
    aborts: u64,
    aborts_while_connecting: u64,
    late_data_after_stop: u64,
    no_pipe: u64,
    quiet: u64,
    lingers_over: u64,
    spliced_bytes: u64,
    completed: u64,
    steps: u64,
}

/// One end: what it sends is known by position alone.
#[derive(Debug, Default)]
struct Peer {
    total: u64,
    /// Read from it by the proxy.
    read: u64,
    /// What it has received from the other end.
    received: u64,
    told_end: bool,
    /// It resets once so much has been read from it.
    reset_at: Option<u64>,
    reset: bool,
    /// Whether a receive has seen the reset or the end.
    end_seen: bool,
    receive: Option<Receive>,
    send: Option<(Chunk, bool)>,
}

#[derive(Debug, Clone, Copy)]
struct Receive {
    private: bool,
    stopping: bool,
}

/// A direction's pipe and the wait or splice that is under way, by source.
#[derive(Debug, Default)]
struct Way {
    pipe: Option<(u64, u64)>,
    splice: Option<bool>,
    wait: Option<(bool, bool)>,
}

struct World {
    random: fastrand::Rng,
    flow: Flow,
    peers: [Peer; 2],
    ways: [Way; 2],
    connecting: Option<bool>,
    attempts: u8,
    /// Bytes of its header that have not been read, if the client must introduce itself.
    header_in: Option<u64>,
    /// Whether what is there of it must be read at once.
    reads_header: bool,
    /// The buffer with the header for the backend, its bytes and how many are sent.
    header_out: Option<(u32, u32, u32)>,
    buffers: HashMap<u32, (Side, u64)>,
    next_buffer: u32,
    linger: bool,
    lingered: bool,
    faulty: bool,
    closed: Option<(bool, Ending)>,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Connect,
    ReadHeader,
    HeaderTimeout,
    Receive(Side),
    Send(Side),
    Splice(Side),
    Wait(Side),
    Quiet(Side),
    LingerOver,
    Abort,
}

const SIDES: [Side; 2] = [Side::Client, Side::Backend];

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let faulty = random.bool();
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
        let mut world = Self {
            random,
            flow,
            peers,
            ways: [Way::default(), Way::default()],
            connecting: None,
            attempts: 0,
            header_in: None,
            reads_header: false,
            header_out: None,
            buffers: HashMap::new(),
            next_buffer: 0,
            linger: false,
            lingered: false,
            faulty,
            closed: None,
        };
        world.header_in = world.random.bool().then(|| world.random.u64(1..100));
        world.carry_out(operations);
        world
    }

    fn run(mut self, faults: &mut Faults) {
        for _ in 0..200_000 {
            if let Some((reset, ending)) = self.closed {
                self.check_end(reset, ending, faults);
                return;
            }
            let action = self.choose();
            let event = self.act(action, faults);
            faults.steps += 1;
            let mut operations = Vec::new();
            self.flow.on(event, &mut operations);
            self.carry_out(operations);
        }
        panic!("the connection does not end: {:?}", self.flow);
    }

    fn choose(&mut self) -> Action {
        // It is read in the step that asks for it.
        if self.reads_header {
            return Action::ReadHeader;
        }
        let mut actions = Vec::with_capacity(10);
        if self.connecting.is_some() {
            actions.push(Action::Connect);
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
        // What comes before the relaying has few steps.
        let early = self.flow.is_connecting() || self.flow.is_introducing();
        if self.faulty && self.random.u16(..if early { 50 } else { 2000 }) == 0 {
            actions.push(Action::Abort);
        }
        assert!(!actions.is_empty(), "nothing is under way and the connection is not closed: {:?}", self.flow);
        actions[self.random.usize(..actions.len())]
    }

    /// Lets one thing happen.
    fn act(&mut self, action: Action, faults: &mut Faults) -> Event {
        match action {
            Action::Connect => self.connect(faults),
            Action::ReadHeader => self.read_header(faults),
            Action::HeaderTimeout => {
                faults.headers_late += 1;
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
                faults.aborts_while_connecting += u64::from(self.flow.is_connecting());
                faults.aborts_while_introducing += u64::from(self.flow.is_introducing());
                self.lingered = true;
                Event::Abort
            }
        }
    }

    fn connect(&mut self, faults: &mut Faults) -> Event {
        let stopping = self.connecting.take().unwrap();
        // What was told to stop is an attempt: who must introduce itself or is refused is told so at once.
        if !stopping && self.attempts == 1 && self.header_in.is_some_and(|left| left > 0) {
            return Event::HeaderDue;
        }
        match self.random.u8(..12) {
            0..3 if self.faulty => {
                faults.connect_failures += 1;
                Event::ConnectFailed
            }
            3 if self.faulty => {
                faults.no_backend += 1;
                Event::NoBackend
            }
            4 if self.faulty && !stopping => {
                faults.refused += 1;
                Event::Refused
            }
            5 if self.faulty && !stopping => {
                faults.clients_gone += 1;
                self.peers[0].reset = true;
                Event::ClientGone
            }
            _ => Event::Connected { header: self.header_for_backend(stopping, faults) },
        }
    }

    fn header_for_backend(&mut self, stopping: bool, faults: &mut Faults) -> Option<Chunk> {
        if self.random.bool() {
            return None;
        }
        let (buffer, length) = (self.next_buffer, self.random.u32(28..108));
        self.next_buffer += 1;
        self.buffers.insert(buffer, (Side::Client, 0));
        if stopping {
            faults.headers_out_unused += 1;
        } else {
            faults.headers_out += 1;
            self.header_out = Some((buffer, length, 0));
        }
        Some(Chunk { buffer, start: 0, length })
    }

    fn read_header(&mut self, faults: &mut Faults) -> Event {
        self.reads_header = false;
        let left = self.header_in.unwrap();
        let come = self.random.u64(0..=left);
        match self.random.u8(..20) {
            0 if self.faulty => {
                faults.headers_refused += 1;
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

    fn is_header_sent(&self) -> bool {
        self.header_out.is_none_or(|(_, length, sent)| length == sent)
    }

    fn receive(&mut self, side: Side, faults: &mut Faults) -> Event {
        let shortage = self.random.u8(..30) == 0;
        let lost_more = self.random.u8(..10) == 0;
        let peer = &mut self.peers[side.index()];
        let operation = peer.receive.unwrap();
        if operation.stopping && self.random.bool() {
            peer.receive = None;
            return Event::ReceiveEnded { side, why: ReceiveEnd::Stopped };
        }
        if peer.reset || peer.reset_at == Some(peer.read) {
            faults.resets[side.index()] += 1;
            faults.resets_before_data += u64::from(peer.read == 0);
            peer.reset = true;
            peer.end_seen = true;
            peer.receive = None;
            return Event::ReceiveEnded { side, why: ReceiveEnd::Reset };
        }
        if peer.read == peer.total {
            peer.end_seen = true;
            peer.receive = None;
            return Event::ReceiveEnded { side, why: ReceiveEnd::Finished };
        }
        if shortage && !operation.private {
            faults.starved += 1;
            peer.receive = None;
            return Event::ReceiveEnded { side, why: ReceiveEnd::Starved };
        }
        faults.late_data_after_stop += u64::from(operation.stopping);
        faults.lost_more += u64::from(lost_more && !operation.private);
        let limit = peer.reset_at.unwrap_or(peer.total) - peer.read;
        let length = if self.random.u8(..3) == 0 { self.random.u64(1..=BUFFER) } else { BUFFER }.min(limit);
        let armed = !operation.private && !lost_more;
        if !armed {
            peer.receive = None;
        }
        let buffer = self.next_buffer;
        self.next_buffer += 1;
        self.buffers.insert(buffer, (side, peer.read));
        peer.read += length;
        let chunk = Chunk { buffer, start: 0, length: u32::try_from(length).unwrap() };
        Event::Received { side, chunk, full: length == BUFFER, armed }
    }

    fn send(&mut self, side: Side, faults: &mut Faults) -> Event {
        let (chunk, stopping) = self.peers[side.index()].send.take().unwrap();
        let resets_now = self.peers[side.index()].reset_at.is_some() && self.random.u8(..200) == 0;
        let peer = &mut self.peers[side.index()];
        peer.reset |= resets_now;
        if peer.reset || (stopping && self.random.bool()) {
            faults.send_failures += 1;
            return Event::SendFailed { side };
        }
        if let Some((buffer, whole, sent)) = self.header_out
            && buffer == chunk.buffer
        {
            assert_eq!((chunk.start, chunk.length, peer.received), (sent, whole - sent, 0), "the header is not first");
            let length = if self.random.u8(..3) == 0 { self.random.u32(0..=chunk.length) } else { chunk.length };
            faults.headers_out_short += u64::from(length < chunk.length);
            self.header_out = Some((buffer, whole, sent + length));
            return Event::Sent { side, length };
        }
        assert!(side == Side::Client || self.is_header_sent(), "data before the whole header");
        let peer = &mut self.peers[side.index()];
        let (source, position) = self.buffers[&chunk.buffer];
        assert_eq!(source, side.other());
        assert_eq!(position + u64::from(chunk.start), peer.received, "bytes out of order, lost or repeated");
        let length = if self.random.u8(..8) == 0 { self.random.u32(0..=chunk.length) } else { chunk.length };
        faults.short_sends += u64::from(length < chunk.length);
        peer.received += u64::from(length);
        Event::Sent { side, length }
    }

    fn splice(&mut self, from: Side, faults: &mut Faults) -> Event {
        let read = self.ways[from.index()].splice.take().unwrap();
        if self.ways[from.index()].pipe.is_none() && self.random.u8(..5) == 0 {
            faults.no_pipe += 1;
            return Event::SpliceUnavailable { from };
        }
        let position = self.peers[from.index()].read;
        let (start, mut held) = self.ways[from.index()].pipe.unwrap_or((position, 0));
        let mut source = Source::Ready;
        if read {
            let peer = &mut self.peers[from.index()];
            let limit = peer.reset_at.unwrap_or(peer.total) - peer.read;
            if peer.reset || (limit == 0 && peer.reset_at.is_some()) {
                faults.resets[from.index()] += 1;
                peer.reset = true;
                peer.end_seen = true;
                source = Source::Reset;
                self.lingered = true;
            } else if limit == 0 {
                peer.end_seen = true;
                source = Source::Finished;
            } else if self.random.u8(..3) == 0 {
                source = Source::Dry;
            } else {
                let length = self.random.u64(1..=PIPE).min(limit).min(PIPE - held);
                peer.read += length;
                held += length;
            }
        }
        let mut destination = Destination::Ready;
        let taken = match self.random.u8(..3) {
            0 => held,
            _ => self.random.u64(0..=held),
        };
        let peer = &mut self.peers[from.other().index()];
        let mut start = start;
        if peer.reset {
            destination = Destination::Reset;
            faults.send_failures += 1;
        } else {
            assert!(held == 0 || start == peer.received, "bytes out of order, lost or repeated");
            peer.received += taken;
            start += taken;
            held -= taken;
            faults.spliced_bytes += taken;
            if held > 0 {
                destination = Destination::Full;
            }
        }
        self.ways[from.index()].pipe = Some((start, held));
        let turn = SpliceTurn { held: u32::try_from(held).unwrap(), source, destination };
        Event::Spliced { from, turn }
    }

    /// Starts what the flow asks for, and checks that it may.
    fn carry_out(&mut self, operations: Vec<Operation>) {
        for operation in operations {
            assert!(self.closed.is_none(), "{operation:?} after the close");
            match operation {
                Operation::Connect => {
                    self.attempts += 1;
                    assert_eq!(self.connecting.replace(false), None);
                }
                Operation::ReadHeader => {
                    let waits = self.ways[Side::Client.index()].wait.is_some();
                    assert!(!waits && self.header_in.is_some_and(|left| left > 0), "reads behind the header");
                    self.reads_header = true;
                }
                Operation::StopConnect => assert_eq!(self.connecting.replace(true), Some(false)),
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
                    let in_use =
                        self.peers.iter().any(|peer| peer.send.is_some_and(|(chunk, _)| chunk.buffer == buffer));
                    assert!(!in_use, "buffer {buffer} freed while it is being sent");
                }
                Operation::Splice { from, read } => {
                    assert!(self.is_header_sent());
                    assert!(
                        self.peers[from.index()].receive.is_none() && self.peers[from.other().index()].send.is_none()
                    );
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
                Operation::Close { reset, ending } => self.closed = Some((reset, ending)),
            }
            let held =
                [Side::Client, Side::Backend].map(|s| self.buffers.values().filter(|(side, _)| *side == s).count());
            assert!(held.iter().all(|&count| count <= 64), "one direction holds too many buffers: {held:?}");
        }
    }

    fn check_end(&self, reset: bool, ending: Ending, faults: &mut Faults) {
        assert!(self.buffers.is_empty(), "buffers are lost: {:?}", self.buffers);
        assert!(self.connecting.is_none());
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
            Ending::NoBackend => assert!(reset && self.faulty && client.read == 0),
            Ending::Refused => assert!(reset && self.faulty && client.read == 0),
            Ending::Aborted => assert!(reset && self.faulty),
        }
        assert!(self.faulty || ending == Ending::Completed, "a healthy connection ended by {ending:?}");
    }
}

#[test]
fn connections_survive_every_order_of_events() {
    let mut faults = Faults::default();
    let wanted = std::env::var("RINGLB_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let base = wanted.unwrap_or_else(|| fastrand::u64(..));
    println!("simulation of {WORLDS} connections, first seed {base}");
    let worlds = if wanted.is_some() { 1 } else { WORLDS };
    for seed in (0..worlds).map(|offset| base.wrapping_add(offset)) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| World::new(seed).run(&mut faults)));
        assert!(outcome.is_ok(), "replay with RINGLB_SEED={seed}");
    }
    println!("{faults:#?}");
    if wanted.is_some() {
        return;
    }
    assert!(faults.steps > 2_000_000, "only {} steps", faults.steps);
    for (name, count) in [
        ("connect failures", faults.connect_failures),
        ("no backend", faults.no_backend),
        ("refusals", faults.refused),
        ("clients that are gone before they are served", faults.clients_gone),
        ("headers of clients", faults.headers_in),
        ("headers in pieces", faults.headers_split),
        ("headers that are refused", faults.headers_refused),
        ("headers that are late", faults.headers_late),
        ("resets within a header", faults.headers_reset),
        ("aborts within a header", faults.aborts_while_introducing),
        ("headers for backends", faults.headers_out),
        ("headers that are sent in pieces", faults.headers_out_short),
        ("headers for an attempt that was given up", faults.headers_out_unused),
        ("starved receives", faults.starved),
        ("lost F_MORE", faults.lost_more),
        ("short sends", faults.short_sends),
        ("client resets", faults.resets[0]),
        ("backend resets", faults.resets[1]),
        ("resets before any data", faults.resets_before_data),
        ("send failures", faults.send_failures),
        ("aborts", faults.aborts),
        ("aborts while connecting", faults.aborts_while_connecting),
        ("data after a stop", faults.late_data_after_stop),
        ("missing pipes", faults.no_pipe),
        ("quiet splices", faults.quiet),
        ("lingers that end", faults.lingers_over),
        ("spliced bytes", faults.spliced_bytes),
        ("completed connections", faults.completed),
    ] {
        assert!(count > 0, "the simulation never had {name}");
    }
}
