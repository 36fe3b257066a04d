//! Sessions in a made-up world: clients, backends that die and come back, tables that change at any point, late
//! completions, limits; all as a seeded random generator says.
//!
//! After every step: a backend's counts are its sessions, nobody is at a backend that was removed, each datagram was taken
//! by one backend at most, a picked backend was eligible in the table that was loaded. In the end nothing is left over. A
//! failure prints the seed; run it again with `RINGLB_SEED=<seed>`.

use super::*;
use crate::balance;
use crate::control::message::{
    Algorithm, BackendSpec, Change, Delta, Generation, ServiceSettings, ServiceSpec, Snapshot,
};
use crate::flow::Slot;
use crate::table::{Consequence, Entry, Identity, SharedIdentity, Table};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const WORLDS: u64 = 3_000;
const STEPS: usize = 300;
const BACKENDS: u8 = 6;
const VIPS: u8 = 2;
const MOST_SESSIONS: usize = 12;

#[derive(Debug, Default)]
struct Seen {
    steps: u64,
    forwarded: u64,
    replied: u64,
    refused: u64,
    refused_at_forward: u64,
    sent_again: u64,
    unreachable: u64,
    gone: u64,
    lost: u64,
    idle: u64,
    answered: u64,
    evicted: u64,
    no_backend: u64,
    late: u64,
    rows: u64,
    drains_over: u64,
    passing: u64,
    passed: u64,
}

/// A session and what the worker keeps with it.
#[derive(Debug)]
struct Open {
    flow: Session,
    vip: u8,
    seat: Option<Seat>,
    tried: Vec<IpAddr>,
    kept: Option<u64>,
    /// Whether what is sent goes past the flow.
    passes: bool,
}

/// The socket to a backend, with its share of the world.
#[derive(Debug)]
struct Seat {
    address: IpAddr,
    identity: SharedIdentity,
    /// ICMP has said that something that was sent has been refused.
    error: bool,
    /// Replies on their way.
    replies: u32,
}

