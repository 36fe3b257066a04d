//! What one TCP connection does next: events in, operations out. [`datagram`] has the same for UDP.
//!
//! Pure: no descriptor, no ring, no clock. Whoever carries the operations out reports each one's completion as an event,
//! in the order in which it saw them, and does nothing else to the connection.
//!
//! The life of a connection: *connecting* (to one backend after the other, while there is one; it may have to wait for a place)
//! → *relaying* (two directions, each on its own) → *closing* (what is under way is stopped) → closed. Where the client has to
//! say first for whom it speaks, by a PROXY protocol header, *introducing* comes between: the first attempt to connect asks for it.

pub mod age;
pub mod datagram;
mod direction;
mod slot;
pub mod termination;

pub use slot::{GENERATION_MASK, Slot};

use direction::{Direction, End, Mode, Receiving, Step};

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who connected to the VIP.
    Client,
    /// Who serves.
    Backend,
}

/// A piece of data in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The buffer. It is the flow's until [`Operation::Release`].
    pub buffer: u32,
    /// Where the data starts in it.
    pub start: u32,
    /// How many bytes there are.
    pub length: u32,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The connection to the backend is established.
    Connected {
        /// What the backend is to be told before anything that the client says: a PROXY protocol header.
        header: Option<Chunk>,
    },
    /// It could not be established: refused, unreachable, out of time, out of ports.
    ConnectFailed,
    /// There is no backend left to connect to, or no further attempt may be made.
    NoBackend,
    /// The client must introduce itself by a PROXY protocol header before a backend can be picked.
    HeaderDue,
    /// The header has not come whole yet.
    HeaderMissing,
    /// The header has been read, and nothing that lies behind it.
    HeaderRead,
    /// The connection may not come in, or not wait any longer.
    Refused,
    /// The client has ended the connection before it came to anything.
    ClientGone,
    /// Data came. `full`: the buffer was filled. `armed`: the receive goes on.
    Received {
        /// From whom.
        side: Side,
        /// The data.
        chunk: Chunk,
        /// Whether it filled its buffer.
        full: bool,
        /// Whether more may come without another [`Operation::Receive`].
        armed: bool,
    },
    /// The receive is over.
    ReceiveEnded {
        /// Of whom.
        side: Side,
        /// Why.
        why: ReceiveEnd,
    },
    /// The send is over, perhaps with fewer bytes than asked for.
    Sent {
        /// To whom.
        side: Side,
        /// Bytes taken.
        length: u32,
    },
    /// The send is over: nothing can be sent there any more.
    SendFailed {
        /// To whom.
        side: Side,
    },
    /// The splice is over.
    Spliced {
        /// The source.
        from: Side,
        /// What it did.
        turn: SpliceTurn,
    },
    /// There is no pipe for a splice.
    SpliceUnavailable {
        /// The source.
        from: Side,
    },
    /// The wait is over: something is ready, has failed, or the wait was stopped.
    Ready {
        /// The source of the direction that waited.
        from: Side,
    },
    /// A direction that splices has had nothing to do for a while.
    Quiet {
        /// Its source.
        from: Side,
    },
    /// The time that [`Operation::Linger`] asked for has passed.
    LingerOver,
    /// The connection must end with a reset: its backend was removed, its drain is over, or the proxy stops.
    Abort,
}

/// Why a receive is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The other end will send no more.
    Finished,
    /// The other end was reset or cannot be reached.
    Reset,
    /// There was no free buffer (`ENOBUFS`). Never an error of the connection.
    Starved,
    /// It was stopped as asked.
    Stopped,
}

/// What one splice did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpliceTurn {
    /// Bytes in the pipe now.
    pub held: u32,
    /// The state of the source.
    pub source: Source,
    /// The state of the destination.
    pub destination: Destination,
}

/// The state of a splice's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It may have more.
    Ready,
    /// It has nothing now.
    Dry,
    /// It will send no more.
    Finished,
    /// It was reset.
    Reset,
}

