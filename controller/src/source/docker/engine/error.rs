//! Why the Engine does not do what it was asked.

use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why the Engine does not say, or do, what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum EngineError {
    /// It could not be asked.
    #[error("cannot {action} at {}: {cause}; is the Engine running, and may this process use its socket?", socket.display())]
    Unreachable {
        /// What was attempted.
        action: &'static str,
        /// The Engine's socket.
        socket: PathBuf,
        /// What the client says.
        cause: String,
    },
    /// It was asked and did not do it.
    #[error("the Engine at {} will not {action}: {message} (status {status})", socket.display())]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// The Engine's socket.
        socket: PathBuf,
        /// The HTTP status.
        status: u16,
        /// What the Engine says.
        message: String,
    },
    /// It has not answered.
    #[error("the Engine at {} has not answered within {} s when asked to {action}", socket.display(), deadline.as_secs())]
    Late {
        /// What was attempted.
        action: &'static str,
        /// The Engine's socket.
        socket: PathBuf,
        /// How long it had.
        deadline: Duration,
    },
}

impl EngineError {
    /// Whether it answered that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}
