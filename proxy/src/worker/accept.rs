//! Taking connections in.

use super::connections::{Connection, Introduction, Private};
use super::{Error, Timer, Worker};
use crate::flow::Flow;
use crate::ring::{Completion, Token};
use nix::errno::Errno;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Accept operations under way at once where each delivers one connection only.
const ONE_SHOT_ACCEPTS: usize = 16;
/// The pause after accepting failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener and the state of accepting from it. The index of one in the worker's list is in its operations' tokens.
#[derive(Debug)]
pub(super) struct Accepting {
    listener: TcpListener,
    /// Operations that were not armed again after a failure.
    missing: usize,
    /// Failures since the last connection.
    failures: u32,
}

/// Refusals that the log does not tell of yet.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    logged: Option<Instant>,
    since: u64,
}

impl Accepting {
    pub(super) fn new(listener: TcpListener) -> Result<Self, Error> {
        // Accepted sockets inherit this, which saves a system call for each.
        socket2::SockRef::from(&listener)
            .set_tcp_nodelay(true)
            .map_err(|error| Error::Listener(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
        Ok(Self { listener, missing: 0, failures: 0 })
    }
}

impl Worker {
    pub(super) fn start_accepting(&mut self) -> Result<(), Error> {
        let operations = if self.settings.multishot_accept { 1 } else { ONE_SHOT_ACCEPTS };
        for listener in self.listener_indices() {
            for _ in 0..operations {
                self.arm_accept(listener)?;
            }
        }
        Ok(())
    }

    /// What waits in the listeners' queues stays there for the next proxy.
    pub(super) fn stop_accepting(&mut self) -> Result<(), Error> {
        for listener in self.listener_indices() {
            self.ring.cancel(Token::Accept { listener })?;
        }
        Ok(())
    }

    pub(super) fn accepted(&mut self, listener: u32, completion: Completion) -> Result<(), Error> {
        let goes_on = completion.more || self.stopping;
        match completion.into_socket() {
            Ok(socket) => {
                if let Some(accepting) = self.listeners.get_mut(listener as usize) {
                    accepting.failures = 0;
                }
                self.take_in(socket)?;
                if goes_on { Ok(()) } else { self.arm_accept(listener) }
            }
            Err(_) if goes_on => Ok(()),
            Err(errno) => self.accept_failed(listener, errno),
        }
    }

    fn accept_failed(&mut self, listener: u32, errno: Errno) -> Result<(), Error> {
        let Some(accepting) = self.listeners.get_mut(listener as usize) else { return Ok(()) };
        if matches!(errno, Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL | Errno::EOPNOTSUPP) {
            return Err(Error::Listener(errno));
        }
        // A connection that ended before it was accepted, or a firewall's refusal: nothing is wrong with the next. But an
        // operation that fails at once must not be armed again for ever without a pause.
        let short = matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS);
        accepting.failures += 1;
        if !short && accepting.failures < 8 {
            return self.arm_accept(listener);
        }
        accepting.missing += 1;
        self.timers.add(self.now, PAUSE, Timer::Accept { listener });
        if short {
            self.note_refusal(&errno);
        }
        Ok(())
    }

    pub(super) fn accept_again(&mut self, listener: u32) -> Result<(), Error> {
        let Some(accepting) = self.listeners.get_mut(listener as usize) else { return Ok(()) };
        for _ in 0..std::mem::take(&mut accepting.missing) {
            self.arm_accept(listener)?;
        }
        Ok(())
    }

    fn arm_accept(&mut self, listener: u32) -> Result<(), Error> {
        let Some(accepting) = self.listeners.get(listener as usize) else { return Ok(()) };
        let descriptor = accepting.listener.as_raw_fd();
        Ok(self.ring.accept(Token::Accept { listener }, descriptor, self.settings.multishot_accept)?)
    }

    fn listener_indices(&self) -> impl Iterator<Item = u32> + use<> {
        (0u32..).take(self.listeners.len())
    }

    /// Gives an accepted socket a slot and its first operation.
    fn take_in(&mut self, socket: OwnedFd) -> Result<(), Error> {
        self.thread.counters.accepted.add(1);
        // A UDP session that is idle can come back, a connection that is refused cannot.
        if self.stopping || !(self.shared.connections.take() || self.evict_session()?) {
            reset_on_close(&socket);
            self.note_refusal(&"the proxy has its maximum of connections");
            return Ok(());
        }
        let Some(target) = local_address(&socket) else {
            drop(socket);
            self.shared.connections.give_back();
            return Ok(());
        };
        self.thread.enter();
        let mut operations = std::mem::take(&mut self.operations);
        let slot = self.connections.insert(Connection {
            flow: Flow::new(&mut operations),
            sockets: [Some(socket), None],
            target,
            introduction: Introduction::Unknown,
            admitted: None,
            waiting: None,
            header_left: 0,
            backend: None,
            tried: Vec::new(),
            pipes: [None, None],
            private: [Private::No; 2],
            attempts: 0,
            opened: self.moment(),
            moved: self.tick(),
            connect_time: None,
            sent: [0; 2],
            cause: None,
            client: None,
        });
        self.carry_out(slot, &mut operations)?;
        self.operations = operations;
        match self.events.pop_front() {
            Some(event) => self.deliver(slot, event),
            None => Ok(()),
        }
    }

    /// Counts a refusal for want of something in the whole process, and logs it.
    pub(super) fn note_refusal(&mut self, why: &dyn std::fmt::Display) {
        self.thread.counters.refused_at_limit.add(1);
        self.log_refusal(why);
    }

    /// Logs a refusal, at most once a second.
    pub(super) fn log_refusal(&mut self, why: &dyn std::fmt::Display) {
        self.refusals.since += 1;
        let due = self.refusals.logged.is_none_or(|last| self.now - last >= Duration::from_secs(1));
        if due {
            let refused = std::mem::take(&mut self.refusals.since);
            let open = self.shared.connections.out();
            tracing::warn!(network = %self.shared.network, refused, open, "connections are refused: {why}");
            self.refusals.logged = Some(self.now);
        }
    }
}

/// The VIP and port that the client connected to.
fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    socket2::SockRef::from(socket).local_addr().ok()?.as_socket()
}

/// Makes the close of this socket a reset (`SO_LINGER` with time 0, socket(7)).
pub(super) fn reset_on_close(socket: &OwnedFd) {
    // It fails only for a socket that is no longer connected, which needs no reset.
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
