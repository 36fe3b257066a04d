//! Giving up what is not needed.
//!
//! A proxy gives its privileges up in two steps. [`give_up`] is for the process, before it has any thread but the first:
//! threads inherit what it leaves. [`seal`] is for each thread, once it has what it needs, such as its ring, and before
//! it sees a byte that came from outside.

mod capabilities;
mod files;
mod system_calls;
mod user;

pub use files::Files;
pub use user::{FirstUser, FirstUserError, User};

use std::fmt;
use thiserror::Error;

/// Why a privilege could not be given up.
#[derive(Debug, Error)]
pub enum Error {
    /// capset(2) or prctl(2) failed.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// prctl(2) failed.
    #[error("cannot set no_new_privs: {0}")]
    NoNewPrivileges(nix::Error),
    /// The kernel knows Landlock and refused it.
    #[error("cannot give up the file system by Landlock: {0}")]
    Files(#[from] landlock::RulesetError),
    /// seccomp(2) failed.
    #[error("cannot give up system calls: {0}; ringlb needs a kernel with seccomp filters (CONFIG_SECCOMP_FILTER)")]
    SystemCalls(#[from] seccompiler::Error),
}

/// What this machine does not let every proxy give up, and whether this one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// The daemon's user.
    pub user: User,
    /// The file system.
    pub files: Files,
}

impl fmt::Display for GivenUp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, {}", self.user, self.files)
    }
}

/// Gives up, for the calling thread and those that it starts:
///
/// - the daemon's user, where a proxy can have one of its own, and all groups;
/// - every capability but `CAP_IPC_LOCK`, which stays where it was there until [`seal`]: without it the memory of a user's
///   rings counts against `RLIMIT_MEMLOCK` (8 MiB as a rule), which some ten rings use up;
/// - the right to gain any by running another program (`no_new_privs`, prctl(2));
/// - the file system, listening on TCP ports, and signals and abstract sockets to others, as far as the kernel's Landlock
///   knows them.
///
/// # Errors
/// Any [`enum@Error`]; the caller should not go on then.
pub fn give_up(first_user: FirstUser) -> Result<GivenUp, Error> {
    capabilities::empty_outer_sets()?;
    let user = user::become_own(first_user);
    capabilities::keep_locking_only()?;
    nix::sys::prctl::set_no_new_privs().map_err(Error::NoNewPrivileges)?;
    let files = files::give_up()?;
    Ok(GivenUp { user, files })
}

/// Gives up, for the calling thread, the last capability and all system calls but those that serving needs.
///
/// Most of the others fail with `EPERM` from now on, so that an oversight costs what was attempted and not the connections of
/// a network. Those that only an intruder makes end the process (`SIGSYS`).
///
/// # Errors
/// [`Error::Capabilities`] or [`Error::SystemCalls`]; the caller should not go on then.
pub fn seal() -> Result<(), Error> {
    capabilities::give_up_all()?;
    Ok(system_calls::give_up()?)
}
