//! The sockets by which clients are answered.
//!
//! A client takes an answer only if it comes from the address and port that it sent to. A steered socket has a port of its
//! own, so a reply leaves by another socket, which is bound to the VIP and port and shared by all sessions of this thread
//! that go there. A published port's socket has the right port, and is in another namespace than the proxy's: the reply leaves
//! by it. The socket for replies gets no datagrams: a socket that is not connected comes after the steering. Each session may need one
//! of its own and has a place for it in the descriptor budget, so that there are never too many.

use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

/// How a session's client is answered.
#[derive(Debug)]
pub(super) enum Reply {
    /// By the steered socket itself, which has the right port.
    Steered {
        /// Its place in the worker's list.
        socket: u32,
        /// The client as that socket knows it.
        client: SocketAddr,
    },
    /// By the published port's socket, whichever that is by then.
    Published {
        /// The client as that socket knows it.
        client: SocketAddr,
    },
    /// By a socket that is bound to the VIP and port.
    Own(Rc<Socket>),
}

/// The sockets that are in use, by the address that they are bound to.
#[derive(Debug, Default)]
pub(super) struct ReplySockets(HashMap<SocketAddr, Rc<Socket>>);

impl ReplySockets {
    /// The socket that sends from that address.
    ///
    /// # Errors
    /// If the kernel gives none.
    pub(super) fn lease(&mut self, from: SocketAddr) -> io::Result<Rc<Socket>> {
        if let Some(socket) = self.0.get(&from) {
            return Ok(Rc::clone(socket));
        }
        let socket = Rc::new(open(from)?);
        self.0.insert(from, Rc::clone(&socket));
        Ok(socket)
    }

    /// Takes back what [`Self::lease`] gave for that address, and closes it after the last one.
    pub(super) fn give_back(&mut self, reply: Reply, from: SocketAddr) {
        if let Reply::Own(socket) = reply {
            drop(socket);
            if self.0.get(&from).is_some_and(|socket| Rc::strong_count(socket) == 1) {
                self.0.remove(&from);
            }
        }
    }
}

fn open(from: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(from), Type::DGRAM.nonblocking().cloexec(), None)?;
    // Other data threads have one of their own.
    socket.set_reuse_address(true)?;
    if from.is_ipv6() {
        socket.set_only_v6(true)?;
        // A VIP is a local route, but no interface's address.
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    // Nobody reads from it. If steering ends, what comes here must not pile up.
    socket.set_recv_buffer_size(0)?;
    socket.bind(&from.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_shared_and_closed_with_its_last_session() {
        let mut sockets = ReplySockets::default();
        let from: SocketAddr = "127.0.7.1:7007".parse().unwrap();
        let leases: Vec<_> = (0..3).map(|_| Reply::Own(sockets.lease(from).unwrap())).collect();
        // Another thread's.
        let other = ReplySockets::default().lease(from).unwrap();
        assert_eq!(other.local_addr().unwrap().as_socket(), Some(from));
        for (left, lease) in [2, 1, 0].into_iter().zip(leases) {
            sockets.give_back(lease, from);
            assert_eq!(sockets.0.len(), usize::from(left > 0));
        }
    }
}
