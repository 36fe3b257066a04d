//! Which addresses services list as backends, and how many services list each.
//!
//! There can be a million, and each task change adds or removes one. So neighbours share an entry, a bit for each: the map has
//! fewer levels, of each of which a change copies a branch.

use ringlb_proxy::table::map::{Itself, Map};
use ringlb_proxy::table::pool::Pooled;
use std::hash::BuildHasherDefault;

/// Addresses, as numbers, with how often each is listed. A copy shares what it does not change.
#[derive(Debug, Clone, Default)]
pub(super) struct Listed {
    /// Those that are listed. The key is what [`NEIGHBOURS`] addresses have in common.
    neighbours: ByNumber<Pooled<Neighbours>>,
    /// Of those, the ones that are listed more than once, and how often beyond that.
    further: ByNumber<u32>,
}

/// By numbers most of which have neighbours, so that they spread by themselves.
type ByNumber<V> = Map<u128, V, BuildHasherDefault<Itself>, 8>;

/// So many addresses share an entry.
const NEIGHBOURS: u128 = 1024;

/// A bit for each of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Neighbours([u128; (NEIGHBOURS / BITS) as usize]);

const BITS: u128 = u128::BITS as u128;

impl Listed {
    /// Whether the address is listed.
    pub(super) fn contains(&self, number: u128) -> bool {
        self.neighbours.get(&(number / NEIGHBOURS)).is_some_and(|neighbours| neighbours.contains(number))
    }

    /// Lists the address once more.
    pub(super) fn add(&mut self, number: u128) {
        let key = number / NEIGHBOURS;
        let mut neighbours = self.neighbours.get(&key).map(|neighbours| **neighbours).unwrap_or_default();
        if neighbours.contains(number) {
            let further = self.further.get(&number).copied().unwrap_or(0);
            self.further.insert(number, further + 1);
        } else {
            neighbours.flip(number);
            self.neighbours.insert(key, Pooled::new(neighbours));
        }
    }

    /// Lists the address once less. True if it is not listed any more.
    pub(super) fn remove(&mut self, number: u128) -> bool {
        match self.further.get(&number).copied() {
            Some(1) => self.further.remove(&number),
            Some(further) => self.further.insert(number, further - 1),
            None => return self.remove_last(number),
        }
        false
    }

    /// False if the address is not listed.
    fn remove_last(&mut self, number: u128) -> bool {
        let key = number / NEIGHBOURS;
        let Some(mut neighbours) = self.neighbours.get(&key).map(|neighbours| **neighbours) else { return false };
        if !neighbours.contains(number) {
            return false;
        }
        neighbours.flip(number);
        if neighbours == Neighbours::default() {
            self.neighbours.remove(&key);
        } else {
            self.neighbours.insert(key, Pooled::new(neighbours));
        }
        true
    }
}

impl Neighbours {
    fn contains(&self, number: u128) -> bool {
        let (word, bit) = Self::place(number);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn flip(&mut self, number: u128) {
        let (word, bit) = Self::place(number);
        if let Some(word) = self.0.get_mut(word) {
            *word ^= bit;
        }
    }

    fn place(number: u128) -> (usize, u128) {
        let number = number % NEIGHBOURS;
        ((number / BITS) as usize, 1 << (number % BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Any history lists what a count for each address says, a copy keeps its own state, and nothing is left of what is gone.
        #[test]
        fn lists_what_a_count_for_each_address_says(steps in prop::collection::vec((any::<bool>(), 0..8_u8, 0..40_u8), 0..200)) {
            let mut listed = Listed::default();
            let mut model: HashMap<u128, u32> = HashMap::new();
            let mut earlier = Vec::new();
            for (add, high, low) in steps {
                let number = (u128::from(high) << 125) + 1010 + u128::from(low);
                if add {
                    listed.add(number);
                    *model.entry(number).or_default() += 1;
                } else {
                    let before = model.remove(&number).unwrap_or(0);
                    prop_assert_eq!(listed.remove(number), before == 1);
                    if before > 1 {
                        model.insert(number, before - 1);
                    }
                }
                earlier.push((listed.clone(), model.clone()));
            }
            for (listed, model) in earlier {
                for (high, low) in (0..8_u128).flat_map(|high| (0..40).map(move |low| (high, low))) {
                    let number = (high << 125) + 1010 + low;
                    prop_assert_eq!(listed.contains(number), model.contains_key(&number));
                }
                let bits = |neighbours: &Neighbours| neighbours.0.iter().map(|word| word.count_ones()).sum::<u32>();
                let entries: Vec<_> = listed.neighbours.iter().map(|(_, neighbours)| bits(neighbours)).collect();
                prop_assert!(entries.iter().all(|bits| *bits != 0) && listed.further.iter().all(|(_, further)| *further != 0));
                let bits: u32 = entries.iter().sum();
                let further: u32 = listed.further.iter().map(|(_, further)| further).sum();
                prop_assert_eq!((usize::try_from(bits).unwrap(), bits + further), (model.len(), model.values().sum()));
            }
        }
    }
}
