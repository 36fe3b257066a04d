//! The memory itself.
#![allow(unsafe_code, reason = "it is shared with programs in the kernel and with other processes by address")]

use super::{BUCKETS, Entry, WAYS};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

/// What of it this process sees.
#[derive(Debug)]
pub(super) struct Memory(NonNull<[Bucket; BUCKETS]>);

type Bucket = [Entry; WAYS];

const SIZE: NonZeroUsize = NonZeroUsize::new(size_of::<[Bucket; BUCKETS]>()).expect("it has buckets");

// SAFETY: it is reached by shared references alone, to atomic numbers.
unsafe impl Send for Memory {}
// SAFETY: the same.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps what the descriptor stands for. The kernel refuses that of a map that is smaller.
    pub(super) fn map(descriptor: &impl AsFd) -> nix::Result<Self> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses touches nothing that exists.
        let memory = unsafe { mmap(None, SIZE, access, MapFlags::MAP_SHARED, descriptor, 0) }?;
        Ok(Self(memory.cast()))
    }

    pub(super) fn buckets(&self) -> &[Bucket; BUCKETS] {
        // SAFETY: the mapping has this size, begins at a page and lives as long as `self`. All that is in it are atomic numbers,
        // which may have any value and be changed by others at any time.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference to it outlives the value.
        let _ = unsafe { munmap(self.0.cast(), SIZE.get()) };
    }
}
