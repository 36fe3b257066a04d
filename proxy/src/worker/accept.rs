//! Taking connections in.

use super::connections::{Connection, Introduction, Private};
use super::passing::Busyness;
use super::{Error, Timer, Worker};
use crate::control::message::Protocol;
use crate::flow::Flow;
use crate::ring::{Completion, Token};
use crate::shared::Done;
use crate::table::Destination;
use nix::errno::Errno;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Accept operations under way at once where each delivers one connection only.
const ONE_SHOT_ACCEPTS: usize = 16;
/// The pause after accepting failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener and the state of accepting from it. Its place in the worker's list is in its operations' tokens.
#[derive(Debug)]
pub(super) struct Accepting {
    listener: Arc<OwnedFd>,
    /// Whether it is one of a published port, not a steered one.
    published: bool,
    /// Operations under way.
    armed: usize,
    /// Operations that were not armed again after a failure.
    missing: usize,
    /// Failures since the last connection.
    failures: u32,
    /// Who is told when it is closed, if it is to be.
    closing: Option<Done>,
}

/// Refusals that the log does not tell of yet.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    logged: Option<Instant>,
    since: u64,
}

impl Accepting {
    /// For a steered listener.
    pub(super) fn steered(listener: Arc<OwnedFd>) -> Result<Self, Error> {
        prepare(&listener).map_err(|error| Error::Listener(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
        Ok(Self { listener, published: false, armed: 0, missing: 0, failures: 0, closing: None })
    }

    /// For a listener of a published port that is [`prepare`]d.
    pub(super) fn published(listener: Arc<OwnedFd>) -> Self {
        Self { listener, published: true, armed: 0, missing: 0, failures: 0, closing: None }
    }
}

/// Makes a listener ready that was handed over: accepted sockets inherit `TCP_NODELAY`, which saves a system call for each.
pub(crate) fn prepare(listener: &OwnedFd) -> io::Result<()> {
    socket2::SockRef::from(listener).set_tcp_nodelay(true)
}

impl Worker {
    pub(super) fn start_accepting(&mut self) -> Result<(), Error> {
        self.accepting = true;
        self.listeners.places().into_iter().try_for_each(|listener| self.start_accepting_from(listener))
    }

    fn start_accepting_from(&mut self, listener: u32) -> Result<(), Error> {
        let operations = if self.settings.multishot_accept { 1 } else { ONE_SHOT_ACCEPTS };
        (0..operations).try_for_each(|_| self.arm_accept(listener))
    }

    /// Looks again what waits in the listeners' queues, once another proxy has stopped accepting from them. Of those that wait for
    /// a connection the kernel wakes one alone (io_uring's polls for accepting are exclusive), and that was the other proxy's,
    /// perhaps, at the moment in which it stopped.
    pub(super) fn accept_anew(&mut self) -> Result<(), Error> {
        if !self.accepting {
            return Ok(());
        }
        // An accept that was cancelled is armed again, and looks first.
        for listener in self.listeners.places() {
            self.ring.cancel(Token::Accept { listener })?;
        }
        Ok(())
    }

    /// Adds a listener of a published port; gives its place.
    pub(super) fn add_listener(&mut self, listener: Arc<OwnedFd>) -> Result<u32, Error> {
        let place = self.listeners.insert(Accepting::published(listener));
        if self.accepting {
            self.start_accepting_from(place)?;
        }
        Ok(place)
    }

    /// Stops accepting from the listener and closes it. What it has accepted by then is served.
    pub(super) fn close_listener(&mut self, listener: u32, done: Done) -> Result<(), Error> {
        let Some(accepting) = self.listeners.get_mut(listener) else { return Ok(()) };
        accepting.closing = Some(done);
        accepting.missing = 0;
        if accepting.armed > 0 {
            self.ring.cancel_all(Token::Accept { listener })?;
        }
        self.forget_closed_listener(listener);
        Ok(())
    }

    /// Closes a listener that is to be closed once the kernel has said the last word about it: no other one gets its place
    /// before.
    fn forget_closed_listener(&mut self, listener: u32) {
        if self.listeners.get_mut(listener).is_some_and(|accepting| accepting.closing.is_some() && accepting.armed == 0)
        {
            self.listeners.remove(listener);
        }
    }

    /// What waits in the listeners' queues stays there for the next proxy.
    pub(super) fn stop_accepting(&mut self) -> Result<(), Error> {
        for listener in self.listeners.places() {
            self.ring.cancel(Token::Accept { listener })?;
        }
        Ok(())
    }

    pub(super) fn accepted(&mut self, listener: u32, completion: Completion) -> Result<(), Error> {
        let Some(accepting) = self.listeners.get_mut(listener) else { return Ok(()) };
        accepting.armed -= usize::from(!completion.more);
        let goes_on = completion.more || self.stopping || accepting.closing.is_some();
        match completion.into_socket() {
            Ok(socket) => {
                accepting.failures = 0;
                let published = accepting.published;
                self.take_in(socket, published)?;
                if !goes_on {
                    self.arm_accept(listener)?;
                }
            }
            Err(_) if goes_on => {}
            Err(errno) => self.accept_failed(listener, errno)?,
        }
        self.forget_closed_listener(listener);
        Ok(())
    }

    fn accept_failed(&mut self, listener: u32, errno: Errno) -> Result<(), Error> {
        let Some(accepting) = self.listeners.get_mut(listener) else { return Ok(()) };
        // Without its steered listeners a proxy is of no use. One of a published port can have been shut down by whoever has it
        // too (shutdown(2)), which must not harm the others.
        let unusable = matches!(errno, Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL | Errno::EOPNOTSUPP);
        if unusable && !accepting.published {
            return Err(Error::Listener(errno));
        }
        // A connection that ended before it was accepted, or a firewall's refusal: nothing is wrong with the next. But an
        // operation that fails at once must not be armed again for ever without a pause.
        let short = matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS);
        accepting.failures += 1;
        if !short && !unusable && accepting.failures < 8 {
            return self.arm_accept(listener);
        }
        accepting.missing += 1;
        self.timers.add(self.now, PAUSE, Timer::Accept { listener });
        if short {
            self.used_sockets.clear();
            self.note_refusal(&errno);
        } else if unusable {
            self.log_refusal(&format_args!("a listener of a published port does not work any more: {errno}"));
        }
        Ok(())
    }

    pub(super) fn accept_again(&mut self, listener: u32) -> Result<(), Error> {
        let Some(accepting) = self.listeners.get_mut(listener) else { return Ok(()) };
        for _ in 0..std::mem::take(&mut accepting.missing) {
            self.arm_accept(listener)?;
        }
        Ok(())
    }

    fn arm_accept(&mut self, listener: u32) -> Result<(), Error> {
        let Some(accepting) = self.listeners.get_mut(listener) else { return Ok(()) };
        accepting.armed += 1;
        let descriptor = accepting.listener.as_raw_fd();
        Ok(self.ring.accept(Token::Accept { listener }, descriptor, self.settings.multishot_accept)?)
    }

    /// Gives an accepted socket a slot and its first operation.
    fn take_in(&mut self, socket: OwnedFd, published: bool) -> Result<(), Error> {
        self.thread.counters.accepted.add(1);
        // A UDP session that is idle can come back, a connection that is refused cannot.
        if self.stopping || !(self.shared.connections.take() || self.evict_session()?) {
            reset_on_close(&socket);
            self.note_refusal(&"the proxy has its maximum of connections");
            return Ok(());
        }
        let Some(address) = local_address(&socket) else {
            drop(socket);
            self.shared.connections.give_back();
            return Ok(());
        };
        self.thread.enter();
        let mut operations = std::mem::take(&mut self.operations);
        let slot = self.connections.insert(Connection {
            flow: Flow::new(&mut operations),
            sockets: [Some(socket), None],
            target: Destination { address, protocol: Protocol::Tcp, published },
            backend_port: 0,
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
            busyness: Busyness::new(self.tick()),
            passing: None,
            connect_time: None,
            read: [0; 2],
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

/// The address and port that the client connected to.
fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    socket2::SockRef::from(socket).local_addr().ok()?.as_socket()
}

/// Makes the close of this socket a reset (`SO_LINGER` with time 0, socket(7)).
pub(super) fn reset_on_close(socket: &OwnedFd) {
    // It fails only for a socket that is no longer connected, which needs no reset.
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
