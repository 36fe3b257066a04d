//! What the control thread tells a data thread.

use super::Parcel;
use crate::connection_map::ConnectionMap;
use crate::control::message::Port;
use crate::ring::Slot;
use crate::session_map::SessionMap;
use crate::table::SharedIdentity;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Orders that may wait without a wake-up, so that a thread that has nothing to do does not collect them for ever.
const MOST_WAITING: usize = 1024;

/// What a data thread is told to do.
#[derive(Debug, Clone)]
pub enum Order {
    /// Accept connections and receive datagrams: there is a table now. A proxy that was started anew must not reset the connections that wait
    /// in the listeners' queues because it does not yet know their services.
    Accept,
    /// Reset the connections of backends that are marked as removed, and give their UDP sessions other backends.
    ResetRemoved,
    /// Try other backends for connections that are not established yet and whose backend is not to get new ones any more: it
    /// may be gone without a word.
    GiveUpAttempts,
    /// Look at the ages of connections: what is set for a service, and concerns them, has changed.
    WatchAges,
    /// Let this connection, which waits for a place, try to get one.
    Turn {
        /// The connection.
        slot: Slot,
    },
    /// Let all connections try that wait for a place: the table is another one.
    AllTurns,
    /// Reset this backend's connections after a time, and give its sessions other backends, if it still drains then.
    DrainDeadline {
        /// The backend.
        identity: SharedIdentity,
        /// The note that draining started with.
        note: u32,
        /// The time it has.
        after: Duration,
    },
    /// Serve a published port by these sockets from now on, in place of those that it had; not at all if there are none.
    ServePort {
        /// The port.
        port: Port,
        /// This thread's sockets, of the port's protocol and ready to be used.
        sockets: Vec<PortSocket>,
        /// Told when that is done.
        done: Done,
    },
    /// Receive no datagrams from clients until told otherwise.
    HoldDatagrams,
    /// Take these UDP sessions, and receive datagrams.
    ReleaseDatagrams {
        /// The sessions of this thread.
        sessions: Parcel,
    },
    /// Have busy UDP sessions go past the proxy, by this map in place of the one before.
    PassSessions {
        /// The map.
        map: Arc<SessionMap>,
    },
    /// Have busy connections go past the proxy, by this map; those that are in the one before stay there.
    PassConnections {
        /// The map.
        map: Arc<ConnectionMap>,
    },
    /// Accept nothing more, and close what is accepted from: another proxy has it.
    Retire {
        /// Where the UDP sessions go, if they go.
        parcel: Option<Parcel>,
        /// Told when nothing more is accepted, and the sessions are there.
        done: Done,
    },
    /// End all connections, then the thread.
    Shutdown,
}

/// A socket of a published port, shared with the control thread, which hands it over to the next daemon.
#[derive(Debug, Clone)]
pub struct PortSocket {
    /// The socket.
    pub descriptor: Arc<OwnedFd>,
    /// Whether its address family is IPv6.
    pub is_ipv6: bool,
}

/// Tells whoever gave an order, by the end of its last copy, that all is done. It is dropped, not called, so that no way to an
/// end can forget it.
#[derive(Debug, Clone)]
pub struct Done {
    _told: tokio::sync::mpsc::Sender<Infallible>,
}

impl Done {
    /// One, and what waits for it.
    #[must_use]
    pub fn new() -> (Self, AllDone) {
        let (told, done) = tokio::sync::mpsc::channel(1);
        (Self { _told: told }, AllDone(done))
    }
}

/// Waits for a [`Done`].
#[derive(Debug)]
pub struct AllDone(tokio::sync::mpsc::Receiver<Infallible>);

impl AllDone {
    /// Returns when no copy is left.
    pub async fn wait(mut self) {
        // There is nothing to receive but the end.
        let _ = self.0.recv().await;
    }
}

/// Orders on their way to a data thread.
///
/// A wake-up is a system call, so there is none when no connection is concerned: then the orders wait until the data
/// thread looks, which it does before each sleep.
#[derive(Debug)]
pub struct Mailbox {
    orders: Mutex<Vec<Order>>,
    full: AtomicBool,
    wake: EventFd,
}

impl Mailbox {
    pub(super) fn new() -> Result<Self, nix::Error> {
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { orders: Mutex::default(), full: AtomicBool::new(false), wake })
    }

    /// Adds orders; wakes the data thread if asked to.
    pub fn put(&self, orders: &[Order], wake: bool) {
        let waiting = {
            let mut all = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend_from_slice(orders);
            all.len()
        };
        self.full.store(true, Ordering::SeqCst);
        if wake || waiting > MOST_WAITING {
            // The count cannot overflow: the data thread resets it at each wake-up.
            let _ = self.wake.write(1);
        }
    }

    /// Whether there are orders.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    /// Takes all orders out.
    #[must_use]
    pub fn take(&self) -> Vec<Order> {
        self.full.store(false, Ordering::SeqCst);
        std::mem::take(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The descriptor to read for wake-ups.
    #[must_use]
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    fn is_woken(mailbox: &Mailbox) -> bool {
        poll(&mut [PollFd::new(mailbox.wake().as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0
    }

    #[test]
    fn orders_do_not_pile_up_for_a_thread_that_sleeps() {
        let mailbox = Mailbox::new().unwrap();
        for _ in 0..MOST_WAITING {
            mailbox.put(&[Order::ResetRemoved], false);
        }
        assert!(!is_woken(&mailbox) && mailbox.is_full());
        mailbox.put(&[Order::ResetRemoved], false);
        assert!(is_woken(&mailbox));
        assert_eq!(mailbox.take().len(), MOST_WAITING + 1);
        assert!(!mailbox.is_full());
    }
}
