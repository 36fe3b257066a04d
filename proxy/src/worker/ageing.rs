//! What connections get and suffer because of their age.

use super::connections::Connection;
use super::{Error, Timer, Worker};
use crate::control::settings::ServiceSettings;
use crate::flow::age::Age;
use crate::ring::Slot;
use socket2::{SockRef, TcpKeepalive};
use std::time::{Duration, Instant};

/// A connection that lasts so long gets the socket options that only matter to one that lasts.
pub(super) const GROWN: Duration = Duration::from_secs(1);
/// The time between two looks at the age of connections.
const SWEEP: Duration = Duration::from_secs(1);

impl Worker {
    /// Takes note of a connection that has just been established.
    pub(super) fn is_young(&mut self, slot: Slot) {
        self.young.push_back((slot, self.now));
    }

    /// When the oldest of the young connections is to be looked at.
    pub(super) fn next_grown(&self) -> Option<Instant> {
        self.young.front().map(|(_, established)| *established + GROWN)
    }

    /// Gives connections that have lasted a while what their service's settings say. Most connections are over before, and
    /// save the system calls.
    pub(super) fn review_young(&mut self) {
        while let Some(&(slot, established)) = self.young.front() {
            if self.now < established + GROWN {
                return;
            }
            self.young.pop_front();
            let Some(connection) = self.connections.get(slot) else { continue };
            if let Some((service, _)) = self.shared.table.load().find(&connection.target) {
                set_options(connection, &service.settings);
            }
        }
    }

    /// Makes sure that ages are looked at.
    pub(super) fn watch_ages(&mut self) {
        if !self.watches_ages {
            self.watches_ages = true;
            self.timers.add(self.now, SWEEP, Timer::Age);
        }
    }

    /// Ends the connections that have lasted or been idle for too long by the settings of the newest table, and comes back
    /// as long as there is one that can.
    pub(super) fn sweep_ages(&mut self) -> Result<(), Error> {
        self.count_passed_until_now();
        let table = self.shared.table.load_full();
        let (tick, moment) = (self.tick(), self.moment());
        let mut ageing = false;
        let mut expired = Vec::new();
        for (slot, connection) in self.connections.iter() {
            let Some((service, _)) = table.find(&connection.target) else { continue };
            if !service.settings.limits_age() {
                continue;
            }
            ageing = true;
            if connection.flow.is_connecting() || connection.flow.is_introducing() {
                continue;
            }
            let age = Age {
                lasted: moment.since(connection.opened),
                silent: tick.since(connection.moved),
                // Neighbours in the list of connections were often made together.
                lot: (slot.index as u8).wrapping_mul(157).wrapping_add(slot.generation as u8),
            };
            expired.extend(age.expiry(&service.settings).map(|cause| (slot, cause)));
        }
        self.watches_ages = false;
        if ageing {
            self.watch_ages();
        }
        for (slot, cause) in expired {
            self.abort(slot, cause)?;
        }
        Ok(())
    }
}

/// Keepalive and the user timeout, towards both ends.
fn set_options(connection: &Connection, settings: &ServiceSettings) {
    for socket in connection.sockets.iter().flatten() {
        let socket = SockRef::from(socket);
        // They fail only for a connection that is over, which needs them no more.
        if let Some(idle) = settings.keepalive.idle.0 {
            let keepalive = TcpKeepalive::new()
                .with_time(idle)
                .with_interval(settings.keepalive.interval.0)
                .with_retries(settings.keepalive.probes.0.into());
            let _ = socket.set_tcp_keepalive(&keepalive);
        }
        if let Some(timeout) = settings.user_timeout.0 {
            let _ = socket.set_tcp_user_timeout(Some(timeout));
        }
    }
}
