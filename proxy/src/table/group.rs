//! Some backends of a service, with what is asked of all of them.
//!
//! A change of one backend asks whether others have its address and whether all are as they should be. In a large table
//! nothing of a service is in the processor's cache, so the answers lie together at a group's beginning: for most groups
//! nothing else of them is read.

use super::Backend;
use arrayvec::ArrayVec;
use std::net::IpAddr;

/// At most so many are in a group.
pub(super) const GROUP: usize = 16;

/// Some backends.
#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct Group {
    /// A byte of each address, by which most that are others can be told.
    marks: [u8; GROUP],
    plain: bool,
    members: ArrayVec<Backend, GROUP>,
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

    /// One more, for which there must be room.
    pub(super) fn push(&mut self, backend: Backend) {
        self.plain = (self.plain || self.members.is_empty()) && backend.is_plain();
        self.marks[self.members.len()] = mark_of(backend.address);
        self.members.push(backend);
    }

    /// Puts another one in the place of the one with that index, if there is one.
    pub(super) fn set(&mut self, index: usize, backend: Backend) {
        let Some(place) = self.members.get_mut(index) else { return };
        self.marks[index] = mark_of(backend.address);
        *place = backend;
        self.plain = self.members.iter().all(Backend::is_plain);
    }

    /// Takes the last one away.
    pub(super) fn pop(&mut self) -> Option<Backend> {
        let last = self.members.pop();
        self.plain = self.members.iter().all(Backend::is_plain);
        last
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
