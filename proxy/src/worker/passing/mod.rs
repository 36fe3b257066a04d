//! Connections that go past the proxy: the programs of the network's ports give what one end sends to the other one.
//!
//! Only busy ones do, whose ends are both at such ports. Here is said where a connection has begun and how much of it was
//! relayed; the programs find the segment from which on it can pass, and have it relayed again whenever there is something else than
//! data. So what is done here with a connection is the same whether it passes or not: what its sockets hear is always right. What has
//! passed is counted once a second.
//!
//! When a connection ends here, the kernel may still have to end it towards its ends. Its entry stays until that is done.

mod standing;

use super::connections::Connection;
use super::relay::count_bytes;
use super::{Timer, Worker};
use crate::connection_map::{Bases, ConnectionMap, Entry, LegAddresses, Stamp};
use crate::control::message::Protocol;
use crate::flow::Side;
use crate::ring::Slot;
use crate::worker::clock::Tick;
use crate::worker::connections::Introduction;
use nix::time::{ClockId, clock_gettime};
use socket2::SockRef;
use standing::Information;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection of which so many pieces were received within [`LOOK`] is a busy one.
const BUSY: u16 = 16;
/// The time between two looks at what has passed.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is tried to find out where a connection has begun. It is certain at once, but while there is always something on
/// the way.
const TRIES: u16 = 500;
/// A connection that could pass and has had so many bytes relayed is a stream without a pause: its ends are stopped for a moment.
const STREAM: u32 = 512 * 1024;
/// How long a connection is not tried again that cannot pass, and the ends of one are not stopped again; twice as long each time that
/// stopping them was in vain.
const PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How long an entry stays after the last packet: if all have ended, for one that was lost; if not, for what the kernel has to say to
/// ends that go on (`tcp_fin_timeout`, ip(7)).
const ENDED: Duration = Duration::from_secs(3);
const ORPHANED: Duration = Duration::from_secs(90);
/// The time between two looks for entries of proxies that are not there any more.
const SWEEP: Duration = Duration::from_secs(30);

/// The state of a data thread's connections that pass.
#[derive(Debug, Default)]
pub(super) struct Passings {
    /// Where the programs look; none before a connection was busy, and in networks without programs.
    map: Option<Arc<ConnectionMap>>,
    /// The connections that may pass, and some that have ended.
    slots: Vec<Slot>,
    /// What is left of connections that have ended.
    ended: Vec<Ended>,
    /// Whether they will be looked at.
    looks: bool,
    swept: Option<Instant>,
}

/// How busy a connection is.
#[derive(Debug)]
pub(super) struct Busyness {
    /// From when its pieces are counted, which may be later.
    since: Tick,
    pieces: u16,
}

/// One connection that may pass.
#[derive(Debug)]
pub(super) struct Passing {
    entry: Entry,
    /// Where the legs have begun, as far as it is known.
    bases: [Bases; 2],
    tries: u16,
    /// How often it had begun to pass, and how much was read, when it was first seen that it could pass and did not.
    relayed_since: Option<(u32, [u32; 2])>,
    /// Whether the client alone was stopped the last time that ends of this connection were.
    stopped_client: bool,
    /// When the ends may be stopped, at the earliest, and how long they may not be after that.
    earliest: Instant,
    pause: Duration,
    /// What was counted here of what has passed, by the side that it came from.
    counted: [u64; 2],
}

#[derive(Debug)]
struct Ended {
    entry: Entry,
    activity: u32,
    since: Instant,
}

impl Busyness {
    pub(super) fn new(now: Tick) -> Self {
        Self { since: now, pieces: 0 }
    }

    /// Takes note of a piece of data. Whether it makes the connection a busy one.
    fn note(&mut self, now: Tick) -> bool {
        if now.since(self.since) >= LOOK {
            (self.since, self.pieces) = (now, 0);
        }
        self.pieces = self.pieces.saturating_add((now >= self.since).into());
        self.pieces == BUSY && now >= self.since
    }

    fn pause(&mut self, now: Tick) {
        *self = Self::new(now.after(PAUSE));
    }
}

impl Passing {
    fn begin(map: &Arc<ConnectionMap>, connection: &Connection, now: Instant) -> Option<Self> {
        let [Some(client), Some(backend)] = &connection.sockets else { return None };
        let [client_information, backend_information] = [Information::of(client).ok()?, Information::of(backend).ok()?];
        if !client_information.agrees_with(&backend_information) {
            return None;
        }
        let entry = map.put([addresses_of(client)?, addresses_of(backend)?], stamp())?;
        for leg in 0..2 {
            entry.set_read(leg, connection.read[leg]);
        }
        entry.set_scales([client_information.scale(), backend_information.scale()]);
        Some(Self {
            entry,
            bases: [Bases::default(); 2],
            tries: 0,
            relayed_since: None,
            stopped_client: false,
            earliest: now,
            pause: PAUSE,
            counted: [0; 2],
        })
    }

