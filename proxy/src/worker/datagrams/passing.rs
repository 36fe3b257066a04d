//! Sessions that go past the proxy: their datagrams are sent on in the kernel, by the programs of the network's ports, as the
//! session map says.
//!
//! Only busy ones do. One begins to pass when nothing of it waits here that would come after what passes: after the datagrams
//! of a turn, and, for a moment, when the queues of the sockets are empty. What passes is not seen here: a datagram that a
//! backend refuses is not sent to another one, although the session itself moves, as the refusal comes to its socket. And what
//! passes is counted once a second. A datagram that the programs do not send on, such as a fragment, comes here as ever.
//!
//! Neither programs nor map end with the daemon: what passes goes on while there is none, and with the next one.
//!
//! What passes asks for no neighbour, so that nobody would say that a backend has vanished. Therefore a session that has had no
//! reply for a second comes back, until it has been busy here again: it is told then.

use super::{Datagrams, OpenSession, Reply};
use crate::control::message::Protocol;
use crate::flow::Slot;
use crate::flow::datagram::Event;
use crate::session_map::{Passed, Place, SessionMap, Tuple};
use crate::worker::{Error, Timer, Worker};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A session with that many datagrams within [`LOOK`] is a busy one.
const BUSY: u32 = 16;
/// How long a busy session waits for empty queues. Then it passes all the same: somebody always sends where there are many.
const PATIENCE: Duration = Duration::from_millis(20);
/// The time between two looks at what has passed.
const LOOK: Duration = Duration::from_secs(1);
/// How long a session stays of which nothing has passed: its client or its backend is not where the programs are.
const PAUSE: Duration = Duration::from_secs(10);

/// The state of a data thread's sessions that pass.
#[derive(Debug, Default)]
pub(super) struct Passings {
    /// Where the programs look; none before a session was busy, and in networks without programs.
    map: Option<Arc<SessionMap>>,
    /// The sessions that pass, and some that have done so.
    slots: Vec<Slot>,
    /// Whether they will be looked at.
    looks: bool,
    /// Busy sessions that are to pass, and until when they wait for empty queues.
    next: VecDeque<(Slot, Instant)>,
}

/// How busy a session is.
#[derive(Debug)]
pub(super) struct Busyness {
    since: Instant,
    datagrams: u32,
    /// When it may be one at the earliest.
    earliest: Instant,
}

/// One session that passes.
#[derive(Debug)]
pub(super) struct Passing {
    map: Arc<SessionMap>,
    to_backend: Direction,
    to_client: Direction,
    /// When it was last seen to do well, or began.
    well: Instant,
}

#[derive(Debug)]
struct Direction {
    place: Place,
    /// What was counted of it here.
    counted: Passed,
    /// How many of these were known when that was last asked.
    before: u64,
}

impl Busyness {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, datagrams: 0, earliest: now }
    }

    /// Takes note of datagrams. Whether they make it a busy one.
    fn note(&mut self, now: Instant, datagrams: u32) -> bool {
        if now.saturating_duration_since(self.since) >= LOOK {
            (self.since, self.datagrams) = (now, 0);
        }
        let before = self.datagrams;
        self.datagrams = before.saturating_add(datagrams);
        before < BUSY && self.datagrams >= BUSY && now >= self.earliest
    }

    /// It has to be busy anew, after a pause.
    fn pause(&mut self, now: Instant, pause: Duration) {
        *self = Self { since: now, datagrams: 0, earliest: now + pause };
    }
}

impl Passing {
    /// Has a session pass; `None` if that is not possible.
    fn begin(map: &Arc<SessionMap>, session: &OpenSession, now: Instant) -> Option<Self> {
        let seat = session.backend.as_ref()?;
        let client = v4(session.key.client)?;
        let target = v4(session.key.target.address)?;
        let backend = v4(SocketAddr::new(seat.address, seat.port))?;
        let local = SockRef::from(session.upstream.as_ref()?).local_addr().ok()?.as_socket_ipv4()?;
        let tuple = |source, destination| Tuple { source, destination };
        // No reply passes by itself: that would look like a session that is idle.
        let to_client = Direction::begin(map, tuple(backend, local), tuple(target, client))?;
        match Direction::begin(map, tuple(client, target), tuple(local, backend)) {
            Some(to_backend) => Some(Self { map: Arc::clone(map), to_backend, to_client, well: now }),
            None => {
                map.remove(&to_client.place);
                None
            }
        }
    }
}