/// The state of a splice's destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// It may take more.
    Ready,
    /// It takes nothing now.
    Full,
    /// It was reset.
    Reset,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Let the connection in, pick a backend that has not been tried and connect to it, if another attempt may be made; wait
    /// for a place before, if need be. → `Connected`, `ConnectFailed`, `NoBackend`, `HeaderDue`, `Refused`, `ClientGone`
    Connect,
    /// Give the attempt up. It still reports.
    StopConnect,
    /// Read of the client's header what is there. → `HeaderMissing`, `HeaderRead`, `Refused`, `ClientGone`
    ReadHeader,
    /// Receive from that side until told to stop. → `Received`…, `ReceiveEnded`
    Receive {
        /// From whom.
        side: Side,
        /// Into a buffer of its own, once: the shared ones are used up.
        private: bool,
    },
    /// Stop receiving. What was received meanwhile still comes.
    StopReceive {
        /// From whom.
        side: Side,
    },
    /// Send the chunk. Only one send a side is ever under way. → `Sent`, `SendFailed`
    Send {
        /// To whom.
        side: Side,
        /// The data.
        chunk: Chunk,
    },
    /// Give the send up. It still reports.
    StopSend {
        /// To whom.
        side: Side,
    },
    /// The buffer is free.
    Release {
        /// The buffer.
        buffer: u32,
    },
    /// Splice, once the completions at hand are dealt with. → `Spliced`, `SpliceUnavailable`
    Splice {
        /// The source.
        from: Side,
        /// Whether to read from the source, or only to empty the pipe.
        read: bool,
    },
    /// Wait until the source of a direction can be read. → `Ready`
    AwaitReadable {
        /// The source.
        from: Side,
    },
    /// Wait until the destination of a direction can be written. → `Ready`
    AwaitWritable {
        /// The source.
        from: Side,
    },
    /// Give the wait up. It still reports.
    StopAwait {
        /// The source.
        from: Side,
    },
    /// The direction needs its pipe no longer.
    ClosePipe {
        /// The source.
        from: Side,
    },
    /// Tell that side that no more comes.
    Shutdown {
        /// Whom to tell.
        side: Side,
    },
    /// Report `LingerOver` after a while, if the connection is still there.
    Linger,
    /// Close both descriptors and whatever else belongs to the connection. Nothing is under way any more.
    Close {
        /// Whether to tell both sides by a reset.
        reset: bool,
        /// How the connection ended.
        ending: Ending,
    },
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Both sides said that they were done.
    Completed,
    /// The client reset it.
    ClientReset,
    /// The backend reset it.
    BackendReset,
    /// There was no backend.
    NoBackend,
    /// It was not let in.
    Refused,
    /// It was told to end.
    Aborted,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Flow {
    phase: Phase,
    directions: [Direction; 2],
    /// Who reset the connection while there was still something to deliver.
    reset_by: Option<Side>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// The client's header is read; `waiting` says whether a wait for more of it is under way.
    Introducing {
        waiting: bool,
    },
    Relaying,
    /// Only waits for what is under way; `preparing` says whether an attempt to connect or the wait for a header is.
    Closing {
        preparing: bool,
        reset: bool,
        ending: Ending,
    },
    Closed,
}

impl Flow {
    /// A connection that a client has just opened; asks for the first attempt to connect.
    pub fn new(operations: &mut Vec<Operation>) -> Self {
        operations.push(Operation::Connect);
        Self { phase: Phase::Connecting, directions: [Direction::new(), Direction::new()], reset_by: None }
    }

    /// Takes an event in and adds what is to be done, in this order, to `operations`.
    pub fn on(&mut self, event: Event, operations: &mut Vec<Operation>) {
        match self.phase {
            Phase::Connecting => self.while_connecting(event, operations),
            Phase::Introducing { waiting } => self.while_introducing(waiting, event, operations),
            Phase::Relaying => self.while_relaying(event, operations),
            Phase::Closing { .. } => self.while_closing(event, operations),
            Phase::Closed => {}
        }
    }

    /// Whether the connection still waits for a backend.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    /// Whether one side has said that it is done.
    #[must_use]
    pub fn is_half_closed(&self) -> bool {
        self.directions.iter().any(|direction| direction.end == Some(End::Finished))
    }

    /// Whether the client's header is still being read.
    #[must_use]
    pub fn is_introducing(&self) -> bool {
        matches!(self.phase, Phase::Introducing { .. })
    }

