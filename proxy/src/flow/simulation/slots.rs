//! Where a world's connections are.

use super::connection::Connection;
use crate::flow::{GENERATION_MASK, Slot};

#[derive(Debug, Default)]
pub(super) struct Slots(Vec<(u32, Option<Connection>)>);

impl Slots {
    pub(super) fn insert(&mut self, connection: Connection) -> Slot {
        let free = self.0.iter().position(|(_, there)| there.is_none());
        let place = free.unwrap_or_else(|| {
            self.0.push((0, None));
            self.0.len() - 1
        });
        let (generation, there) = &mut self.0[place];
        *there = Some(connection);
        Slot { index: u32::try_from(place).unwrap(), generation: *generation }
    }

    pub(super) fn get(&mut self, slot: Slot) -> Option<&mut Connection> {
        let (generation, there) = &mut self.0[slot.index as usize];
        if *generation == slot.generation { there.as_mut() } else { None }
    }

    /// Frees the slot, which must not be done twice.
    pub(super) fn remove(&mut self, slot: Slot) -> Connection {
        let (generation, there) = &mut self.0[slot.index as usize];
        assert_eq!(*generation, slot.generation, "{slot:?} is freed twice");
        *generation = (*generation + 1) & GENERATION_MASK;
        there.take().unwrap()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Connection)> {
        (0u32..).zip(&self.0).filter_map(|(index, (generation, there))| {
            there.as_ref().map(|connection| (Slot { index, generation: *generation }, connection))
        })
    }

    pub(super) fn find(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<Slot> {
        self.iter().filter(|(_, connection)| wanted(connection)).map(|(slot, _)| slot).collect()
    }
}
