//! Finding a backend.

use super::accept::reset_on_close;
use super::clock::Moment;
use super::connections::{Attempt, Connection};
use super::{Error, Timer, Worker};
use crate::admission::RetryLimit;
use crate::balance;
use crate::control::settings::AccessLogFormat;
use crate::flow::Event;
use crate::flow::termination::Cause;
use crate::ring::{Kind, Slot, Token};
use crate::shared::{Counters, Shared};
use crate::table::Service;
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

impl Worker {
    /// Picks a backend in the newest table and starts to connect to it.
    pub(super) fn connect(&mut self, slot: Slot) -> Result<(), Error> {
        let now = self.now - self.shared.started;
        let Some(connection) = self.connections.get(slot) else { return Ok(()) };
        let started = Moment::at(self.now, self.started);
        let choice = choose(&self.shared, &self.thread.counters, connection, (now, started), &mut self.random);
        let Choice { attempt, timeout, ages, logged } = match choice {
            Ok(choice) => choice,
            Err(cause) => {
                // Where attempts have failed, what made the last one fail says more than that there is no other backend.
                connection.cause = connection.cause.or(Some(cause));
                self.events.push_back(Event::NoBackend);
                return Ok(());
            }
        };
        connection.attempts += 1;
        if logged && connection.client.is_none() {
            connection.client = connection.sockets[0].as_ref().and_then(peer_address).map(Box::new);
        }
        let address = SocketAddr::new(attempt.address, connection.target.port());
        connection.backend = Some(attempt);
        match new_socket(address) {
            Ok(socket) => {
                let descriptor = socket.as_raw_fd();
                connection.sockets[1] = Some(socket.into());
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
                if let Some(attempt) = connection.backend.take() {
                    attempt.identity.leave();
                }
                connection.cause = Some(Cause::Shortage);
                self.note_refusal(&error);
                self.events.push_back(Event::NoBackend);
            }
        }
        Ok(())
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
        self.succeed(slot);
        Event::Connected
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
        if let Some(attempt) = connection.backend.take() {
            attempt.identity.leave();
            attempt.identity.connect_failures.fetch_add(1, Ordering::Relaxed);
            connection.tried.push(attempt.address);
            connection.cause = Some(if attempt.abandoned { Cause::Removed } else { cause });
        }
        self.thread.counters.connect_failures.add(1);
    }

    /// Takes note of a connection that is established.
    fn succeed(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get(slot) else { return };
        connection.tried = Vec::new();
        connection.cause = None;
        if let Some(attempt) = &connection.backend {
            let time = Moment::at(self.now, self.started).since(attempt.started);
            connection.connect_time = Some(time.into());
            attempt.service.connect_times.add(time);
            attempt.identity.note_success();
            attempt.service.tcp_ports.note(connection.target.port());
            attempt.identity.connections.fetch_add(1, Ordering::Relaxed);
            attempt.service.connections.fetch_add(1, Ordering::Relaxed);
        }
        self.is_young(slot);
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

    /// Whether a backend has been reached on the port that the client asked for.
    fn is_served(&mut self, slot: Slot) -> bool {
        self.connections.get(slot).is_some_and(|connection| {
            let port = connection.target.port();
            connection.backend.as_ref().is_some_and(|attempt| attempt.service.tcp_ports.contains(port))
        })
    }

    /// Takes note that the connection's backend could not be reached.
    fn note_unreachable(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get(slot) else { return };
        if let Some(attempt) = &connection.backend {
            self.shared.note_unreachable(connection.target.ip(), &attempt.identity);
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

/// What was found for an attempt.
struct Choice {
    attempt: Attempt,
    timeout: Duration,
    /// Whether the service's connections can end because of their age.
    ages: bool,
    /// Whether its connections can get a line in the access log.
    logged: bool,
}

/// Finds a backend for the connection's next attempt, counts the connection in there, and counts the reason if there is
/// none. `now` is the same moment for all threads and for this one.
fn choose(
    shared: &Shared,
    counters: &Counters,
    connection: &Connection,
    (now, started): (Duration, Moment),
    random: &mut fastrand::Rng,
) -> Result<Choice, Cause> {
    loop {
        let table = shared.table.load();
        let Some(service) = table.service_at(connection.target.ip()) else {
            counters.no_service.add(1);
            return Err(Cause::NoService);
        };
        let settings = &service.settings;
        // One more system call, so only where it matters.
        let client = if settings.algorithm.uses_client_address() {
            connection.sockets[0].as_ref().and_then(peer_address).map(|client| client.ip())
        } else {
            None
        };
        let Some(backend) = balance::pick(service, client, &connection.tried, random) else {
            counters.no_backend.add(1);
            return Err(Cause::NoBackend);
        };
        // A backend that was removed between the load and here is in no newer table, so this ends.
        if !backend.identity.enter() {
            continue;
        }
        if connection.attempts == 0 {
            service.state.retry_budget.connection(now);
        } else if may_retry(service, connection.attempts, now) {
            counters.retries.add(1);
        } else {
            backend.identity.leave();
            counters.retries_denied.add(1);
            counters.no_backend.add(1);
            return Err(Cause::RetriesDenied);
        }
        let identity = Arc::clone(&backend.identity);
        let service_state = Arc::clone(&service.state);
        let attempt = Attempt { address: backend.address, identity, service: service_state, abandoned: false, started };
        let logged = settings.access_log.format != AccessLogFormat::Off;
        let timeout = settings.connect_timeout.0;
        return Ok(Choice { attempt, timeout, ages: settings.limits_age(), logged });
    }
}

/// Whether another attempt may be made after so many that failed.
fn may_retry(service: &Service, attempts: u8, now: Duration) -> bool {
    let settings = &service.settings;
    let budget = settings.retry_budget;
    let limit = RetryLimit { percent: budget.percent.0.into(), minimum_per_second: budget.minimum.0.into() };
    attempts <= settings.retries.0 && service.state.retry_budget.try_retry(limit, now)
}

/// The client's address; `None` if its connection has ended already (`ENOTCONN`, getpeername(2)).
fn peer_address(socket: &OwnedFd) -> Option<SocketAddr> {
    socket2::SockRef::from(socket).peer_addr().ok()?.as_socket()
}

/// A socket for a connection to a backend: non-blocking, as splice needs it, and without Nagle's algorithm, as a relay
/// must not wait for more than it was given.
fn new_socket(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}
