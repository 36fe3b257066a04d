//! Streams: as many bytes as go through, checked on the way.

use super::connection::{ASKING, Connection, Doing, NAME, RECEIVING, SENDING};
use crate::Direction;
use crate::failure::Failure;
use crate::load::arrivals::Arrival;
use crate::load::backoff::Backoff;
use crate::load::run::Run;
use crate::pattern::{self, split_mix};
use crate::protocol::{Command, MAX_NAME, Verdict};
use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

/// The most that is received at a time.
const PIECE: usize = 128 * 1024;
/// Longer than any verdict's line.
const VERDICT: usize = 64;

const ENDING: &str = "waiting for the end of the stream";
const JUDGING: &str = "reading the server's verdict on the stream";

/// Moves streams until there are none left to begin.
pub(in crate::load) async fn work(run: Rc<Run>, direction: Direction, size: Option<u64>) {
    let mut backoff = Backoff::new(&run.options);
    while let Some(arrival) = run.arrivals.next().await {
        let begun = Instant::now();
        let (target, address) = run.target(arrival.index);
        let mut stream = Stream::new(&run, arrival, size);
        match stream.transfer(address, direction).await {
            Ok(first_byte) if stream.complete() => {
                run.succeeded(target, arrival, begun, Some(&stream.backend), first_byte);
                backoff.succeeded();
            }
            Ok(_) => run.recorder.lock().interrupted(),
            Err(failure) => {
                let backend = (!stream.backend.is_empty()).then_some(stream.backend.as_str());
                run.failed(target, backend, &failure);
                backoff.failed().await;
            }
        }
    }
}

/// One stream.
struct Stream<'a> {
    run: &'a Run,
    size: Option<u64>,
    /// Where in the pattern it starts: every stream elsewhere, so that bytes of another do not fit.
    position: u64,
    doing: Doing,
    /// Empty until it is known.
    backend: String,
    sent: Cell<u64>,
    /// Whether all that is to be sent has been.
    sent_all: Cell<bool>,
    received: Cell<u64>,
}

impl<'a> Stream<'a> {
    fn new(run: &'a Run, arrival: Arrival, size: Option<u64>) -> Self {
        Self {
            run,
            size,
            position: split_mix(arrival.index),
            doing: Doing::new(""),
            backend: String::new(),
            sent: Cell::new(0),
            sent_all: Cell::new(false),
            received: Cell::new(0),
        }
    }

    /// Whether all of it was moved. One without a size is complete whenever it has ended well.
    fn complete(&self) -> bool {
        self.size.is_none_or(|size| self.sent.get().max(self.received.get()) >= size)
    }

    /// Moves the stream; returns when the server's first byte came.
    async fn transfer(&mut self, address: SocketAddr, direction: Direction) -> Result<Instant, Failure> {
        let begun = Instant::now();
        let connection = self.in_time(Connection::open(address, self.run.options.source, &self.doing)).await?;
        self.run.recorder.lock().connected(begun.elapsed());
        self.doing.set(ASKING);
        let command = match direction {
            Direction::Up => Command::Discard { position: self.position },
            Direction::Down => Command::Source { bytes: self.size.unwrap_or(0), position: self.position },
            Direction::Both => Command::Echo,
        };
        self.in_time(connection.send(command.line())).await?;
        self.doing.set(NAME);
        let mut buffer = Vec::with_capacity(MAX_NAME + 1);
        let (backend, length) = self.in_time(connection.receive_name(&mut buffer)).await?;
        let first_byte = Instant::now();
        self.run.recorder.lock().opened(&backend);
        self.backend = backend;
        match direction {
            Direction::Up => {
                self.send(&connection).await?;
                self.check_verdict(&connection, buffer.split_off(length)).await?;
            }
            Direction::Down => {
                self.check(&buffer[length..])?;
                self.receive_down(&connection).await?;
            }
            Direction::Both => {
                if length < buffer.len() {
                    return Err(Failure::Mismatch { doing: NAME, position: length as u64 });
                }
                tokio::try_join!(self.send(&connection), self.receive_echo(&connection))?;
            }
        }
        Ok(first_byte)
    }

