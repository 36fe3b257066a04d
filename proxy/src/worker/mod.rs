//! A data thread: completions → flow → operations.
//!
//! One turn of the loop: submit what is due and wait; let each completion become an event of its connection and carry out
//! what the connection's flow asks for; splice; fire timers; read orders. A connection's story, in the order of the
//! files: `accept` takes it in, `introduce` reads who it is, `admit` lets it in, `connect` finds it a backend (with what
//! `used_sockets` and `first_bytes` save), `relay` moves its data and closes it, `record` keeps what remains. UDP has its own
//! story in `datagrams`. The sockets of published ports come and go in `ports`; all sockets go in `retire`, when another proxy
//! has taken over.

mod accept;
mod admit;
mod ageing;
mod clock;
mod connect;
mod connections;
mod datagrams;
mod first_bytes;
mod introduce;
mod limits;
mod orders;
mod passing;
mod pipes;
mod ports;
mod record;
mod relay;
mod retire;
mod sockets;
mod timers;
mod used_sockets;

pub(crate) use accept::prepare as prepare_listener;
pub(crate) use datagrams::prepare as prepare_datagrams;
pub use limits::Limits;

use crate::control::message::Port;
use crate::flow::termination::Cause;
use crate::flow::{Event, Operation, Side};
use crate::privileges;
use crate::ring::{self, Completion, Kind, Ring, Slot, Token};
use crate::shared::{DataThread, Shared};
use accept::{Accepting, Refusals};
use admit::Waits;
use clock::{Moment, Tick};
use connect::PendingAttempt;
use connections::Connections;
use datagrams::{Datagrams, Receiving};
use first_bytes::Unheard;
use passing::Passings;
use pipes::Pipes;
use sockets::Sockets;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use timers::{Timer, Timers};
use used_sockets::UsedSockets;

/// How a worker works.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long to look for completions before sleeping; zero to sleep at once.
    pub spin: Duration,
    /// Whether one accept operation may deliver many connections.
    pub multishot_accept: bool,
}

/// Why a data thread ended.
#[derive(Debug, Error)]
pub enum Error {
    /// The ring failed.
    #[error(transparent)]
    Ring(#[from] ring::Error),
    /// A listener cannot be used.
    #[error("cannot accept connections from a listener that was handed over: {0}")]
    Listener(nix::Error),
    /// What only the set-up needs cannot be given up.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    /// A steered UDP socket cannot be used.
    #[error("cannot receive datagrams from a UDP socket that was handed over: {0}")]
    Datagrams(nix::Error),
}

/// A data thread's state. All but the first two fields is its own.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    /// This thread's part of the shared state.
    thread: Arc<DataThread>,
    /// Its place among all threads.
    index: usize,
    settings: Settings,
    ring: Ring,
    listeners: Sockets<Accepting>,
    /// The places of the sockets of published ports, among the listeners or the UDP sockets.
    ports: HashMap<Port, Vec<u32>>,
    /// Whether there has been a table, so that connections are accepted.
    accepting: bool,
    refusals: Refusals,
    connections: Connections,
    datagrams: Datagrams,
    pipes: Pipes,
    used_sockets: UsedSockets,
    /// Whether [`Timer::UsedSockets`] is set.
    reviews_used_sockets: bool,
    timers: Timers,
    /// Attempts to connect, in the order in which they began, that are not known to be over.
    attempts: VecDeque<PendingAttempt>,
    /// Connections that wait for a place or a header.
    waits: Waits,
    /// Established connections of which their backends do not know, in the order in which they were established.
    unheard: VecDeque<Unheard>,
    /// Connections that have not yet lasted long, with the time at which they were established.
    young: VecDeque<(Slot, Instant)>,
    /// Whether ages will be looked at.
    watches_ages: bool,
    passings: Passings,
    /// Splices that are due, by connection and source, and whether to read.
    splices: VecDeque<(Slot, Side, bool)>,
    /// Receives that wait for a buffer.
    starved: VecDeque<(Slot, Side)>,
    random: fastrand::Rng,
    /// The time of this turn.
    now: Instant,
    quiet_timer: bool,
    stopping: bool,
    /// Kept from event to event, so that none allocates.
    operations: Vec<Operation>,
    events: VecDeque<Event>,
}

