//! Why a request failed.

use crate::ErrorKind;
use nix::errno::Errno;
use std::io;
use std::time::Duration;
use thiserror::Error;

/// Why a request failed. `doing` is what the client was about.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The system said no.
    #[error("{doing}: {source}")]
    Io {
        /// About what.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// It took too long.
    #[error("{doing}: not done after {after:?}")]
    Timeout {
        /// About what.
        doing: &'static str,
        /// The time allowed.
        after: Duration,
    },
    /// The server ended the connection early.
    #[error("{doing}: the connection ended after {received} bytes")]
    UnexpectedEnd {
        /// About what.
        doing: &'static str,
        /// How many bytes had come.
        received: u64,
    },
    /// The server's answer is not what it must be.
    #[error("{doing}: wrong from byte {position} on")]
    Mismatch {
        /// About what.
        doing: &'static str,
        /// The first wrong byte.
        position: u64,
    },
}

impl Failure {
    /// A failed system call.
    pub(crate) const fn io(doing: &'static str, source: io::Error) -> Self {
        Self::Io { doing, source }
    }

    /// The kind that it is counted as.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => kind_of(source),
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::UnexpectedEnd { .. } => ErrorKind::UnexpectedEnd,
            Self::Mismatch { .. } => ErrorKind::Mismatch,
        }
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => ErrorKind::Refused,
        Some(Errno::ECONNRESET | Errno::ECONNABORTED | Errno::EPIPE) => ErrorKind::Reset,
        Some(Errno::ETIMEDOUT) => ErrorKind::Timeout,
        Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::ENETDOWN) => ErrorKind::Unreachable,
        Some(Errno::EMFILE | Errno::ENFILE) => ErrorKind::NoDescriptors,
        // `connect` says the first, `bind` the second.
        Some(Errno::EADDRNOTAVAIL | Errno::EADDRINUSE) => ErrorKind::NoPorts,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_have_their_kind() {
        for (errno, kind) in [
            (Errno::ECONNREFUSED, ErrorKind::Refused),
            (Errno::ECONNRESET, ErrorKind::Reset),
            (Errno::EPIPE, ErrorKind::Reset),
            (Errno::ETIMEDOUT, ErrorKind::Timeout),
            (Errno::EHOSTUNREACH, ErrorKind::Unreachable),
            (Errno::ENETUNREACH, ErrorKind::Unreachable),
            (Errno::EMFILE, ErrorKind::NoDescriptors),
            (Errno::EADDRNOTAVAIL, ErrorKind::NoPorts),
            (Errno::EACCES, ErrorKind::Other),
        ] {
            assert_eq!(Failure::io("connecting", errno.into()).kind(), kind, "{errno}");
        }
        assert_eq!(Failure::io("sending", io::ErrorKind::WriteZero.into()).kind(), ErrorKind::Other);
    }
}