    /// Takes note of how many bytes were read from a side, before they are written to the other one.
    pub(super) fn note_read(&self, from: Side, bytes: u32) {
        self.entry.set_read(from.index(), bytes);
    }

    fn are_bases_known(&self) -> bool {
        self.bases.iter().all(Bases::are_known)
    }

    /// Tries to find out where the legs have begun. After a write is a good moment: what was received was acknowledged with it.
    fn find_bases(&mut self, sockets: &[Option<OwnedFd>; 2]) {
        if self.are_bases_known() || self.tries == TRIES {
            return;
        }
        self.tries += 1;
        for (leg, socket) in sockets.iter().enumerate() {
            let (Some(seen), Some(socket)) = (self.entry.seen(leg), socket) else { return };
            if self.bases[leg].are_known() {
                continue;
            }
            let Ok(information) = Information::of(socket) else { return };
            let standing = information.standing(leg == Side::Backend.index());
            self.entry.narrow(leg, seen, standing, &mut self.bases[leg]);
        }
        if self.are_bases_known() {
            self.entry.allow(self.bases);
        }
    }

    /// Has the ends stopped for a moment if the connection is a stream without a pause. `read` is how much was read on each side.
    fn hold_stream(&mut self, read: [u32; 2], now: Instant) {
        if !self.are_bases_known() || now < self.earliest || self.entry.is_ending() {
            return;
        }
        let passings = self.entry.passings();
        match self.relayed_since {
            Some((before, first)) if before == passings => {
                let [from_client, from_backend] = [0, 1].map(|side| read[side].wrapping_sub(first[side]));
                if from_client.wrapping_add(from_backend) >= STREAM {
                    // A backend that answers stops by itself. If it is stopped, too, it may take no more questions, and what is on
                    // its way to it stays there. Where that is in vain, the backend has something to say of its own.
                    self.stopped_client = !self.stopped_client && from_client >= from_backend / 8;
                    let both = [Side::Client.index(), Side::Backend.index()];
                    self.entry.hold(if self.stopped_client { &both[..1] } else { &both });
                    self.earliest = now + self.pause;
                    self.pause = LONGEST_PAUSE.min(self.pause * 2);
                    // From when it may be tried again.
                    self.relayed_since = Some((passings, read));
                }
            }
            before => {
                if before.is_some() {
                    (self.pause, self.stopped_client) = (PAUSE, false);
                }
                self.relayed_since = Some((passings, read));
            }
        }
    }
}

impl Connection {
    /// Does what is to be done when something was written to one of its sockets.
    pub(super) fn help_to_pass(&mut self, now: Instant) {
        if let Some(passing) = &mut self.passing {
            passing.find_bases(&self.sockets);
            passing.hold_stream(self.read, now);
        }
    }
}

impl Worker {
    /// Has busy connections pass by that map from now on.
    pub(super) fn use_connection_map(&mut self, map: Arc<ConnectionMap>) {
        self.passings.map = Some(map);
        // What was not possible with the one before may be now.
        let tick = self.tick();
        for slot in self.connections.find(|connection| connection.passing.is_none()) {
            if let Some(connection) = self.connections.get(slot) {
                connection.busyness = Busyness::new(tick);
            }
        }
    }

    /// Has a connection pass soon of which a piece of data has just come, if that makes it a busy one.
    pub(super) fn consider_connection(&mut self, slot: Slot) {
        let tick = self.tick();
        let Some(connection) = self.connections.get(slot) else { return };
        if connection.passing.is_some() || !connection.busyness.note(tick) || !may_pass(connection) {
            return;
        }
        let Some(map) = &self.passings.map else { return self.shared.is_busy(Protocol::Tcp) };
        let Some(passing) = Passing::begin(map, connection, self.now) else { return connection.busyness.pause(tick) };
        connection.passing = Some(Box::new(passing));
        self.passings.slots.push(slot);
        self.look_at_connections_later();
    }

    fn look_at_connections_later(&mut self) {
        if !std::mem::replace(&mut self.passings.looks, true) {
            self.timers.add(self.now, LOOK, Timer::PassingConnections);
        }
    }

