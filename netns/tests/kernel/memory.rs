//! Memory that is shared with programs, as a proxy has it.
#![allow(unsafe_code, reason = "it is shared by address")]

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

pub(crate) struct Memory {
    place: NonNull<u8>,
    size: NonZeroUsize,
}

impl Memory {
    pub(crate) fn of(descriptor: &OwnedFd, bytes: usize) -> Self {
        let (access, size) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, NonZeroUsize::new(bytes).unwrap());
        // SAFETY: a new mapping at a place that the kernel chooses touches nothing that exists.
        let place = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, descriptor, 0) }.unwrap().cast();
        Self { place, size }
    }

    pub(crate) fn write(&self, offset: usize, word: u32) {
        assert!(offset + 4 <= self.size.get() && offset.is_multiple_of(4));
        // SAFETY: the word is in the mapping and aligned. Programs that read it see this value or the one before.
        unsafe { self.place.add(offset).cast::<u32>().write_volatile(word) };
    }

    pub(crate) fn word(&self, offset: usize) -> u32 {
        assert!(offset + 4 <= self.size.get() && offset.is_multiple_of(4));
        // SAFETY: the word is in the mapping and aligned.
        unsafe { self.place.add(offset).cast::<u32>().read_volatile() }
    }

    pub(crate) fn read(&self, offset: usize) -> u64 {
        assert!(offset + 8 <= self.size.get() && offset.is_multiple_of(8));
        // SAFETY: the number is in the mapping and aligned.
        unsafe { self.place.add(offset).cast::<u64>().read_volatile() }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { munmap(self.place.cast(), self.size.get()) }.unwrap();
    }
}