impl Direction {
    fn begin(map: &SessionMap, from: Tuple, to: Tuple) -> Option<Self> {
        map.put(from, to).map(|place| Self { place, counted: Passed::default(), before: 0 })
    }

    /// Whether something has passed since this was last asked.
    fn has_passed(&mut self) -> bool {
        std::mem::replace(&mut self.before, self.counted.datagrams) != self.counted.datagrams
    }

    /// What has passed since the last time.
    fn count(&mut self, passed: Passed) -> Passed {
        let before = std::mem::replace(&mut self.counted, passed);
        Passed {
            datagrams: passed.datagrams.saturating_sub(before.datagrams),
            bytes: passed.bytes.saturating_sub(before.bytes),
        }
    }
}

impl Worker {
    /// Has busy sessions pass by that map from now on.
    pub(in crate::worker) fn use_session_map(&mut self, map: Arc<SessionMap>) -> Result<(), Error> {
        if self.pass_by(&map) {
            return Ok(());
        }
        self.end_passing()?;
        self.datagrams.passings.map = Some(map);
        // What was not possible with the one before may be now.
        for slot in self.datagrams.sessions.select(|_| true) {
            if let Some(session) = self.datagrams.sessions.get(slot) {
                session.busyness = Busyness::new(self.now);
            }
        }
        Ok(())
    }

    /// Whether the sessions that pass do so by that map: the next daemon has taken it over, and gives it again. It is another
    /// mapping of the same memory, which shows by what is in it.
    fn pass_by(&mut self, map: &SessionMap) -> bool {
        let Datagrams { sessions, passings, .. } = &mut self.datagrams;
        let is_in = |direction: &Direction| map.passed(&direction.place).is_some();
        let mut any = false;
        for slot in &passings.slots {
            let Some(OpenSession { passing: Some(passing), .. }) = sessions.get(*slot) else { continue };
            if !is_in(&passing.to_backend) || !is_in(&passing.to_client) {
                return false;
            }
            any = true;
        }
        any
    }

    /// Has no session pass any more.
    pub(in crate::worker) fn forget_session_map(&mut self) -> Result<(), Error> {
        self.end_passing()?;
        self.datagrams.passings.map = None;
        self.datagrams.passings.next.clear();
        Ok(())
    }

    fn end_passing(&mut self) -> Result<(), Error> {
        std::mem::take(&mut self.datagrams.passings.slots).into_iter().try_for_each(|slot| self.stop_passing(slot))
    }

    /// Has a session pass soon that has just had datagrams, if these make it a busy one.
    pub(super) fn consider_passing(&mut self, slot: Slot, datagrams: u32) {
        let Datagrams { sessions, passings, .. } = &mut self.datagrams;
        let Some(session) = sessions.get(slot) else { return };
        if !session.busyness.note(self.now, datagrams) || session.passing.is_some() || !may_pass(session) {
            return;
        }
        if passings.map.is_some() {
            passings.next.push_back((slot, self.now + PATIENCE));
        } else {
            self.shared.is_busy(Protocol::Udp);
        }
    }

