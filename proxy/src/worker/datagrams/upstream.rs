//! Finding a session a backend, and hearing what that says.

use super::{AtHand, Key, Lost, OpenSession, Seat, send};
use crate::admission::Refusal;
use crate::balance::{self, Taken};
use crate::control::message::ServiceSettings;
use crate::flow::Slot;
use crate::flow::datagram::Event;
use crate::ring::{Completion, Token};
use crate::worker::admit::call_next;
use crate::worker::{Error, Worker};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Worker {
    /// Picks a backend in the newest table and counts the session in there.
    pub(super) fn pick_for_session(
        &mut self,
        key: Key,
        tried: &[IpAddr],
    ) -> Result<(Seat, Arc<ServiceSettings>), Lost> {
        loop {
            let table = self.shared.table.load();
            let (service, port) = table.find(&key.target).ok_or(Lost::NoService)?;
            let client = service.settings.algorithm.uses_client_address().then(|| key.client.ip());
            let backend = match balance::take(service, client, tried, &mut self.random) {
                Taken::Backend(backend) => backend,
                Taken::NoBackend => return Err(Lost::NoBackend),
                // There is no queue for datagrams: whoever sends them sends them again.
                Taken::Full => {
                    self.count_refusal(Refusal::BackendsFull);
                    return Err(Lost::Refused);
                }
                // A backend that was removed between the load and here is in no newer table, so this ends.
                Taken::Removed => continue,
            };
            let identity = backend.identity.clone();
            let seat = Seat { address: backend.address, port, identity, service: Arc::clone(&service.state) };
            return Ok((seat, Arc::clone(&service.settings)));
        }
    }

    /// Counts a session out at its backend, where a connection may wait for the place.
    pub(super) fn leave_seat(&self, seat: &Seat) {
        seat.identity.leave();
        call_next(&self.shared.threads, self.index, &seat.service);
    }

    /// Gives the session a socket to a backend that it has not tried.
    pub(super) fn connect_session(&mut self, slot: Slot) -> Result<Event, Error> {
        let Some(session) = self.datagrams.sessions.get(slot) else { return Ok(Event::NoBackend) };
        let picked = match session.picked.take() {
            Some(seat) => Ok(seat),
            None => {
                let (key, tried) = (session.key, std::mem::take(&mut session.tried));
                let picked = self.pick_for_session(key, &tried);
                if let Some(session) = self.datagrams.sessions.get(slot) {
                    session.tried = tried;
                }
                picked.map(|(seat, _)| seat)
            }
        };
        let Some(session) = self.datagrams.sessions.get(slot) else { return Ok(Event::NoBackend) };
        let seat = match picked {
            Ok(seat) => seat,
            Err(lost) => {
                session.lost = lost;
                return Ok(Event::NoBackend);
            }
        };
        match new_socket(SocketAddr::new(seat.address, seat.port)) {
            Ok(socket) => {
                let descriptor = socket.as_raw_fd();
                session.upstream = Some(socket.into());
                seat.identity.datagrams().active_sessions.fetch_add(1, Ordering::Relaxed);
                seat.identity.connections.fetch_add(1, Ordering::Relaxed);
                seat.identity.datagrams().sessions.fetch_add(1, Ordering::Relaxed);
                if std::mem::replace(&mut session.seated, true) {
                    self.thread.counters.sessions_moved.add(1);
                } else {
                    seat.service.connections.fetch_add(1, Ordering::Relaxed);
                    seat.service.sessions.fetch_add(1, Ordering::Relaxed);
                }
                session.backend = Some(seat);
                self.ring.receive_datagrams(Token::Session { slot }, descriptor)?;
                if self.datagrams.leaving.is_some() {
                    self.ring.cancel(Token::Session { slot })?;
                }
                Ok(Event::Connected)
            }
            // Descriptors, ports or memory are short here: that is not the backend's fault, and no other one can help.
            Err(error) if is_short(&error) => {
                session.lost = Lost::AtLimit;
                self.leave_seat(&seat);
                self.note_refusal(&error);
                Ok(Event::NoBackend)
            }
            Err(_) => {
                self.leave_seat(&seat);
                self.fail_session_attempt(slot, &seat);
                Ok(Event::ConnectFailed)
            }
        }
    }

    /// Takes the session from its backend; gives its new slot, as what comes from there is not for it any more.
    pub(super) fn disconnect_session(&mut self, slot: Slot, failed: bool) -> Result<Slot, Error> {
        self.stop_passing(slot)?;
        let Some(session) = self.datagrams.sessions.get(slot) else { return Ok(slot) };
        if session.upstream.take().is_some() {
            self.ring.cancel(Token::Session { slot })?;
        }
        if let Some(seat) = session.backend.take() {
            seat.identity.datagrams().active_sessions.fetch_sub(1, Ordering::Relaxed);
            self.leave_seat(&seat);
            if failed {
                self.fail_session_attempt(slot, &seat);
            }
        }
        Ok(self.datagrams.sessions.renew(slot).unwrap_or(slot))
    }

    /// Takes note of a backend that cannot be reached or refuses; the flow decides what is next.
    fn fail_session_attempt(&mut self, slot: Slot, seat: &Seat) {
        seat.identity.connect_failures.fetch_add(1, Ordering::Relaxed);
        self.thread.counters.connect_failures.add(1);
        if let Some(session) = self.datagrams.sessions.get(slot) {
            session.tried.push(seat.address);
            let target = session.key.target;
            // What nobody has ever answered on that port is more likely the client's mistake than the backend's illness.
            if seat.service.udp_ports.contains(seat.port) {
                self.shared.note_unreachable(&target, &seat.identity);
            }
        }
    }

    /// Takes note of a backend that answers.
    pub(super) fn note_reply(&mut self, slot: Slot) {
        if let Some(session) = self.datagrams.sessions.get(slot)
            && let Some(seat) = &session.backend
        {
            seat.identity.note_success();
            seat.service.udp_ports.note(seat.port);
        }
    }

    /// The receive of a session's socket has reported.
    pub(in crate::worker) fn session_heard(&mut self, slot: Slot, completion: &Completion) -> Result<(), Error> {
        if let Some(datagram) = self.ring.datagram(completion)
            && self.datagrams.sessions.get(slot).is_some()
        {
            let at_hand = AtHand::from(&datagram);
            let count = at_hand.count();
            if datagram.truncated {
                self.lose(Lost::TooLarge, count);
            } else {
                self.datagrams.sessions.touch(slot, self.now);
                self.note_reply(slot);
                self.tell_session(slot, Event::Replied { count }, Some(at_hand))?;
                self.consider_passing(slot, count);
            }
        }
        if let Some(buffer) = completion.buffer {
            self.ring.release_datagram(buffer);
        }
        if completion.result == Err(Errno::ENOBUFS) {
            self.thread.counters.buffers_exhausted.add(1);
        }
        // What was said of a socket that the session no longer has is not for it: its slot is another one then.
        let Some(OpenSession { upstream: Some(socket), .. }) = self.datagrams.sessions.get(slot) else { return Ok(()) };
        if completion.more {
            return Ok(());
        }
        if self.datagrams.leaving.is_some() {
            self.hand_over(slot);
            return Ok(());
        }
        match completion.result {
            // An empty datagram ends a receive. As for buffers: all that this turn's datagrams are in are free before the
            // operation is submitted.
            Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR | Errno::ENOMEM) => {}
            // Something on the way has a smaller MTU. The kernel knows that now and does better with the next datagram.
            Err(Errno::EMSGSIZE) => send::clear_errors(socket),
            Err(_) => return self.tell_session(slot, Event::Refused, None),
        }
        let descriptor = socket.as_raw_fd();
        Ok(self.ring.receive_datagrams(Token::Session { slot }, descriptor)?)
    }
}

/// A socket for a session to a backend. It reports what ICMP says of the way there as well (`IP_RECVERR`, ip(7)): without,
/// only a closed port would be an error, and a backend that has vanished would not.
fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), None)?;
    if address.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    }
    send::coalesce(&socket);
    socket.connect(&address.into())?;
    Ok(socket)
}

/// Whether this process, not the backend, is at its limits. `EAGAIN` says that all ports are in use (connect(2)).
fn is_short(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EAGAIN | Errno::EADDRNOTAVAIL)
    )
}
