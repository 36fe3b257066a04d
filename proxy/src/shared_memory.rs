//! Memory that this process shares with programs in the kernel and with other processes, by address.
#![allow(unsafe_code, reason = "the kernel makes the memory, and others write into it")]

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;

/// What can lie in such memory.
///
/// # Safety
/// All that is in it are atomic numbers, which may have any value, and be changed by others at any time.
pub(crate) unsafe trait Shareable: Sync {}

/// What of it this process sees.
#[derive(Debug)]
pub(crate) struct Memory<T: Shareable>(NonNull<T>);

// SAFETY: it is reached by shared references alone, to what is `Sync`.
unsafe impl<T: Shareable> Send for Memory<T> {}
// SAFETY: the same.
unsafe impl<T: Shareable> Sync for Memory<T> {}

impl<T: Shareable> Memory<T> {
    const SIZE: NonZeroUsize = NonZeroUsize::new(size_of::<T>()).expect("there is something in it");

    /// Maps what the descriptor stands for. The kernel refuses that of a map that is smaller.
    pub(crate) fn map(descriptor: &impl AsFd) -> nix::Result<Self> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses touches nothing that exists.
        let memory = unsafe { mmap(None, Self::SIZE, access, MapFlags::MAP_SHARED, descriptor, 0) }?;
        Ok(Self(memory.cast()))
    }
}

impl<T: Shareable> Deref for Memory<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping has this size, begins at a page and lives as long as `self`; whoever says that the type is shareable
        // vouches for what is in it.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Shareable> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference to it outlives the value.
        let _ = unsafe { munmap(self.0.cast(), Self::SIZE.get()) };
    }
}

const FACTORS: [u64; 3] = [0x61c8_8647, 0x2545_f491, 0x517c_c1b7];

/// The hash by which maps in such memory are looked into: of addresses and ports, as they lie in memory. Programs have the same
/// (`ringlb_netns`, which this does not depend on).
pub(crate) fn hash_of(words: [u32; 3]) -> u32 {
    let products = words.into_iter().zip(FACTORS).map(|(word, factor)| u64::from(word) * factor);
    let sum = products.fold(0, u64::wrapping_add);
    ((sum ^ sum >> 32).wrapping_mul(FACTORS[0]) >> 32) as u32
}
