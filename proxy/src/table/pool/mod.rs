//! Where what tables consist of lies: values of one size in chunks that hold nothing else, with the counts of who refers to them
//! side by side at a chunk's beginning.
//!
//! Identities stay, and tables come and go. Among each other on the heap, what an old table leaves would be holes smaller
//! than a page, which no allocator can give back: after a change of all backends, a quarter of what a proxy has then.
//!
//! A task change copies a group of backends and a few branches of a map, and each copy raises the counts of all that it refers to.
//! Beside their values these counts would be some dozens of lines of memory, which in a table of a million backends no cache
//! has. Side by side, sixteen of them are one line. Threads whose connections go to neighbouring backends pay for that: 31
//! nanoseconds for a count up and down, where it is 8 without neighbours.
//!
//! The daemon's model shares its values in the same way.
//!
//! A chunk is asked for when all others are full, and is given back with the last value in it, unless it is the only one with room.

#![allow(unsafe_code, reason = "a value is used by reference, and its chunk and count are found from it, by address")]

mod fetch;
mod memory;
mod pooled;

pub use pooled::Pooled;

use memory::CHUNK;
use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A pool for values of one class, of which nothing but [`Pooled`] can change what is in it. It has a line of the processor's
/// cache for itself: threads that use another class are not to wait for it.
#[repr(align(64))]
struct Pool(Mutex<Chunks>);

/// The chunks of a pool that have room.
struct Chunks {
    open: Vec<NonNull<Head>>,
}

/// Where in a chunk values of one class lie.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Bytes from one slot to the next.
    slot: usize,
    /// Slots of a chunk.
    slots: u16,
    /// Bytes from the chunk's beginning to its first slot: a whole number of lines of the processor's cache.
    first: usize,
}

/// What a chunk begins with. Only for who has locked the pool. The counts come after it.
///
/// The count of a slot that is free is the number of the free slot after it, or [`NONE`].
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

/// No slot.
const NONE: u16 = u16::MAX;

/// Classes differ by so many bytes. A value lies in the smallest one that holds it.
const STEP: usize = 16;

/// How many classes there are: up to values of 2 KiB, of which a chunk holds seven.
const CLASSES: usize = 128;

const LINE: usize = 64;

static POOLS: [Pool; CLASSES] = [const { Pool(Mutex::new(Chunks::new())) }; CLASSES];

// SAFETY: chunks belong to no thread, and who has them does not refer to values in them.
unsafe impl Send for Chunks {}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Chunks> {
        // A panic of another thread cannot have left it half changed: nothing in here panics between two changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Head {
    fn is_full(&self, shape: Shape) -> bool {
        self.taken == shape.slots
    }
}

impl Shape {
    /// That of chunks whose slots have so many bytes.
    const fn of(slot: usize) -> Self {
        let (head, count) = (size_of::<Head>(), size_of::<AtomicU32>());
        let mut slots = (CHUNK - head) / (slot + count);
        while (head + slots * count).next_multiple_of(LINE) + slots * slot > CHUNK {
            slots -= 1;
        }
        let first = (head + slots * count).next_multiple_of(LINE);
        assert!(slots > 1 && slots < NONE as usize);
        Self { slot, slots: slots as u16, first }
    }

    /// The slot of that number.
    ///
    /// # Safety
    /// The chunk is allocated and has a slot of that number.
    unsafe fn slot(self, chunk: NonNull<Head>, number: u16) -> NonNull<u8> {
        // SAFETY: as asked of the caller, it lies in the chunk.
        unsafe { chunk.cast::<u8>().add(self.first + usize::from(number) * self.slot) }
    }

    /// The chunk that a slot lies in, and the slot's number there.
    fn place(self, slot: NonNull<u8>) -> (NonNull<Head>, u16) {
        let offset = slot.addr().get() % CHUNK;
        // SAFETY: chunks begin at multiples of their size, so the slot's one begins so far before it.
        let chunk = unsafe { slot.sub(offset).cast() };
        (chunk, ((offset - self.first) / self.slot) as u16)
    }
}

