//! Taking connections in.

use super::connections::{Connection, Private};
use super::{Error, Timer, Worker};
use crate::flow::Flow;
use crate::ring::Completion;
use nix::errno::Errno;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Accept operations under way at once where each delivers one connection only.
const ONE_SHOT_ACCEPTS: usize = 16;
/// The pause after accepting failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// The state of accepting.
#[derive(Debug, Default)]
pub(super) struct Accepting {
    /// Operations that were not armed again after a failure.
    missing: usize,
    /// Failures since the last connection.
    failures: u32,
    refusals_logged: Option<Instant>,
    refused_since: u64,
}

impl Worker {
    pub(super) fn start_accepting(&mut self) -> Result<(), Error> {
        let operations = if self.settings.multishot_accept { 1 } else { ONE_SHOT_ACCEPTS };
        for _ in 0..operations {
            self.arm_accept()?;
        }
        Ok(())
    }

    pub(super) fn accepted(&mut self, completion: Completion) -> Result<(), Error> {
        let more = completion.more;
        let failure = match completion.into_socket() {
            Ok(socket) => {
                self.accepting.failures = 0;
                self.take_in(socket)?;
                None
            }
            Err(errno) => Some(errno),
        };
        match failure {
            _ if more || self.stopping => Ok(()),
            None => self.arm_accept(),
            Some(errno @ (Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                Err(Error::Listener(errno))
            }
            // A connection that ended before it was accepted, or a firewall's refusal: nothing is wrong with the next.
            // But an operation that fails at once must not be armed again for ever without a pause.
            Some(errno) => {
                self.accepting.failures += 1;
                let short = matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS);
                if short {
                    self.note_refusal(&errno);
                }
                if !short && self.accepting.failures < 8 {
                    return self.arm_accept();
                }
                self.accepting.missing += 1;
                self.timers.add(self.now, PAUSE, Timer::Accept);
                Ok(())
            }
        }
    }

    pub(super) fn accept_again(&mut self) -> Result<(), Error> {
        for _ in 0..std::mem::take(&mut self.accepting.missing) {
            self.arm_accept()?;
        }
        Ok(())
    }

    fn arm_accept(&mut self) -> Result<(), Error> {
        Ok(self.ring.accept(self.listener.as_raw_fd(), self.settings.multishot_accept)?)
    }

    /// Gives an accepted socket a slot and its first operation.
    fn take_in(&mut self, socket: OwnedFd) -> Result<(), Error> {
        self.shared.counters.accepted.add(1);
        if self.connections.len() >= self.settings.limits.connections || self.stopping {
            reset_on_close(&socket);
            self.note_refusal(&"the descriptor limit is reached");
            return Ok(());
        }
        let Some(target) = local_address(&socket) else {
            return Ok(());
        };
        let mut operations = std::mem::take(&mut self.operations);
        let slot = self.connections.insert(Connection {
            flow: Flow::new(&mut operations),
            sockets: [Some(socket), None],
            target,
            backend: None,
            tried: Vec::new(),
            pipes: [None, None],
            private: [Private::No; 2],
            attempts: 0,
        });
        self.carry_out(slot, &mut operations)?;
        self.operations = operations;
        match self.events.pop_front() {
            Some(event) => self.deliver(slot, event),
            None => Ok(()),
        }
    }

    /// Counts a refusal and logs it, at most once a second.
    pub(super) fn note_refusal(&mut self, why: &dyn std::fmt::Display) {
        self.shared.counters.refused_at_limit.add(1);
        self.accepting.refused_since += 1;
        let due = self.accepting.refusals_logged.is_none_or(|last| self.now - last >= Duration::from_secs(1));
        if due {
            let refused = std::mem::take(&mut self.accepting.refused_since);
            let open = self.connections.len();
            tracing::warn!(network = %self.shared.network, refused, open, "connections are refused: {why}");
            self.accepting.refusals_logged = Some(self.now);
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
