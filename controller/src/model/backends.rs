//! The backends of a service by their address, in groups that models share.
//!
//! A change of one backend copies one group, and of the others touches the counts alone, which lie side by side in their
//! [pool](ringlb_proxy::table::pool). What a search needs of them lies in the service.

use super::{Backend, Shared};
use arrayvec::ArrayVec;
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::net::IpAddr;

/// At most so many are in a group.
const GROUP: usize = 16;

/// So many groups lie in the service itself: enough for a hundred backends.
const INLINE: usize = 7;

type Members = ArrayVec<(IpAddr, Backend), GROUP>;

/// Backends in the order of their addresses. Copies share what is not changed.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    /// In the order of their addresses, and none of them empty.
    groups: SmallVec<[Group; INLINE]>,
}

/// Its members, and what is asked of all groups when one of them changes.
#[derive(Debug, Clone)]
struct Group {
    lowest: IpAddr,
    length: u8,
    members: Shared<Members>,
}

/// A backend before and after; `None` where it was or is not there.
pub type BackendDifference<'a> = (IpAddr, Option<&'a Backend>, Option<&'a Backend>);

impl Group {
    /// A group of these members, of which there must be one.
    fn of(members: impl IntoIterator<Item = (IpAddr, Backend)>) -> Self {
        let members: Members = members.into_iter().collect();
        Self { lowest: members[0].0, length: members.len() as u8, members: Shared::new(members) }
    }

    fn len(&self) -> usize {
        self.length.into()
    }

    fn is_full(&self) -> bool {
        self.len() == GROUP
    }

    fn position(&self, address: IpAddr) -> Result<usize, usize> {
        self.members.binary_search_by_key(&address, |member| member.0)
    }

    /// Changes its members, of which one must be left.
    fn change<T>(&mut self, change: impl FnOnce(&mut Members) -> T) -> T {
        let members = self.members.make_mut();
        let result = change(members);
        (self.lowest, self.length) = (members[0].0, members.len() as u8);
        result
    }

    /// Puts one in, for which there must be room.
    fn insert(&mut self, position: usize, member: (IpAddr, Backend)) {
        self.change(|members| members.insert(position, member));
    }

    /// Its upper half, which it loses.
    fn split(&mut self) -> Self {
        Self::of(self.change(|members| members.drain(GROUP / 2..).collect::<Members>()))
    }
}