    fn while_connecting(&mut self, event: Event, operations: &mut Vec<Operation>) {
        match event {
            Event::Connected { header } => {
                self.phase = Phase::Relaying;
                self.directions[Side::Client.index()].queue.extend(header);
                self.settle(operations);
            }
            Event::ConnectFailed => operations.push(Operation::Connect),
            Event::HeaderDue => self.await_header(operations),
            Event::NoBackend => self.close(false, true, Ending::NoBackend, operations),
            Event::Refused => self.close(false, true, Ending::Refused, operations),
            Event::ClientGone => self.close(false, true, Ending::ClientReset, operations),
            Event::Abort => {
                operations.push(Operation::StopConnect);
                self.close(true, true, Ending::Aborted, operations);
            }
            _ => {}
        }
    }

    fn while_introducing(&mut self, waiting: bool, event: Event, operations: &mut Vec<Operation>) {
        match event {
            Event::Ready { from: Side::Client } => {
                self.phase = Phase::Introducing { waiting: false };
                operations.push(Operation::ReadHeader);
            }
            Event::HeaderMissing => self.await_header(operations),
            Event::HeaderRead => {
                self.phase = Phase::Connecting;
                operations.push(Operation::Connect);
            }
            Event::Refused | Event::ClientGone | Event::Abort => {
                if waiting {
                    operations.push(Operation::StopAwait { from: Side::Client });
                }
                let ending = match event {
                    Event::Refused => Ending::Refused,
                    Event::ClientGone => Ending::ClientReset,
                    _ => Ending::Aborted,
                };
                self.close(waiting, true, ending, operations);
            }
            _ => {}
        }
    }

    fn await_header(&mut self, operations: &mut Vec<Operation>) {
        self.phase = Phase::Introducing { waiting: true };
        operations.push(Operation::AwaitReadable { from: Side::Client });
    }

    fn while_relaying(&mut self, event: Event, operations: &mut Vec<Operation>) {
        match event {
            Event::Received { side, chunk, full, armed } => {
                let direction = &mut self.directions[side.index()];
                if !armed {
                    direction.receiving = Receiving::Idle;
                }
                direction.starved = false;
                if direction.broken {
                    operations.push(Operation::Release { buffer: chunk.buffer });
                } else {
                    direction.push(chunk, full);
                }
            }
            Event::ReceiveEnded { side, why } => {
                let direction = &mut self.directions[side.index()];
                direction.receiving = Receiving::Idle;
                match why {
                    ReceiveEnd::Finished => direction.end = Some(End::Finished),
                    ReceiveEnd::Reset => self.was_reset(side, Some(side), operations),
                    ReceiveEnd::Starved => direction.starved = true,
                    ReceiveEnd::Stopped => {}
                }
            }
            Event::Sent { side, length } => self.sent(side, length, operations),
            Event::SendFailed { side } => {
                self.finish_send(side, operations);
                self.was_reset(side, None, operations);
            }
            Event::Spliced { from, turn } => self.spliced(from, turn, operations),
            Event::SpliceUnavailable { from } => self.directions[from.index()].copy(Mode::CopyOnly),
            Event::Ready { from } => self.ready(from, operations),
            Event::Quiet { from } => {
                let mode = &mut self.directions[from.index()].mode;
                if let Mode::Splice { held: 0, step: step @ Step::AwaitingSource } = mode {
                    *step = Step::Leaving;
                    operations.push(Operation::StopAwait { from });
                }
            }
            Event::LingerOver | Event::Abort => {
                let ending = self.reset_by.map_or(Ending::Aborted, Side::reset);
                return self.stop(ending, operations);
            }
            Event::Connected { .. }
            | Event::ConnectFailed
            | Event::NoBackend
            | Event::HeaderDue
            | Event::HeaderMissing
            | Event::HeaderRead
            | Event::Refused
            | Event::ClientGone => {}
        }
        self.settle(operations);
    }

    fn sent(&mut self, to: Side, length: u32, operations: &mut Vec<Operation>) {
        let direction = &mut self.directions[to.other().index()];
        if let Some(first) = direction.queue.front_mut()
            && length < first.length
            && !direction.broken
        {
            first.start += length;
            first.length -= length;
            direction.sending = false;
            return;
        }
        self.finish_send(to, operations);
    }

    fn finish_send(&mut self, to: Side, operations: &mut Vec<Operation>) {
        let direction = &mut self.directions[to.other().index()];
        direction.sending = false;
        if let Some(chunk) = direction.queue.pop_front() {
            operations.push(Operation::Release { buffer: chunk.buffer });
        }
    }

