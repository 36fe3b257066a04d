//! A persistent hash map: a changed copy shares all that did not change.
//!
//! A hash trie (Bagwell, "Ideal Hash Trees", 2001). One change copies one path, at most a few branches, so that a change costs
//! about the same in a table of ten services and of ten thousand.
//!
//! About: far down there are many branches, which no cache has, and each thing that is looked at there has to come from memory.
//! So a branch is one piece of memory with its entries in it. And as a copy of a branch raises the counts of all that it
//! refers to, what is looked up more often than it is changed has 32 places in a branch, what is changed often has
//! [few](Changing).

use super::pool::Pooled;
use std::borrow::Borrow;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::Arc;

/// A map whose clones are cheap and independent. A branch has `WIDTH` places, a power of two.
#[derive(Debug, Clone)]
pub struct Map<K, V, S = RandomState, const WIDTH: usize = 32> {
    root: Pooled<Branch<K, V, WIDTH>>,
    length: usize,
    hasher: S,
}

/// A map whose values change often, by numbers that were given one after the other: such numbers spread by themselves.
pub type Changing<V> = Map<u64, V, BuildHasherDefault<Itself>, 8>;

/// The hash of a number: the number.
#[derive(Debug, Default)]
pub struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[derive(Debug, Clone)]
struct Branch<K, V, const WIDTH: usize> {
    places: [Place<K, V, WIDTH>; WIDTH],
}

#[derive(Debug, Clone)]
enum Place<K, V, const WIDTH: usize> {
    Empty,
    Entry((K, V)),
    /// All entries whose hashes lead here.
    Branch(Pooled<Branch<K, V, WIDTH>>),
    /// Entries whose whole hashes are equal.
    Same(Arc<[(K, V)]>),
}

