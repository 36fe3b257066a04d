//! Finding a backend.

use super::accept::reset_on_close;
use super::admit::call_next;
use super::connections::{Attempt, Connection};
use super::first_bytes::acknowledge_with_data;
use super::introduce::Known;
use super::{Error, Timer, Worker};
use crate::admission::Refusal;
use crate::balance::{self, Taken};
use crate::control::settings::{AccessLogFormat, ProxyProtocol, Queue};
use crate::flow::Event;
use crate::flow::termination::Cause;
use crate::proxy_protocol::Version;
use crate::ring::{Kind, Slot, Token};
use nix::errno::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Nearly every attempt is over after this. Only the others get a timer, so that memory for timers is bounded by the
/// connections that wait, not by the rate of new ones times the timeout.
const MOMENT: Duration = Duration::from_millis(5);

/// An attempt to connect that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingAttempt {
    slot: Slot,
    attempt: u8,
    started: Instant,
    timeout: Duration,
}

/// What is to be done for a connection that wants a backend.
enum Choice {
    /// Connect to this one, at which the connection is counted in.
    Attempt(Chosen),
    /// Wait for a place.
    Wait(Queue),
    /// There is none, for this reason.
    Without(Cause),
    /// Nothing of all that: this happened.
    Nothing(Event),
    /// Refuse it.
    Refused(Refusal),
}

/// What was found for an attempt.
struct Chosen {
    attempt: Attempt,
    timeout: Duration,
    /// Whether the service's connections can end because of their age.
    ages: bool,
}

impl Worker {
    /// Lets the connection in, picks a backend in the newest table and starts to connect to it. A connection that waits for a
    /// place goes on waiting unless it is its turn and there is one.
    pub(super) fn connect(&mut self, slot: Slot) -> Result<(), Error> {
        if self.connections.get(slot).is_none() {
            return Ok(());
        }
        let choice = self.choose(slot);
        let waits = self.connections.get(slot).is_some_and(|connection| connection.waiting.is_some());
        if waits && matches!(choice, Choice::Wait(_)) {
            return Ok(());
        }
        self.leave_queue(slot);
        match choice {
            Choice::Attempt(chosen) => self.begin_attempt(slot, chosen)?,
            Choice::Wait(queue) => self.join_queue(slot, queue)?,
            Choice::Nothing(event) => self.events.push_back(event),
            Choice::Without(cause) => {
                if let Some(connection) = self.connections.get(slot) {
                    // Where attempts have failed, what made the last one fail says more than that there is no other backend.
                    connection.cause = connection.cause.or(Some(cause));
                }
                self.events.push_back(Event::NoBackend);
            }
            Choice::Refused(refusal) => self.refuse(slot, refusal),
        }
        Ok(())
    }

    /// Lets the connection in if it is not yet, and finds a backend for its next attempt, at which it counts the connection in.
    /// Counts the reason if there is none.
    fn choose(&mut self, slot: Slot) -> Choice {
        let now = self.now - self.shared.started;
        loop {
            let table = self.shared.table.load();
            let Some(connection) = self.connections.get(slot) else { return Choice::Nothing(Event::NoBackend) };
            let Some((service, port)) = table.find(&connection.target) else {
                self.thread.counters.no_service.add(1);
                return Choice::Without(Cause::NoService);
            };
            match connection.must_introduce_itself(service, self.now) {
                Ok(None) => {}
                Ok(Some(deadline)) => {
                    self.waits.insert((deadline, slot.index), slot);
                    return Choice::Nothing(Event::HeaderDue);
                }
                Err(event) => return Choice::Nothing(event),
            }
            let settings = &service.settings;
            if settings.access_log.format != AccessLogFormat::Off && connection.client.is_none() {
                connection.client = connection.peer().map(Box::new);
            }
            let newcomer = !connection.admitted.as_ref().is_some_and(|held| Arc::ptr_eq(&held.service, &service.state));
            if !newcomer && connection.waiting.is_some() && connection.is_client_gone() {
                return Choice::Nothing(Event::ClientGone);
            }
            let matters = settings.algorithm.uses_client_address() || newcomer && service.examines_clients();
            let client = match connection.client(matters) {
                Known::NotNeeded => None,
                Known::Address(address) => Some(address),
                Known::Gone if newcomer && service.examines_clients() => return Choice::Nothing(Event::ClientGone),
                Known::Gone => None,
            };
            if newcomer {
                // The VIP or port belongs to another service by now.
                if connection.admitted.is_some() {
                    self.leave_service(slot);
                    continue;
                }
                match self.shared.gate.admit(service, client, now) {
                    Ok(admitted) => connection.admitted = Some(admitted),
                    Err(refusal) => return Choice::Refused(refusal),
                }
            }
            // Whoever came first is first, even if there is a place.
            let first = service.state.queue.first().map(|(ticket, _)| ticket);
            let own = connection.waiting.as_ref().map(|waiting| waiting.ticket);
            if first.is_some() && first != own && connection.attempts == 0 {
                return Choice::Wait(settings.queue);
            }
            let backend = match balance::take(service, client, &connection.tried, &mut self.random) {
                Taken::Backend(backend) => backend,
                Taken::Full => return Choice::Wait(settings.queue),
                Taken::NoBackend => {
                    self.thread.counters.no_backend.add(1);
                    return Choice::Without(Cause::NoBackend);
                }
                // A backend that was removed between the load and here is in no newer table, so this ends.
                Taken::Removed => continue,
            };
            if connection.attempts == 0 {
                service.state.retry_budget.connection(now);
            } else if service.may_retry(connection.attempts, now) {
                self.thread.counters.retries.add(1);
            } else {
                backend.identity.leave();
                call_next(&self.shared.threads, self.index, &service.state);
                self.thread.counters.retries_denied.add(1);
                self.thread.counters.no_backend.add(1);
                return Choice::Without(Cause::RetriesDenied);
            }
            let told = match settings.proxy_protocol {
                ProxyProtocol::Off => None,
                ProxyProtocol::V1 => Some(Version::One),
                ProxyProtocol::V2 => Some(Version::Two),
            };
            let identity = backend.identity.clone();
            connection.backend_port = port;
            let started = self.moment();
            let is_asked = told.is_none() && service.state.tcp_ports.is_asked_first(port);
            let attempt = Attempt { address: backend.address, identity, told, is_asked, abandoned: false, started };
            let timeout = settings.connect_timeout.0;
            return Choice::Attempt(Chosen { attempt, timeout, ages: settings.limits_age() });
        }
    }

