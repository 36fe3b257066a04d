//! Giving up the sockets that connections and datagrams come by, to another proxy that has them too. What is open goes on.

use super::{Error, Worker};
use crate::control::message::Protocol;
use crate::shared::{Done, Parcel};

impl Worker {
    /// Accepts nothing more. What was accepted before the kernel has said the last word is served here; what waits in the
    /// sockets' queues is the other proxy's. UDP sessions go into the parcel, if there is one. `done` is told when all that has
    /// happened.
    pub(super) fn retire(&mut self, parcel: Option<Parcel>, done: &Done) -> Result<(), Error> {
        if self.stopping {
            return Ok(());
        }
        self.accepting = false;
        self.ports.retain(|port, _| port.protocol == Protocol::Udp);
        self.listeners.places().into_iter().try_for_each(|listener| self.close_listener(listener, done.clone()))?;
        self.mute_datagrams(parcel, done)
    }
}
