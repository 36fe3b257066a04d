//! Where identities lie: each in a line of the processor's cache, in chunks that hold nothing else.
//!
//! Tables come and go, and identities stay. Among each other on the heap, what an old table leaves would be holes smaller
//! than a page, which no allocator can give back: 43 bytes for each backend after a change of all of them.
//!
//! A chunk is asked for when all others are full, and is freed with its last identity.

#![allow(unsafe_code, reason = "a slot is used by reference, and its chunk found from it, by address")]

use super::Identity;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An identity, and how many refer to it.
#[repr(C, align(64))]
pub(super) struct Slot {
    pub(super) references: AtomicU32,
    /// The number of this slot in its chunk, which starts so many slots before it.
    number: u16,
    /// While it is free: the number of the free slot after it, or [`NONE`]. Only for who has locked the pool.
    next: AtomicU16,
    pub(super) identity: Identity,
}

/// What a chunk has in the place of its first slot. Only for who has locked the pool.
#[repr(C, align(64))]
struct Head {
    /// The first of the slots that were given back, or [`NONE`].
    free: u16,
    /// The first of the slots that were never taken: their memory is not touched before it is needed.
    fresh: u16,
    taken: u16,
    /// Where the chunk is in [`Pool::open`], if it is.
    position: usize,
}

/// Slots of a chunk, the head's place among them: 64 KiB.
const SLOTS: u16 = 1024;

/// No slot: this number is the head's.
const NONE: u16 = 0;

const CHUNK: Layout = match Layout::array::<Slot>(SLOTS as usize) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

/// The chunks that have room.
struct Pool {
    open: Vec<NonNull<Head>>,
}

// SAFETY: chunks belong to no thread.
unsafe impl Send for Pool {}

static POOL: Mutex<Pool> = Mutex::new(Pool { open: Vec::new() });

/// A slot with a new identity to which one refers.
pub(super) fn take() -> NonNull<Slot> {
    lock().take()
}

/// Clears the slot's identity and gives the slot back.
///
/// # Safety
/// The slot is from [`take`], nobody refers to its identity, and it is given back once.
pub(super) unsafe fn give_back(slot: NonNull<Slot>) {
    // SAFETY: as asked of the caller.
    unsafe { lock().give_back(slot) }
}

/// A panic of another thread cannot have left the pool half changed: nothing in here panics between two changes.
fn lock() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn take(&mut self) -> NonNull<Slot> {
        let chunk = self.open.last().copied().unwrap_or_else(|| self.open_chunk());
        // SAFETY: chunks in `open` are allocated and have a free slot; `self` is the only way to the head and to
        // slots that are free, and slots from `fresh` on are memory of the chunk that holds nothing yet.
        unsafe {
            let head = &mut *chunk.as_ptr();
            let number = if head.free == NONE { head.fresh } else { head.free };
            let slot = chunk.cast::<Slot>().add(usize::from(number));
            if head.free == NONE {
                head.fresh += 1;
            } else {
                head.free = slot.as_ref().next.load(Ordering::Relaxed);
            }
            head.taken += 1;
            if head.is_full() {
                self.open.pop();
            }
            let references = AtomicU32::new(1);
            slot.write(Slot { references, number, next: AtomicU16::new(NONE), identity: Identity::default() });
            slot
        }
    }

    /// # Safety
    /// As for the function of that name.
    unsafe fn give_back(&mut self, slot: NonNull<Slot>) {
        // SAFETY: nobody else refers to the slot, its number leads to its chunk's head, and `self` is the only way to that.
        unsafe {
            (&raw mut (*slot.as_ptr()).identity).drop_in_place();
            let number = slot.as_ref().number;
            let chunk = slot.sub(usize::from(number)).cast::<Head>();
            let head = &mut *chunk.as_ptr();
            if head.is_full() {
                head.position = self.open.len();
                self.open.push(chunk);
            }
            slot.as_ref().next.store(head.free, Ordering::Relaxed);
            head.free = number;
            head.taken -= 1;
            // The last open one stays: a backend that comes and goes would take and free a chunk each time.
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

impl Head {
    fn is_full(&self) -> bool {
        self.taken == SLOTS - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// Frees what is left in it: the pool that there is in a process is for ever.
    impl Drop for Pool {
        fn drop(&mut self) {
            for chunk in std::mem::take(&mut self.open) {
                // SAFETY: it is allocated, and the tests have given all slots back.
                unsafe {
                    assert_eq!(chunk.as_ref().taken, 0);
                    dealloc(chunk.as_ptr().cast(), CHUNK);
                }
            }
        }
    }

    #[test]
    fn an_identity_and_its_count_fill_a_line() {
        assert_eq!((size_of::<Slot>(), align_of::<Slot>()), (64, 64));
        assert!(size_of::<Head>() <= 64);
    }

    fn address(slot: NonNull<Slot>) -> usize {
        slot.as_ptr().addr()
    }

    proptest! {
        /// Slots that are taken never overlap, hold what was written to them, and start as new; chunks without taken slots
        /// are not kept but for one.
        #[test]
        fn slots_are_handed_out_once(steps in prop::collection::vec((1_usize..2_000, 0_usize..2_000, any::<u64>()), 1..12)) {
            let mut pool = Pool { open: Vec::new() };
            let mut taken: Vec<(NonNull<Slot>, u64)> = Vec::new();
            let mut next = 0;
            for (more, less, order) in steps {
                for _ in 0..more {
                    let slot = pool.take();
                    next += 1;
                    // SAFETY: it was just taken.
                    let identity = unsafe { &slot.as_ref().identity };
                    prop_assert_eq!(identity.connections.swap(next, Ordering::Relaxed), 0);
                    if next % 3 == 0 {
                        identity.datagrams().sessions.store(next, Ordering::Relaxed);
                    }
                    taken.push((slot, next));
                }
                for step in 0..less.min(taken.len()) {
                    let index = usize::try_from(order.rotate_left(u32::try_from(step).unwrap()) % taken.len() as u64).unwrap();
                    let (slot, value) = taken.swap_remove(index);
                    // SAFETY: it was taken and is given back once.
                    unsafe {
                        prop_assert_eq!(slot.as_ref().identity.connections.load(Ordering::Relaxed), value);
                        pool.give_back(slot);
                    }
                }
                let lines: HashSet<usize> = taken.iter().map(|(slot, _)| address(*slot)).collect();
                prop_assert_eq!(lines.len(), taken.len());
                prop_assert!(lines.iter().all(|line| line % 64 == 0));
                // SAFETY: open chunks are allocated.
                let heads: Vec<&Head> = pool.open.iter().map(|chunk| unsafe { chunk.as_ref() }).collect();
                prop_assert!(heads.iter().enumerate().all(|(position, head)| head.position == position && !head.is_full()));
                prop_assert!(heads.iter().filter(|head| head.taken == 0).count() <= 1);
            }
            for (slot, value) in taken {
                // SAFETY: as above.
                unsafe {
                    prop_assert_eq!(slot.as_ref().identity.connections.load(Ordering::Relaxed), value);
                    pool.give_back(slot);
                }
            }
            prop_assert!(pool.open.len() <= 1);
        }
    }
}
