//! How many connections the process can hold.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors for everything that is not a connection: standard streams, ring, control channel, listener.
const OTHER_DESCRIPTORS: u64 = 64;
/// The most pipes, whatever the descriptor limit.
const MOST_PIPES: u64 = 256;

/// What the descriptor limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most connections at once; each has two descriptors.
    pub connections: usize,
    /// The most pipes at once; each has two descriptors.
    pub pipes: usize,
}

impl Limits {
    /// Raises the soft descriptor limit to the hard one and divides it up.
    ///
    /// # Errors
    /// If the kernel does not tell the limit.
    pub fn of_process() -> Result<Self, nix::Error> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let limit = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
        Ok(Self::of(limit))
    }

    /// Divides `descriptors` up.
    #[must_use]
    pub fn of(descriptors: u64) -> Self {
        let pipes = (descriptors / 16).min(MOST_PIPES);
        let connections = descriptors.saturating_sub(OTHER_DESCRIPTORS + 2 * pipes) / 2;
        let number = |value| usize::try_from(value).unwrap_or(usize::MAX);
        Self { connections: number(connections), pipes: number(pipes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits_into_the_limit() {
        for descriptors in [0, 64, 100, 256, 1024, 20_000, 1 << 20] {
            let limits = Limits::of(descriptors);
            let used = 2 * limits.connections + 2 * limits.pipes;
            assert!(used == 0 || used as u64 + OTHER_DESCRIPTORS <= descriptors || limits.connections == 0);
        }
        assert_eq!(Limits::of(20_000), Limits { connections: 9_712, pipes: 256 });
    }
}
