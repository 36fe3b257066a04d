//! Which addresses services list as backends, and how many services list each.
//!
//! There can be a million, and each task change adds or removes one. So neighbours share an entry, a bit for each: the map has
//! fewer levels, of each of which a change copies a node and touches all that the node refers to.

use imbl::OrdMap;

/// Addresses, as numbers, with how often each is listed. A copy shares what it does not change.
#[derive(Debug, Clone, Default)]
pub(super) struct Listed {
    /// Those that are listed, as bits. The key is what [`NEIGHBOURS`] addresses have in common.
    bits: OrdMap<u128, u128>,
    /// Of those, the ones that are listed more than once, and how often beyond that.
    further: OrdMap<u128, u32>,
}

/// So many addresses share an entry.
const NEIGHBOURS: u32 = u128::BITS;

impl Listed {
    /// Whether the address is listed.
    pub(super) fn contains(&self, number: u128) -> bool {
        let (key, bit) = place(number);
        self.bits.get(&key).is_some_and(|bits| bits & bit != 0)
    }

    /// Lists the address once more.
    pub(super) fn add(&mut self, number: u128) {
        let (key, bit) = place(number);
        let bits = self.bits.entry(key).or_insert(0);
        if *bits & bit == 0 {
            *bits |= bit;
        } else {
            *self.further.entry(number).or_insert(0) += 1;
        }
    }

    /// Lists the address once less. True if it is not listed any more.
    pub(super) fn remove(&mut self, number: u128) -> bool {
        if let Some(further) = self.further.get_mut(&number) {
            *further -= 1;
            if *further == 0 {
                self.further.remove(&number);
            }
            return false;
        }
        let (key, bit) = place(number);
        let Some(bits) = self.bits.get_mut(&key).filter(|bits| **bits & bit != 0) else { return false };
        *bits &= !bit;
        if *bits == 0 {
            self.bits.remove(&key);
        }
        true
    }
}

/// The key of the address's entry, and its bit there.
fn place(number: u128) -> (u128, u128) {
    let neighbours = u128::from(NEIGHBOURS);
    (number / neighbours, 1 << (number % neighbours))
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
                let number = (u128::from(high) << 125) + 110 + u128::from(low);
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
                    let number = (high << 125) + 110 + low;
                    prop_assert_eq!(listed.contains(number), model.contains_key(&number));
                }
                prop_assert!(listed.bits.values().all(|bits| *bits != 0) && listed.further.values().all(|further| *further != 0));
                let bits: u32 = listed.bits.values().map(|bits| bits.count_ones()).sum();
                let further: u32 = listed.further.values().sum();
                prop_assert_eq!((usize::try_from(bits).unwrap(), bits + further), (model.len(), model.values().sum()));
            }
        }
    }
}
