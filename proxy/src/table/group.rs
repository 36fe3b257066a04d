//! Some backends of a service, with what is asked of all of them.
//!
//! A change of one backend asks whether others have its address and whether all are as they should be. In a large table
//! nothing of a service is in the processor's cache, so the answers are not with the backends, but lie side by side for all
//! groups: of most of them nothing else is read.

use super::Backend;
use super::pool::Pooled;
use arrayvec::ArrayVec;
use std::net::IpAddr;

/// At most so many are in a group.
pub(super) const GROUP: usize = 16;

/// Some backends, which copies of the group share.
#[derive(Debug, Clone, Default)]
pub struct Group {
    members: Pooled<ArrayVec<Backend, GROUP>>,
    /// A byte of each address, by which most that are others can be told.
    marks: [u8; GROUP],
    plain: bool,
}

impl Group {
    /// Its backends.
    pub fn members(&self) -> &ArrayVec<Backend, GROUP> {
        &self.members
    }

    /// Whether all of them are [plain](Backend::is_plain).
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }

    /// The one with that address, and its index.
    pub(super) fn find(&self, address: IpAddr) -> Option<(usize, &Backend)> {
        let mark = mark_of(address);
        let marked = self.marks.iter().enumerate().filter(|(_, one)| **one == mark);
        marked.filter_map(|(index, _)| Some((index, self.members.get(index)?))).find(|(_, one)| one.address == address)
    }

    /// Has the processor fetch what copying the reference to the backends needs.
    pub(super) fn fetch_count(&self) {
        self.members.fetch_count();
    }

    /// Has the processor fetch what changing a backend needs.
    pub(super) fn fetch(&self) {
        self.members.fetch();
    }

    /// Whether it may have a backend with that address.
    pub(super) fn may_have(&self, address: IpAddr) -> bool {
        self.marks.contains(&mark_of(address))
    }

    /// One more, for which there must be room.
    pub(super) fn push(&mut self, backend: Backend) {
        let members = self.members.make_mut();
        self.plain = (self.plain || members.is_empty()) && backend.is_plain();
        self.marks[members.len()] = mark_of(backend.address);
        members.push(backend);
    }

    /// Puts another one in the place of the one with that index, if there is one.
    pub(super) fn set(&mut self, index: usize, backend: Backend) {
        if index >= self.members.len() {
            return;
        }
        let members = self.members.make_mut();
        self.marks[index] = mark_of(backend.address);
        members[index] = backend;
        self.plain = members.iter().all(Backend::is_plain);
    }

    /// Takes the last one away.
    pub(super) fn pop(&mut self) -> Option<Backend> {
        let members = self.members.make_mut();
        let last = members.pop();
        self.plain = members.iter().all(Backend::is_plain);
        last
    }
}

#[cfg(test)]
impl Group {
    /// Whether the backends of both are the same memory.
    pub(super) fn shares_with(&self, other: &Self) -> bool {
        self.members == other.members
    }
}

impl FromIterator<Backend> for Group {
    fn from_iter<I: IntoIterator<Item = Backend>>(backends: I) -> Self {
        let mut group = Self::default();
        backends.into_iter().for_each(|backend| group.push(backend));
        group
    }
}

/// The bits of an address are spread (Fibonacci hashing), as those of one service are often alike.
fn mark_of(address: IpAddr) -> u8 {
    let folded = match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let [high, low] = [address.to_bits() >> 64, address.to_bits()].map(|half| half as u64);
            high.rotate_left(17) ^ low
        }
    };
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}
