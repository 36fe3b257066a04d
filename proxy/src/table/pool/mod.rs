//! Where what tables consist of lies: the values of one kind in chunks that hold nothing else.
//!
//! Identities stay, and tables come and go. Among each other on the heap, what an old table leaves would be holes smaller
//! than a page, which no allocator can give back: after a change of all backends, a quarter of what a proxy has then.
//!
//! A chunk is asked for when all others are full, and is freed with the last value in it, unless it is the only one with room.

#![allow(unsafe_code, reason = "a slot is used by reference, and its chunk found from it, by address")]

mod pooled;

pub use pooled::Pooled;

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What lies in a pool.
///
/// # Safety
/// [`Self::pool`] is always the same pool: a slot goes back to the one that it was taken from.
pub unsafe trait Kept: Send + Sync + Sized + 'static {
    /// The pool for values of this type.
    fn pool() -> &'static Pool<Self>;
}

/// A pool for values of one kind, of which nothing but [`Pooled`] can change what is in it.
pub struct Pool<T>(Mutex<Chunks<T>>);

/// The chunks that have room.
struct Chunks<T> {
    open: Vec<NonNull<Head>>,
    values: PhantomData<Slot<T>>,
}

/// A value, and how many refer to it.
#[repr(C)]
struct Slot<T> {
    references: AtomicU32,
    /// The number of this slot in its chunk, which starts so many slots before it.
    number: u16,
    /// While it is free: the number of the free slot after it, or [`NONE`]. Only for who has locked the pool.
    next: u16,
    value: T,
}

/// What a chunk has in the place of its first slot. Only for who has locked the pool.
#[repr(C)]
struct Head {
    /// The first of the slots that were given back, or [`NONE`].
    free: u16,
    /// The first of the slots that were never taken: their memory is not touched before it is needed.
    fresh: u16,
    taken: u16,
    /// Where the chunk is in [`Chunks::open`], if it is.
    position: usize,
}

/// No slot: this number is the head's.
const NONE: u16 = 0;

/// A chunk: 16 KiB, from the start of a line of the processor's cache on. A larger one is held by one value that stays, and a
/// smaller one leaves holes as small as those that are to be avoided.
const CHUNK: Layout = match Layout::from_size_align(1 << 14, 64) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

// SAFETY: chunks belong to no thread, and who has them does not refer to values in them.
unsafe impl<T: Kept> Send for Chunks<T> {}

impl<T> Pool<T> {
    /// One without chunks.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Chunks::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Chunks<T>> {
        // A panic of another thread cannot have left it half changed: nothing in here panics between two changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Chunks<T> {
    /// Slots of a chunk, the head's place among them.
    const SLOTS: u16 = {
        assert!(size_of::<Head>() <= size_of::<Slot<T>>() && align_of::<Head>() <= align_of::<Slot<T>>());
        assert!(align_of::<Slot<T>>() <= CHUNK.align());
        let slots = CHUNK.size() / size_of::<Slot<T>>();
        assert!(slots >= 2 && slots <= u16::MAX as usize, "a chunk has room for the head and a value at least");
        #[allow(clippy::cast_possible_truncation, reason = "see the line before")]
        let slots = slots as u16;
        slots
    };

    const fn new() -> Self {
        Self { open: Vec::new(), values: PhantomData }
    }

    fn is_full(head: &Head) -> bool {
        head.taken == Self::SLOTS - 1
    }

    /// A slot with this value, to which one refers.
    fn take(&mut self, value: T) -> NonNull<Slot<T>> {
        let chunk = self.open.last().copied().unwrap_or_else(|| self.open_chunk());
        // SAFETY: chunks in `open` are allocated and have a free slot; `self` is the only way to the head and to
        // slots that are free, and slots from `fresh` on are memory of the chunk that holds nothing yet.
        unsafe {
            let head = &mut *chunk.as_ptr();
            let number = if head.free == NONE { head.fresh } else { head.free };
            let slot = chunk.cast::<Slot<T>>().add(usize::from(number));
            if head.free == NONE {
                head.fresh += 1;
            } else {
                head.free = (*slot.as_ptr()).next;
            }
            head.taken += 1;
            if Self::is_full(head) {
                self.open.pop();
            }
            slot.write(Slot { references: AtomicU32::new(1), number, next: NONE, value });
            slot
        }
    }

    /// Takes back a slot whose value has been dropped.
    ///
    /// # Safety
    /// The slot is from [`Self::take`] of these chunks, nobody refers to it, and it is given back once.
    unsafe fn give_back(&mut self, slot: NonNull<Slot<T>>) {
        // SAFETY: nobody else refers to the slot, its number leads to its chunk's head, and `self` is the only way to that.
        unsafe {
            let number = (*slot.as_ptr()).number;
            let chunk = slot.sub(usize::from(number)).cast::<Head>();
            let head = &mut *chunk.as_ptr();
            if Self::is_full(head) {
                head.position = self.open.len();
                self.open.push(chunk);
            }
            (*slot.as_ptr()).next = head.free;
            head.free = number;
            head.taken -= 1;
            // The last open one stays: a value that comes and goes would take and free a chunk each time.
            if head.taken == 0 && self.open.len() > 1 {
                self.close_chunk(chunk);
            }
        }
    }

    fn open_chunk(&mut self) -> NonNull<Head> {
        // SAFETY: the layout is not empty, and what is written lies in the chunk and is aligned as its slots are.
        let chunk = unsafe {
            let Some(chunk) = NonNull::new(alloc(CHUNK).cast::<Head>()) else { handle_alloc_error(CHUNK) };
            chunk.write(Head { free: NONE, fresh: NONE + 1, taken: 0, position: self.open.len() });
            chunk
        };
        self.open.push(chunk);
        chunk
    }

    /// # Safety
    /// The chunk is open and none of its slots is taken.
    unsafe fn close_chunk(&mut self, chunk: NonNull<Head>) {
        // SAFETY: as asked of the caller; all chunks in `open` are allocated, and `self` is the only way to them.
        unsafe {
            let position = chunk.as_ref().position;
            self.open.swap_remove(position);
            if let Some(moved) = self.open.get_mut(position) {
                moved.as_mut().position = position;
            }
            dealloc(chunk.as_ptr().cast(), CHUNK);
        }
    }
}

#[cfg(test)]
mod tests;