impl Worker {
    /// A worker that serves the connections of `listeners` and the UDP sessions of `datagrams`, which are its own or members
    /// of groups that spread connections and sessions (`SO_REUSEPORT`, socket(7)). It must run on the calling thread.
    ///
    /// # Errors
    /// If the ring cannot be set up or a listener cannot be used.
    pub fn new(
        shared: Arc<Shared>,
        thread: Arc<DataThread>,
        settings: Settings,
        listeners: Vec<Arc<OwnedFd>>,
        datagrams: Vec<Arc<OwnedFd>>,
    ) -> Result<Self, Error> {
        Ok(Self {
            ring: Ring::new(settings.spin)?,
            pipes: Pipes::new(&shared.pipes, shared.threads.len()),
            used_sockets: UsedSockets::new(shared.used_sockets),
            reviews_used_sockets: false,
            index: shared.threads.iter().position(|other| Arc::ptr_eq(other, &thread)).unwrap_or_default(),
            shared,
            thread,
            settings,
            listeners: listeners.into_iter().map(Accepting::steered).collect::<Result<_, _>>()?,
            ports: HashMap::new(),
            accepting: false,
            refusals: Refusals::default(),
            connections: Connections::default(),
            datagrams: Datagrams::new(datagrams.into_iter().map(Receiving::steered).collect::<Result<_, _>>()?),
            timers: Timers::default(),
            attempts: VecDeque::new(),
            waits: Waits::new(),
            unheard: VecDeque::new(),
            young: VecDeque::new(),
            watches_ages: false,
            passings: Passings::default(),
            splices: VecDeque::new(),
            starved: VecDeque::new(),
            random: fastrand::Rng::new(),
            now: Instant::now(),
            quiet_timer: false,
            stopping: false,
            operations: Vec::new(),
            events: VecDeque::new(),
        })
    }

    /// Serves from the first table on until told to stop.
    ///
    /// # Errors
    /// If the ring or a listener fails for good.
    pub fn run(mut self) -> Result<(), Error> {
        self.ring.read_wake(self.thread.mailbox.wake().as_fd().as_raw_fd())?;
        while !(self.stopping && self.connections.len() == 0) {
            let may_wait = self.splices.is_empty() && !self.thread.mailbox.is_full();
            let deadlines = [
                self.timers.next(),
                self.next_review(),
                self.next_unheard(),
                self.next_grown(),
                self.next_wait(),
                self.datagrams.next_expiry(),
            ];
            let deadline = deadlines.into_iter().flatten().min();
            self.ring.turn(deadline, may_wait)?;
            self.now = Instant::now();
            while let Some(completion) = self.ring.next_completion() {
                self.complete(completion)?;
            }
            self.begin_passings()?;
            self.splice()?;
            self.review_attempts();
            self.review_unheard();
            self.review_young();
            self.end_waits()?;
            self.expire_sessions()?;
            while let Some(timer) = self.timers.pop(self.now) {
                self.fire(timer)?;
            }
            if self.thread.mailbox.is_full() {
                self.read_orders()?;
            }
            // Last: an order can be the only thing that has happened.
            self.go_on_handing_over()?;
            self.publish_counts();
        }
        Ok(())
    }

    fn complete(&mut self, completion: Completion) -> Result<(), Error> {
        match completion.token {
            Some(Token::Accept { listener }) => self.accepted(listener, completion),
            Some(Token::Datagrams { socket }) => self.datagrams_came(socket, &completion),
            Some(Token::Session { slot }) => self.session_heard(slot, &completion),
            Some(Token::Wake) => Ok(self.ring.read_wake(self.thread.mailbox.wake().as_fd().as_raw_fd())?),
            Some(Token::Connection { kind, slot }) => self.progress(slot, kind, &completion),
            Some(Token::Cancel) | None => Ok(()),
        }
    }