struct World {
    random: fastrand::Rng,
    now: Instant,
    table: Table,
    sessions: Sessions<(u8, u8), Open>,
    /// Slots that are of the past, for late completions.
    past: Vec<Slot>,
    alive: HashSet<IpAddr>,
    /// Backends that are not reachable at all.
    unreachable: HashSet<IpAddr>,
    identities: Vec<SharedIdentity>,
    drains: Vec<(SharedIdentity, u32)>,
    /// Whether sessions of removed backends are yet to be moved, as the data thread has not read its orders.
    order: bool,
    responses: u16,
    next_datagram: u64,
    /// How often each datagram was taken by a backend.
    taken: HashMap<u64, u32>,
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn vip(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 200, number])
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let algorithm = [Algorithm::Rr, Algorithm::P2c, Algorithm::SourceHash][random.usize(..3)];
        let services = (0..VIPS).map(|number| {
            let first = number * BACKENDS / VIPS;
            let backends = (first..first + 3).map(|last| BackendSpec {
                address: address(last),
                weight: 1,
                draining: false,
                backup: false,
                local: false,
            });
            let settings = ServiceSettings { algorithm, ..ServiceSettings::default() };
            let spec = ServiceSpec {
                name: format!("s{number}"),
                vips: vec![vip(number)],
                settings,
                published: Vec::new(),
                backends: backends.collect(),
            };
            Arc::new(spec)
        });
        let snapshot = Snapshot { generation: 1, services: services.collect() };
        let mut world = Self {
            now: Instant::now(),
            table: Table::default().replaced_by(&snapshot).unwrap().table,
            sessions: Sessions::default(),
            past: Vec::new(),
            alive: (0..BACKENDS).filter(|_| random.u8(..4) > 0).map(address).collect(),
            unreachable: HashSet::new(),
            identities: Vec::new(),
            drains: Vec::new(),
            order: false,
            responses: [0, 0, 1, 2][random.usize(..4)],
            next_datagram: 0,
            taken: HashMap::new(),
            random,
        };
        world.note_identities();
        world
    }

    fn run(mut self, seen: &mut Seen) {
        for _ in 0..STEPS {
            seen.steps += 1;
            self.now += Duration::from_millis(self.random.u64(..200));
            match self.random.u8(..20) {
                0..6 => self.client_sends(seen),
                6..10 => self.backend_replies(seen),
                10 => self.icmp_arrives(seen),
                11 => self.change(),
                12 => self.read_orders(seen),
                13 => self.late_completion(seen),
                14 => self.drain_deadline(seen),
                15 => self.begin_or_end_passing(seen),
                16..19 => self.exchange_past(seen),
                _ => {
                    let backend = address(self.random.u8(..BACKENDS));
                    let set = if self.random.u8(..4) == 0 { &mut self.unreachable } else { &mut self.alive };
                    if !set.remove(&backend) {
                        set.insert(backend);
                    }
                }
            }
            while let Some(slot) = self.sessions.expired(self.now) {
                seen.idle += 1;
                self.tell(slot, Event::End(Ending::Idle), None, seen);
            }
            self.check();
        }
        for slot in self.sessions.select(|_| true) {
            self.tell(slot, Event::End(Ending::Stopped), None, seen);
        }
        self.check();
        assert!(self.sessions.is_empty());
        assert!(self.identities.iter().all(|identity| identity.active.load(Ordering::SeqCst) == 0));
    }

    fn check(&mut self) {
        let mut counts: HashMap<SharedIdentity, u64> = HashMap::new();
        for slot in self.sessions.select(|_| true) {
            let session = self.sessions.get(slot).unwrap();
            let seat = session.seat.as_ref().expect("a session without a backend was left open");
            *counts.entry(seat.identity.clone()).or_default() += 1;
            assert!(self.order || !seat.identity.is_removed(), "a session stays at a removed backend");
            assert!(!session.passes || session.kept.is_none(), "nobody would say that the copy was answered");
        }
        for identity in &self.identities {
            let counted = identity.active.load(Ordering::SeqCst);
            assert_eq!(counted, counts.get(identity).copied().unwrap_or(0), "a count is wrong");
        }
        assert!(self.taken.values().all(|count| *count == 1), "a datagram was taken twice");
        assert!(self.sessions.len() <= MOST_SESSIONS);
    }

    fn client_sends(&mut self, seen: &mut Seen) {
        let key = (self.random.u8(..20), self.random.u8(..VIPS));
        let datagram = self.next_datagram;
        self.next_datagram += 1;
        let slot = match self.sessions.find(&key) {
            Some(slot) => {
                self.sessions.touch(slot, self.now);
                slot
            }
            None => {
                if self.sessions.len() == MOST_SESSIONS {
                    let oldest = self.sessions.longest_unused().unwrap();
                    seen.evicted += 1;
                    self.tell(oldest, Event::End(Ending::Evicted), None, seen);
                }
                let flow = Session::new(2, self.responses);
                let open = Open { flow, vip: key.1, seat: None, tried: Vec::new(), kept: None, passes: false };
                let timeout = Duration::from_millis([2_000, 5_000][self.random.usize(..2)]);
                self.sessions.insert(key, open, timeout, self.now)
            }
        };
        let count = if self.random.u8(..5) == 0 { 3 } else { 1 };
        seen.rows += u64::from(count > 1);
        self.tell(slot, Event::Received { count }, Some(datagram), seen);
    }

    fn any_session(&mut self) -> Option<Slot> {
        let all = self.sessions.select(|_| true);
        if all.is_empty() { None } else { Some(all[self.random.usize(..all.len())]) }
    }

    fn backend_replies(&mut self, seen: &mut Seen) {
        let Some(slot) = self.any_session() else { return };
        let seat = self.sessions.get(slot).and_then(|session| session.seat.as_mut()).unwrap();
        if seat.replies > 0 {
            seat.replies -= 1;
            self.sessions.touch(slot, self.now);
            self.tell(slot, Event::Replied { count: 1 }, None, seen);
        }
    }

    fn begin_or_end_passing(&mut self, seen: &mut Seen) {
        let Some(slot) = self.any_session() else { return };
        let session = self.sessions.get(slot).unwrap();
        if session.passes {
            session.passes = false;
            session.flow.stay();
        } else if session.flow.may_pass() {
            seen.passing += 1;
            (session.passes, session.kept) = (true, None);
            session.flow.pass();
        }
    }

    /// A datagram and its answer, or a refusal, of which the flow sees as much as of those that go past a proxy.
    fn exchange_past(&mut self, seen: &mut Seen) {
        let Some(slot) = self.any_session() else { return };
        let session = self.sessions.get(slot).unwrap();
        let seat = session.seat.as_mut().filter(|_| session.passes);
        let Some(seat) = seat else { return };
        if self.alive.contains(&seat.address) {
            seen.passed += 1;
            self.sessions.touch(slot, self.now);
            self.tell(slot, Event::RepliesPassed, None, seen);
        } else {
            seat.error = true;
        }
    }

    fn icmp_arrives(&mut self, seen: &mut Seen) {
        let Some(slot) = self.any_session() else { return };
        let seat = self.sessions.get(slot).and_then(|session| session.seat.as_mut()).unwrap();
        if std::mem::take(&mut seat.error) {
            seen.refused += 1;
            self.tell(slot, Event::Refused, None, seen);
        }
    }

    /// Something is told of a socket that a session had before: it must find nobody.
    fn late_completion(&mut self, seen: &mut Seen) {
        if !self.past.is_empty() {
            let slot = self.past[self.random.usize(..self.past.len())];
            assert!(self.sessions.get(slot).is_none(), "a late completion met a session");
            seen.late += 1;
        }
    }

    fn change(&mut self) {
        let service = self.random.u8(..VIPS);
        let address = address(self.random.u8(..BACKENDS));
        let name = format!("s{service}");
        let there = self.table.service(&name).is_some_and(|service| service.backend(address).is_some());
        let change = if there && self.random.bool() {
            Change::RemoveBackend { service: name, address }
        } else {
            let (weight, draining) = (self.random.u16(..3), self.random.u8(..3) == 0);
            let backend = BackendSpec { address, weight, draining, backup: false, local: false };
            Change::PutBackend { service: name, backend }
        };
        let from: Generation = self.table.generation();
        let transition = self.table.changed_by(&Delta { from, to: from + 1, changes: vec![change] }).unwrap();
        self.table = transition.table;
        for (identity, consequence) in transition.consequences {
            match consequence {
                Consequence::Removed => self.order |= identity.remove(),
                Consequence::DrainStarted(_) => {
                    let note = identity.note_drain();
                    self.drains.push((identity, note));
                }
                Consequence::DrainEnded => drop(identity.note_drain()),
            }
        }
        self.note_identities();
    }

    fn note_identities(&mut self) {
        for service in self.table.services() {
            for backend in service.backends() {
                if !self.identities.contains(&backend.identity) {
                    self.identities.push(backend.identity.clone());
                }
            }
        }
    }

    fn read_orders(&mut self, seen: &mut Seen) {
        if std::mem::take(&mut self.order) {
            self.move_where(Identity::is_removed, seen);
        }
    }

    fn drain_deadline(&mut self, seen: &mut Seen) {
        let Some((identity, note)) = self.drains.pop() else { return };
        if identity.last_drain() == note {
            seen.drains_over += 1;
            self.move_where(|other| std::ptr::eq(other, &*identity), seen);
            // It may have been picked again only if it is not in the table as draining.
            assert_eq!(identity.active.load(Ordering::SeqCst), 0);
        }
    }

    fn move_where(&mut self, wanted: impl Fn(&Identity) -> bool, seen: &mut Seen) {
        for slot in self.sessions.select(|open| open.seat.as_ref().is_some_and(|seat| wanted(&seat.identity))) {
            seen.gone += 1;
            self.tell(slot, Event::BackendGone, None, seen);
        }
    }

    fn tell(&mut self, mut slot: Slot, event: Event, at_hand: Option<u64>, seen: &mut Seen) {
        let mut operations = Vec::new();
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let Some(session) = self.sessions.get(slot) else { break };
            session.flow.on(event, &mut operations);
            for operation in operations.drain(..) {
                assert!(next.is_none(), "{operation:?} follows one that leads to an event");
                next = self.carry_out(&mut slot, operation, at_hand, seen);
            }
        }
    }

    fn carry_out(
        &mut self,
        slot: &mut Slot,
        operation: Operation,
        at_hand: Option<u64>,
        seen: &mut Seen,
    ) -> Option<Event> {
        match operation {
            Operation::Connect => return Some(self.connect(*slot, seen)),
            Operation::Disconnect { failed } => {
                let session = self.sessions.get(*slot).unwrap();
                let seat = session.seat.take().expect("there is no socket to close");
                if std::mem::take(&mut session.passes) {
                    session.flow.stay();
                }
                seat.identity.leave();
                if failed {
                    session.tried.push(seat.address);
                }
                self.past.push(*slot);
                *slot = self.sessions.renew(*slot).unwrap();
            }
            Operation::ForgetTried => self.sessions.get(*slot).unwrap().tried.clear(),
            Operation::Forward => return self.send(*slot, at_hand.expect("nothing is at hand"), seen),
            Operation::Keep => self.sessions.get(*slot).unwrap().kept = Some(at_hand.expect("nothing is at hand")),
            Operation::ForwardKept => {
                let kept = self.sessions.get(*slot).unwrap().kept.expect("nothing is kept");
                seen.sent_again += 1;
                return self.send(*slot, kept, seen);
            }
            Operation::DropKept => {
                assert!(self.sessions.get(*slot).unwrap().kept.take().is_some(), "nothing is kept");
            }
            Operation::Deliver => seen.replied += 1,
            Operation::Lose => {
                seen.lost += 1;
                assert!(at_hand.is_some() || self.sessions.get(*slot).unwrap().kept.is_some());
            }
            Operation::Close { ending } => {
                seen.answered += u64::from(ending == Ending::Answered);
                seen.no_backend += u64::from(ending == Ending::NoBackend);
                let session = self.sessions.remove(*slot).expect("a session is closed twice");
                assert!(session.seat.is_none(), "a session is closed with a socket");
                self.past.push(*slot);
            }
        }
        None
    }

    fn connect(&mut self, slot: Slot, seen: &mut Seen) -> Event {
        let session = self.sessions.get(slot).unwrap();
        assert!(session.seat.is_none(), "there is a socket already");
        let service = self.table.service_at(vip(session.vip)).unwrap();
        let client = Some(IpAddr::from([192, 0, 2, session.vip]));
        let Some(backend) = balance::pick(service, client, &session.tried, &mut self.random) else {
            return Event::NoBackend;
        };
        assert!(backend.is_usable() && !session.tried.contains(&backend.address));
        assert_eq!(backend.identity.enter(u64::MAX), Entry::Entered, "the table has a backend that was removed");
        if self.unreachable.contains(&backend.address) {
            backend.identity.leave();
            session.tried.push(backend.address);
            seen.unreachable += 1;
            return Event::ConnectFailed;
        }
        session.seat =
            Some(Seat { address: backend.address, identity: backend.identity.clone(), error: false, replies: 0 });
        Event::Connected
    }

    fn send(&mut self, slot: Slot, datagram: u64, seen: &mut Seen) -> Option<Event> {
        let session = self.sessions.get(slot).unwrap();
        let seat = session.seat.as_mut().expect("there is no socket to send by");
        if std::mem::take(&mut seat.error) {
            seen.refused_at_forward += 1;
            return Some(Event::ForwardRefused { count: 1 });
        }
        if self.alive.contains(&seat.address) {
            *self.taken.entry(datagram).or_default() += 1;
            seat.replies += u32::from(self.random.u8(..4) > 0);
            seen.forwarded += 1;
        } else {
            seat.error = true;
        }
        None
    }
}