    /// `side` was reset. What it sent before is still delivered, as it would be without a proxy between: a server that
    /// answers and closes without reading all must not cost the client the answer. What goes to it is thrown away.
    fn was_reset(&mut self, side: Side, ended: Option<Side>, operations: &mut Vec<Operation>) {
        if let Some(ended) = ended {
            self.directions[ended.index()].end = Some(End::Reset);
        }
        let towards = &mut self.directions[side.other().index()];
        towards.broken = true;
        let keep = usize::from(towards.sending);
        for chunk in towards.queue.drain(keep.min(towards.queue.len())..) {
            operations.push(Operation::Release { buffer: chunk.buffer });
        }
        if self.reset_by.is_none() {
            self.reset_by = Some(side);
            if !self.is_delivered(side) {
                operations.push(Operation::Linger);
            }
        }
    }

    /// Whether nothing that `side` sent is on its way any more.
    fn is_delivered(&self, side: Side) -> bool {
        let direction = &self.directions[side.index()];
        direction.is_ended() && direction.is_flushed() || direction.broken
    }

    fn spliced(&mut self, from: Side, turn: SpliceTurn, operations: &mut Vec<Operation>) {
        let direction = &mut self.directions[from.index()];
        if turn.source == Source::Finished {
            direction.end = Some(End::Finished);
        }
        let ended = direction.end.is_some();
        let step = match turn {
            SpliceTurn { source: Source::Reset, .. } | SpliceTurn { destination: Destination::Reset, .. } => Step::Idle,
            SpliceTurn { held: 0, .. } if ended => Step::Idle,
            SpliceTurn { held: 1.., destination: Destination::Full, .. } => Step::AwaitingDestination,
            SpliceTurn { held: 0, source: Source::Dry, .. } => Step::AwaitingSource,
            _ => Step::Queued,
        };
        direction.mode = Mode::Splice { held: turn.held, step };
        match step {
            Step::Queued => operations.push(Operation::Splice { from, read: !ended }),
            Step::AwaitingSource => operations.push(Operation::AwaitReadable { from }),
            Step::AwaitingDestination => operations.push(Operation::AwaitWritable { from }),
            Step::Idle | Step::Leaving => {}
        }
        if turn.source == Source::Reset {
            self.was_reset(from, Some(from), operations);
            // The pipe cannot be kept apart from a source that failed under it: what it holds goes with it.
            self.directions[from.index()].broken = true;
        } else if turn.destination == Destination::Reset {
            self.was_reset(from.other(), None, operations);
        }
    }

    fn ready(&mut self, from: Side, operations: &mut Vec<Operation>) {
        let direction = &mut self.directions[from.index()];
        let Mode::Splice { held, step } = direction.mode else { return };
        if step == Step::Leaving {
            direction.copy(Mode::Copy);
            operations.push(Operation::ClosePipe { from });
        } else if direction.broken {
            direction.mode = Mode::Splice { held, step: Step::Idle };
        } else {
            direction.mode = Mode::Splice { held, step: Step::Queued };
            operations.push(Operation::Splice { from, read: direction.end.is_none() });
        }
    }

    /// Starts whatever can be started now, and ends the connection if it is over.
    fn settle(&mut self, operations: &mut Vec<Operation>) {
        self.settle_direction(Side::Client, operations);
        self.settle_direction(Side::Backend, operations);
        if self.directions.iter().all(|direction| direction.done) {
            self.close(false, false, Ending::Completed, operations);
        } else if let Some(side) = self.reset_by
            && self.is_delivered(side)
        {
            self.stop(side.reset(), operations);
        }
    }

