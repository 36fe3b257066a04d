//! Sessions that go past the proxy: their datagrams are sent on in the kernel, by the programs of the network's ports, as the
//! session map says.
//!
//! Only busy ones do. One begins to pass when nothing of it waits here that would come after what passes: after the datagrams
//! of a turn, and, for a moment, when the queues of the sockets are empty. What passes is not seen here: a datagram that a backend refuses is not sent to another one, although the
//! session itself moves, as the refusal comes to its socket. And what passes is counted once a second. A datagram that the
//! programs do not send on, such as a fragment, comes here as ever.

use super::{Datagrams, OpenSession, Reply};
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
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A session with that many datagrams within [`LOOK`] is a busy one.
const BUSY: u32 = 16;
/// How long a busy session waits for empty queues. Then it passes all the same: somebody always sends where there are many.
const PATIENCE: Duration = Duration::from_millis(20);
/// The time between two looks at what has passed.
const LOOK: Duration = Duration::from_secs(1);

/// The state of a data thread's sessions that pass.
#[derive(Debug, Default)]
pub(super) struct Passings {
    /// Where the programs look; none in networks without programs.
    map: Option<Arc<SessionMap>>,
    /// The sessions that may pass.
    slots: Vec<Slot>,
    /// Busy sessions that are to pass, and until when they wait for empty queues.
    next: VecDeque<(Slot, Instant)>,
}

/// How busy a session is.
#[derive(Debug)]
pub(super) struct Busyness {
    since: Instant,
    datagrams: u32,
}

/// One session that passes.
#[derive(Debug)]
pub(super) struct Passing {
    map: Arc<SessionMap>,
    to_backend: Direction,
    to_client: Direction,
}

#[derive(Debug)]
struct Direction {
    place: Place,
    /// What was counted of it here.
    counted: Passed,
}

impl Busyness {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, datagrams: 0 }
    }

    /// Takes note of datagrams. Whether they make it a busy one.
    fn note(&mut self, now: Instant, datagrams: u32) -> bool {
        if now.saturating_duration_since(self.since) >= LOOK {
            *self = Self::new(now);
        }
        let before = self.datagrams;
        self.datagrams = before.saturating_add(datagrams);
        before < BUSY && self.datagrams >= BUSY
    }
}

impl Passing {
    /// Has a session pass; `None` if that is not possible.
    fn begin(map: &Arc<SessionMap>, session: &OpenSession) -> Option<Self> {
        // Who comes by a published port comes from outside of the network.
        if matches!(session.reply, Reply::Published { .. }) {
            return None;
        }
        let seat = session.backend.as_ref()?;
        let client = v4(session.key.client)?;
        let target = v4(session.key.target.address)?;
        let backend = v4(SocketAddr::new(seat.address, seat.port))?;
        let local = SockRef::from(session.upstream.as_ref()?).local_addr().ok()?.as_socket_ipv4()?;
        let tuple = |source, destination| Tuple { source, destination };
        // No reply passes by itself: that would look like a session that is idle.
        let to_client = Direction::begin(map, tuple(backend, local), tuple(target, client))?;
        match Direction::begin(map, tuple(client, target), tuple(local, backend)) {
            Some(to_backend) => Some(Self { map: Arc::clone(map), to_backend, to_client }),
            None => {
                map.remove(&to_client.place);
                None
            }
        }
    }
}

impl Direction {
    fn begin(map: &SessionMap, from: Tuple, to: Tuple) -> Option<Self> {
        map.put(from, to).map(|place| Self { place, counted: Passed::default() })
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
        self.end_passing()?;
        self.datagrams.passings.map = Some(map);
        Ok(())
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
        let (Some(_), Some(session)) = (&passings.map, sessions.get(slot)) else { return };
        if session.busyness.note(self.now, datagrams) && session.passing.is_none() {
            passings.next.push_back((slot, self.now + PATIENCE));
        }
    }