    /// Has busy sessions pass for which it is time. To be called when a turn's datagrams have been dealt with.
    pub(in crate::worker) fn begin_passings(&mut self) -> Result<(), Error> {
        if self.datagrams.passings.next.is_empty() {
            return Ok(());
        }
        let clients_are_quiet = self.clients_are_quiet();
        let mut next = std::mem::take(&mut self.datagrams.passings.next);
        let mut later = VecDeque::new();
        while let Some(&(slot, due)) = next.front() {
            if !clients_are_quiet && due > self.now {
                break;
            }
            next.pop_front();
            let Some(session) = self.datagrams.sessions.get(slot) else { continue };
            let Some(backend) = &session.upstream else { continue };
            match queue_of(backend) {
                Queue::Refused => self.tell_session(slot, Event::Refused, None)?,
                Queue::Waiting if due > self.now => later.push_back((slot, due)),
                Queue::Waiting | Queue::Empty => self.begin_passing(slot),
            }
        }
        // In the order in which they are due.
        later.append(&mut next);
        self.datagrams.passings.next = later;
        Ok(())
    }

    fn clients_are_quiet(&self) -> bool {
        let sockets = &self.datagrams.sockets;
        let steered = sockets.places().into_iter().filter_map(|place| sockets.get(place));
        steered.filter(|socket| !socket.published).all(|socket| queue_of(&socket.socket) == Queue::Empty)
    }

    fn begin_passing(&mut self, slot: Slot) {
        let Datagrams { sessions, passings, .. } = &mut self.datagrams;
        let (Some(map), Some(session)) = (&passings.map, sessions.get(slot)) else { return };
        if session.passing.is_some() || !may_pass(session) {
            return;
        }
        let Some(passing) = Passing::begin(map, session, self.now) else {
            session.busyness.pause(self.now, PAUSE);
            return;
        };
        session.passing = Some(passing);
        session.flow.pass();
        session.kept = None;
        passings.slots.push(slot);
        self.look_at_passings_later();
    }

    fn look_at_passings_later(&mut self) {
        if !std::mem::replace(&mut self.datagrams.passings.looks, true) {
            self.timers.add(self.now, LOOK, Timer::Passings);
        }
    }

    /// Counts what has passed, and has those sessions stay that do not do well.
    pub(in crate::worker) fn look_at_passings(&mut self) -> Result<(), Error> {
        self.datagrams.passings.looks = false;
        for slot in std::mem::take(&mut self.datagrams.passings.slots) {
            self.note_passed(slot)?;
            if let Some(pause) = self.pause_of(slot) {
                self.stop_passing(slot)?;
                if let Some(session) = self.datagrams.sessions.get(slot) {
                    session.busyness.pause(self.now, pause);
                }
            } else if self.datagrams.sessions.get(slot).is_some_and(|session| session.passing.is_some()) {
                self.datagrams.passings.slots.push(slot);
            }
        }
        if !self.datagrams.passings.slots.is_empty() {
            self.look_at_passings_later();
        }
        Ok(())
    }

    /// Whether a session is not to pass any more, and for how long.
    fn pause_of(&mut self, slot: Slot) -> Option<Duration> {
        let passing = self.datagrams.sessions.get(slot)?.passing.as_mut()?;
        // Looks are for all sessions at once, whenever one has begun.
        if self.now.saturating_duration_since(passing.well) < LOOK {
            return None;
        }
        passing.well = self.now;
        if passing.to_client.has_passed() {
            return None;
        }
        let any = passing.to_backend.counted.datagrams > 0 || passing.to_client.counted.datagrams > 0;
        Some(if any { Duration::ZERO } else { PAUSE })
    }

    /// Counts what has passed of a session since the last time. Whether there was something.
    pub(super) fn note_passed(&mut self, slot: Slot) -> Result<bool, Error> {
        let Some(OpenSession { passing: Some(passing), .. }) = self.datagrams.sessions.get(slot) else {
            return Ok(false);
        };
        let (to_backend, to_client) =
            (passing.map.passed(&passing.to_backend.place), passing.map.passed(&passing.to_client.place));
        self.count_passed(slot, to_backend, to_client)
    }

    /// Has the session's datagrams come here again.
    pub(super) fn stop_passing(&mut self, slot: Slot) -> Result<(), Error> {
        let Some(OpenSession { passing: Some(passing), .. }) = self.datagrams.sessions.get(slot) else { return Ok(()) };
        let (to_backend, to_client) =
            (passing.map.remove(&passing.to_backend.place), passing.map.remove(&passing.to_client.place));
        self.count_passed(slot, to_backend, to_client)?;
        if let Some(session) = self.datagrams.sessions.get(slot) {
            session.passing = None;
            session.flow.stay();
        }
        Ok(())
    }

