//! Buffers that the kernel takes by itself when data is there, from a ring that it shares with this process.

use super::Error;
use super::buffers::Memory;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// A group of buffers of one size.
#[derive(Debug)]
pub(super) struct ProvidedBuffers {
    ring: Memory,
    data: Memory,
    count: u16,
    size: usize,
    tail: u16,
}

impl ProvidedBuffers {
    /// Makes `count` buffers, a power of two as the kernel wants it, and gives them to the kernel as that group. Their
    /// memory is not used before something is received into it.
    pub(super) fn register(ring: &IoUring, group: u16, count: u16, size: usize) -> Result<Self, Error> {
        let entries = usize::from(count);
        let mut buffers = Self {
            ring: Memory::new(entries * size_of::<BufRingEntry>())?,
            data: Memory::new(entries * size)?,
            count,
            size,
            tail: 0,
        };
        let address = buffers.ring.0.as_ptr() as u64;
        // SAFETY: the memory holds that many entries and is never freed.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, group, 0) }
            .map_err(|source| Error::Register { what: "a ring of provided buffers (kernel 5.19)", source })?;
        for id in 0..count {
            buffers.offer(id);
        }
        Ok(buffers)
    }

    /// Where a buffer begins; `None` if there is no such buffer.
    pub(super) fn address(&self, buffer: u32) -> Option<NonNull<u8>> {
        let index = usize::try_from(buffer).ok().filter(|&index| index < usize::from(self.count))?;
        // SAFETY: the index was checked to be inside the memory.
        Some(unsafe { self.data.0.add(index * self.size) })
    }

    /// Puts a buffer into the ring: the kernel may write into it from now on.
    pub(super) fn offer(&mut self, id: u16) {
        let base = self.ring.0.as_ptr().cast::<BufRingEntry>();
        let index = usize::from(self.tail & (self.count - 1));
        let id = id & (self.count - 1);
        // SAFETY: both indices are masked to be inside the two pieces of memory. The kernel does not read an entry
        // before the tail has passed it, and the tail is published below, after the entry (release).
        unsafe {
            let entry = &mut *base.add(index);
            entry.set_addr(self.data.0.as_ptr().add(usize::from(id) * self.size) as u64);
            entry.set_len(u32::try_from(self.size).unwrap_or(u32::MAX));
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(base).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}
