//! Receiving what clients send.

use super::replies::Reply;
use super::{AtHand, Busyness, Key, Lost, OpenSession, Seat};
use crate::admission::Admitted;
use crate::control::message::{Port, Protocol, ServiceSettings};
use crate::flow::Slot;
use crate::flow::datagram::{Event, Session};
use crate::ring::{Completion, Datagram, Token};
use crate::shared::{Done, PortSocket};
use crate::table::Destination;
use crate::worker::{Error, Timer, Worker};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Failures in a row after which receiving pauses.
const MOST_FAILURES: u32 = 8;
/// The pause after that.
const PAUSE: Duration = Duration::from_millis(50);

/// A UDP socket that gets the datagrams for VIPs or for a published port, and the state of receiving from it.
#[derive(Debug)]
pub(in crate::worker) struct Receiving {
    pub(super) socket: Arc<OwnedFd>,
    /// Its own port. Who sends to this very port of a VIP is answered by this socket.
    pub(super) port: u16,
    /// Whether it is one of a published port, not a steered one.
    pub(super) published: bool,
    /// Whether a receive is under way.
    pub(super) armed: bool,
    /// Failures since the last datagram.
    failures: u32,
    /// Who is told when it is closed, if it is to be.
    closing: Option<Done>,
    /// Who is told when nothing is received from it any more, if it is only for replies from then on.
    muted: Option<Option<Done>>,
}

impl Receiving {
    /// For a steered socket.
    pub(in crate::worker) fn steered(socket: Arc<OwnedFd>) -> Result<Self, Error> {
        let address = prepare(&socket).map_err(failed)?;
        Ok(Self::new(socket, address.port(), false))
    }

    fn new(socket: Arc<OwnedFd>, port: u16, published: bool) -> Self {
        Self { socket, port, published, armed: false, failures: 0, closing: None, muted: None }
    }
}

/// Makes a UDP socket ready that was handed over: it tells where each datagram was sent to, and gives datagrams of one source
/// that have come together as one. Gives the address that it is bound to.
pub(crate) fn prepare(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let options = socket2::SockRef::from(socket);
    let address = options.local_addr()?.as_socket().ok_or(Errno::EAFNOSUPPORT)?;
    options.set_nonblocking(true)?;
    if address.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6OrigDstAddr, &true)?;
    }
    // An IPv6 socket may get IPv4 datagrams too.
    let v4 = setsockopt(socket, sockopt::Ipv4OrigDstAddr, &true);
    if address.is_ipv4() {
        v4?;
    }
    super::send::coalesce(socket);
    Ok(address)
}

impl Worker {
    pub(in crate::worker) fn start_receiving_datagrams(&mut self) -> Result<(), Error> {
        self.datagrams.sockets.places().into_iter().try_for_each(|socket| self.receive_datagrams(socket))
    }

    /// What waits in the sockets' queues stays there for the next proxy.
    pub(in crate::worker) fn stop_receiving_datagrams(&mut self) -> Result<(), Error> {
        for socket in self.datagrams.sockets.places() {
            self.ring.cancel(Token::Datagrams { socket })?;
        }
        Ok(())
    }

    pub(in crate::worker) fn receive_datagrams(&mut self, socket: u32) -> Result<(), Error> {
        let Some(receiving) = self.datagrams.sockets.get_mut(socket) else { return Ok(()) };
        // A timer can be of a socket that had this place before.
        if receiving.armed || receiving.closing.is_some() || receiving.muted.is_some() || self.datagrams.holding {
            return Ok(());
        }
        receiving.armed = true;
        Ok(self.ring.receive_datagrams(Token::Datagrams { socket }, receiving.socket.as_raw_fd())?)
    }

    /// Adds a socket of a published port, by which its clients are answered from now on; gives its place.
    pub(in crate::worker) fn add_datagram_socket(&mut self, socket: PortSocket, port: u16) -> Result<u32, Error> {
        let place = self.datagrams.sockets.insert(Receiving::new(socket.descriptor, port, true));
        self.datagrams.published.insert((port, socket.is_ipv6), place);
        if self.accepting {
            self.receive_datagrams(place)?;
        }
        Ok(place)
    }

    /// Answers nobody any more by the sockets that a published port has so far.
    pub(in crate::worker) fn forget_reply_sockets(&mut self, port: u16) {
        self.datagrams.published.retain(|&(number, _), _| number != port);
    }

    /// Stops receiving from the socket and closes it.
    pub(in crate::worker) fn close_datagram_socket(&mut self, socket: u32, done: Done) -> Result<(), Error> {
        let Some(receiving) = self.datagrams.sockets.get_mut(socket) else { return Ok(()) };
        receiving.closing = Some(done);
        if receiving.armed {
            self.ring.cancel(Token::Datagrams { socket })?;
        } else {
            self.datagrams.sockets.remove(socket);
        }
        Ok(())
    }

