//! Handing sessions over to another proxy, and taking those of another.
//!
//! A session goes with its socket, so that its backend sees no difference: what it sends comes to the same socket, whoever
//! reads from it by then. It goes when nothing is received for it here any more, so that nothing is lost on the way.

use super::replies::Reply;
use super::{Busyness, Ending, Key, Lost, OpenSession, Seat};
use crate::admission::Admitted;
use crate::control::message::{Protocol, ServiceSettings};
use crate::control::replacement::SessionSpec;
use crate::flow::Slot;
use crate::flow::datagram::Session;
use crate::ring::Token;
use crate::shared::{Done, HandedSession, Parcel};
use crate::table::{Destination, Entry};
use crate::worker::{Error, Worker};
use socket2::{SockRef, Type};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Sessions that go to another proxy.
#[derive(Debug)]
pub(super) struct Leaving {
    parcel: Parcel,
    /// Whether the receives of the sessions were told to end.
    told: bool,
    /// Told when this is dropped, with the last session.
    _done: Done,
}

impl Worker {
    pub(in crate::worker) fn hold_datagrams(&mut self) {
        self.datagrams.holding = true;
    }

    /// Another proxy accepts and receives no more: takes its sessions, and receives datagrams if there is a table.
    pub(in crate::worker) fn release_datagrams(&mut self, sessions: &Parcel) -> Result<(), Error> {
        for session in sessions.take() {
            self.take_session(session)?;
        }
        self.datagrams.holding = false;
        self.accept_anew()?;
        if self.accepting { self.start_receiving_datagrams() } else { Ok(()) }
    }

    /// Receives nothing more from clients. The sessions go into the parcel, if there is one; if not, they hear their backends
    /// until they have been idle for their time.
    pub(in crate::worker) fn mute_datagrams(&mut self, parcel: Option<Parcel>, done: &Done) -> Result<(), Error> {
        self.forget_session_map()?;
        for socket in self.datagrams.sockets.places() {
            self.mute(socket, done.clone())?;
        }
        self.datagrams.leaving = parcel.map(|parcel| Leaving { parcel, told: false, _done: done.clone() });
        Ok(())
    }

    /// The next step of handing sessions over, when it is time: once nothing comes from clients any more, nothing more is heard
    /// from backends; once that is so, a session goes.
    pub(in crate::worker) fn go_on_handing_over(&mut self) -> Result<(), Error> {
        let Some(leaving) = &mut self.datagrams.leaving else { return Ok(()) };
        let sockets = &self.datagrams.sockets;
        if sockets.places().into_iter().any(|place| sockets.get(place).is_some_and(|receiving| receiving.armed)) {
            return Ok(());
        }
        if !std::mem::replace(&mut leaving.told, true) {
            for slot in self.datagrams.sessions.select(|_| true) {
                self.ring.cancel(Token::Session { slot })?;
            }
        }
        if self.datagrams.sessions.is_empty() {
            for place in self.datagrams.sockets.places() {
                self.datagrams.sockets.remove(place);
            }
            self.datagrams.published.clear();
            self.ports.clear();
            self.datagrams.leaving = None;
        }
        Ok(())
    }

    /// Puts a session into the parcel of which nothing more is heard.
    pub(super) fn hand_over(&mut self, slot: Slot) {
        let Some(session) = self.datagrams.sessions.get(slot) else { return };
        if let (Some(socket), Some(seat)) = (session.upstream.take(), session.backend.take()) {
            let spec = SessionSpec {
                thread: u32::try_from(self.index).unwrap_or(u32::MAX),
                client: match session.reply {
                    Reply::Steered { client, .. } | Reply::Published { client } => client,
                    Reply::Own(_) => session.key.client,
                },
                target: session.key.target.address,
                published: session.key.target.published,
                backend: seat.address,
                port: seat.port,
                expected: session.flow.expected(),
                steered: match session.reply {
                    Reply::Steered { socket, .. } => Some(socket),
                    Reply::Published { .. } | Reply::Own(_) => None,
                },
            };
            seat.identity.datagrams().active_sessions.fetch_sub(1, Ordering::Relaxed);
            self.leave_seat(&seat);
            if let Some(leaving) = &self.datagrams.leaving {
                leaving.parcel.put(HandedSession { spec, socket });
            }
        }
        self.close_session(slot, Ending::Stopped);
    }

