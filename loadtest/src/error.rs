//! What can go wrong before and around a run. What goes wrong with single requests is counted in the report instead.

use std::io;
use std::net::SocketAddr;
use thiserror::Error;

/// Why a server or a load did not run.
#[derive(Debug, Error)]
pub enum LoadError {
    /// An option that makes no sense, alone or together with another.
    #[error("invalid {option}: {reason}")]
    Option {
        /// The option, as it is called on the command line.
        option: &'static str,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// No thread.
    #[error("cannot start a thread for the {what}: {source}")]
    Thread {
        /// For what.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The function to be called first on the thread failed.
    #[error("cannot prepare the thread of the {what}: {source}")]
    Prepare {
        /// Of what.
        what: &'static str,
        /// What the function returned.
        source: io::Error,
    },
    /// No io_uring.
    #[error(
        "cannot set up io_uring: {source}. It needs Linux 6.1 or later; container runtimes refuse it by default \
         (allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile), and so does the sysctl \
         kernel.io_uring_disabled"
    )]
    Ring {
        /// The system's answer.
        source: io::Error,
    },
    /// A listening socket could not be made.
    #[error("cannot listen on {address} ({protocol}): {source}")]
    Listen {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The descriptor limit could not be read or raised.
    #[error("cannot raise the limit of open descriptors: {source}")]
    DescriptorLimit {
        /// The system's answer.
        source: io::Error,
    },
    /// The histograms could not be made, which is an error of this program.
    #[error("cannot make a histogram: {reason}; this is a bug, please report it")]
    Histogram {
        /// What the library said.
        reason: String,
    },
    /// The thread ended without a result, which is an error of this program.
    #[error("the thread of the {what} ended early; this is a bug, please report it with the message above")]
    Ended {
        /// Of what.
        what: &'static str,
    },
}
