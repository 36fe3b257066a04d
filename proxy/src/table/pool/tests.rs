use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

/// Gives the chunks back: the pools that there are in a process are for ever.
impl Drop for Chunks {
    fn drop(&mut self) {
        for chunk in std::mem::take(&mut self.open) {
            // SAFETY: it was taken, and its values need not be dropped.
            unsafe { memory::give_back(chunk.cast()) };
        }
    }
}

/// A value so large that 13 of them fill a chunk.
#[derive(Clone, Copy)]
struct Value {
    number: u64,
    rest: [u64; 150],
}

const IN_A_CHUNK: u16 = 13;

fn give_back(chunks: &mut Chunks, slot: NonNull<u8>) {
    // SAFETY: it was taken and is given back once, and so is the chunk that nobody has any more.
    unsafe {
        if let Some(chunk) = chunks.give_back(ClassOf::<Value>::SHAPE, slot) {
            memory::give_back(chunk);
        }
    }
}

fn number_in(slot: NonNull<u8>) -> Option<u64> {
    // SAFETY: it was taken, a value was written into it, and only this thread refers to it.
    let value = unsafe { slot.cast::<Value>().read() };
    value.rest.iter().all(|one| *one == value.number).then_some(value.number)
}

/// How many of these slots lie in each chunk.
fn by_chunk(shape: Shape, taken: &[(NonNull<u8>, u64)]) -> HashMap<NonNull<Head>, u16> {
    let mut counts = HashMap::new();
    for (slot, _) in taken {
        let (chunk, number) = shape.place(*slot);
        assert!(number < shape.slots, "a slot lies in its chunk");
        *counts.entry(chunk).or_default() += 1;
    }
    counts
}

#[test]
fn a_chunk_has_room_for_all_of_its_slots() {
    for index in 0..CLASSES {
        let shape = Shape::of((index + 1) * STEP);
        let counts_end = size_of::<Head>() + usize::from(shape.slots) * size_of::<AtomicU32>();
        assert_eq!((shape.slot, shape.first % LINE), ((index + 1) * STEP, 0));
        assert!(counts_end <= shape.first && shape.first + usize::from(shape.slots) * shape.slot <= CHUNK);
    }
}

proptest! {
    /// Slots that are taken never overlap and hold what was put into them; the pool knows all chunks that have room, and keeps
    /// none without values but for one.
    #[test]
    fn slots_are_handed_out_once(steps in prop::collection::vec((1_usize..100, 0_usize..100, any::<u64>()), 1..20)) {
        let shape = ClassOf::<Value>::SHAPE;
        prop_assert_eq!(shape.slots, IN_A_CHUNK);
        let mut chunks = Chunks::new();
        let mut taken: Vec<(NonNull<u8>, u64)> = Vec::new();
        let mut next = 0;
        for (more, less, order) in steps {
            for _ in 0..more {
                next += 1;
                let slot = chunks.take(shape);
                // SAFETY: nobody else has it, and it has room for such a value.
                unsafe { slot.cast().write(Value { number: next, rest: [next; 150] }) };
                taken.push((slot, next));
            }
            for step in 0..less.min(taken.len()) {
                let order = usize::try_from(order.rotate_left(u32::try_from(step).unwrap()) >> 1).unwrap();
                let (slot, number) = taken.swap_remove(order % taken.len());
                prop_assert_eq!(number_in(slot), Some(number));
                give_back(&mut chunks, slot);
            }
            let places: HashSet<usize> = taken.iter().map(|(slot, _)| slot.as_ptr().addr()).collect();
            prop_assert_eq!(places.len(), taken.len());
            let counts = by_chunk(shape, &taken);
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
            prop_assert_eq!(number_in(slot), Some(number));
            give_back(&mut chunks, slot);
        }
        prop_assert_eq!(chunks.open.len(), 1);
    }
}
