//! Large buffers, shared by the connections that need one at the moment.

use std::cell::RefCell;

/// The size of a large buffer.
pub(super) const LARGE: usize = 128 * 1024;
/// More than this many are not kept for later.
const KEPT: usize = 64;

/// Keeps large buffers that are not in use.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty buffer with room for [`LARGE`] bytes.
    pub(super) fn take(&self) -> Vec<u8> {
        self.free.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(LARGE))
    }

    /// Takes a buffer back.
    pub(super) fn put(&self, mut buffer: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if free.len() < KEPT {
            buffer.clear();
            free.push(buffer);
        }
    }
}