    fn begin_attempt(&mut self, slot: Slot, chosen: Chosen) -> Result<(), Error> {
        let Chosen { attempt, timeout, ages } = chosen;
        let Some(connection) = self.connections.get(slot) else { return Ok(()) };
        connection.attempts += 1;
        let address = SocketAddr::new(attempt.address, connection.backend_port);
        let has_data = attempt.is_asked || attempt.told.is_some();
        connection.backend = Some(attempt);
        match self.used_sockets.take(address.ip()).map_or_else(|| new_socket(address), Ok) {
            Ok(socket) => {
                let descriptor = socket.as_raw_fd();
                if has_data {
                    acknowledge_with_data(&socket);
                }
                connection.sockets[1] = Some(socket);
                let attempt = connection.attempts;
                self.ring.connect(
                    Token::Connection { kind: Kind::Connect, slot },
                    descriptor,
                    SockAddr::from(address),
                )?;
                self.attempts.push_back(PendingAttempt { slot, attempt, started: self.now, timeout });
                if ages {
                    self.watch_ages();
                }
            }
            // Descriptors or memory are short here: that is not the backend's fault, and no other one can help.
            Err(error) => {
                self.used_sockets.clear();
                self.leave_backend(slot);
                if let Some(connection) = self.connections.get(slot) {
                    connection.cause = Some(Cause::Shortage);
                }
                self.note_refusal(&error);
                self.events.push_back(Event::NoBackend);
            }
        }
        Ok(())
    }

    /// Gives up the attempt under way, or the wait for one. It still reports.
    pub(super) fn stop_connecting(&mut self, slot: Slot) -> Result<(), Error> {
        if self.connections.get(slot).is_some_and(|connection| connection.waiting.is_some()) {
            self.leave_queue(slot);
            self.events.push_back(Event::ConnectFailed);
            return Ok(());
        }
        self.stop(slot, Kind::Connect)
    }

    /// Makes the attempt under way fail, whatever comes of it.
    pub(super) fn abandon_attempt(&mut self, slot: Slot) -> Result<(), Error> {
        let Some(connection) = self.connections.get(slot) else { return Ok(()) };
        if let Some(attempt) = &mut connection.backend {
            attempt.abandoned = true;
        }
        self.stop(slot, Kind::Connect)
    }

    /// What a connect that was done means.
    pub(super) fn connected(&mut self, slot: Slot) -> Event {
        let Some(connection) = self.connections.get(slot) else { return Event::ConnectFailed };
        if connection.backend.as_ref().is_some_and(|attempt| attempt.abandoned) {
            connection.sockets[1].iter().for_each(reset_on_close);
            self.fail_attempt(slot, Errno::ECANCELED);
            return Event::ConnectFailed;
        }
        match self.introduce(slot) {
            Ok(header) => {
                self.succeed(slot);
                Event::Connected { header }
            }
            Err(event) => {
                self.connections
                    .get(slot)
                    .and_then(|connection| connection.sockets[1].take())
                    .iter()
                    .for_each(reset_on_close);
                self.leave_backend(slot);
                event
            }
        }
    }

