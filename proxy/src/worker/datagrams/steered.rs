//! Receiving what clients send.

use super::replies::Reply;
use super::{AtHand, Key, Lost, OpenSession, Seat};
use crate::admission::Admitted;
use crate::control::message::ServiceSettings;
use crate::flow::Slot;
use crate::flow::datagram::{Event, Session};
use crate::ring::{Completion, Datagram, Token};
use crate::worker::{Error, Timer, Worker};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

/// Failures in a row after which receiving pauses.
const MOST_FAILURES: u32 = 8;
/// The pause after that.
const PAUSE: Duration = Duration::from_millis(50);

/// A UDP socket that gets the datagrams for VIPs, and the state of receiving from it.
#[derive(Debug)]
pub(in crate::worker) struct Steered {
    pub(super) socket: UdpSocket,
    /// Its own port. Who sends to this very port of a VIP is answered by this socket.
    pub(super) port: u16,
    /// Failures since the last datagram.
    failures: u32,
}

impl Steered {
    /// Makes a socket that was handed over ready: it tells where each datagram was sent to, and gives datagrams of one
    /// source that have come together as one.
    pub(in crate::worker) fn new(socket: UdpSocket) -> Result<Self, Error> {
        let port = socket.local_addr().map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        if port.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true).map_err(Error::Datagrams)?;
        }
        // An IPv6 socket may get IPv4 datagrams too.
        let v4 = setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true);
        if port.is_ipv4() {
            v4.map_err(Error::Datagrams)?;
        }
        super::send::coalesce(&socket);
        Ok(Self { socket, port: port.port(), failures: 0 })
    }
}

impl Worker {
    pub(in crate::worker) fn start_receiving_datagrams(&mut self) -> Result<(), Error> {
        (0u32..).take(self.datagrams.sockets.len()).try_for_each(|socket| self.receive_datagrams(socket))
    }

    /// What waits in the sockets' queues stays there for the next proxy.
    pub(in crate::worker) fn stop_receiving_datagrams(&mut self) -> Result<(), Error> {
        for socket in (0u32..).take(self.datagrams.sockets.len()) {
            self.ring.cancel(Token::Datagrams { socket })?;
        }
        Ok(())
    }

    pub(in crate::worker) fn receive_datagrams(&mut self, socket: u32) -> Result<(), Error> {
        let Some(steered) = self.datagrams.sockets.get(socket as usize) else { return Ok(()) };
        Ok(self.ring.receive_datagrams(Token::Datagrams { socket }, steered.socket.as_raw_fd())?)
    }

