//! New tables, what they mean for the connections, and what time brings.

use super::changes;
use super::world::{Drain, World};
use crate::flow::Event;
use crate::shared::Order;
use crate::table::{Consequence, Identity, Transition};
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Removed,
    Drained,
}

impl World<'_> {
    /// Lets the control thread do something.
    pub(super) fn change(&mut self) {
        let transition = match self.random.u8(..12) {
            0 => {
                self.faults.snapshots += 1;
                self.table.replaced_by(&changes::snapshot(&self.table, &mut self.random)).ok()
            }
            1 => changes::swap(&self.table, &mut self.random).map(|delta| {
                self.faults.vips_swapped += 1;
                // Each VIP is free by the time it is given to the other.
                self.table.changed_by(&delta).unwrap()
            }),
            2..5 => return self.note_conditions(),
            _ => self.table.changed_by(&changes::delta(&self.table, &mut self.random)).ok(),
        };
        match transition {
            Some(transition) => self.publish(transition),
            None => self.faults.changes_refused += 1,
        }
    }

    fn note_conditions(&mut self) {
        let Some((service, conditions)) = changes::conditions(&self.table, &mut self.random) else { return };
        self.faults.conditions += 1;
        let after = self.table.with_conditions(&service, &conditions).unwrap();
        let loses = self.table.service(&service).unwrap().loses_eligible(after.service(&service).unwrap());
        self.table = after;
        self.call_all();
        if loses {
            self.orders.push(Order::GiveUpAttempts);
        }
    }

    fn publish(&mut self, transition: Transition) {
        assert_eq!(transition.table.generation(), self.table.generation() + 1);
        self.faults.changes += 1;
        self.table = transition.table;
        let (mut removed, mut draining) = (false, false);
        for (identity, consequence) in transition.consequences {
            match consequence {
                Consequence::Removed => removed |= identity.remove(),
                Consequence::DrainStarted(after) => {
                    let note = identity.note_drain();
                    draining |= counted(&identity) > 0;
                    if let Some(after) = after {
                        self.orders.push(Order::DrainDeadline { identity, note, after });
                    }
                }
                Consequence::DrainEnded => drop(identity.note_drain()),
            }
        }
        if draining {
            self.orders.push(Order::GiveUpAttempts);
        }
        self.call_all();
        if removed {
            self.orders.push(Order::ResetRemoved);
        }
        self.note_newcomers();
        self.check_removals();
    }

    fn call_all(&mut self) {
        if self.connections.iter().any(|(_, connection)| connection.waiting.is_some()) {
            self.orders.push(Order::AllTurns);
        }
    }

    pub(super) fn note_newcomers(&mut self) {
        for service in self.table.services() {
            if !self.services.iter().any(|state| Arc::ptr_eq(state, &service.state)) {
                self.services.push(Arc::clone(&service.state));
            }
            for backend in service.backends() {
                if !self.identities.contains(&backend.identity) {
                    self.identities.push(backend.identity.clone());
                }
            }
        }
    }

    pub(super) fn read_orders(&mut self) {
        for order in std::mem::take(&mut self.orders) {
            match order {
                Order::ResetRemoved => self.reset_where(Identity::is_removed, Why::Removed),
                Order::GiveUpAttempts => self.give_up_attempts(),
                Order::Turn { slot } => self.try_turn(slot),
                Order::AllTurns => {
                    self.connections.find(|one| one.waiting.is_some()).into_iter().for_each(|slot| self.try_turn(slot));
                }
                Order::DrainDeadline { identity, note, after } => {
                    self.drains.push(Drain { deadline: self.now + after, identity, note });
                }
                Order::Accept
                | Order::WatchAges
                | Order::ServePort { .. }
                | Order::HoldDatagrams
                | Order::ReleaseDatagrams { .. }
                | Order::PassSessions { .. }
                | Order::PassConnections { .. }
                | Order::Retire { .. }
                | Order::Shutdown => {
                    unreachable!("nobody gives this order")
                }
            }
        }
    }

    pub(super) fn fire_timers(&mut self) {
        let now = self.now;
        for drain in self.drains.extract_if(.., |drain| drain.deadline <= now).collect::<Vec<_>>() {
            self.drain_is_over(&drain);
        }
        let is_over = |deadline| deadline <= now;
        for slot in self.connections.find(|one| one.waiting.as_ref().is_some_and(|wait| is_over(wait.deadline))) {
            self.faults.waits_over += 1;
            self.leave_queue(slot);
            self.connections.get(slot).unwrap().excuses.refused = true;
            self.tell(slot, Event::Refused);
        }
    }

    fn drain_is_over(&mut self, Drain { identity, note, .. }: &Drain) {
        if identity.last_drain() != *note {
            self.faults.drains_taken_back += 1;
            return;
        }
        if !identity.is_removed() {
            self.check_drains(identity);
        }
        self.reset_where(|other| std::ptr::eq(other, &**identity), Why::Drained);
    }

    fn give_up_attempts(&mut self) {
        let table = &self.table;
        let slots = self.connections.find(|one| {
            let Some(attempt) = one.backend.as_ref().filter(|_| one.flow.is_connecting()) else { return false };
            let service = table.find(&one.target).map(|(service, _)| service);
            service.is_some_and(|service| service.gives_up(&attempt.identity, one.attempts, &one.tried))
        });
        for slot in slots {
            self.faults.given_up += 1;
            self.connections.get(slot).unwrap().backend.as_mut().unwrap().abandoned = true;
            self.stop_connecting(slot);
        }
    }

    fn reset_where(&mut self, wanted: impl Fn(&Identity) -> bool, why: Why) {
        for slot in self.connections.find(|one| one.backend.as_ref().is_some_and(|attempt| wanted(&attempt.identity))) {
            let connection = self.connections.get(slot).unwrap();
            let (connecting, relaying) = (connection.flow.is_connecting(), connection.is_relaying());
            let attempt = connection.backend.as_mut().unwrap();
            if why == Why::Removed {
                self.faults.removed_while_connecting += u64::from(connecting);
                self.faults.removed_while_relaying += u64::from(relaying);
                self.faults.removed_while_closing += u64::from(!connecting && !relaying);
            } else {
                self.faults.drained_while_connecting += u64::from(connecting);
                self.faults.drained_while_relaying += u64::from(relaying);
            }
            if connecting {
                attempt.abandoned = true;
                self.stop_connecting(slot);
            } else {
                let event = connection.abort();
                self.tell(slot, event);
            }
        }
        self.check_nobody_left(&wanted);
    }
}

/// The number of connections that are counted at a backend.
pub(super) fn counted(identity: &Identity) -> u64 {
    identity.active.load(Ordering::SeqCst)
}