    /// Takes note of an attempt that failed; the flow decides what is next.
    pub(super) fn fail_attempt(&mut self, slot: Slot, errno: Errno) {
        match errno {
            // One that we stopped ourselves: if it was for its time, that was noted then.
            Errno::ECANCELED => {}
            // All source ports towards this backend's port are in use (connect(2)). It has not even been asked.
            Errno::EADDRNOTAVAIL => self.thread.counters.ports_exhausted.add(1),
            // It is there and has no such port; if nobody has, it is the client that is wrong.
            Errno::ECONNREFUSED if !self.is_served(slot) => {}
            errno if is_of_backend(errno) => self.note_unreachable(slot),
            _ => {}
        }
        // Only its time or a removal stops an attempt, and a removal says so itself.
        let cause = match errno {
            Errno::ECANCELED | Errno::ETIMEDOUT => Cause::TimedOut,
            Errno::EADDRNOTAVAIL => Cause::Shortage,
            _ => Cause::Refused,
        };
        let Some(connection) = self.connections.get(slot) else { return };
        connection.sockets[1] = None;
        if let Some(attempt) = &connection.backend {
            attempt.identity.connect_failures.fetch_add(1, Ordering::Relaxed);
            connection.tried.push(attempt.address);
            connection.cause = Some(if attempt.abandoned { Cause::Removed } else { cause });
        }
        self.leave_backend(slot);
        self.thread.counters.connect_failures.add(1);
    }

    /// Takes note of a connection that is established.
    fn succeed(&mut self, slot: Slot) {
        let now = self.moment();
        let Some(connection) = self.connections.get(slot) else { return };
        connection.tried = Vec::new();
        connection.cause = None;
        let mut is_unheard = false;
        if let (Some(attempt), Some(admitted)) = (&connection.backend, &connection.admitted) {
            let time = now.since(attempt.started);
            connection.connect_time = Some(time.into());
            admitted.service.connect_times.add(time);
            admitted.service.tcp_ports.note(connection.backend_port);
            attempt.identity.note_success();
            is_unheard = attempt.is_asked;
            attempt.identity.connections.fetch_add(1, Ordering::Relaxed);
            admitted.service.connections.fetch_add(1, Ordering::Relaxed);
        }
        self.is_young(slot);
        if is_unheard {
            self.is_unheard(slot);
        }
    }

    pub(super) fn connect_timed_out(&mut self, slot: Slot, attempt: u8) -> Result<(), Error> {
        let late = |connection: &mut Connection| connection.flow.is_connecting() && connection.attempts == attempt;
        if self.connections.get(slot).is_some_and(late) {
            self.note_unreachable(slot);
            self.stop(slot, Kind::Connect)
        } else {
            Ok(())
        }
    }

    /// Whether a backend has been reached on the port of the last attempt.
    fn is_served(&mut self, slot: Slot) -> bool {
        self.connections.get(slot).is_some_and(|connection| {
            let port = connection.backend_port;
            connection.admitted.as_ref().is_some_and(|admitted| admitted.service.tcp_ports.contains(port))
        })
    }

    /// Takes note that the connection's backend could not be reached.
    fn note_unreachable(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get(slot) else { return };
        if let Some(attempt) = &connection.backend {
            self.shared.note_unreachable(&connection.target, &attempt.identity);
        }
    }

    /// Gives the attempts that are not over after a moment a timer, and forgets those that are.
    pub(super) fn review_attempts(&mut self) {
        while let Some(&PendingAttempt { slot, attempt, started, timeout }) = self.attempts.front() {
            let pending = self
                .connections
                .get(slot)
                .is_some_and(|connection| connection.flow.is_connecting() && connection.attempts == attempt);
            if pending && self.now < started + MOMENT {
                return;
            }
            self.attempts.pop_front();
            if pending {
                self.timers.add(started, timeout, Timer::Connect { slot, attempt });
            }
        }
    }

    /// When an attempt is to be reviewed.
    pub(super) fn next_review(&self) -> Option<Instant> {
        self.attempts.front().map(|attempt| attempt.started + MOMENT)
    }
}

/// Whether a failed attempt to connect says something of the backend, not of this host: it refused (a reset that comes
/// late is one too), did not answer, or there is no way to it (connect(2), ip(7)).
fn is_of_backend(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ECONNREFUSED
            | Errno::ECONNRESET
            | Errno::ETIMEDOUT
            | Errno::EHOSTUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETUNREACH
    )
}

/// A socket for a connection to a backend: non-blocking, as splice needs it, and without Nagle's algorithm, as a relay
/// must not wait for more than it was given.
fn new_socket(address: SocketAddr) -> std::io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}
