//! A client: a socket, and what was sent and received over it.

use super::answers::{Answers, Kind};
use super::context::Context;
use super::socket::Socket;
use crate::datagram::Stamp;
use crate::failure::Failure;
use crate::load::arrivals::Arrival;
use crate::record::{Recorder, Success};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

const SENDING: &str = "sending";
const RECEIVING: &str = "waiting for the answer";

/// A client.
pub(super) struct Client {
    context: Rc<Context>,
    socket: Socket,
    number: u32,
    target: usize,
    answers: RefCell<Answers>,
    /// The server that answered last; empty if none has told its name.
    backend: RefCell<String>,
    explained: Cell<u64>,
}

/// What was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    /// An answer that was waited for.
    Expected,
    /// Something that was changed on its way, from this byte on.
    Corrupt(u64),
    /// Something that nobody waits for.
    Other,
}

impl Client {
    /// A client, by its number in the run, that sends to a target, by its number in the options.
    pub(super) fn new(context: Rc<Context>, socket: Socket, number: u64, target: usize) -> Self {
        Self {
            context,
            socket,
            number: u32::try_from(number).unwrap_or(u32::MAX),
            target,
            answers: RefCell::default(),
            backend: RefCell::default(),
            explained: Cell::default(),
        }
    }

    /// A client with a new socket.
    pub(super) fn open(
        context: &Rc<Context>,
        number: u64,
        target: usize,
        address: SocketAddr,
    ) -> Result<Self, Failure> {
        let socket = Socket::open(address, context.run.options.source)?;
        context.run.recorder.lock().socket_opened();
        Ok(Self::new(Rc::clone(context), socket, number, target))
    }

    /// Sends a datagram and waits for its answer. Counts the answer; the failure is left to the caller.
    pub(super) async fn request(&self, arrival: Arrival) -> Result<(), Failure> {
        let sequence = self.send(arrival).await?;
        let after = self.context.run.options.timeout;
        let failure = match tokio::time::timeout(after, self.answer()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => failure,
            Err(_) => {
                self.context.run.recorder.lock().datagrams().lost += 1;
                Failure::Timeout { doing: RECEIVING, after }
            }
        };
        self.answers.borrow_mut().give_up(sequence);
        Err(failure)
    }

    /// Sends a datagram; returns its sequence number.
    pub(super) async fn send(&self, arrival: Arrival) -> Result<u64, Failure> {
        let context = &self.context;
        if context.run.options.rate.is_some() {
            context.run.recorder.lock().waited(arrival.intended.elapsed());
        }
        let sequence = self.answers.borrow().next();
        let stamp = context.stamp(self.number, sequence, arrival.intended);
        let write = |datagram: &mut Vec<u8>| context.layout.write(stamp, datagram);
        let sent = self.socket.send(&context.outgoing, write).await.map_err(|source| Failure::io(SENDING, source))?;
        let given_up = self.answers.borrow_mut().sent();
        let mut recorder = context.run.recorder.lock();
        recorder.datagrams().sent += 1;
        recorder.moved(sent as u64, 0);
        drop(recorder);
        self.count_lost(given_up);
        Ok(sequence)
    }

    /// Waits for the answer to the only datagram that is not answered.
    async fn answer(&self) -> Result<(), Failure> {
        loop {
            match self.receive().await? {
                Received::Expected => return Ok(()),
                Received::Corrupt(position) => return Err(Failure::Mismatch { doing: RECEIVING, position }),
                Received::Other => {}
            }
        }
    }

    /// Receives and counts whatever comes next.
    pub(super) async fn receive_any(&self) -> Result<(), Failure> {
        match self.receive().await? {
            Received::Expected | Received::Other => Ok(()),
            Received::Corrupt(position) => Err(Failure::Mismatch { doing: RECEIVING, position }),
        }
    }

    /// Counts a failure of this client.
    pub(super) fn failed(&self, failure: &Failure) {
        self.context.run.failed(self.target, self.backend().as_deref(), failure);
    }

    /// Datagrams that are not answered and not given up.
    pub(super) fn waiting(&self) -> u64 {
        self.answers.borrow().waiting()
    }

    /// A failure that was counted is why one of the datagrams will not be answered: it is not to be counted again.
    pub(super) fn explains_a_loss(&self) {
        self.explained.set(self.explained.get() + 1);
    }

    /// Counts datagrams as lost.
    pub(super) fn count_lost(&self, count: u64) {
        let explained = self.explained.get().min(count);
        self.explained.set(self.explained.get() - explained);
        let count = count - explained;
        if count == 0 {
            return;
        }
        let failure = Failure::Timeout { doing: RECEIVING, after: self.context.run.options.timeout };
        let mut recorder = self.context.run.recorder.lock();
        recorder.datagrams().lost += count;
        recorder.failures(self.target, self.backend().as_deref(), &failure, Instant::now(), count);
    }

    fn backend(&self) -> Option<String> {
        let backend = self.backend.borrow();
        (!backend.is_empty()).then(|| backend.clone())
    }

    async fn receive(&self) -> Result<Received, Failure> {
        let received = self.socket.receive(&self.context.incoming, |bytes| self.judge(bytes)).await;
        received.map_err(|source| Failure::io(RECEIVING, source))
    }

    fn judge(&self, bytes: &[u8]) -> Received {
        let now = Instant::now();
        let mut recorder = self.context.run.recorder.lock();
        recorder.datagrams().received += 1;
        let answer = match self.context.layout.read(bytes) {
            Ok(answer) => answer,
            Err(position) => {
                recorder.datagrams().corrupt += 1;
                return Received::Corrupt(position as u64);
            }
        };
        let (kind, reordered) = if self.context.is_of(answer.stamp, self.number) {
            self.answers.borrow_mut().answered(answer.stamp.sequence)
        } else {
            (Kind::Impossible, false)
        };
        let counts = recorder.datagrams();
        counts.reordered += u64::from(reordered);
        match kind {
            Kind::Impossible => counts.foreign += 1,
            Kind::Duplicate => counts.duplicates += 1,
            Kind::Late => counts.late += 1,
            Kind::Expected => {
                recorder.moved(0, bytes.len() as u64);
                self.succeeded(&mut recorder, answer.stamp, answer.name, now);
                return Received::Expected;
            }
        }
        Received::Other
    }

    fn succeeded(&self, recorder: &mut Recorder, stamp: Stamp, name: Option<&str>, now: Instant) {
        if let Some(name) = name
            && *self.backend.borrow() != name
        {
            name.clone_into(&mut self.backend.borrow_mut());
            recorder.opened(name);
        }
        recorder.success(&Success {
            target: self.target,
            backend: name,
            wait: None,
            first_byte: None,
            total: self.context.since(stamp, now),
            ended: now,
        });
    }
}
