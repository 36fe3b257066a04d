//! What a new table means for open connections and UDP sessions.

use super::{Error, Timer, Worker};
use crate::flow::termination::Cause;
use crate::ring::Slot;
use crate::shared::Order;
use crate::table::{Identity, SharedIdentity};

impl Worker {
    pub(super) fn read_orders(&mut self) -> Result<(), Error> {
        for order in self.thread.mailbox.take() {
            match order {
                Order::Accept => {
                    self.start_accepting()?;
                    self.start_receiving_datagrams()?;
                }
                Order::ResetRemoved => {
                    self.reset_where(Identity::is_removed, Cause::Removed)?;
                    self.move_sessions(Identity::is_removed)?;
                }
                Order::GiveUpAttempts => self.give_up_attempts()?,
                Order::WatchAges => self.watch_ages(),
                Order::Turn { slot } => self.try_turn(slot)?,
                Order::AllTurns => self.try_all_turns()?,
                Order::DrainDeadline { identity, note, after } => {
                    self.timers.add(self.now, after, Timer::Drain { identity, note });
                }
                Order::ServePort { port, sockets, done } => self.serve_port(port, sockets, &done)?,
                Order::HoldDatagrams => self.hold_datagrams(),
                Order::ReleaseDatagrams { sessions } => self.release_datagrams(&sessions)?,
                Order::PassSessions { map } => self.use_session_map(map)?,
                Order::PassConnections { map } => self.use_connection_map(map),
                Order::Retire { parcel, done } => self.retire(parcel, &done)?,
                Order::Shutdown => self.shut_down()?,
            }
        }
        Ok(())
    }

    /// A draining backend's time is over: its connections end and its sessions move, unless it was put back or removed
    /// meanwhile.
    pub(super) fn drain_timed_out(&mut self, identity: &SharedIdentity, note: u32) -> Result<(), Error> {
        if identity.last_drain() != note {
            return Ok(());
        }
        let is_it = |other: &Identity| std::ptr::eq(other, &**identity);
        self.reset_where(is_it, Cause::Drained)?;
        self.move_sessions(is_it)
    }

    /// Tries other backends for connections whose own one is not to get any more and has not answered yet.
    fn give_up_attempts(&mut self) -> Result<(), Error> {
        let table = self.shared.table.load();
        let slots = self.connections.find(|connection| {
            let Some(attempt) = connection.backend.as_ref().filter(|_| connection.flow.is_connecting()) else {
                return false;
            };
            let service = table.find(&connection.target).map(|(service, _)| service);
            service.is_some_and(|service| service.gives_up(&attempt.identity, connection.attempts, &connection.tried))
        });
        for slot in slots {
            self.abandon_attempt(slot)?;
        }
        Ok(())
    }

    fn reset_where(&mut self, wanted: impl Fn(&Identity) -> bool, cause: Cause) -> Result<(), Error> {
        let slots = self
            .connections
            .find(|connection| connection.backend.as_ref().is_some_and(|attempt| wanted(&attempt.identity)));
        for slot in slots {
            // A client whose connection is not yet established need not notice: the next attempt goes elsewhere.
            if self.connections.get(slot).is_some_and(|connection| connection.flow.is_connecting()) {
                self.abandon_attempt(slot)?;
            } else {
                self.abort(slot, cause)?;
            }
        }
        Ok(())
    }

    fn shut_down(&mut self) -> Result<(), Error> {
        self.stopping = true;
        self.stop_accepting()?;
        self.stop_receiving_datagrams()?;
        self.end_all_sessions()?;
        let all: Vec<Slot> = self.connections.find(|_| true);
        for slot in all {
            self.abort(slot, Cause::Shutdown)?;
        }
        Ok(())
    }
}