    /// A steered socket's receive has reported.
    pub(in crate::worker) fn datagrams_came(&mut self, socket: u32, completion: &Completion) -> Result<(), Error> {
        if let Some(datagram) = self.ring.datagram(completion)
            && !self.stopping
        {
            self.take_datagram(socket, &datagram)?;
        }
        if let Some(buffer) = completion.buffer {
            self.ring.release_datagram(buffer);
        }
        let failed = completion.result.err();
        if failed == Some(Errno::ENOBUFS) {
            self.thread.counters.buffers_exhausted.add(1);
        }
        if completion.more || self.stopping {
            return Ok(());
        }
        let Some(steered) = self.datagrams.sockets.get_mut(socket as usize) else { return Ok(()) };
        match failed {
            // An empty datagram ends a receive. As for buffers: all that this turn's datagrams are in are free before the
            // operation is submitted.
            None | Some(Errno::ENOBUFS | Errno::EINTR) => steered.failures = 0,
            Some(errno @ (Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                return Err(Error::Datagrams(errno));
            }
            // An operation that fails at once must not be armed again for ever without a pause.
            Some(_) if steered.failures >= MOST_FAILURES => {
                self.timers.add(self.now, PAUSE, Timer::Datagrams { socket });
                return Ok(());
            }
            Some(_) => steered.failures += 1,
        }
        self.receive_datagrams(socket)
    }

    fn take_datagram(&mut self, socket: u32, datagram: &Datagram) -> Result<(), Error> {
        let at_hand = AtHand::from(datagram);
        let count = at_hand.count();
        let (Some(source), Some(destination)) = (datagram.source, datagram.destination) else {
            self.lose(Lost::Unanswerable, count);
            return Ok(());
        };
        if datagram.truncated {
            self.lose(Lost::TooLarge, count);
            return Ok(());
        }
        let key = Key { client: canonical(source), target: canonical(destination) };
        let slot = match self.datagrams.sessions.find(&key) {
            Some(slot) => {
                self.datagrams.sessions.touch(slot, self.now);
                slot
            }
            None => match self.open_session(socket, key, source)? {
                Ok(slot) => slot,
                Err(lost) => {
                    self.lose(lost, count);
                    return Ok(());
                }
            },
        };
        self.tell_session(slot, Event::Received { count }, Some(at_hand))
    }

    /// Opens a session, if there is a backend for it; gives the reason why not otherwise. Nothing is sent to anybody
    /// then, and no other session has to go.
    fn open_session(&mut self, socket: u32, key: Key, source: SocketAddr) -> Result<Result<Slot, Lost>, Error> {
        // A VIP sends nothing by itself. Who pretends to be one would have services answer each other for ever.
        if self.shared.table.load().service_at(key.client.ip()).is_some() {
            return Ok(Err(Lost::Unanswerable));
        }
        self.thread.enter_session();
        let (admitted, seat, settings) = match self.seat_newcomer(key) {
            Ok(seated) => seated,
            Err(lost) => {
                self.thread.leave_session();
                return Ok(Err(lost));
            }
        };
        if !self.shared.connections.take() && !self.evict_session()? {
            self.unseat_newcomer(&seat, admitted);
            self.note_refusal(&"the proxy has its maximum of connections");
            return Ok(Err(Lost::AtLimit));
        }
        let steered = self.datagrams.sockets.get(socket as usize);
        let own_port = steered.is_some_and(|steered| steered.port == key.target.port());
        let reply = if own_port {
            Reply::Steered { socket, client: source }
        } else {
            match self.datagrams.replies.lease(key.target) {
                Ok(socket) => Reply::Own(socket),
                Err(error) => {
                    self.unseat_newcomer(&seat, admitted);
                    self.shared.connections.give_back();
                    self.note_refusal(&format_args!("no socket to reply from {}: {error}", key.target));
                    return Ok(Err(Lost::AtLimit));
                }
            }
        };
        self.thread.counters.sessions.add(1);
        let session = OpenSession {
            flow: Session::new(settings.retries.0, settings.udp.responses.0),
            key,
            picked: Some(seat),
            upstream: None,
            backend: None,
            tried: Vec::new(),
            seated: false,
            kept: None,
            lost: Lost::NoBackend,
            reply,
            admitted,
        };
        Ok(Ok(self.datagrams.sessions.insert(key, session, settings.udp.idle_timeout.0, self.now)))
    }

    /// Lets a session in and finds it a backend, at which it is counted in.
    fn seat_newcomer(&mut self, key: Key) -> Result<(Admitted, Seat, Arc<ServiceSettings>), Lost> {
        let now = self.now - self.shared.started;
        let table = self.shared.table.load();
        let service = table.service_at(key.target.ip()).ok_or(Lost::NoService)?;
        let admitted = self.shared.gate.admit(service, Some(key.client.ip()), now).map_err(|refusal| {
            self.count_refusal(refusal);
            Lost::Refused
        })?;
        match self.pick_for_session(key, &[]) {
            Ok((seat, settings)) => Ok((admitted, seat, settings)),
            Err(lost) => {
                self.shared.gate.leave(admitted);
                Err(lost)
            }
        }
    }

    /// Takes that back for a session that cannot be.
    fn unseat_newcomer(&mut self, seat: &Seat, admitted: Admitted) {
        self.leave_seat(seat);
        self.shared.gate.leave(admitted);
        self.thread.leave_session();
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn failed(error: std::io::Error) -> Error {
    Error::Datagrams(Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// IPv4 addresses as such.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(address.ip().to_canonical(), address.port())
        }
        other => other,
    }
}