    /// Has busy sessions pass for which it is time. To be called when a turn's datagrams have been dealt with.
    pub(in crate::worker) fn begin_passings(&mut self) {
        let waiting = self.datagrams.passings.next.len();
        if waiting == 0 {
            return;
        }
        let sockets = &self.datagrams.sockets;
        let steered = sockets.places().into_iter().filter_map(|place| sockets.get(place));
        let clients_are_quiet = steered.filter(|socket| !socket.published).all(|socket| is_quiet(&socket.socket));
        for _ in 0..waiting {
            let Datagrams { sessions, passings, .. } = &mut self.datagrams;
            let Some(&(slot, due)) = passings.next.front() else { break };
            let is_due = due <= self.now;
            if !clients_are_quiet && !is_due {
                break;
            }
            passings.next.pop_front();
            let Some(OpenSession { upstream: Some(backend), .. }) = sessions.get(slot) else { continue };
            if is_due || is_quiet(backend) {
                self.begin_passing(slot);
            } else {
                passings.next.push_back((slot, due));
            }
        }
    }

    fn begin_passing(&mut self, slot: Slot) {
        let Datagrams { sessions, passings, .. } = &mut self.datagrams;
        let (Some(map), Some(session)) = (&passings.map, sessions.get(slot)) else { return };
        if session.passing.is_some() || !session.flow.may_pass() {
            return;
        }
        let Some(passing) = Passing::begin(map, session) else { return };
        session.passing = Some(passing);
        session.flow.pass();
        session.kept = None;
        passings.slots.push(slot);
        if passings.slots.len() == 1 {
            self.timers.add(self.now, LOOK, Timer::Passings);
        }
    }

    /// Counts what has passed, and has those sessions stay of which nothing has.
    pub(in crate::worker) fn look_at_passings(&mut self) -> Result<(), Error> {
        let slots = std::mem::take(&mut self.datagrams.passings.slots);
        if slots.is_empty() {
            return Ok(());
        }
        for slot in slots {
            if self.note_passed(slot)? {
                self.datagrams.passings.slots.push(slot);
            } else {
                self.stop_passing(slot)?;
            }
        }
        if !self.datagrams.passings.slots.is_empty() {
            self.timers.add(self.now, LOOK, Timer::Passings);
        }
        Ok(())
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
            let datagrams = seat.identity.datagrams();
            datagrams.to_backend.fetch_add(to_backend.datagrams, Ordering::Relaxed);
            datagrams.to_client.fetch_add(to_client.datagrams, Ordering::Relaxed);
            seat.identity.bytes_to_backend.fetch_add(to_backend.bytes, Ordering::Relaxed);
            seat.identity.bytes_to_client.fetch_add(to_client.bytes, Ordering::Relaxed);
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

/// Whether nothing waits in a socket's queue.
fn is_quiet(socket: &impl AsRawFd) -> bool {
    recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) == Err(Errno::EAGAIN)
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
    fn a_socket_is_quiet_while_nothing_waits_in_it() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        assert!(is_quiet(&socket));
        for length in [1, 0] {
            socket.send(&[7][..length]).unwrap();
            assert!(!is_quiet(&socket), "{length} bytes");
            assert_eq!(socket.recv(&mut [0; 9]).unwrap(), length);
            assert!(is_quiet(&socket));
        }
    }

    #[test]
    fn busy_is_who_has_many_datagrams_within_a_second() {
        let start = Instant::now();
        let mut busyness = Busyness::new(start);
        // Once for each time.
        let busy: Vec<_> = (0..3 * BUSY).filter(|_| busyness.note(start, 1)).collect();
        assert_eq!(busy, [BUSY - 1]);
        assert!(busyness.note(start + LOOK, BUSY));
        let slow = (0..5 * BUSY).any(|number| busyness.note(start + LOOK * 2 + number * (LOOK / (BUSY - 1)), 1));
        assert!(!slow);
    }
}
