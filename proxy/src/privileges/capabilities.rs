//! Capabilities (capabilities(7)).

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

/// Empties the sets that a program which is run could get capabilities from. The bounding set stays where the daemon lacks
/// `CAP_SETPCAP`; it does nothing then, as nothing can be run.
pub(super) fn empty_outer_sets() -> Result<(), CapsError> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::runtime::thread_all_supported() {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)
}

/// Keeps `CAP_IPC_LOCK`, if it was permitted, and nothing else.
pub(super) fn keep_locking_only() -> Result<(), CapsError> {
    let locks = caps::has_cap(None, CapSet::Permitted, Capability::CAP_IPC_LOCK)?;
    let kept: CapsHashSet = locks.then_some(Capability::CAP_IPC_LOCK).into_iter().collect();
    // First what may be used, then what might become so: the one must be a part of the other.
    caps::clear(None, CapSet::Effective)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::set(None, CapSet::Effective, &kept)
}

/// Keeps nothing.
pub(super) fn give_up_all() -> Result<(), CapsError> {
    caps::clear(None, CapSet::Effective)?;
    caps::clear(None, CapSet::Permitted)
}
