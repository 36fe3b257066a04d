//! The limit of open descriptors.

use crate::LoadError;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises this process's soft limit of open descriptors to its hard limit and returns that: each connection takes one.
/// It is a setting of the whole process, so programs call it, not [`Load`](crate::Load) or [`Server`](crate::Server).
///
/// # Errors
/// [`LoadError::DescriptorLimit`].
pub fn raise_descriptor_limit() -> Result<u64, LoadError> {
    let failed = |errno: nix::Error| LoadError::DescriptorLimit { source: errno.into() };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed)?;
    }
    Ok(hard)
}