    /// Sends until the size is reached or the run ends, and ends the direction.
    async fn send(&self, connection: &Connection) -> Result<(), Failure> {
        self.doing.set(SENDING);
        let size = self.size.unwrap_or(u64::MAX);
        while self.sent.get() < size && !self.run.arrivals.stopped() {
            let sent = self.sent.get();
            let position = self.position.wrapping_add(sent);
            let moved = self.in_time(connection.send_pattern(position, size - sent)).await?;
            self.sent.set(sent + moved);
            self.run.recorder.lock().moved(moved, 0);
        }
        self.sent_all.set(true);
        connection.end_sending()
    }

    async fn check_verdict(&self, connection: &Connection, line: Vec<u8>) -> Result<(), Failure> {
        self.doing.set(JUDGING);
        let mut line = line;
        line.reserve(VERDICT);
        loop {
            let before = line.len();
            line = self.in_time(connection.receive(line)).await?;
            if line.len() == before || line.len() >= VERDICT {
                break;
            }
        }
        let sent = self.sent.get();
        match Verdict::parse(&line) {
            Some(Verdict::Received(bytes)) if bytes == sent => Ok(()),
            Some(Verdict::Received(bytes)) => Err(Failure::Mismatch { doing: JUDGING, position: bytes.min(sent) }),
            Some(Verdict::Mismatch(position)) => Err(Failure::Mismatch { doing: JUDGING, position }),
            None => Err(Failure::UnexpectedEnd { doing: JUDGING, received: line.len() as u64 }),
        }
    }

    /// Receives until the server ends. When the run ends, asks the server to.
    async fn receive_down(&self, connection: &Connection) -> Result<(), Failure> {
        self.doing.set(RECEIVING);
        let mut asked = None;
        let mut buffer = Vec::with_capacity(PIECE);
        loop {
            if self.run.arrivals.stopped() && asked.is_none() {
                connection.end_sending()?;
                asked = Some(Instant::now());
                self.doing.set(ENDING);
            }
            if asked.is_some_and(|asked: Instant| asked.elapsed() > self.run.options.timeout) {
                return Err(Failure::Timeout { doing: ENDING, after: self.run.options.timeout });
            }
            buffer.clear();
            buffer = self.in_time(connection.receive(buffer)).await?;
            if buffer.is_empty() {
                return self.check_end(asked.is_some());
            }
            self.check(&buffer)?;
        }
    }

    fn check_end(&self, cut_short: bool) -> Result<(), Failure> {
        let received = self.received.get();
        match self.size {
            _ if cut_short => Ok(()),
            Some(size) if size == received => Ok(()),
            _ => Err(Failure::UnexpectedEnd { doing: RECEIVING, received }),
        }
    }

    /// Receives what comes back until the server ends, and sees that it is all that was sent.
    async fn receive_echo(&self, connection: &Connection) -> Result<(), Failure> {
        let mut buffer = Vec::with_capacity(PIECE);
        loop {
            buffer.clear();
            buffer = self.in_time(connection.receive(buffer)).await?;
            if buffer.is_empty() {
                break;
            }
            self.check(&buffer)?;
            if self.sent_all.get() && self.received.get() > self.sent.get() {
                return Err(Failure::Mismatch { doing: RECEIVING, position: self.sent.get() });
            }
        }
        if self.received.get() < self.sent.get() {
            return Err(Failure::UnexpectedEnd { doing: RECEIVING, received: self.received.get() });
        }
        Ok(())
    }

    /// Checks and counts what was received.
    fn check(&self, bytes: &[u8]) -> Result<(), Failure> {
        let received = self.received.get();
        if let Some(index) = pattern::first_difference(self.position.wrapping_add(received), bytes) {
            return Err(Failure::Mismatch { doing: RECEIVING, position: received + index as u64 });
        }
        let now = received + bytes.len() as u64;
        if self.size.is_some_and(|size| now > size) {
            return Err(Failure::Mismatch { doing: RECEIVING, position: received });
        }
        self.received.set(now);
        self.run.recorder.lock().moved(0, bytes.len() as u64);
        Ok(())
    }

    /// Lets a step take no longer than the timeout.
    async fn in_time<T>(&self, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let after = self.run.options.timeout;
        tokio::time::timeout(after, step).await.unwrap_or(Err(Failure::Timeout { doing: self.doing.get(), after }))
    }
}
