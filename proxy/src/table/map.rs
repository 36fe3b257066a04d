//! A persistent hash map: a changed copy shares all that did not change.
//!
//! A hash array mapped trie with 32 children a node (Bagwell, "Ideal Hash Trees", 2001). One change copies one path,
//! at most a few nodes, so that a change costs the same in a table of ten services and of ten thousand.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

const BITS: u32 = 5;
const MASK: u64 = (1 << BITS) - 1;

/// A map whose clones are cheap and independent.
#[derive(Debug, Clone)]
pub struct Map<K, V> {
    root: Arc<Node<K, V>>,
    length: usize,
    hasher: RandomState,
}

#[derive(Debug)]
enum Node<K, V> {
    /// `children` holds a child for each bit that is set in `present`, in the order of the bits.
    Branch { present: u32, children: Vec<Arc<Self>> },
    /// More than one entry only if whole hashes are equal.
    Leaf { hash: u64, entries: Vec<(K, V)> },
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { root: Arc::new(Node::EMPTY), length: 0, hasher: RandomState::new() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Map<K, V> {
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
        let hash = self.hasher.hash_one(key);
        let mut node = self.root.as_ref();
        let mut shift = 0;
        loop {
            match node {
                Node::Branch { present, children } => node = children.get(slot(*present, hash, shift).ok()?)?,
                Node::Leaf { hash: of_leaf, entries } if *of_leaf == hash => {
                    return entries.iter().find(|(k, _)| k.borrow() == key).map(|(_, value)| value);
                }
                Node::Leaf { .. } => return None,
            }
            shift += BITS;
        }
    }

    /// Puts `value` at `key`, in place of what was there.
    pub fn insert(&mut self, key: K, value: V) {
        let hash = self.hasher.hash_one(&key);
        let (root, added) = self.root.with(hash, 0, key, value);
        self.root = Arc::new(root);
        self.length += usize::from(added);
    }

    /// Takes `key` away; does nothing if it is not there.
    pub fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        if let Some(root) = self.root.without(hash, 0, key) {
            self.root = root.unwrap_or_else(|| Arc::new(Node::EMPTY));
            self.length -= 1;
        }
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { nodes: vec![self.root.as_ref()], entries: [].iter() }
    }
}

impl<'a, K: Hash + Eq + Clone, V: Clone> IntoIterator for &'a Map<K, V> {
    type Item = &'a (K, V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Where the child for `hash` is (`Ok`) or belongs (`Err`) among the children of a branch.
fn slot(present: u32, hash: u64, shift: u32) -> Result<usize, usize> {
    let bit = bit(hash, shift);
    let index = (present & (bit - 1)).count_ones() as usize;
    if present & bit == 0 { Err(index) } else { Ok(index) }
}

fn bit(hash: u64, shift: u32) -> u32 {
    1 << ((hash >> shift) & MASK)
}

impl<K, V> Node<K, V> {
    const EMPTY: Self = Self::Branch { present: 0, children: Vec::new() };
}

impl<K: Eq + Clone, V: Clone> Node<K, V> {
    /// A copy with the entry in it, and whether it was not there before.
    fn with(&self, hash: u64, shift: u32, key: K, value: V) -> (Self, bool) {
        match self {
            Self::Branch { present, children } => match slot(*present, hash, shift) {
                Ok(index) => {
                    let mut children = children.clone();
                    let (child, added) = children[index].with(hash, shift + BITS, key, value);
                    children[index] = Arc::new(child);
                    (Self::Branch { present: *present, children }, added)
                }
                Err(index) => {
                    let mut children = children.clone();
                    children.insert(index, Arc::new(Self::Leaf { hash, entries: vec![(key, value)] }));
                    (Self::Branch { present: present | bit(hash, shift), children }, true)
                }
            },
            Self::Leaf { hash: of_leaf, entries } if *of_leaf == hash => {
                let mut entries = entries.clone();
                match entries.iter_mut().find(|(k, _)| *k == key) {
                    Some(entry) => {
                        entry.1 = value;
                        (Self::Leaf { hash, entries }, false)
                    }
                    None => {
                        entries.push((key, value));
                        (Self::Leaf { hash, entries }, true)
                    }
                }
            }
            // Two different hashes part at some level further down: push the leaf there and go on.
            Self::Leaf { hash: of_leaf, entries } => {
                let leaf = Arc::new(Self::Leaf { hash: *of_leaf, entries: entries.clone() });
                Self::Branch { present: bit(*of_leaf, shift), children: vec![leaf] }.with(hash, shift, key, value)
            }
        }
    }

    /// `None` if the key is not there; else what is left of the node, which may be nothing.
    fn without<Q>(&self, hash: u64, shift: u32, key: &Q) -> Option<Option<Arc<Self>>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        match self {
            Self::Branch { present, children } => {
                let index = slot(*present, hash, shift).ok()?;
                let rest = children[index].without(hash, shift + BITS, key)?;
                let mut children = children.clone();
                let mut present = *present;
                match rest {
                    Some(child) => children[index] = child,
                    None => {
                        children.remove(index);
                        present &= !bit(hash, shift);
                    }
                }
                // A lone leaf moves up, so that the trie does not stay deeper than its entries need.
                Some(match children.as_slice() {
                    [] => None,
                    [only] if shift > 0 && matches!(**only, Self::Leaf { .. }) => Some(Arc::clone(only)),
                    _ => Some(Arc::new(Self::Branch { present, children })),
                })
            }
            Self::Leaf { hash: of_leaf, entries } if *of_leaf == hash => {
                let index = entries.iter().position(|(k, _)| k.borrow() == key)?;
                let mut entries = entries.clone();
                entries.remove(index);
                Some((!entries.is_empty()).then(|| Arc::new(Self::Leaf { hash, entries })))
            }
            Self::Leaf { .. } => None,
        }
    }
}

/// The entries of a [`Map`].
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    nodes: Vec<&'a Node<K, V>>,
    entries: std::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = &'a (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(entry);
            }
            match self.nodes.pop()? {
                Node::Branch { children, .. } => self.nodes.extend(children.iter().map(Arc::as_ref)),
                Node::Leaf { entries, .. } => self.entries = entries.iter(),
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
            let mut model = HashMap::new();
            let mut earlier = Vec::new();
            for (index, (insert, key, value)) in steps.into_iter().enumerate() {
                if insert {
                    map.insert(key, value);
                    model.insert(key, value);
                } else {
                    map.remove(&key);
                    model.remove(&key);
                }
                if index % 50 == 0 {
                    earlier.push((map.clone(), model.clone()));
                }
            }
            earlier.push((map, model));
            for (map, model) in earlier {
                prop_assert_eq!(map.len(), model.len());
                for key in 0..200u16 {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                }
                let listed: HashMap<_, _> = map.iter().copied().collect();
                prop_assert_eq!(listed, model);
            }
        }
    }

    /// A key whose hash always collides, so that the leaves with many entries are reached.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Colliding(u8);

    impl Hash for Colliding {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            0u8.hash(state);
        }
    }

    #[test]
    fn keys_with_equal_hashes_are_kept_apart() {
        let mut map = Map::default();
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
