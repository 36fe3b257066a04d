//! A data thread with a few connections at once, its clock, and the thread that changes the table.

use super::changes;
use super::connection::{Action, Connection};
use super::faults::Faults;
use super::slots::Slots;
use crate::admission::Gate;
use crate::flow::{Ending, Event, Operation, Slot};
use crate::shared::Order;
use crate::table::{ServiceState, SharedIdentity, Table};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const MOST_STEPS: u64 = 1_000_000;
const MOST_AT_ONCE: usize = 5;

pub(super) struct World<'a> {
    pub(super) faults: &'a mut Faults,
    pub(super) random: fastrand::Rng,
    /// Whether connections have faults.
    pub(super) faulty: bool,
    /// One step in so many changes the table; 0 for none.
    change_every: u16,
    pub(super) now: Duration,
    pub(super) table: Table,
    pub(super) gate: Gate,
    pub(super) connections: Slots,
    /// How many connections are still to come.
    left: u8,
    pub(super) orders: Vec<Order>,
    /// What is to be told next to the flow that is dealt with.
    pub(super) events: VecDeque<Event>,
    pub(super) drains: Vec<Drain>,
    /// All that there ever were.
    pub(super) identities: Vec<SharedIdentity>,
    pub(super) services: Vec<Arc<ServiceState>>,
}

/// A deadline of a drain.
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) deadline: Duration,
    pub(super) identity: SharedIdentity,
    pub(super) note: u32,
}

impl<'a> World<'a> {
    pub(super) fn new(seed: u64, faults: &'a mut Faults) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let faulty = random.bool();
        let change_every = [0, 8, 64, 400][random.usize(..4)];
        let calm = !faulty && change_every == 0;
        let table = Table::default().replaced_by(&changes::first(calm, &mut random)).unwrap().table;
        let mut world = Self {
            faults,
            faulty,
            change_every,
            now: Duration::ZERO,
            table,
            gate: Gate::default(),
            connections: Slots::default(),
            left: random.u8(1..=10),
            orders: Vec::new(),
            events: VecDeque::new(),
            drains: Vec::new(),
            identities: Vec::new(),
            services: Vec::new(),
            random,
        };
        world.note_newcomers();
        world
    }

    pub(super) fn run(mut self) {
        for _ in 0..MOST_STEPS {
            let open = self.connections.find(|_| true);
            if open.is_empty() && self.left == 0 && self.orders.is_empty() {
                self.check_end();
                return;
            }
            self.faults.steps += 1;
            self.now += Duration::from_millis(self.random.u64(..40));
            self.step(&open);
            self.check();
        }
        panic!("the world does not end: {:?}", self.connections);
    }

    /// Whether the table ever changes.
    pub(super) fn is_changing(&self) -> bool {
        self.change_every > 0
    }

    /// Lets one thing happen.
    fn step(&mut self, open: &[Slot]) {
        if self.is_changing() && self.random.u16(..self.change_every) == 0 {
            return self.change();
        }
        match self.random.u8(..16) {
            0 if self.left > 0 && open.len() < MOST_AT_ONCE => self.open(),
            1 | 2 if !self.orders.is_empty() => self.read_orders(),
            3 => self.fire_timers(),
            _ => {
                let action = (!open.is_empty()).then(|| open[self.random.usize(..open.len())]).and_then(|slot| {
                    let action = self.connections.get(slot).unwrap().choose(self.now)?;
                    Some((slot, action))
                });
                match action {
                    Some((slot, action)) => self.act(slot, action),
                    None if !self.orders.is_empty() => self.read_orders(),
                    None if self.left > 0 && open.len() < MOST_AT_ONCE => self.open(),
                    // It waits, perhaps for its time to be over.
                    None => self.fire_timers(),
                }
            }
        }
    }

    fn open(&mut self) {
        self.left -= 1;
        let target = changes::target(&mut self.random);
        let random = self.random.fork();
        let (connection, operations) = Connection::new(self.faulty, self.table.generation(), target, random);
        let slot = self.connections.insert(connection);
        self.carry_out(slot, operations);
        self.tell_events(slot);
    }

    fn act(&mut self, slot: Slot, action: Action) {
        let event = match action {
            Action::Connect => Some(self.connect_is_over(slot)),
            action => self.connections.get(slot).unwrap().act(action, self.faults),
        };
        if let Some(event) = event {
            self.tell(slot, event);
        }
    }

    /// Tells the connection's flow of an event and of all that comes of it at once.
    pub(super) fn tell(&mut self, slot: Slot, event: Event) {
        self.events.push_back(event);
        self.tell_events(slot);
    }

    pub(super) fn tell_events(&mut self, slot: Slot) {
        while let Some(event) = self.events.pop_front() {
            let Some(connection) = self.connections.get(slot) else { panic!("{event:?} after the close") };
            let mut operations = Vec::new();
            connection.flow.on(event, &mut operations);
            self.carry_out(slot, operations);
        }
    }

    fn carry_out(&mut self, slot: Slot, operations: Vec<Operation>) {
        for operation in operations {
            let Some(connection) = self.connections.get(slot) else { panic!("{operation:?} after the close") };
            match operation {
                Operation::Connect => self.connect(slot),
                Operation::StopConnect => self.stop_connecting(slot),
                Operation::Close { reset, ending } => self.close(slot, reset, ending),
                other => self.events.extend(connection.carry_out(other, self.faults)),
            }
        }
    }

    fn close(&mut self, slot: Slot, reset: bool, ending: Ending) {
        self.leave_queue(slot);
        let connection = self.connections.remove(slot);
        connection.check_end(reset, ending, self.faults);
        let calm = !self.faulty && !self.is_changing();
        assert!(!calm || ending == Ending::Completed, "a connection in a calm world ended by {ending:?}");
        let outlived = ending == Ending::Completed && connection.generation < self.table.generation();
        self.faults.outlived_changes += u64::from(outlived);
        if let Some(attempt) = connection.backend {
            attempt.identity.leave();
        }
        if let Some(admitted) = connection.admitted {
            self.call_next(&admitted.service);
            self.gate.leave(admitted);
        }
    }
}
