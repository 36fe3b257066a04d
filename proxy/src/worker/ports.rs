//! Published ports: their sockets come and go while the worker runs.

use super::{Error, Worker};
use crate::control::message::{Port, Protocol};
use crate::shared::{Done, PortSocket};

impl Worker {
    /// Serves a published port by these sockets from now on, in place of those that it had; not at all if there are none.
    /// Connections go on. `done` is told when the new ones are served and the old ones closed.
    pub(super) fn serve_port(&mut self, port: Port, sockets: Vec<PortSocket>, done: &Done) -> Result<(), Error> {
        if self.stopping {
            return Ok(());
        }
        let old = self.ports.remove(&port).unwrap_or_default();
        let mut places = Vec::with_capacity(sockets.len());
        match port.protocol {
            Protocol::Tcp => {
                for socket in sockets {
                    places.push(self.add_listener(socket.descriptor)?);
                }
                old.into_iter().try_for_each(|place| self.close_listener(place, done.clone()))?;
            }
            Protocol::Udp => {
                self.forget_reply_sockets(port.number);
                for socket in sockets {
                    places.push(self.add_datagram_socket(socket, port.number)?);
                }
                old.into_iter().try_for_each(|place| self.close_datagram_socket(place, done.clone()))?;
                self.end_sessions_without_socket(port.number)?;
            }
        }
        if !places.is_empty() {
            self.ports.insert(port, places);
        }
        Ok(())
    }
}
