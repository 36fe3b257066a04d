//! The buffers that data passes through.
//!
//! The *shared* buffers lie in a ring that the kernel takes them from when data is there, so that a connection that
//! waits holds none. Because a few connections whose peers do not read can hold all of them, there are *private*
//! buffers besides: one for one receive, made when the shared ones are used up, freed after use.

use super::Error;
use super::provided::ProvidedBuffers;
use io_uring::IoUring;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// The size of a buffer in bytes. Measured: 4 KiB and 32 KiB are both slower.
pub const BUFFER_SIZE: usize = 16 * 1024;
/// The number of shared buffers; a power of two, as the kernel wants it.
pub const SHARED_BUFFERS: u16 = 256;
/// The most private buffers of a ring (64 MiB). When they are used up too, receives wait until one is free.
pub const PRIVATE_BUFFERS: u32 = 4096;
/// The kernel's name for the group of shared buffers.
pub(super) const GROUP: u16 = 0;

const FIRST_PRIVATE: u32 = 1 << 16;

/// All buffers of a ring.
#[derive(Debug)]
pub(super) struct Buffers {
    shared: ProvidedBuffers,
    private: HashMap<u32, Box<[u8; BUFFER_SIZE]>>,
    free_private: Vec<u32>,
    next_private: u32,
}

/// Page-aligned zeroed memory. It is never given back: the kernel may write into it until the ring's last operation is
/// over, which is after the ring's descriptor is closed. There is one ring a data thread, made at the start, so nothing
/// accumulates.
#[derive(Debug)]
pub(super) struct Memory(pub(super) NonNull<u8>);

// SAFETY: the memory is owned by one value and reached only through it.
unsafe impl Send for Memory {}

impl Memory {
    pub(super) fn new(bytes: usize) -> Result<Self, Error> {
        let length = NonZeroUsize::new(bytes).ok_or(Error::Memory { bytes })?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // Not from the allocator, which writes the zeroes: a proxy that has nothing to do would have all of it in memory.
        // SAFETY: a new mapping of no file, at a place that the kernel chooses, touches nothing that exists.
        let memory = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) };
        memory.map(|memory| Self(memory.cast())).map_err(|_errno| Error::Memory { bytes })
    }
}

impl Buffers {
    /// Makes the shared buffers and gives them to the kernel.
    pub(super) fn register(ring: &IoUring) -> Result<Self, Error> {
        Ok(Self {
            shared: ProvidedBuffers::register(ring, GROUP, SHARED_BUFFERS, BUFFER_SIZE)?,
            private: HashMap::new(),
            free_private: Vec::new(),
            next_private: FIRST_PRIVATE,
        })
    }

    /// A new private buffer; `None` if there are too many.
    pub(super) fn take_private(&mut self) -> Option<u32> {
        let id = match self.free_private.pop() {
            Some(id) => id,
            None if self.next_private - FIRST_PRIVATE < PRIVATE_BUFFERS => {
                self.next_private += 1;
                self.next_private - 1
            }
            None => return None,
        };
        self.private.insert(id, Box::new([0; BUFFER_SIZE]));
        Some(id)
    }

    /// Writes to the start of a private buffer; gives the number of bytes.
    pub(super) fn fill(&mut self, buffer: u32, bytes: &[u8]) -> Option<u32> {
        self.private.get_mut(&buffer)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
        u32::try_from(bytes.len()).ok()
    }

    /// Where a buffer's bytes are, from `start`; `None` if there is no such buffer or it is shorter.
    pub(super) fn address(&mut self, buffer: u32, start: u32) -> Option<(*mut u8, u32)> {
        let room = u32::try_from(BUFFER_SIZE).ok()?.checked_sub(start)?;
        let base = if buffer < FIRST_PRIVATE {
            self.shared.address(buffer)?.as_ptr()
        } else {
            self.private.get_mut(&buffer)?.as_mut_ptr()
        };
        // SAFETY: `start` was checked to be at most the buffer's size.
        Some((unsafe { base.add(start as usize) }, room))
    }

    /// Takes a buffer back.
    pub(super) fn release(&mut self, buffer: u32) {
        if buffer >= FIRST_PRIVATE {
            if self.private.remove(&buffer).is_some() {
                self.free_private.push(buffer);
            }
        } else if let Ok(id) = u16::try_from(buffer) {
            self.shared.offer(id);
        }
    }
}
