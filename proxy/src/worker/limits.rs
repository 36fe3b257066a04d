//! How many connections and UDP sessions the process can hold.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors for everything that is not a connection or a session: standard streams, control channel, a ring, listeners
/// and steered UDP sockets.
const OTHER_DESCRIPTORS: u64 = 64;
/// Of these, what each further data thread needs: ring, wake-up, listeners, steered UDP sockets, and a
/// connection that is about to be refused.
const DESCRIPTORS_PER_THREAD: u64 = 8;
/// The most pipes, whatever the descriptor limit.
const MOST_PIPES: u64 = 256;
/// The most sockets at hand that each data thread may have, whatever the descriptor limit: about as many as there are
/// connections that begin and end in one turn.
const MOST_USED_SOCKETS: u64 = 64;

/// What the descriptor limit allows to all data threads together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most connections and UDP sessions at once. Each has two descriptors: a session may need a socket of its own to
    /// reply from besides that to its backend.
    pub connections: usize,
    /// The most pipes at once; each has two descriptors.
    pub pipes: usize,
    /// The most sockets that each data thread may have at hand for further connections, one descriptor each.
    pub used_sockets: usize,
    /// What is left where fewer connections are wanted than there could be, in pairs of descriptors. Sockets of published ports
    /// take from it first.
    pub spare: usize,
}

impl Limits {
    /// Raises the soft descriptor limit to the hard one and divides it up, for so many data threads.
    ///
    /// # Errors
    /// If the kernel does not tell the limit.
    pub fn of_process(threads: usize) -> Result<Self, nix::Error> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let limit = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
        Ok(Self::of(limit, threads))
    }

    /// Divides `descriptors` up.
    #[must_use]
    pub fn of(descriptors: u64, threads: usize) -> Self {
        let pipes = (descriptors / 16).min(MOST_PIPES);
        let used_sockets = (descriptors / 32 / (threads as u64).max(1)).min(MOST_USED_SOCKETS);
        let others = others(threads) + 2 * pipes + used_sockets * threads as u64;
        let connections = descriptors.saturating_sub(others) / 2;
        let number = |value| usize::try_from(value).unwrap_or(usize::MAX);
        Self { connections: number(connections), pipes: number(pipes), used_sockets: number(used_sockets), spare: 0 }
    }

    /// These limits with so many connections at most.
    #[must_use]
    pub fn with_at_most(self, connections: usize) -> Self {
        let connections = self.connections.min(connections);
        Self { connections, spare: self.spare + self.connections - connections, ..self }
    }
}

fn others(threads: usize) -> u64 {
    OTHER_DESCRIPTORS + DESCRIPTORS_PER_THREAD * (threads as u64).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits_into_the_limit() {
        for (descriptors, threads) in
            [0, 64, 100, 256, 1024, 20_000, 1 << 20].into_iter().zip([1, 2, 64].into_iter().cycle())
        {
            let limits = Limits::of(descriptors, threads);
            let used = 2 * limits.connections + 2 * limits.pipes + threads * limits.used_sockets;
            assert!(used as u64 + others(threads) <= descriptors || limits.connections == 0);
        }
        assert_eq!(Limits::of(20_000, 1), Limits { connections: 9_680, pipes: 256, used_sockets: 64, spare: 0 });
        assert_eq!(Limits::of(20_000, 3), Limits { connections: 9_608, pipes: 256, used_sockets: 64, spare: 0 });
        assert_eq!(Limits::of(1_024, 2).used_sockets, 16);
    }

    #[test]
    fn fewer_connections_leave_something_for_published_ports() {
        let limits = Limits::of(20_000, 1);
        assert_eq!(limits.with_at_most(10_000), limits);
        assert_eq!(limits.with_at_most(712), Limits { connections: 712, spare: 8_968, ..limits });
    }
}
