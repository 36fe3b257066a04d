use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

/// Frees the chunks: the pool that there is in a process is for ever.
impl<T> Drop for Chunks<T> {
    fn drop(&mut self) {
        for chunk in std::mem::take(&mut self.open) {
            // SAFETY: it is allocated, and its values need not be dropped.
            unsafe { dealloc(chunk.as_ptr().cast(), CHUNK) };
        }
    }
}

/// A value so large that 12 of them fill a chunk.
#[derive(Clone, Copy)]
struct Value {
    number: u64,
    _rest: [u64; 150],
}

const IN_A_CHUNK: u16 = 12;

fn number_in(slot: NonNull<Slot<Value>>) -> u64 {
    // SAFETY: it was taken, and only this thread refers to it.
    unsafe { (*slot.as_ptr()).value.number }
}

/// How many of these slots lie in each chunk.
fn by_chunk(taken: &[(NonNull<Slot<Value>>, u64)]) -> HashMap<NonNull<Head>, u16> {
    let mut counts = HashMap::new();
    for (slot, _) in taken {
        // SAFETY: a slot that was taken knows how far it is from its chunk's start.
        let chunk = unsafe { slot.sub(usize::from((*slot.as_ptr()).number)).cast() };
        *counts.entry(chunk).or_default() += 1;
    }
    counts
}

proptest! {
    /// Slots that are taken never overlap and hold what was put into them; the pool knows all chunks that have room, and keeps
    /// none without values but for one.
    #[test]
    fn slots_are_handed_out_once(steps in prop::collection::vec((1_usize..100, 0_usize..100, any::<u64>()), 1..20)) {
        prop_assert_eq!(Chunks::<Value>::SLOTS, IN_A_CHUNK + 1);
        let mut chunks = Chunks::<Value>::new();
        let mut taken: Vec<(NonNull<Slot<Value>>, u64)> = Vec::new();
        let mut next = 0;
        for (more, less, order) in steps {
            for _ in 0..more {
                next += 1;
                taken.push((chunks.take(Value { number: next, _rest: [next; 150] }), next));
            }
            for step in 0..less.min(taken.len()) {
                let order = usize::try_from(order.rotate_left(u32::try_from(step).unwrap()) >> 1).unwrap();
                let (slot, number) = taken.swap_remove(order % taken.len());
                prop_assert_eq!(number_in(slot), number);
                // SAFETY: it was taken and is given back once.
                unsafe { chunks.give_back(slot) };
            }
            let places: HashSet<usize> = taken.iter().map(|(slot, _)| slot.as_ptr().addr()).collect();
            prop_assert_eq!(places.len(), taken.len());
            let counts = by_chunk(&taken);
            let mut with_room: HashSet<_> = counts.iter().filter(|(_, count)| **count < IN_A_CHUNK).map(|(chunk, _)| *chunk).collect();
            let mut empty = 0;
            for (position, chunk) in chunks.open.iter().enumerate() {
                // SAFETY: open chunks are allocated.
                let head = unsafe { chunk.as_ref() };
                prop_assert_eq!((head.position, head.taken), (position, counts.get(chunk).copied().unwrap_or(0)));
                empty += usize::from(head.taken == 0);
                prop_assert!(head.taken == 0 || with_room.remove(chunk));
            }
            prop_assert!(with_room.is_empty() && empty <= 1);
        }
        for (slot, number) in taken {
            prop_assert_eq!(number_in(slot), number);
            // SAFETY: as above.
            unsafe { chunks.give_back(slot) };
        }
        prop_assert_eq!(chunks.open.len(), 1);
    }
}