    /// Goes on with another proxy's session, if its service and backend are there still. If not, or if there is no room, its
    /// client gets another one with its next datagram.
    fn take_session(&mut self, session: HandedSession) -> Result<(), Error> {
        let HandedSession { spec, socket } = session;
        let target = Destination { address: spec.target, protocol: Protocol::Udp, published: spec.published };
        let key = Key { client: super::receive::canonical(spec.client), target };
        let is_right = leads_to(&socket, SocketAddr::new(spec.backend, spec.port));
        if !is_right || self.datagrams.sessions.find(&key).is_some() || !self.shared.connections.take() {
            return Ok(());
        }
        self.thread.enter_session();
        let Ok((seat, admitted, settings)) = self.seat_again(key, &spec) else {
            self.thread.leave_session();
            self.shared.connections.give_back();
            return Ok(());
        };
        let Ok(reply) = self.reply_again(key, &spec) else {
            self.leave_seat(&seat);
            self.shared.gate.leave(admitted);
            self.thread.leave_session();
            self.shared.connections.give_back();
            return Ok(());
        };
        seat.identity.datagrams().active_sessions.fetch_add(1, Ordering::Relaxed);
        let descriptor = socket.as_raw_fd();
        let session = OpenSession {
            flow: Session::resumed(settings.retries.0, settings.udp.responses.0, spec.expected),
            key,
            picked: None,
            upstream: Some(socket),
            backend: Some(seat),
            tried: Vec::new(),
            seated: true,
            kept: None,
            lost: Lost::NoBackend,
            reply,
            admitted,
            busyness: Busyness::new(self.now),
            passing: None,
        };
        let slot = self.datagrams.sessions.insert(key, session, settings.udp.idle_timeout.0, self.now);
        Ok(self.ring.receive_datagrams(Token::Session { slot }, descriptor)?)
    }

    /// Counts the session in at the backend that it has, and at what limits its service.
    fn seat_again(&self, key: Key, spec: &SessionSpec) -> Result<(Seat, Admitted, Arc<ServiceSettings>), Lost> {
        let table = self.shared.table.load();
        let (service, _) = table.find(&key.target).ok_or(Lost::NoService)?;
        let identity = service.backend(spec.backend).ok_or(Lost::NoBackend)?.identity.clone();
        let admitted = self.shared.gate.readmit(service, Some(key.client.ip())).map_err(|_| Lost::Refused)?;
        // It has its place already, whatever the limit is now.
        if identity.enter(u64::MAX) != Entry::Entered {
            self.shared.gate.leave(admitted);
            return Err(Lost::NoBackend);
        }
        let seat = Seat { address: spec.backend, port: spec.port, identity, service: Arc::clone(&service.state) };
        Ok((seat, admitted, Arc::clone(&service.settings)))
    }

    /// How the client is answered here.
    fn reply_again(&mut self, key: Key, spec: &SessionSpec) -> std::io::Result<Reply> {
        if spec.published {
            return Ok(Reply::Published { client: spec.client });
        }
        // Both proxies have the same steered sockets in the same places.
        let is_it = |place: &u32| {
            let receiving = self.datagrams.sockets.get(*place);
            receiving.is_some_and(|receiving| !receiving.published && receiving.port == key.target.address.port())
        };
        if let Some(socket) = spec.steered.filter(is_it) {
            return Ok(Reply::Steered { socket, client: spec.client });
        }
        Ok(Reply::Own(self.datagrams.replies.lease(key.target.address)?))
    }
}

/// Whether it is a UDP socket that is connected to there: the other proxy is not believed.
fn leads_to(socket: &OwnedFd, backend: SocketAddr) -> bool {
    let socket = SockRef::from(socket);
    socket.r#type().is_ok_and(|kind| kind == Type::DGRAM)
        && socket.peer_addr().is_ok_and(|peer| peer.as_socket() == Some(backend))
}