impl Backends {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.iter().map(Group::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The one with that address.
    #[must_use]
    pub fn get(&self, address: &IpAddr) -> Option<&Backend> {
        let group = &self.groups[self.group_of(*address)?];
        Some(&group.members[group.position(*address).ok()?].1)
    }

    /// Has the processor fetch what is going to be touched when a copy is changed at that address.
    pub(super) fn fetch_for(&self, address: IpAddr) {
        let changing = self.group_of(address).unwrap_or_default();
        for (number, group) in self.groups.iter().enumerate() {
            if number == changing { group.members.fetch() } else { group.members.fetch_count() }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&IpAddr, &Backend)> {
        members(&self.groups).map(|(address, backend)| (address, backend))
    }

    /// All addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        members(&self.groups).map(|(address, _)| *address)
    }

    /// Puts one in, in place of the one with its address, which is returned.
    pub(super) fn insert(&mut self, address: IpAddr, backend: Backend) -> Option<Backend> {
        let number = self.group_of(address).unwrap_or_default();
        let Some(group) = self.groups.get_mut(number) else {
            self.groups.push(Group::of([(address, backend)]));
            return None;
        };
        match group.position(address) {
            Ok(position) => Some(std::mem::replace(&mut group.members.make_mut()[position].1, backend)),
            Err(position) => {
                self.add(number, position, (address, backend));
                None
            }
        }
    }

    /// Puts one in at that position of that group.
    fn add(&mut self, number: usize, position: usize, member: (IpAddr, Backend)) {
        let is_last = number + 1 == self.groups.len();
        let (group, next) = match &mut self.groups[number..] {
            [group, next, ..] => (group, Some(next)),
            [group] => (group, None),
            [] => return,
        };
        match next.filter(|next| !next.is_full()) {
            _ if !group.is_full() => group.insert(position, member),
            // What comes in order fills its groups.
            _ if position == GROUP && is_last => self.groups.push(Group::of([member])),
            // And what is taken away and put back needs no new one.
            Some(next) if position == GROUP => next.insert(0, member),
            Some(next) => {
                let last = group.change(|members| {
                    let last = members.remove(GROUP - 1);
                    members.insert(position, member);
                    last
                });
                next.insert(0, last);
            }
            None => {
                let mut upper = group.split();
                match position.checked_sub(GROUP / 2) {
                    Some(position) if position > 0 => upper.insert(position, member),
                    _ => group.insert(position, member),
                }
                self.groups.insert(number + 1, upper);
            }
        }
    }

    /// Takes the one with that address away.
    pub(super) fn remove(&mut self, address: &IpAddr) -> Option<Backend> {
        let number = self.group_of(*address)?;
        let group = &mut self.groups[number];
        let position = group.position(*address).ok()?;
        let removed = group.members[position].1;
        if group.len() == 1 {
            self.groups.remove(number);
        } else {
            group.change(|members| members.remove(position));
        }
        // With the one before it, or with the one after it.
        if !self.join(number.wrapping_sub(1)) {
            self.join(number);
        }
        Some(removed)
    }

    /// Makes one group of that one and the next, if both are small.
    fn join(&mut self, number: usize) -> bool {
        let Some([one, other]) = self.groups.get_mut(number..).and_then(|groups| groups.first_chunk_mut()) else {
            return false;
        };
        if one.len() + other.len() > GROUP / 2 {
            return false;
        }
        one.change(|members| members.extend(other.members.iter().copied()));
        self.groups.remove(number + 1);
        true
    }

    /// What differs from those before. Groups that both share are not looked at, unless others are between them.
    pub fn differences<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = BackendDifference<'a>> {
        let (mut before, mut after) = (&before.groups[..], &self.groups[..]);
        while let ([one, one_rest @ ..], [other, other_rest @ ..]) = (before, after)
            && one.members == other.members
        {
            (before, after) = (one_rest, other_rest);
        }
        while let ([one_rest @ .., one], [other_rest @ .., other]) = (before, after)
            && one.members == other.members
        {
            (before, after) = (one_rest, other_rest);
        }
        let (mut before, mut after) = (members(before).peekable(), members(after).peekable());
        std::iter::from_fn(move || {
            let order = match (before.peek(), after.peek()) {
                (Some(before), Some(after)) => before.0.cmp(&after.0),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            let before = if order.is_le() { before.next() } else { None };
            let after = if order.is_ge() { after.next() } else { None };
            let (address, _) = before.or(after)?;
            Some((*address, before.map(|(_, backend)| backend), after.map(|(_, backend)| backend)))
        })
        .filter(|(_, before, after)| before != after)
    }

    /// The group in which that address is, if it is in any.
    fn group_of(&self, address: IpAddr) -> Option<usize> {
        self.groups.partition_point(|group| group.lowest <= address).checked_sub(1)
    }
}

fn members(groups: &[Group]) -> impl Iterator<Item = &(IpAddr, Backend)> {
    groups.iter().flat_map(|group| group.members.iter())
}

impl PartialEq for Backends {
    fn eq(&self, other: &Self) -> bool {
        self.differences(other).next().is_none()
    }
}

impl Eq for Backends {}

#[cfg(test)]
impl std::ops::Index<&IpAddr> for Backends {
    type Output = Backend;

