//! Finding a backend, as the worker does it.

use super::connection::{Attempt, Waiting};
use super::world::World;
use crate::admission::Waiter;
use crate::balance::{self, Taken};
use crate::control::settings::Queue;
use crate::flow::{Event, Slot};
use crate::shared::Order;
use crate::table::ServiceState;
use std::sync::Arc;

enum Choice {
    Attempt(Attempt),
    Wait(Queue),
    Without,
    Refused,
    Nothing(Event),
}

impl World<'_> {
    pub(super) fn connect(&mut self, slot: Slot) {
        assert_eq!(self.connections.get(slot).unwrap().connecting, None);
        let choice = self.choose(slot);
        let connection = self.connections.get(slot).unwrap();
        let waited = connection.waiting.is_some();
        if waited && matches!(choice, Choice::Wait(_)) {
            return;
        }
        self.leave_queue(slot);
        let connection = self.connections.get(slot).unwrap();
        match choice {
            Choice::Attempt(attempt) => {
                self.faults.waits_served += u64::from(waited);
                self.faults.retries += u64::from(connection.attempts > 0);
                connection.attempts += 1;
                connection.backend = Some(attempt);
                if connection.faulty && connection.random.u8(..60) == 0 {
                    self.faults.shortages += 1;
                    connection.excuses.no_backend = true;
                    self.leave_backend(slot);
                    self.events.push_back(Event::NoBackend);
                } else {
                    connection.connecting = Some(false);
                }
            }
            Choice::Wait(queue) => self.join_queue(slot, queue),
            Choice::Without => {
                connection.excuses.no_backend = true;
                self.events.push_back(Event::NoBackend);
            }
            Choice::Refused => {
                connection.excuses.refused = true;
                self.events.push_back(Event::Refused);
            }
            Choice::Nothing(event) => self.events.push_back(event),
        }
    }

    fn choose(&mut self, slot: Slot) -> Choice {
        loop {
            let table = self.table.clone();
            // The table changes while this thread still holds the earlier one.
            if self.is_changing() && self.random.u8(..10) == 0 {
                self.faults.changes_during_picks += 1;
                self.change();
            }
            let connection = self.connections.get(slot).unwrap();
            let target = connection.target;
            let Some((service, port)) = table.find(&connection.target) else {
                self.faults.no_service += 1;
                return Choice::Without;
            };
            if connection.header_in.is_some_and(|left| left > 0) {
                return Choice::Nothing(Event::HeaderDue);
            }
            let newcomer = !connection.admitted.as_ref().is_some_and(|held| Arc::ptr_eq(&held.service, &service.state));
            let leaves = connection.faulty && connection.waiting.is_some() && connection.random.u8(..4) == 0;
            if !newcomer && leaves {
                self.faults.clients_gone_waiting += 1;
                connection.peers[0].reset = true;
                return Choice::Nothing(Event::ClientGone);
            }
            if newcomer {
                if connection.admitted.is_some() {
                    self.faults.service_changed += 1;
                    self.leave_service(slot);
                    continue;
                }
                match self.gate.admit(service, Some(connection.client), self.now) {
                    Ok(admitted) => connection.admitted = Some(admitted),
                    Err(_) => {
                        self.faults.service_full += 1;
                        return Choice::Refused;
                    }
                }
            }
            let first = service.state.queue.first().map(|(ticket, _)| ticket);
            let own = connection.waiting.as_ref().map(|waiting| waiting.ticket);
            if first.is_some() && first != own && connection.attempts == 0 {
                return Choice::Wait(service.settings.queue);
            }
            let (client, tried, attempts) = (connection.client, connection.tried.clone(), connection.attempts);
            let taken = balance::take(service, Some(client), &tried, &mut self.random);
            self.check_taken(service, &table, &tried, &taken);
            let backend = match taken {
                Taken::Backend(backend) => backend,
                Taken::Full => return Choice::Wait(service.settings.queue),
                Taken::NoBackend => {
                    self.faults.no_backend += 1;
                    return Choice::Without;
                }
                Taken::Removed => {
                    self.faults.picks_removed += 1;
                    continue;
                }
            };
            if attempts == 0 {
                service.state.retry_budget.connection(self.now);
            } else if !service.may_retry(attempts, self.now) {
                backend.identity.leave();
                self.call_next(&service.state);
                self.faults.retries_denied += 1;
                return Choice::Without;
            }
            self.check_port(service, &target, port);
            let deadline = self.now + service.settings.connect_timeout.0;
            let identity = backend.identity.clone();
            return Choice::Attempt(Attempt { address: backend.address, identity, abandoned: false, deadline });
        }
    }

    /// The attempt that is under way reports.
    pub(super) fn connect_is_over(&mut self, slot: Slot) -> Event {
        let connection = self.connections.get(slot).unwrap();
        let stopping = connection.connecting.take().unwrap();
        let abandoned = connection.backend.as_ref().unwrap().abandoned;
        let fails = if stopping { connection.random.bool() } else { connection.random.u8(..4) == 0 };
        if fails && (stopping || connection.faulty) {
            self.faults.connect_failures += 1;
            self.fail_attempt(slot);
            return Event::ConnectFailed;
        }
        if abandoned {
            self.faults.won_over_cancellation += 1;
            self.fail_attempt(slot);
            return Event::ConnectFailed;
        }
        if connection.faulty && connection.random.u8(..12) == 0 {
            self.faults.clients_gone += 1;
            connection.peers[0].reset = true;
            self.leave_backend(slot);
            return Event::ClientGone;
        }
        connection.tried.clear();
        Event::Connected { header: connection.header_for_backend(self.faults) }
    }

    fn fail_attempt(&mut self, slot: Slot) {
        let connection = self.connections.get(slot).unwrap();
        connection.tried.push(connection.backend.as_ref().unwrap().address);
        self.leave_backend(slot);
    }

    pub(super) fn stop_connecting(&mut self, slot: Slot) {
        let connection = self.connections.get(slot).unwrap();
        if connection.waiting.is_some() {
            self.leave_queue(slot);
            self.events.push_back(Event::ConnectFailed);
        } else {
            // It may have been stopped before: its time was over, or its backend is gone.
            assert!(connection.connecting.is_some());
            connection.connecting = Some(true);
        }
    }

    fn join_queue(&mut self, slot: Slot, settings: Queue) {
        let connection = self.connections.get(slot).unwrap();
        let length = usize::from(settings.length.0);
        let queue = &connection.admitted.as_ref().unwrap().service.queue;
        let Ok(ticket) = queue.join(Waiter { thread: 0, slot }, length) else {
            *(if length == 0 { &mut self.faults.backends_full } else { &mut self.faults.queue_full }) += 1;
            connection.excuses.refused = true;
            return self.events.push_back(Event::Refused);
        };
        self.faults.waits += 1;
        connection.waiting = Some(Waiting { ticket, deadline: self.now + settings.timeout.0 });
        self.connect(slot);
    }

    pub(super) fn leave_queue(&mut self, slot: Slot) {
        let connection = self.connections.get(slot).unwrap();
        let Some(waiting) = connection.waiting.take() else { return };
        let service = Arc::clone(&connection.admitted.as_ref().unwrap().service);
        assert!(service.queue.leave(waiting.ticket), "who waits is not in the queue");
        self.call_next(&service);
    }

    fn leave_backend(&mut self, slot: Slot) {
        let connection = self.connections.get(slot).unwrap();
        connection.backend.take().unwrap().identity.leave();
        let service = Arc::clone(&connection.admitted.as_ref().unwrap().service);
        self.call_next(&service);
    }

    fn leave_service(&mut self, slot: Slot) {
        self.leave_queue(slot);
        let admitted = self.connections.get(slot).unwrap().admitted.take().unwrap();
        self.gate.leave(admitted);
    }

    /// A connection that waits for a place may try to get one.
    pub(super) fn try_turn(&mut self, slot: Slot) {
        match self.connections.get(slot) {
            None => self.faults.turns_too_late += 1,
            Some(connection) if connection.waiting.is_none() => {}
            Some(_) => {
                self.connect(slot);
                self.tell_events(slot);
            }
        }
    }

    pub(super) fn call_next(&mut self, service: &ServiceState) {
        if let Some((_, Waiter { slot, .. })) = service.queue.first() {
            self.orders.push(Order::Turn { slot });
        }
    }
}