    /// Receives nothing more from the socket, by which clients are still answered.
    pub(super) fn mute(&mut self, socket: u32, done: Done) -> Result<(), Error> {
        let Some(receiving) = self.datagrams.sockets.get_mut(socket) else { return Ok(()) };
        receiving.muted = Some(receiving.armed.then_some(done));
        if receiving.armed {
            self.ring.cancel(Token::Datagrams { socket })?;
        }
        Ok(())
    }

    /// The receive of a steered or published socket has reported.
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
        let Some(receiving) = self.datagrams.sockets.get_mut(socket) else { return Ok(()) };
        if completion.more {
            return Ok(());
        }
        receiving.armed = false;
        if receiving.closing.is_some() {
            self.datagrams.sockets.remove(socket);
            return Ok(());
        }
        if let Some(muted) = &mut receiving.muted {
            drop(muted.take());
            return Ok(());
        }
        if self.stopping {
            return Ok(());
        }
        match failed {
            // An empty datagram ends a receive. As for buffers: all that this turn's datagrams are in are free before the
            // operation is submitted.
            None | Some(Errno::ENOBUFS | Errno::EINTR) => receiving.failures = 0,
            Some(errno @ (Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL | Errno::EOPNOTSUPP))
                if !receiving.published =>
            {
                return Err(Error::Datagrams(errno));
            }
            // An operation that fails at once must not be armed again for ever without a pause.
            Some(_) if receiving.failures >= MOST_FAILURES => {
                self.timers.add(self.now, PAUSE, Timer::Datagrams { socket });
                return Ok(());
            }
            Some(_) => receiving.failures += 1,
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
        let Some(receiving) = self.datagrams.sockets.get(socket) else { return Ok(()) };
        let published = receiving.published;
        // Its port is not served any more, or not for clients of this address family.
        if published && !self.datagrams.published.contains_key(&(receiving.port, source.is_ipv6())) {
            self.lose(Lost::NoService, count);
            return Ok(());
        }
        let target = Destination { address: canonical(destination), protocol: Protocol::Udp, published };
        let key = Key { client: canonical(source), target };
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
        self.tell_session(slot, Event::Received { count }, Some(at_hand))?;
        self.consider_passing(slot, count);
        Ok(())
    }

    /// Opens a session, if there is a backend for it; gives the reason why not otherwise. Nothing is sent to anybody
    /// then, and no other session has to go.
    fn open_session(&mut self, socket: u32, key: Key, source: SocketAddr) -> Result<Result<Slot, Lost>, Error> {
        if self.is_of_a_service(key) {
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
        let receiving = self.datagrams.sockets.get(socket);
        let own_port = receiving.is_some_and(|receiving| receiving.port == key.target.address.port());
        let reply = if key.target.published {
            Reply::Published { client: source }
        } else if own_port {
            Reply::Steered { socket, client: source }
        } else {
            match self.datagrams.replies.lease(key.target.address) {
                Ok(socket) => Reply::Own(socket),
                Err(error) => {
                    self.unseat_newcomer(&seat, admitted);
                    self.shared.connections.give_back();
                    self.note_refusal(&format_args!("no socket to reply from {}: {error}", key.target.address));
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
            busyness: Busyness::new(self.now),
            passing: None,
        };
        Ok(Ok(self.datagrams.sessions.insert(key, session, settings.udp.idle_timeout.0, self.now)))
    }

    /// Whether a datagram pretends to come from a service: from a VIP, or from a published port of this node. They send nothing
    /// by themselves; services would answer each other for ever.
    fn is_of_a_service(&self, key: Key) -> bool {
        let table = self.shared.table.load();
        let Key { client, target } = key;
        if !target.published {
            return table.service_at(client.ip()).is_some();
        }
        let is_of_node = client.ip() == target.ip() || client.ip().is_loopback();
        is_of_node && table.published(Port { protocol: Protocol::Udp, number: client.port() }).is_some()
    }

    /// Lets a session in and finds it a backend, at which it is counted in.
    fn seat_newcomer(&mut self, key: Key) -> Result<(Admitted, Seat, Arc<ServiceSettings>), Lost> {
        let now = self.now - self.shared.started;
        let table = self.shared.table.load();
        let (service, _) = table.find(&key.target).ok_or(Lost::NoService)?;
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
fn failed(error: io::Error) -> Error {
    Error::Datagrams(Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// IPv4 addresses as such.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(address.ip().to_canonical(), address.port())
        }
        other => other,
    }
}
