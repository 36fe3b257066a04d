//! Descriptors that the daemon hands over at the start.
#![allow(unsafe_code, reason = "a descriptor's number is all that a new process has of it")]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::collections::HashSet;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// Why an inherited descriptor cannot be used.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no such descriptor.
    #[error("descriptor {0} is not open: the daemon must hand it over")]
    NotOpen(RawFd),
    /// It was taken before.
    #[error("descriptor {0} is named twice on the command line")]
    Twice(RawFd),
    /// A standard stream or a negative number.
    #[error("descriptor {0} cannot be an inherited one: they start at 3")]
    Reserved(RawFd),
}

static TAKEN: Mutex<Option<HashSet<RawFd>>> = Mutex::new(None);

/// Takes the ownership of an inherited descriptor, once, and closes it at a later `exec`.
///
/// # Errors
/// Any [`enum@Error`].
pub fn take(descriptor: RawFd) -> Result<OwnedFd, Error> {
    if descriptor < 3 {
        return Err(Error::Reserved(descriptor));
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if !taken.get_or_insert_default().insert(descriptor) {
        return Err(Error::Twice(descriptor));
    }
    // SAFETY: used only to ask whether it is open, before anything else of this process could have closed it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|_| Error::NotOpen(descriptor))?;
    // SAFETY: it is open, and the list above makes sure that it is taken only once; this is called at the start, before
    // anything else opens descriptors.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