#[test]
fn sessions_in_many_worlds() {
    let wanted = std::env::var("RINGLB_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let base = wanted.unwrap_or_else(|| fastrand::u64(..));
    println!("simulation of {WORLDS} worlds, first seed {base}");
    let mut seen = Seen::default();
    let worlds = if wanted.is_some() { 1 } else { WORLDS };
    for seed in (0..worlds).map(|offset| base.wrapping_add(offset)) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| World::new(seed).run(&mut seen)));
        assert!(outcome.is_ok(), "replay with RINGLB_SEED={seed}");
    }
    println!("{seen:#?}");
    if wanted.is_some() {
        return;
    }
    for (name, count) in [
        ("datagrams", seen.forwarded),
        ("replies", seen.replied),
        ("refusals", seen.refused),
        ("refusals told at the next datagram", seen.refused_at_forward),
        ("datagrams sent again", seen.sent_again),
        ("backends that are not reachable", seen.unreachable),
        ("backends that are gone", seen.gone),
        ("drain deadlines", seen.drains_over),
        ("lost datagrams", seen.lost),
        ("idle sessions", seen.idle),
        ("answered sessions", seen.answered),
        ("evictions", seen.evicted),
        ("sessions without a backend", seen.no_backend),
        ("late completions", seen.late),
        ("rows", seen.rows),
        ("sessions that pass", seen.passing),
        ("datagrams that pass", seen.passed),
    ] {
        assert!(count > 500, "{name}: only {count}");
    }
}
