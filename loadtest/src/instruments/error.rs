//! Why a measurement did not go on.

use ringlb_load::LoadError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a benchmark or a scale run did not go on.
#[derive(Debug, Error)]
pub(crate) enum BenchError {
    /// An option that makes no sense.
    #[error("invalid {option}: {reason}")]
    Option {
        /// As it is called on the command line.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The namespaces could not be made.
    #[error("cannot make the namespaces: {0}")]
    Netns(#[from] ringlb_netns::Error),
    /// The load or a server could not be started.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The machine does not tell what is needed.
    #[error("cannot {attempted}: {source}")]
    Machine {
        /// What was attempted.
        attempted: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A file could not be written or read.
    #[error("cannot {attempted} {}: {source}", path.display())]
    File {
        /// What was attempted.
        attempted: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A program could not be run.
    #[error("cannot {attempted} {program}: {source}")]
    Program {
        /// What was attempted.
        attempted: &'static str,
        /// Which.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program did not do its part.
    #[error("{program} {failed}; it said:\n{said}")]
    Misbehaved {
        /// Which.
        program: String,
        /// How.
        failed: String,
        /// The end of what it wrote.
        said: String,
    },
    /// A system let nothing through.
    #[error("no request got through {system} within {} s; it said:\n{said}", patience.as_secs())]
    Silent {
        /// Which.
        system: String,
        /// How long was waited.
        patience: Duration,
        /// The end of what it wrote.
        said: String,
    },
    /// A figure needs something that is not there.
    #[error("{0}")]
    Impossible(String),
}

impl BenchError {
    /// For [`BenchError::Machine`].
    pub(crate) fn machine(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempted = attempted.into();
        move |source| Self::Machine { attempted, source }
    }

    /// For [`BenchError::File`].
    pub(crate) fn file(attempted: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { attempted, path, source }
    }
}
