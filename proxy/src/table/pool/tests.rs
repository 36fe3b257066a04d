use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

/// Frees what is left in it: the pool that there is in a process is for ever.
impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        for chunk in std::mem::take(&mut self.open) {
            // SAFETY: it is allocated, and nobody refers to a slot in it.
            unsafe {
                assert_eq!(chunk.as_ref().taken, 0);
                dealloc(chunk.as_ptr().cast(), CHUNK);
            }
        }
    }
}

/// A value as large as others are: 13 of them fill a chunk.
#[derive(Clone, Copy)]
struct Value {
    number: u64,
    _rest: [u64; 600],
}

fn value_in(slot: NonNull<Slot<Value>>) -> u64 {
    // SAFETY: it was taken, and only this thread refers to it.
    unsafe { slot.as_ref().value.number }
}

proptest! {
    /// Slots that are taken never overlap and hold what was put into them, and chunks without taken slots are not kept but
    /// for one.
    #[test]
    fn slots_are_handed_out_once(steps in prop::collection::vec((1_usize..100, 0_usize..100, any::<u64>()), 1..20)) {
        let mut pool = Pool::<Value>::new();
        let mut taken: Vec<(NonNull<Slot<Value>>, u64)> = Vec::new();
        let mut next = 0;
        for (more, less, order) in steps {
            for _ in 0..more {
                next += 1;
                taken.push((pool.take(Value { number: next, _rest: [next; 600] }), next));
            }
            for step in 0..less.min(taken.len()) {
                let order = usize::try_from(order.rotate_left(u32::try_from(step).unwrap()) >> 1).unwrap();
                let (slot, number) = taken.swap_remove(order % taken.len());
                prop_assert_eq!(value_in(slot), number);
                // SAFETY: it was taken and is given back once.
                unsafe { pool.give_back(slot) };
            }
            let places: HashSet<usize> = taken.iter().map(|(slot, _)| slot.as_ptr().addr()).collect();
            prop_assert_eq!(places.len(), taken.len());
            // SAFETY: open chunks are allocated.
            let heads: Vec<&Head> = pool.open.iter().map(|chunk| unsafe { chunk.as_ref() }).collect();
            prop_assert!(heads.iter().enumerate().all(|(position, head)| head.position == position && head.taken < 12));
            prop_assert!(heads.iter().filter(|head| head.taken == 0).count() <= 1);
        }
        for (slot, number) in taken {
            prop_assert_eq!(value_in(slot), number);
            // SAFETY: as above.
            unsafe { pool.give_back(slot) };
        }
        prop_assert!(pool.open.len() <= 1);
    }
}