    fn count_passed(
        &mut self,
        slot: Slot,
        to_backend: Option<Passed>,
        to_client: Option<Passed>,
    ) -> Result<bool, Error> {
        let Some(session) = self.datagrams.sessions.get(slot) else { return Ok(false) };
        let Some(passing) = &mut session.passing else { return Ok(false) };
        let to_backend = to_backend.map(|passed| passing.to_backend.count(passed)).unwrap_or_default();
        let to_client = to_client.map(|passed| passing.to_client.count(passed)).unwrap_or_default();
        if (to_backend, to_client) == Default::default() {
            return Ok(false);
        }
        if let Some(seat) = &session.backend {
            seat.count_to_backend(to_backend.datagrams, to_backend.bytes);
            seat.count_to_client(to_client.datagrams, to_client.bytes);
        }
        let counters = &self.thread.counters;
        counters.datagrams_to_backends.add(to_backend.datagrams);
        counters.datagram_bytes_to_backends.add(to_backend.bytes);
        counters.datagrams_to_clients.add(to_client.datagrams);
        counters.datagram_bytes_to_clients.add(to_client.bytes);
        self.datagrams.sessions.touch(slot, self.now);
        if to_client.datagrams > 0 {
            self.note_reply(slot);
            self.tell_session(slot, Event::RepliesPassed, None)?;
        }
        Ok(true)
    }
}

/// Whether a session could pass at all. Who comes by a published port comes from outside of the network.
fn may_pass(session: &OpenSession) -> bool {
    session.flow.may_pass() && session.key.client.is_ipv4() && !matches!(session.reply, Reply::Published { .. })
}

/// What waits in a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Empty,
    Waiting,
    /// The other end has refused what was sent to it: that is said once.
    Refused,
}

fn queue_of(socket: &impl AsRawFd) -> Queue {
    // Room for a byte, as a kernel answers a look without any at once.
    match recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
        Err(Errno::EAGAIN) => Queue::Empty,
        Ok(_) | Err(Errno::EINTR | Errno::ENOMEM) => Queue::Waiting,
        Err(Errno::EMSGSIZE) => {
            super::send::clear_errors(socket);
            Queue::Waiting
        }
        Err(_) => Queue::Refused,
    }
}

fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address.ip() {
        IpAddr::V4(ip) => Some(SocketAddrV4::new(ip, address.port())),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn what_waits_in_a_socket_is_seen_and_stays() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        assert_eq!(queue_of(&socket), Queue::Empty);
        for length in [1, 0] {
            socket.send(&[7][..length]).unwrap();
            assert_eq!(queue_of(&socket), Queue::Waiting, "{length} bytes");
            assert_eq!(socket.recv(&mut [0; 9]).unwrap(), length);
            assert_eq!(queue_of(&socket), Queue::Empty);
        }
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(gone.local_addr().unwrap()).unwrap();
        drop(gone);
        socket.send(b"anybody?").unwrap();
        assert_eq!(queue_of(&socket), Queue::Refused);
    }

    #[test]
    fn busy_is_who_has_many_datagrams_within_a_second() {
        let start = Instant::now();
        let mut busyness = Busyness::new(start);
        // Once for each time.
        let busy: Vec<_> = (0..3 * BUSY).filter(|_| busyness.note(start, 1)).collect();
        assert_eq!(busy, [BUSY - 1]);
        assert!(busyness.note(start + LOOK, BUSY));
        let slow = (0..5 * BUSY).any(|number| busyness.note(start + LOOK * 2 + number * (LOOK / (BUSY - 2)), 1));
        assert!(!slow);
        let mut paused = Busyness::new(start);
        paused.pause(start, PAUSE);
        assert!(!paused.note(start, BUSY) && !paused.note(start + LOOK, BUSY));
        assert!(paused.note(start + PAUSE, BUSY));
    }
}
