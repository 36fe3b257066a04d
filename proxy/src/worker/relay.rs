//! Moving a connection's data, and closing it.

use super::accept::reset_on_close;
use super::connections::{Connection, Introduction, Private};
use super::passing::Passing;
use super::{Error, Timer, Worker};
use crate::flow::{Chunk, Ending, Event, Operation, ReceiveEnd, Side};
use crate::ring::{BUFFER_SIZE, Completion, Kind, Slot, Token};
use nix::errno::Errno;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a connection that was reset on one side may go on delivering what it had sent before.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// A splicing direction without data for so long gives its pipe back.
const QUIET: Duration = Duration::from_secs(1);

impl Worker {
    /// What a completion means to its connection; `None` if that is gone.
    pub(super) fn event_of(&mut self, slot: Slot, kind: Kind, completion: &Completion) -> Option<Event> {
        let tick = self.tick();
        let connection = self.connections.get(slot)?;
        Some(match kind {
            Kind::Connect => match completion.result {
                Ok(_) => self.connected(slot),
                Err(errno) => {
                    self.fail_attempt(slot, errno);
                    Event::ConnectFailed
                }
            },
            Kind::Receive(side) => {
                let event = received(side, completion);
                self.note_received(slot, event);
                if let (Event::ReceiveEnded { .. }, Some(buffer)) = (event, completion.buffer) {
                    self.ring.release(buffer);
                }
                if completion.result == Err(Errno::ENOBUFS) {
                    self.thread.counters.buffers_exhausted.add(1);
                }
                event
            }
            Kind::ReceivePrivate(side) => {
                let Private::Into(buffer) = std::mem::replace(&mut connection.private[side.index()], Private::No)
                else {
                    return Some(Event::ReceiveEnded { side, why: ReceiveEnd::Stopped });
                };
                let event = received_private(side, completion, buffer);
                if let Event::ReceiveEnded { .. } = event {
                    self.ring.release(buffer);
                }
                self.note_received(slot, event);
                event
            }
            Kind::Send(side) => match completion.result {
                Ok(length) => {
                    connection.moved = tick;
                    let payload = connection.take_payload(side, length);
                    count_bytes(connection, side, payload);
                    connection.help_to_pass(self.now);
                    Event::Sent { side, length }
                }
                Err(_) => Event::SendFailed { side },
            },
            Kind::Await(from) => Event::Ready { from },
        })
    }

    /// Takes note of bytes that have come, before they go on. Many make the connection a busy one.
    fn note_received(&mut self, slot: Slot, event: Event) {
        let Event::Received { side, chunk, .. } = event else { return };
        if let Some(connection) = self.connections.get(slot) {
            if connection.read == [0; 2] {
                connection.note_first_speaker(side);
            }
            let passing = connection.passing.as_deref();
            note_read(&mut connection.read[side.index()], passing, side, chunk.length as usize);
        }
        self.consider_connection(slot);
    }