    fn progress(&mut self, slot: Slot, kind: Kind, completion: &Completion) -> Result<(), Error> {
        let Some(event) = self.event_of(slot, kind, completion) else {
            // The connection is gone. Its buffer is not.
            if let Some(buffer) = completion.buffer {
                self.ring.release(buffer);
            }
            return Ok(());
        };
        self.deliver(slot, event)
    }

    /// Tells the connection what happened and carries out what it asks for.
    fn deliver(&mut self, slot: Slot, event: Event) -> Result<(), Error> {
        let mut operations = std::mem::take(&mut self.operations);
        let mut next = Some(event);
        while let Some(event) = next {
            if let Some(connection) = self.connections.get(slot) {
                connection.flow.on(event, &mut operations);
            }
            self.carry_out(slot, &mut operations)?;
            next = self.events.pop_front();
        }
        self.operations = operations;
        self.feed_starved()
    }

    /// Carries operations out. What completes at once is queued in `self.events`.
    fn carry_out(&mut self, slot: Slot, operations: &mut Vec<Operation>) -> Result<(), Error> {
        for operation in operations.drain(..) {
            match operation {
                Operation::Connect => self.connect(slot)?,
                Operation::StopConnect => self.stop_connecting(slot)?,
                Operation::ReadHeader => self.read_header(slot),
                Operation::Linger => self.timers.add(self.now, relay::LINGER, Timer::Linger { slot }),
                Operation::Close { reset, ending } => self.close(slot, reset, ending),
                other => self.relay(slot, other)?,
            }
        }
        Ok(())
    }

    /// Ends a connection with a reset, and counts that.
    fn abort(&mut self, slot: Slot, cause: Cause) -> Result<(), Error> {
        let counters = &self.thread.counters;
        match cause {
            Cause::Removed => counters.removed_resets.add(1),
            Cause::Drained => counters.drain_resets.add(1),
            Cause::Idle => counters.idle_resets.add(1),
            Cause::Lifetime => counters.lifetime_resets.add(1),
            // The end of the proxy is the end of its counters; the others find no backend, which is counted there.
            _ => {}
        }
        if let Some(connection) = self.connections.get(slot) {
            connection.cause = Some(cause);
        }
        self.deliver(slot, Event::Abort)
    }

    fn moment(&self) -> Moment {
        Moment::at(self.now, self.shared.started)
    }

    fn tick(&self) -> Tick {
        Tick::at(self.now, self.shared.started)
    }

    fn stop(&mut self, slot: Slot, kind: Kind) -> Result<(), Error> {
        Ok(self.ring.cancel(Token::Connection { kind, slot })?)
    }

    fn fire(&mut self, timer: Timer) -> Result<(), Error> {
        match timer {
            Timer::Connect { slot, attempt } => self.connect_timed_out(slot, attempt),
            Timer::Linger { slot } => self.deliver(slot, Event::LingerOver),
            Timer::Drain { identity, note } => self.drain_timed_out(&identity, note),
            Timer::Accept { listener } => self.accept_again(listener),
            Timer::Datagrams { socket } => self.receive_datagrams(socket),
            Timer::Quiet => self.find_quiet(),
            Timer::UsedSockets => {
                self.review_used_sockets();
                Ok(())
            }
            Timer::Passings => self.look_at_passings(),
            Timer::PassingConnections => {
                self.look_at_connections();
                Ok(())
            }
            Timer::Age => self.sweep_ages(),
        }
    }

    fn publish_counts(&self) {
        let counts = self.ring.counts();
        let counters = &self.thread.counters;
        counters.enters.set(counts.enters);
        counters.completion_overflows.set(counts.overflows);
    }
}