impl<K, V, S: Default, const WIDTH: usize> Default for Map<K, V, S, WIDTH> {
    fn default() -> Self {
        Self { root: Pooled::new(Branch::EMPTY), length: 0, hasher: S::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone, S: BuildHasher, const WIDTH: usize> Map<K, V, S, WIDTH> {
    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The value of `key`.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut left = self.hasher.hash_one(key);
        let mut branch = &*self.root;
        loop {
            match branch.place(left) {
                Place::Entry((found, value)) if found.borrow() == key => return Some(value),
                Place::Branch(next) => branch = next,
                Place::Same(entries) => {
                    return entries.iter().find(|(found, _)| found.borrow() == key).map(|(_, value)| value);
                }
                Place::Empty | Place::Entry(_) => return None,
            }
            left >>= Branch::<K, V, WIDTH>::BITS;
        }
    }

    /// Puts `value` at `key`, in place of what was there.
    pub fn insert(&mut self, key: K, value: V) {
        let hash = Remaining::of(self.hasher.hash_one(&key));
        let (root, added) = self.root.with(&self.hasher, hash, (key, value));
        self.root = Pooled::new(root);
        self.length += usize::from(added);
    }

    /// Takes `key` away; does nothing if it is not there.
    pub fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let Some(root) = self.root.without(self.hasher.hash_one(key), key) else { return };
        self.root = Pooled::new(root);
        self.length -= 1;
    }

    /// Whether the other map is this one, or a copy of it since when neither has changed.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.root == other.root
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> Iter<'_, K, V, WIDTH> {
        Iter { branches: vec![self.root.places.iter()], same: [].iter() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone + PartialEq, H: Default + Hasher, const WIDTH: usize>
    Map<K, V, BuildHasherDefault<H>, WIDTH>
{
    /// The entries of this map that are not in the other one, and those of the other one that are not in this one, each in no
    /// particular order. What the two share is not looked at.
    #[must_use]
    pub fn differences<'a>(&'a self, other: &'a Self) -> Differences<'a, K, V> {
        let mut differences = (Vec::new(), Vec::new());
        if !self.is_same(other) {
            self.root.compare(&other.root, &mut differences);
        }
        differences
    }
}

impl<K: Hash + Eq, T, S: BuildHasher, const WIDTH: usize> Map<K, Pooled<T>, S, WIDTH> {
    /// The value of `key`, for another one to be put in its place: the processor is told to fetch what that is going to touch.
    pub fn get_to_change<Q>(&self, key: &Q) -> Option<&Pooled<T>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut left = self.hasher.hash_one(key);
        let mut branch = &self.root;
        loop {
            branch.fetch();
            for place in &branch.places {
                match place {
                    Place::Branch(below) => below.fetch_count(),
                    Place::Entry((_, value)) => value.fetch_count(),
                    Place::Empty | Place::Same(_) => {}
                }
            }
            match branch.place(left) {
                Place::Branch(next) => branch = next,
                Place::Entry((found, value)) if found.borrow() == key => {
                    value.fetch();
                    return Some(value);
                }
                Place::Same(entries) => {
                    return entries.iter().find(|(found, _)| found.borrow() == key).map(|(_, value)| value);
                }
                Place::Empty | Place::Entry(_) => return None,
            }
            left >>= Branch::<K, Pooled<T>, WIDTH>::BITS;
        }
    }
}

/// What only one of two maps has, and what only the other one has.
pub type Differences<'a, K, V> = (Vec<&'a (K, V)>, Vec<&'a (K, V)>);

impl<'a, K: Hash + Eq + Clone, V: Clone, S: BuildHasher, const WIDTH: usize> IntoIterator for &'a Map<K, V, S, WIDTH> {
    type Item = &'a (K, V);
    type IntoIter = Iter<'a, K, V, WIDTH>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What is left of a hash at some level of the trie.
#[derive(Clone, Copy)]
struct Remaining {
    hash: u64,
    /// How many bits have led here.
    used: u32,
}

impl Remaining {
    fn of(hash: u64) -> Self {
        Self { hash, used: 0 }
    }

    fn after(self, bits: u32) -> Self {
        Self { hash: self.hash >> bits, used: self.used + bits }
    }
}

impl<K, V, const WIDTH: usize> Branch<K, V, WIDTH> {
    const BITS: u32 = WIDTH.trailing_zeros();
    const EMPTY: Self = Self { places: [const { Place::Empty }; WIDTH] };

    fn index(hash: u64) -> usize {
        hash as usize % WIDTH
    }

    fn place(&self, hash: u64) -> &Place<K, V, WIDTH> {
        &self.places[Self::index(hash)]
    }
}

impl<K: Hash + Eq + Clone, V: Clone, const WIDTH: usize> Branch<K, V, WIDTH> {
    /// A copy with the entry in it, and whether its key was not there before.
    fn with(&self, hasher: &impl BuildHasher, hash: Remaining, entry: (K, V)) -> (Self, bool) {
        let mut copy = self.clone();
        let place = &mut copy.places[Self::index(hash.hash)];
        let below = hash.after(Self::BITS);
        let added = match place {
            Place::Empty => {
                *place = Place::Entry(entry);
                true
            }
            Place::Entry(there) if there.0 == entry.0 => {
                *there = entry;
                false
            }
            Place::Entry(there) if below.used < u64::BITS => {
                let of_there = hasher.hash_one(&there.0) >> hash.used >> Self::BITS;
                let (lower, _) = Self::EMPTY.with(hasher, Remaining { hash: of_there, ..below }, there.clone());
                *place = Place::Branch(Pooled::new(lower.with(hasher, below, entry).0));
                true
            }
            Place::Entry(there) => {
                *place = Place::Same([there.clone(), entry].into());
                true
            }
            Place::Branch(branch) => {
                let (branch, added) = branch.with(hasher, below, entry);
                *place = Place::Branch(Pooled::new(branch));
                added
            }
            Place::Same(entries) => {
                let mut all: Vec<_> = entries.iter().filter(|there| there.0 != entry.0).cloned().collect();
                let added = all.len() == entries.len();
                all.push(entry);
                *place = Place::Same(all.into());
                added
            }
        };
        (copy, added)
    }

    /// A copy without the key; `None` if it is not there.
    fn without<Q>(&self, hash: u64, key: &Q) -> Option<Self>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let rest = match self.place(hash) {
            Place::Entry((there, _)) if there.borrow() == key => Place::Empty,
            Place::Branch(branch) => branch.without(hash >> Self::BITS, key)?.into_place(),
            Place::Same(entries) => {
                let rest: Vec<_> = entries.iter().filter(|(there, _)| there.borrow() != key).cloned().collect();
                match rest.as_slice() {
                    rest if rest.len() == entries.len() => return None,
                    [only] => Place::Entry(only.clone()),
                    _ => Place::Same(rest.into()),
                }
            }
            Place::Empty | Place::Entry(_) => return None,
        };
        let mut copy = self.clone();
        copy.places[Self::index(hash)] = rest;
        Some(copy)
    }

    /// Its place in the branch above. A lone entry moves up, so that the trie does not stay deeper than its entries need.
    fn into_place(self) -> Place<K, V, WIDTH> {
        let mut filled = self.places.iter().filter(|place| !matches!(place, Place::Empty));
        match (filled.next(), filled.next()) {
            (None, _) => Place::Empty,
            (Some(only @ Place::Entry(_)), None) => only.clone(),
            _ => Place::Branch(Pooled::new(self)),
        }
    }
}

impl<K: Eq, V: PartialEq, const WIDTH: usize> Branch<K, V, WIDTH> {
    /// Compares with the branch that stands for the same part of all hashes in another map.
    fn compare<'a>(&'a self, other: &'a Self, differences: &mut Differences<'a, K, V>) {
        for (here, there) in self.places.iter().zip(&other.places) {
            match (here, there) {
                (Place::Branch(here), Place::Branch(there)) if here == there => {}
                (Place::Branch(here), Place::Branch(there)) => here.compare(there, differences),
                (Place::Empty, Place::Empty) => {}
                (Place::Entry(here), Place::Entry(there)) if here == there => {}
                _ => {
                    let entries = [here, there].map(|place| Iter::at(place).collect::<Vec<_>>());
                    let [here, there] = &entries;
                    differences.0.extend(here.iter().filter(|entry| !there.contains(entry)));
                    differences.1.extend(there.iter().filter(|entry| !here.contains(entry)));
                }
            }
        }
    }
}

/// The entries of a [`Map`].
#[derive(Debug)]
pub struct Iter<'a, K, V, const WIDTH: usize> {
    branches: Vec<std::slice::Iter<'a, Place<K, V, WIDTH>>>,
    same: std::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V, const WIDTH: usize> Iter<'a, K, V, WIDTH> {
    /// All entries at one place and below.
    fn at(place: &'a Place<K, V, WIDTH>) -> Self {
        Self { branches: vec![std::slice::from_ref(place).iter()], same: [].iter() }
    }
}