    fn settle_direction(&mut self, from: Side, operations: &mut Vec<Operation>) {
        let other_done = self.directions[from.other().index()].done;
        let direction = &mut self.directions[from.index()];
        if !direction.sending
            && !direction.broken
            && let Some(&chunk) = direction.queue.front()
        {
            direction.sending = true;
            operations.push(Operation::Send { side: from.other(), chunk });
        }
        if direction.wants_stop() {
            direction.receiving = Receiving::Stopping;
            operations.push(Operation::StopReceive { side: from });
        } else if direction.wants_receive() {
            direction.receiving = Receiving::Armed;
            operations.push(Operation::Receive { side: from, private: direction.starved });
        }
        let at_rest = direction.receiving == Receiving::Idle && direction.is_flushed() && !direction.broken;
        if !at_rest || direction.done {
            return;
        }
        if direction.end == Some(End::Finished) {
            direction.done = true;
            if let Mode::Splice { .. } = direction.mode {
                direction.copy(Mode::CopyOnly);
                operations.push(Operation::ClosePipe { from });
            }
            // The close that follows when both are done says the same as a shutdown.
            if !other_done {
                operations.push(Operation::Shutdown { side: from.other() });
            }
        } else if direction.mode == Mode::ToSplice && direction.end.is_none() {
            direction.mode = Mode::Splice { held: 0, step: Step::Queued };
            operations.push(Operation::Splice { from, read: true });
        }
    }

    /// Stops all that is under way, then closes with a reset.
    fn stop(&mut self, ending: Ending, operations: &mut Vec<Operation>) {
        for side in [Side::Client, Side::Backend] {
            let direction = &mut self.directions[side.index()];
            if direction.receiving == Receiving::Armed {
                direction.receiving = Receiving::Stopping;
                operations.push(Operation::StopReceive { side });
            }
            if direction.sending {
                operations.push(Operation::StopSend { side: side.other() });
            }
            if let Mode::Splice { step: Step::AwaitingSource | Step::AwaitingDestination, .. } = direction.mode {
                operations.push(Operation::StopAwait { from: side });
            }
            let keep = usize::from(direction.sending);
            for chunk in direction.queue.drain(keep.min(direction.queue.len())..) {
                operations.push(Operation::Release { buffer: chunk.buffer });
            }
        }
        self.close(false, true, ending, operations);
    }

    fn close(&mut self, preparing: bool, reset: bool, ending: Ending, operations: &mut Vec<Operation>) {
        self.phase = Phase::Closing { preparing, reset, ending };
        self.close_if_idle(operations);
    }

    fn while_closing(&mut self, event: Event, operations: &mut Vec<Operation>) {
        match event {
            Event::Received { side, chunk, armed, .. } => {
                operations.push(Operation::Release { buffer: chunk.buffer });
                if !armed {
                    self.directions[side.index()].receiving = Receiving::Idle;
                }
            }
            Event::ReceiveEnded { side, .. } => self.directions[side.index()].receiving = Receiving::Idle,
            Event::Sent { side, .. } | Event::SendFailed { side } => self.finish_send(side, operations),
            Event::Spliced { from, .. } | Event::SpliceUnavailable { from } => {
                self.directions[from.index()].copy(Mode::CopyOnly);
            }
            Event::Ready { from } => {
                self.directions[from.index()].copy(Mode::CopyOnly);
                self.is_prepared();
            }
            Event::Connected { header } => {
                operations.extend(header.map(|chunk| Operation::Release { buffer: chunk.buffer }));
                self.is_prepared();
            }
            // An attempt that has succeeded before it was stopped may find that the client is gone.
            Event::ConnectFailed | Event::NoBackend | Event::ClientGone => self.is_prepared(),
            // The answer to an attempt that was told to stop is one of those above.
            Event::HeaderDue
            | Event::HeaderMissing
            | Event::HeaderRead
            | Event::Refused
            | Event::Quiet { .. }
            | Event::LingerOver
            | Event::Abort => {}
        }
        self.close_if_idle(operations);
    }

    /// What was under way before the relaying is over.
    fn is_prepared(&mut self) {
        if let Phase::Closing { preparing, .. } = &mut self.phase {
            *preparing = false;
        }
    }

    fn close_if_idle(&mut self, operations: &mut Vec<Operation>) {
        if let Phase::Closing { preparing: false, reset, ending } = self.phase
            && self.directions.iter().map(Direction::outstanding).sum::<usize>() == 0
        {
            self.phase = Phase::Closed;
            operations.push(Operation::Close { reset, ending });
        }
    }
}

impl Side {
    /// The other end.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }

    /// 0 for the client, 1 for the backend.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Backend => 1,
        }
    }

    fn reset(self) -> Ending {
        match self {
            Self::Client => Ending::ClientReset,
            Self::Backend => Ending::BackendReset,
        }
    }
}

#[cfg(test)]
mod simulation;