    /// Carries out an operation that moves data.
    pub(super) fn relay(&mut self, slot: Slot, operation: Operation) -> Result<(), Error> {
        let Some(connection) = self.connections.get(slot) else { return Ok(()) };
        let token = |kind| Token::Connection { kind, slot };
        match operation {
            Operation::Receive { side, private: false } => {
                self.ring.receive(token(Kind::Receive(side)), connection.descriptor(side))?;
            }
            Operation::Receive { side, private: true } => {
                let descriptor = connection.descriptor(side);
                connection.private[side.index()] =
                    match self.ring.receive_private(token(Kind::ReceivePrivate(side)), descriptor)? {
                        Some(buffer) => Private::Into(buffer),
                        None => {
                            self.starved.push_back((slot, side));
                            Private::Waiting
                        }
                    };
            }
            Operation::StopReceive { side } => match connection.private[side.index()] {
                Private::No => self.stop(slot, Kind::Receive(side))?,
                Private::Into(_) => self.stop(slot, Kind::ReceivePrivate(side))?,
                Private::Waiting => {
                    connection.private[side.index()] = Private::No;
                    self.events.push_back(Event::ReceiveEnded { side, why: ReceiveEnd::Stopped });
                }
            },
            Operation::Send { side, chunk } => {
                self.ring.send(token(Kind::Send(side)), connection.descriptor(side), chunk)?;
            }
            Operation::StopSend { side } => self.stop(slot, Kind::Send(side))?,
            Operation::Release { buffer } => self.ring.release(buffer),
            Operation::Splice { from, read } => self.splices.push_back((slot, from, read)),
            Operation::AwaitReadable { from } => {
                self.ring.await_readable(token(Kind::Await(from)), connection.descriptor(from))?;
            }
            Operation::AwaitWritable { from } => {
                self.ring.await_writable(token(Kind::Await(from)), connection.descriptor(from.other()))?;
            }
            Operation::StopAwait { from } => self.stop(slot, Kind::Await(from))?,
            Operation::ClosePipe { from } => {
                if let Some(leased) = connection.pipes[from.index()].take() {
                    self.pipes.give_back(&self.shared.pipes, *leased);
                }
            }
            Operation::Shutdown { side } => {
                if let Some(socket) = &connection.sockets[side.index()] {
                    // It fails only if the other end has reset the connection, which the next receive reports.
                    let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write);
                }
            }
            Operation::Connect
            | Operation::StopConnect
            | Operation::ReadHeader
            | Operation::Linger
            | Operation::Close { .. } => {}
        }
        Ok(())
    }

    pub(super) fn close(&mut self, slot: Slot, reset: bool, ending: Ending) {
        self.leave_queue(slot);
        let Some(mut connection) = self.connections.remove(slot) else { return };
        let can_be_used_again = ending == Ending::Completed && self.leaves_sockets_as_they_were(&connection);
        self.end_passing_of(&mut connection);
        self.record(&connection, ending);
        if let Introduction::Reading(reading) = &connection.introduction {
            self.waits.remove(&(reading.deadline, slot.index));
        }
        for leased in connection.pipes.into_iter().flatten() {
            self.pipes.give_back(&self.shared.pipes, *leased);
        }
        if reset {
            connection.sockets.iter().flatten().for_each(reset_on_close);
        }
        // The descriptors first: whoever is let in instead needs them.
        let [client, backend] = connection.sockets;
        drop(client);
        if can_be_used_again && let (Some(attempt), Some(socket)) = (&connection.backend, backend) {
            self.keep_used_socket(attempt.address, socket);
        }
        self.give_back(connection.backend, connection.admitted);
        self.thread.leave();
        self.shared.connections.give_back();
    }

    /// Moves the data of every direction whose splice is due, once each.
    pub(super) fn splice(&mut self) -> Result<(), Error> {
        for _ in 0..self.splices.len() {
            let Some((slot, from, read)) = self.splices.pop_front() else { break };
            if let Some(event) = self.splice_one(slot, from, read) {
                self.deliver(slot, event)?;
            }
        }
        Ok(())
    }

    fn splice_one(&mut self, slot: Slot, from: Side, read: bool) -> Option<Event> {
        let tick = self.tick();
        let connection = self.connections.get(slot)?;
        let pipe = &mut connection.pipes[from.index()];
        if pipe.is_none() {
            *pipe = self.pipes.lease(&self.shared.pipes, self.now);
            if pipe.is_some() {
                self.thread.counters.spliced_directions.add(1);
            }
        }
        let [Some(client), Some(backend)] = &connection.sockets else {
            return Some(Event::SpliceUnavailable { from });
        };
        let Some(leased) = pipe else {
            return Some(Event::SpliceUnavailable { from });
        };
        let (source, destination) = if from == Side::Client { (client, backend) } else { (backend, client) };
        let (read_so_far, passing) = (&mut connection.read[from.index()], &connection.passing);
        let (turn, moved) = leased.pipe.turn(source.as_fd(), destination.as_fd(), read, |bytes| {
            note_read(read_so_far, passing.as_deref(), from, bytes);
        });
        if moved > 0 {
            leased.moved_at = self.now;
            connection.moved = tick;
        }
        self.thread.counters.spliced_bytes.add(moved as u64);
        count_bytes(connection, from.other(), moved as u64);
        if moved > 0 {
            connection.help_to_pass(self.now);
            self.consider_connection(slot);
        }
        if !self.quiet_timer {
            self.quiet_timer = true;
            self.timers.add(self.now, QUIET, Timer::Quiet);
        }
        Some(Event::Spliced { from, turn })
    }

    /// Tells the splicing directions that have had nothing to do for a while, so that they give their pipes back.
    pub(super) fn find_quiet(&mut self) -> Result<(), Error> {
        self.quiet_timer = self.pipes.are_leased();
        if !self.quiet_timer {
            return Ok(());
        }
        self.timers.add(self.now, QUIET, Timer::Quiet);
        let now = self.now;
        let is_quiet = |connection: &Connection, side: Side| {
            connection.pipes[side.index()].as_ref().is_some_and(|leased| now - leased.moved_at >= QUIET)
        };
        for side in [Side::Client, Side::Backend] {
            for slot in self.connections.find(|connection| is_quiet(connection, side)) {
                self.deliver(slot, Event::Quiet { from: side })?;
            }
        }
        Ok(())
    }

    /// Gives buffers that have become free to receives that wait for one, first come, first served.
    pub(super) fn feed_starved(&mut self) -> Result<(), Error> {
        while let Some(&(slot, side)) = self.starved.front() {
            let waits = |connection: &mut Connection| connection.private[side.index()] == Private::Waiting;
            if self.connections.get(slot).is_some_and(waits) {
                let Some(connection) = self.connections.get(slot) else { break };
                let token = Token::Connection { kind: Kind::ReceivePrivate(side), slot };
                let descriptor = connection.descriptor(side);
                let Some(buffer) = self.ring.receive_private(token, descriptor)? else { break };
                connection.private[side.index()] = Private::Into(buffer);
            }
            self.starved.pop_front();
        }
        Ok(())
    }
}