    fn index(&self, address: &IpAddr) -> &Backend {
        self.get(address).expect("there is a backend with that address")
    }
}

impl FromIterator<(IpAddr, Backend)> for Backends {
    fn from_iter<I: IntoIterator<Item = (IpAddr, Backend)>>(backends: I) -> Self {
        let mut all = Self::default();
        for (address, backend) in backends {
            all.insert(address, backend);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Weight;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Some of each family.
    fn address(number: u16) -> IpAddr {
        match number {
            200.. => Ipv6Addr::from(u128::from(number)).into(),
            _ => Ipv4Addr::from(u32::from(number)).into(),
        }
    }

    fn backend(weight: u16) -> Backend {
        Backend { weight: Weight(weight), draining: false, backup: false, local: false }
    }

    fn listed<'a>(backends: impl IntoIterator<Item = (&'a IpAddr, &'a Backend)>) -> Vec<(IpAddr, Backend)> {
        backends.into_iter().map(|(address, backend)| (*address, *backend)).collect()
    }

    proptest! {
        /// Any history gives what a standard map gives, a copy keeps its own state, and any two can be compared.
        #[test]
        fn behave_like_a_standard_map(
            first in prop::collection::btree_set(0..300u16, 0..150),
            steps in prop::collection::vec((any::<bool>(), 0..300u16, 0..3u16), 0..400),
        ) {
            let mut backends: Backends = first.iter().map(|number| (address(*number), backend(1))).collect();
            let mut model: BTreeMap<_, _> = first.iter().map(|number| (address(*number), backend(1))).collect();
            prop_assert_eq!(backends.groups.len(), first.len().div_ceil(GROUP), "what comes in order fills its groups");
            let mut earlier = vec![(backends.clone(), model.clone())];
            for (step, (insert, number, weight)) in steps.into_iter().enumerate() {
                let address = address(number);
                if insert {
                    prop_assert_eq!(backends.insert(address, backend(weight)), model.insert(address, backend(weight)));
                } else {
                    prop_assert_eq!(backends.remove(&address), model.remove(&address));
                }
                let sizes: Vec<_> = backends.groups.iter().map(|group| group.members.len()).collect();
                let said: Vec<_> = backends.groups.iter().map(Group::len).collect();
                prop_assert!(backends.groups.iter().all(|group| group.lowest == group.members[0].0));
                prop_assert_eq!(&sizes, &said);
                prop_assert!(sizes.windows(2).all(|two| two[0] + two[1] > GROUP / 2), "{:?}", sizes);
                if step % 40 == 0 {
                    earlier.push((backends.clone(), model.clone()));
                }
            }
            earlier.push((backends, model));
            for (backends, model) in &earlier {
                prop_assert_eq!((backends.len(), backends.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(listed(backends.iter()), listed(model));
                prop_assert!(backends.addresses().eq(model.keys().copied()));
                for number in 0..300 {
                    prop_assert_eq!(backends.get(&address(number)), model.get(&address(number)));
                }
                for (others, model_of_others) in &earlier {
                    let addresses: BTreeSet<_> = model.keys().chain(model_of_others.keys()).collect();
                    let both = addresses.into_iter().map(|it| (*it, model_of_others.get(it), model.get(it)));
                    let expected: Vec<_> = both.filter(|(_, before, after)| before != after).collect();
                    prop_assert_eq!(backends.differences(others).collect::<Vec<_>>(), expected);
                    prop_assert_eq!(backends == others, model == model_of_others);
                }
            }
        }
    }

    #[test]
    fn what_is_taken_away_and_put_back_needs_no_further_groups() {
        for addresses in [Vec::from_iter(0..100), Vec::from_iter((0..100).rev())] {
            let mut backends: Backends = (0..100).map(|number| (address(number), backend(1))).collect();
            for number in addresses {
                backends.remove(&address(number));
                backends.insert(address(number), backend(1));
                assert!(backends.groups.len() <= INLINE, "after {number}");
            }
        }
    }

    #[test]
    fn a_change_copies_one_group() {
        let before: Backends = (0..100).map(|number| (address(number), backend(1))).collect();
        let mut after = before.clone();
        after.remove(&address(40));
        let shared =
            before.groups.iter().zip(&after.groups).filter(|(one, other)| one.members == other.members).count();
        assert_eq!((before.groups.len(), shared), (7, 6));
    }
}