    /// Counts what has passed, and forgets what is over.
    pub(super) fn look_at_connections(&mut self) {
        self.passings.looks = false;
        let now = stamp();
        for slot in std::mem::take(&mut self.passings.slots) {
            let tick = self.tick();
            let Some(connection) = self.connections.get(slot) else { continue };
            let Some(passing) = &connection.passing else { continue };
            passing.entry.stamp(now);
            count_passed(connection, tick);
            self.passings.slots.push(slot);
        }
        let (moment, ended) = (self.now, std::mem::take(&mut self.passings.ended));
        for mut ended in ended {
            ended.entry.stamp(now);
            if ended.is_needed(moment) {
                self.passings.ended.push(ended);
            } else {
                ended.entry.free();
            }
        }
        self.sweep_connections(now);
        if !(self.passings.slots.is_empty() && self.passings.ended.is_empty()) {
            self.look_at_connections_later();
        }
    }

    /// Counts what has passed until now, so that nobody is taken to be idle who is not.
    pub(super) fn count_passed_until_now(&mut self) {
        let tick = self.tick();
        for slot in &self.passings.slots {
            if let Some(connection) = self.connections.get(*slot) {
                count_passed(connection, tick);
            }
        }
    }

    /// Takes away what proxies have left behind that were killed.
    fn sweep_connections(&mut self, now: Stamp) {
        let Some(map) = &self.passings.map else { return };
        if self.passings.swept.is_none_or(|swept| self.now - swept >= SWEEP) {
            self.passings.swept = Some(self.now);
            map.sweep(now);
        }
    }

    /// Counts what has passed of a connection that ends here.
    pub(super) fn end_passing_of(&mut self, connection: &mut Connection) {
        count_passed(connection, self.tick());
        let Some(passing) = connection.passing.take() else { return };
        let entry = passing.entry;
        if entry.passings() == 0 {
            return entry.free();
        }
        self.passings.ended.push(Ended { activity: entry.activity(), entry, since: self.now });
        self.look_at_connections_later();
    }
}

impl Ended {
    /// Whether there may be packets that the programs must know something of.
    fn is_needed(&mut self, now: Instant) -> bool {
        let activity = self.entry.activity();
        if std::mem::replace(&mut self.activity, activity) != activity {
            self.since = now;
        }
        !self.entry.is_replaced() && now - self.since < if self.entry.is_over() { ENDED } else { ORPHANED }
    }
}

fn count_passed(connection: &mut Connection, tick: Tick) {
    let Some(passing) = &mut connection.passing else { return };
    let passed = passing.entry.passed();
    let before = std::mem::replace(&mut passing.counted, passed);
    for from in [Side::Client, Side::Backend] {
        let bytes = passed[from.index()].saturating_sub(before[from.index()]);
        if bytes > 0 {
            connection.moved = tick;
            count_bytes(connection, from.other(), bytes);
        }
    }
}

/// Whether a connection could pass at all. What comes by a published port comes from outside of the network, and a header is a
/// part of what a backend has received that no client has sent.
fn may_pass(connection: &Connection) -> bool {
    let told = connection.backend.as_ref().is_some_and(|attempt| attempt.told.is_some());
    connection.target.address.is_ipv4()
        && !connection.target.published
        && !told
        && matches!(connection.introduction, Introduction::None | Introduction::Unknown)
}

fn addresses_of(socket: &OwnedFd) -> Option<LegAddresses> {
    let socket = SockRef::from(socket);
    let end = v4(socket.peer_addr().ok()?.as_socket()?)?;
    Some(LegAddresses { end, socket: v4(socket.local_addr().ok()?.as_socket()?)? })
}

fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => Some(SocketAddrV4::new(ip, address.port())),
        IpAddr::V6(_) => None,
    }
}

/// Now. Without a clock, which no kernel lacks, entries would be taken for abandoned at the worst.
fn stamp() -> Stamp {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec() as Stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_who_has_many_pieces_within_a_second() {
        let start = Instant::now();
        let at = |tenths: u64| Tick::at(start + Duration::from_millis(100 * tenths), start);
        let mut busyness = Busyness::new(at(0));
        // Once for each time.
        let busy: Vec<_> = (0..3 * BUSY).filter(|_| busyness.note(at(5))).collect();
        assert_eq!(busy, [BUSY - 1]);
        assert!((0..BUSY).any(|_| busyness.note(at(10))));
        assert!(!(0..5 * u64::from(BUSY)).any(|number| busyness.note(at(20 + number))));
        let mut paused = Busyness::new(at(0));
        paused.pause(at(0));
        assert!(!(0..2 * BUSY).any(|_| paused.note(at(99))));
        assert!((0..BUSY).any(|_| paused.note(at(100))));
    }

    #[test]
    fn addresses_of_both_families_of_sockets_are_those_of_ipv4() {
        let of = |text: &str| v4(text.parse().unwrap());
        assert_eq!(of("10.0.0.1:80"), of("[::ffff:10.0.0.1]:80"));
        assert_eq!(of("[fd00::1]:80"), None);
    }
}
