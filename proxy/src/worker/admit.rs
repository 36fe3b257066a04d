//! Letting connections in: the limits of their service, and the queue for a place at its backends.

use super::connections::{Attempt, Waiting};
use super::{Error, Worker};
use crate::admission::{Admitted, Refusal, Waiter};
use crate::control::settings::Queue;
use crate::flow::Event;
use crate::flow::termination::Cause;
use crate::ring::Slot;
use crate::shared::{Counter, Counters, DataThread, Order};
use crate::table::ServiceState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Connections that wait for something for no longer than a time: for a place, or for their client's header. By deadline; the
/// second part of the key, a slot's index, tells those apart that have the same.
pub(super) type Waits = BTreeMap<(Instant, u32), Slot>;

impl Worker {
    /// Lets the connection wait for a place; gives the reason if it may not. It tries once more at once, as a place may have
    /// become free before others could see that it waits.
    pub(super) fn join_queue(&mut self, slot: Slot, settings: Queue) -> Result<(), Error> {
        let waiter = Waiter { thread: self.index, slot };
        let length = usize::from(settings.length.0);
        let Some(connection) = self.connections.get(slot) else { return Ok(()) };
        let Some(admitted) = &connection.admitted else { return Ok(()) };
        let Ok(ticket) = admitted.service.queue.join(waiter, length) else {
            self.refuse(slot, if length == 0 { Refusal::BackendsFull } else { Refusal::QueueFull });
            return Ok(());
        };
        let deadline = later(self.now, settings.timeout.0);
        connection.waiting = Some(Box::new(Waiting { ticket, deadline }));
        self.waits.insert((deadline, slot.index), slot);
        // Before the table is looked at again: see `Shared::publish`.
        self.shared.waiting.fetch_add(1, Ordering::SeqCst);
        self.connect(slot)
    }

    /// Takes the connection out of the queue, if it is in one, and lets the next one try.
    pub(super) fn leave_queue(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get(slot) else { return };
        let Some(waiting) = connection.waiting.take() else { return };
        self.waits.remove(&(waiting.deadline, slot.index));
        if let Some(admitted) = &connection.admitted {
            admitted.service.queue.leave(waiting.ticket);
            call_next(&self.shared.threads, self.index, &admitted.service);
        }
        self.shared.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Lets a connection that waits for a place try to get one.
    pub(super) fn try_turn(&mut self, slot: Slot) -> Result<(), Error> {
        if self.connections.get(slot).is_none_or(|connection| connection.waiting.is_none()) {
            return Ok(());
        }
        self.connect(slot)?;
        match self.events.pop_front() {
            Some(event) => self.deliver(slot, event),
            None => Ok(()),
        }
    }

    /// Lets all try that wait for a place: the table is another one.
    pub(super) fn try_all_turns(&mut self) -> Result<(), Error> {
        for slot in self.waits.values().copied().collect::<Vec<_>>() {
            self.try_turn(slot)?;
        }
        Ok(())
    }

    /// When the first wait is over.
    pub(super) fn next_wait(&self) -> Option<Instant> {
        self.waits.first_key_value().map(|(&(deadline, _), _)| deadline)
    }

    /// Refuses the connections that have waited for too long.
    pub(super) fn end_waits(&mut self) -> Result<(), Error> {
        while let Some(entry) = self.waits.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let slot = entry.remove();
            let Some(connection) = self.connections.get(slot) else { continue };
            let refusal = if connection.waiting.is_some() { Refusal::QueueTimeout } else { Refusal::HeaderTimeout };
            self.leave_queue(slot);
            self.note_refused(slot, refusal);
            self.deliver(slot, Event::Refused)?;
        }
        Ok(())
    }

    /// Counts a refusal and tells the connection's flow next.
    pub(super) fn refuse(&mut self, slot: Slot, refusal: Refusal) {
        self.note_refused(slot, refusal);
        self.events.push_back(Event::Refused);
    }

    fn note_refused(&mut self, slot: Slot, refusal: Refusal) {
        if let Some(connection) = self.connections.get(slot) {
            connection.cause = Some(Cause::NotAdmitted(refusal));
        }
        self.count_refusal(refusal);
    }

    /// Counts a refusal of a connection or of a UDP session.
    pub(super) fn count_refusal(&mut self, refusal: Refusal) {
        counter(&self.thread.counters, refusal).add(1);
        self.log_refusal(&refusal);
    }

    /// Gives back what the connection holds of a backend, whose next one may come then. Its descriptors are to be closed
    /// before: no backend ever sees more connections than it may have.
    pub(super) fn leave_backend(&mut self, slot: Slot) {
        let Some(connection) = self.connections.get(slot) else { return };
        let Some(attempt) = connection.backend.take() else { return };
        attempt.identity.leave();
        if let Some(admitted) = &connection.admitted {
            call_next(&self.shared.threads, self.index, &admitted.service);
        }
    }

    /// Gives back what the connection holds of a service that is not its VIP's any more.
    pub(super) fn leave_service(&mut self, slot: Slot) {
        self.leave_queue(slot);
        if let Some(admitted) = self.connections.get(slot).and_then(|connection| connection.admitted.take()) {
            self.shared.gate.leave(admitted);
        }
    }

    /// Gives back what a connection that is gone held of its backend and of its service.
    pub(super) fn give_back(&self, backend: Option<Attempt>, admitted: Option<Admitted>) {
        if let Some(attempt) = backend {
            attempt.identity.leave();
        }
        if let Some(admitted) = admitted {
            call_next(&self.shared.threads, self.index, &admitted.service);
            self.shared.gate.leave(admitted);
        }
    }
}

/// When a wait that begins now is over. A time too far away to be expressed is a day.
pub(super) fn later(now: Instant, after: Duration) -> Instant {
    now.checked_add(after).unwrap_or(now + Duration::from_secs(86_400))
}

/// Tells who has waited longest for a place at the service's backends that there may be one.
pub(super) fn call_next(threads: &[Arc<DataThread>], own: usize, service: &ServiceState) {
    let Some((_, waiter)) = service.queue.first() else { return };
    if let Some(thread) = threads.get(waiter.thread) {
        // This thread looks before its next sleep.
        thread.mailbox.put(&[Order::Turn { slot: waiter.slot }], waiter.thread != own);
    }
}

fn counter(counters: &Counters, refusal: Refusal) -> &Counter {
    match refusal {
        Refusal::Denied => &counters.refused_denied,
        Refusal::ClientRate => &counters.refused_client_rate,
        Refusal::ClientFull => &counters.refused_client_full,
        Refusal::ServiceFull => &counters.refused_service_full,
        Refusal::BackendsFull => &counters.refused_backends_full,
        Refusal::QueueFull => &counters.refused_queue_full,
        Refusal::QueueTimeout => &counters.refused_queue_timeout,
        Refusal::HeaderInvalid => &counters.refused_header_invalid,
        Refusal::HeaderTimeout => &counters.refused_header_timeout,
    }
}