impl<'a, K, V, const WIDTH: usize> Iterator for Iter<'a, K, V, WIDTH> {
    type Item = &'a (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.same.next() {
                return Some(entry);
            }
            match self.branches.last_mut()?.next() {
                Some(Place::Entry(entry)) => return Some(entry),
                Some(Place::Branch(branch)) => self.branches.push(branch.places.iter()),
                Some(Place::Same(entries)) => self.same = entries.iter(),
                Some(Place::Empty) => {}
                None => drop(self.branches.pop()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Any history of insertions and removals gives what a standard map gives, and a clone keeps its own state.
        #[test]
        fn behaves_like_a_standard_map(steps in prop::collection::vec((any::<bool>(), 0u16..200, any::<u32>()), 0..600)) {
            let mut map = Map::default();
            let mut by_number = Changing::default();
            let mut model = HashMap::new();
            let mut earlier = Vec::new();
            for (index, (insert, key, value)) in steps.into_iter().enumerate() {
                if insert {
                    map.insert(key, value);
                    by_number.insert(u64::from(key), value);
                    model.insert(key, value);
                } else {
                    map.remove(&key);
                    by_number.remove(&u64::from(key));
                    model.remove(&key);
                }
                if index % 50 == 0 {
                    earlier.push((map.clone(), by_number.clone(), model.clone()));
                }
            }
            earlier.push((map, by_number, model));
            for (_, one, in_one) in &earlier {
                for (_, two, in_two) in &earlier {
                    let only = |these: &HashMap<u16, u32>, those: &HashMap<u16, u32>| -> HashMap<u64, u32> {
                        let differing = these.iter().filter(|(key, value)| those.get(key) != Some(value));
                        differing.map(|(key, value)| (u64::from(*key), *value)).collect()
                    };
                    let (here, there) = one.differences(two);
                    let listed = [here, there].map(|entries| (entries.len(), entries.into_iter().copied().collect()));
                    let expected = [only(in_one, in_two), only(in_two, in_one)].map(|entries| (entries.len(), entries));
                    prop_assert_eq!(listed, expected);
                }
            }
            for (map, by_number, model) in earlier {
                let map: Map<u16, u32> = map;
                prop_assert_eq!((map.len(), by_number.len()), (model.len(), model.len()));
                for key in 0..200u16 {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                    prop_assert_eq!(by_number.get(&u64::from(key)), model.get(&key));
                }
                let listed: HashMap<_, _> = map.iter().copied().collect();
                prop_assert_eq!(listed.len(), by_number.iter().count());
                prop_assert_eq!(listed, model);
            }
        }
    }

    /// A key whose hash always collides, so that the leaves with many entries are reached.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Colliding(u8);

    impl Hash for Colliding {
        fn hash<H: Hasher>(&self, state: &mut H) {
            0u8.hash(state);
        }
    }

    /// It is told of all kinds of places: empty ones, entries, branches, and entries with equal hashes.
    #[test]
    fn what_is_fetched_stays_as_it_is() {
        let mut spread: Changing<Pooled<u64>> = Changing::default();
        let mut colliding: Map<Colliding, Pooled<u64>> = Map::default();
        for key in 0..100u8 {
            spread.insert(u64::from(key) * 3, Pooled::new(u64::from(key)));
            colliding.insert(Colliding(key), Pooled::new(u64::from(key)));
            for number in 0..=u64::from(key) * 3 + 9 {
                assert_eq!(spread.get_to_change(&number), spread.get(&number));
            }
            for other in 0..=key + 1 {
                assert_eq!(colliding.get_to_change(&Colliding(other)), colliding.get(&Colliding(other)));
            }
        }
        for key in 0..100u8 {
            let values = [spread.get(&(u64::from(key) * 3)), colliding.get(&Colliding(key))];
            assert_eq!(values.map(|value| value.map(|value| **value)), [Some(u64::from(key)); 2]);
        }
    }

    #[test]
    fn keys_with_equal_hashes_are_kept_apart() {
        let mut map: Map<Colliding, u8> = Map::default();
        for key in 0..20 {
            map.insert(Colliding(key), key);
        }
        map.insert(Colliding(7), 70);
        map.remove(&Colliding(3));
        map.remove(&Colliding(3));
        assert_eq!(map.len(), 19);
        assert_eq!(map.get(&Colliding(7)), Some(&70));
        assert_eq!(map.get(&Colliding(3)), None);
        assert_eq!(map.iter().count(), 19);
        for key in 0..20 {
            map.remove(&Colliding(key));
        }
        assert!(map.is_empty());
    }
}
