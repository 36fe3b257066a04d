//! The backends of a service, in groups that tables share.
//!
//! A change of one backend copies one group, and not all of them: each copy of a backend raises the count of its identity,
//! and in a service of a hundred backends that would be a hundred counts.

use super::Backend;
use super::group::{GROUP, Group};
use smallvec::SmallVec;
use std::iter::FlatMap;
use std::net::IpAddr;
use std::ops::Index;
use std::slice;

/// So many groups lie in the service itself: enough for a hundred backends. A copy of a service with more of them has to ask
/// the allocator, which looks at its neighbours then.
const INLINE: usize = 7;

/// Goes through all backends of a service.
pub type Iter<'a> =
    FlatMap<slice::Iter<'a, Group>, slice::Iter<'a, Backend>, fn(&'a Group) -> slice::Iter<'a, Backend>>;

/// Backends by index. Copies share what is not changed. All groups but the last one are full.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    groups: SmallVec<[Group; INLINE]>,
}

impl Backends {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.last().map_or(0, |last| (self.groups.len() - 1) * GROUP + last.members().len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The one with that index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Backend> {
        self.groups.get(index / GROUP)?.members().get(index % GROUP)
    }

    /// All of them, in the order of their indices.
    pub fn iter(&self) -> Iter<'_> {
        fn members(group: &Group) -> slice::Iter<'_, Backend> {
            group.members().iter()
        }
        self.groups.iter().flat_map(members as fn(&Group) -> slice::Iter<'_, Backend>)
    }

    /// The one with that address, and its index.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<(usize, &Backend)> {
        self.groups.iter().enumerate().find_map(|(number, group)| {
            let (index, backend) = group.find(address)?;
            Some((number * GROUP + index, backend))
        })
    }

    /// Whether all of them are [plain](Backend::is_plain).
    #[must_use]
    pub fn are_plain(&self) -> bool {
        self.groups.iter().all(Group::is_plain)
    }

    /// Has the processor fetch what is going to be touched when a copy is changed at that address.
    pub(super) fn fetch_for(&self, address: IpAddr) {
        let Some((last, others)) = self.groups.split_last() else { return };
        last.fetch();
        for group in others {
            if group.may_have(address) { group.fetch() } else { group.fetch_count() }
        }
    }

    /// One more, with the next index.
    pub(super) fn push(&mut self, backend: Backend) {
        match self.groups.last_mut().filter(|last| !last.members().is_full()) {
            Some(last) => last.push(backend),
            None => self.groups.push(Group::from_iter([backend])),
        }
    }

    /// Puts another one in the place of the one with that index, if there is one.
    pub(super) fn set(&mut self, index: usize, backend: Backend) {
        if let Some(group) = self.groups.get_mut(index / GROUP) {
            group.set(index % GROUP, backend);
        }
    }

    /// Takes the one with that index away; the last one gets its index.
    pub(super) fn swap_remove(&mut self, index: usize) -> Option<Backend> {
        let removed = self.get(index)?.clone();
        let last = self.groups.last_mut()?;
        let moved = if last.members().len() == 1 { self.groups.pop()?.members().first()?.clone() } else { last.pop()? };
        self.set(index, moved);
        Some(removed)
    }
}

impl Index<usize> for Backends {
    type Output = Backend;

    fn index(&self, index: usize) -> &Backend {
        &self.groups[index / GROUP].members()[index % GROUP]
    }
}

impl FromIterator<Backend> for Backends {
    fn from_iter<I: IntoIterator<Item = Backend>>(backends: I) -> Self {
        let mut backends = backends.into_iter().peekable();
        let mut groups = SmallVec::new();
        while backends.peek().is_some() {
            groups.push(backends.by_ref().take(GROUP).collect());
        }
        Self { groups }
    }
}

impl<'a> IntoIterator for &'a Backends {
    type Item = &'a Backend;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::BackendSpec;
    use crate::table::SharedIdentity;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    /// Most of them plain.
    fn backend(number: u32) -> Backend {
        let address = IpAddr::from(Ipv4Addr::from(number));
        let spec = BackendSpec { address, weight: 1, draining: number % 50 == 7, backup: false, local: false };
        Backend::new(&spec, SharedIdentity::default())
    }

    fn addresses<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> Vec<IpAddr> {
        backends.into_iter().map(|backend| backend.address).collect()
    }

    proptest! {
        /// Any history gives what a vector gives, and a copy keeps its own state.
        #[test]
        fn behave_like_a_vector(first in 0..60u32, steps in prop::collection::vec((0..3u8, 0..80usize), 0..100)) {
            let mut backends: Backends = (0..first).map(backend).collect();
            let mut model: Vec<Backend> = backends.iter().cloned().collect();
            let mut earlier = vec![(backends.clone(), model.clone())];
            for (number, (step, index)) in (1_000..).zip(steps) {
                let new = backend(number);
                match step {
                    0 => {
                        backends.push(new.clone());
                        model.push(new);
                    }
                    1 => {
                        backends.set(index, new.clone());
                        if let Some(place) = model.get_mut(index) {
                            *place = new;
                        }
                    }
                    _ => {
                        let removed = backends.swap_remove(index).map(|backend| backend.address);
                        let expected = (index < model.len()).then(|| model.swap_remove(index).address);
                        prop_assert_eq!(removed, expected);
                    }
                }
                earlier.push((backends.clone(), model.clone()));
            }
            for (backends, model) in earlier {
                prop_assert_eq!((backends.len(), backends.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(addresses(&backends), addresses(&model));
                let by_index: Vec<_> = (0..=model.len()).map_while(|index| backends.get(index)).collect();
                prop_assert_eq!(addresses(by_index), addresses(&model));
                prop_assert_eq!(backends.are_plain(), model.iter().all(Backend::is_plain));
                for (index, backend) in model.iter().enumerate() {
                    prop_assert_eq!(backends.find(backend.address).map(|(index, _)| index), Some(index));
                }
                prop_assert!(backends.find(Ipv4Addr::from(5_000).into()).is_none());
            }
        }
    }

    #[test]
    fn a_change_copies_one_group() {
        let before: Backends = (0..100).map(backend).collect();
        let mut after = before.clone();
        after.set(40, backend(1_000));
        let shared = before.groups.iter().zip(&after.groups).filter(|(one, other)| one.shares_with(other)).count();
        assert_eq!((before.groups.len(), shared), (7, 6));
    }
}