/// What a completed receive into shared buffers means.
fn received(side: Side, completion: &Completion) -> Event {
    let ended = |why| Event::ReceiveEnded { side, why };
    match (completion.result, completion.buffer) {
        (Ok(length @ 1..), Some(buffer)) => Event::Received {
            side,
            chunk: Chunk { buffer, start: 0, length },
            full: length as usize == BUFFER_SIZE,
            armed: completion.more,
        },
        (Ok(_), _) => ended(ReceiveEnd::Finished),
        (Err(Errno::ENOBUFS), _) => ended(ReceiveEnd::Starved),
        (Err(Errno::ECANCELED | Errno::EINTR), _) => ended(ReceiveEnd::Stopped),
        (Err(_), _) => ended(ReceiveEnd::Reset),
    }
}

/// What a completed receive into a private buffer means.
fn received_private(side: Side, completion: &Completion, buffer: u32) -> Event {
    let with_buffer =
        Completion { token: completion.token, result: completion.result, more: false, buffer: Some(buffer) };
    received(side, &with_buffer)
}

impl Connection {
    /// How many of the bytes sent to that side are not the header's.
    fn take_payload(&mut self, to: Side, length: u32) -> u64 {
        if to == Side::Client || self.header_left == 0 {
            return length.into();
        }
        let header = length.min(self.header_left.into());
        self.header_left = self.header_left.saturating_sub(u8::try_from(header).unwrap_or(u8::MAX));
        u64::from(length - header)
    }
}

fn note_read(so_far: &mut u32, passing: Option<&Passing>, from: Side, bytes: usize) {
    *so_far = so_far.wrapping_add(bytes as u32);
    if let Some(passing) = passing {
        passing.note_read(from, *so_far);
    }
}

pub(super) fn count_bytes(connection: &mut Connection, to: Side, bytes: u64) {
    connection.sent[to.index()] += bytes;
    if let Some(attempt) = &connection.backend {
        let counter = match to {
            Side::Client => &attempt.identity.bytes_to_client,
            Side::Backend => &attempt.identity.bytes_to_backend,
        };
        counter.fetch_add(bytes, Ordering::Relaxed);
    }
}
