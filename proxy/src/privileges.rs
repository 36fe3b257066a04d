//! Giving up what is not needed.

use caps::{CapSet, Capability, CapsHashSet};
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
}

const KEPT: [Capability; 2] = [Capability::CAP_SYS_RESOURCE, Capability::CAP_IPC_LOCK];

/// Gives up every capability but two, and the right to gain any by running another program. These two stay where they were
/// there:
///
/// - `CAP_SYS_RESOURCE`: without it all pipes of a user may hold 64 MiB together (`fs.pipe-user-pages-soft`, pipe(7)), so
///   that sixteen bulk streams on the whole node would be spliced and the others copied.
/// - `CAP_IPC_LOCK`, until [`give_up_locking`]: without it the memory of a user's rings counts against `RLIMIT_MEMLOCK`
///   (8 MiB as a rule), which some ten rings use up on the whole node.
///
/// # Errors
/// Any [`enum@Error`]; the caller should not go on then.
pub fn give_up() -> Result<(), Error> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.into_iter().filter(|capability| KEPT.contains(capability)).collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::runtime::thread_all_supported() {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    nix::sys::prctl::set_no_new_privs().map_err(Error::NoNewPrivileges)
}

/// Gives up the right to lock any amount of memory, for the calling thread, once it has its ring.
///
/// # Errors
/// [`Error::Capabilities`]; the caller should not go on then.
pub fn give_up_locking() -> Result<(), Error> {
    caps::drop(None, CapSet::Effective, Capability::CAP_IPC_LOCK)?;
    Ok(caps::drop(None, CapSet::Permitted, Capability::CAP_IPC_LOCK)?)
}