/// How many refer to what lies in the slot of that number.
///
/// # Safety
/// The chunk is allocated as long as the count is used, and has a slot of that number.
unsafe fn count<'a>(chunk: NonNull<Head>, number: u16) -> &'a AtomicU32 {
    // SAFETY: as asked of the caller; the memory of a chunk is a count's whatever is in it, and is aligned as the head is.
    unsafe { chunk.add(1).cast::<AtomicU32>().add(usize::from(number)).as_ref() }
}

impl Chunks {
    const fn new() -> Self {
        Self { open: Vec::new() }
    }

    /// A slot in which nothing is, and whose count is one. The shape is always the same.
    fn take(&mut self, shape: Shape) -> NonNull<u8> {
        let chunk = self.open.last().copied().unwrap_or_else(|| self.open_chunk());
        // SAFETY: chunks in `open` are allocated and have a free slot; `self` is the only way to the head and to
        // counts of slots that are free.
        unsafe {
            let head = &mut *chunk.as_ptr();
            let number = if head.free == NONE { head.fresh } else { head.free };
            let count = count(chunk, number);
            if head.free == NONE {
                head.fresh += 1;
            } else {
                head.free = count.load(Ordering::Relaxed) as u16;
            }
            count.store(1, Ordering::Relaxed);
            head.taken += 1;
            if head.is_full(shape) {
                self.open.pop();
            }
            shape.slot(chunk, number)
        }
    }

    /// Takes back a slot whose value has been dropped. Gives its chunk if that is nobody's any more, for [`memory::give_back`].
    ///
    /// # Safety
    /// The slot is from [`Self::take`] of these chunks with this shape, nobody refers to it, and it is given back once.
    unsafe fn give_back(&mut self, shape: Shape, slot: NonNull<u8>) -> Option<NonNull<u8>> {
        let (chunk, number) = shape.place(slot);
        // SAFETY: nobody else refers to the slot, and `self` is the only way to its chunk's head.
        unsafe {
            let head = &mut *chunk.as_ptr();
            if head.is_full(shape) {
                head.position = self.open.len();
                self.open.push(chunk);
            }
            count(chunk, number).store(head.free.into(), Ordering::Relaxed);
            head.free = number;
            head.taken -= 1;
            // The last open one stays: a value that comes and goes would take and free a chunk each time.
            let is_left = head.taken == 0 && self.open.len() > 1;
            is_left.then(|| self.close_chunk(chunk))
        }
    }

    fn open_chunk(&mut self) -> NonNull<Head> {
        let Some(chunk) = memory::take() else { handle_alloc_error(memory::LAYOUT) };
        let chunk = chunk.cast::<Head>();
        // SAFETY: the head lies in the chunk and is aligned, and the chunk is nobody else's.
        unsafe { chunk.write(Head { free: NONE, fresh: 0, taken: 0, position: self.open.len() }) };
        self.open.push(chunk);
        chunk
    }

    /// # Safety
    /// The chunk is open and none of its slots is taken.
    unsafe fn close_chunk(&mut self, chunk: NonNull<Head>) -> NonNull<u8> {
        // SAFETY: as asked of the caller; all chunks in `open` are allocated, and `self` is the only way to them.
        unsafe {
            let position = chunk.as_ref().position;
            self.open.swap_remove(position);
            if let Some(moved) = self.open.get_mut(position) {
                moved.as_mut().position = position;
            }
            chunk.cast()
        }
    }
}

/// The class of a type's values.
struct ClassOf<T>(std::marker::PhantomData<T>);

impl<T> ClassOf<T> {
    const SHAPE: Shape = Shape::of((Self::INDEX + 1) * STEP);
    const INDEX: usize = {
        let layout = Layout::new::<T>();
        assert!(layout.align() <= STEP, "slots are aligned to the step");
        assert!(layout.size() > 0 && layout.size() <= CLASSES * STEP, "there is a class for it");
        layout.size().div_ceil(STEP) - 1
    };

    fn pool() -> &'static Pool {
        &POOLS[Self::INDEX]
    }
}

#[cfg(test)]
mod tests;
