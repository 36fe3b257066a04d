//! All sessions of a data thread: found by key and by slot, and in the order in which they were last used.

use crate::flow::{GENERATION_MASK, Slot};
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The end of a queue.
const NONE: u32 = u32::MAX;

/// Sessions by their keys.
///
/// Each is in a queue, by last use, with those that have the same idle timeout. So the next one to expire is at the end
/// of a queue, a session that is used goes to the front of its own, and neither takes a timer for each session. There
/// are as many queues as different timeouts, which services set.
#[derive(Debug)]
pub struct Sessions<K, V> {
    entries: Vec<Entry<K, V>>,
    free: Vec<u32>,
    by_key: HashMap<K, u32>,
    queues: Vec<Queue>,
}

#[derive(Debug)]
struct Entry<K, V> {
    generation: u32,
    session: Option<Stored<K, V>>,
}

#[derive(Debug)]
struct Stored<K, V> {
    key: K,
    value: V,
    used: Instant,
    queue: u32,
    newer: u32,
    older: u32,
}

#[derive(Debug)]
struct Queue {
    timeout: Duration,
    newest: u32,
    oldest: u32,
}

impl<K, V> Default for Sessions<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), by_key: HashMap::new(), queues: Vec::new() }
    }
}

impl<K: Hash + Eq + Clone, V> Sessions<K, V> {
    /// The number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Adds a session that is used now and expires when it has not been for that time. A session that has the key
    /// already is no longer found by it.
    pub fn insert(&mut self, key: K, value: V, timeout: Duration, now: Instant) -> Slot {
        let queue = self.queue_of(timeout);
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, session: None });
            u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
        });
        self.by_key.insert(key.clone(), index);
        let entry = &mut self.entries[index as usize];
        entry.session = Some(Stored { key, value, used: now, queue, newer: NONE, older: NONE });
        let slot = Slot { index, generation: entry.generation };
        self.put_first(index);
        slot
    }

    /// The slot of the session with that key.
    pub fn find(&self, key: &K) -> Option<Slot> {
        let index = *self.by_key.get(key)?;
        Some(Slot { index, generation: self.entries.get(index as usize)?.generation })
    }

    /// The session in that slot, unless it is another one by now.
    pub fn get(&mut self, slot: Slot) -> Option<&mut V> {
        self.stored(slot).map(|stored| &mut stored.value)
    }

    /// The key of the session in that slot.
    pub fn key(&mut self, slot: Slot) -> Option<&K> {
        self.stored(slot).map(|stored| &stored.key)
    }

    /// Notes that the session is used now.
    pub fn touch(&mut self, slot: Slot, now: Instant) {
        let Some(stored) = self.stored(slot) else { return };
        stored.used = now;
        if stored.newer != NONE {
            self.take_out(slot.index);
            self.put_first(slot.index);
        }
    }

    /// Gives the session another slot: what is told of the old one is not for it any more.
    pub fn renew(&mut self, slot: Slot) -> Option<Slot> {
        self.stored(slot)?;
        let entry = self.entries.get_mut(slot.index as usize)?;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        Some(Slot { index: slot.index, generation: entry.generation })
    }

    /// Takes the session out.
    pub fn remove(&mut self, slot: Slot) -> Option<V> {
        self.stored(slot)?;
        self.take_out(slot.index);
        let entry = self.entries.get_mut(slot.index as usize)?;
        let stored = entry.session.take()?;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        if self.by_key.get(&stored.key) == Some(&slot.index) {
            self.by_key.remove(&stored.key);
        }
        self.free.push(slot.index);
        Some(stored.value)
    }

    /// The session that has been unused for the longest time.
    #[must_use]
    pub fn longest_unused(&self) -> Option<Slot> {
        self.oldest().min_by_key(|(_, stored)| stored.used).map(|(slot, _)| slot)
    }

    /// A session that has been unused for its time.
    #[must_use]
    pub fn expired(&self, now: Instant) -> Option<Slot> {
        self.oldest().find(|(_, stored)| self.expiry(stored).is_some_and(|expiry| expiry <= now)).map(|(slot, _)| slot)
    }

    /// When the next session expires if it is not used.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.oldest().filter_map(|(_, stored)| self.expiry(stored)).min()
    }

    /// The slots of the sessions that `wanted` accepts.
    pub fn select(&self, wanted: impl Fn(&V) -> bool) -> Vec<Slot> {
        (0u32..)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.session.as_ref().is_some_and(|stored| wanted(&stored.value)))
            .map(|(index, entry)| Slot { index, generation: entry.generation })
            .collect()
    }

    fn stored(&mut self, slot: Slot) -> Option<&mut Stored<K, V>> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        if entry.generation == slot.generation { entry.session.as_mut() } else { None }
    }

    /// The oldest session of each queue.
    fn oldest(&self) -> impl Iterator<Item = (Slot, &Stored<K, V>)> {
        self.queues.iter().filter_map(|queue| {
            let entry = self.entries.get(queue.oldest as usize)?;
            let slot = Slot { index: queue.oldest, generation: entry.generation };
            entry.session.as_ref().map(|stored| (slot, stored))
        })
    }

    fn expiry(&self, stored: &Stored<K, V>) -> Option<Instant> {
        stored.used.checked_add(self.queues.get(stored.queue as usize)?.timeout)
    }

    /// The queue for that timeout: the one that it has, an empty one, or a new one.
    fn queue_of(&mut self, timeout: Duration) -> u32 {
        let having = self.queues.iter().position(|queue| queue.timeout == timeout);
        let place = having.or_else(|| self.queues.iter().position(|queue| queue.newest == NONE));
        let place = place.unwrap_or_else(|| {
            self.queues.push(Queue { timeout, newest: NONE, oldest: NONE });
            self.queues.len() - 1
        });
        self.queues[place].timeout = timeout;
        u32::try_from(place).unwrap_or(NONE)
    }

    fn put_first(&mut self, index: u32) {
        let Some(stored) = self.at(index) else { return };
        let queue = stored.queue as usize;
        let second = std::mem::replace(&mut self.queues[queue].newest, index);
        if let Some(stored) = self.at(index) {
            (stored.newer, stored.older) = (NONE, second);
        }
        match self.at(second) {
            Some(stored) => stored.newer = index,
            None => self.queues[queue].oldest = index,
        }
    }

    fn take_out(&mut self, index: u32) {
        let Some(&mut Stored { queue, newer, older, .. }) = self.at(index) else { return };
        match self.at(newer) {
            Some(stored) => stored.older = older,
            None => self.queues[queue as usize].newest = older,
        }
        match self.at(older) {
            Some(stored) => stored.newer = newer,
            None => self.queues[queue as usize].oldest = newer,
        }
    }

    fn at(&mut self, index: u32) -> Option<&mut Stored<K, V>> {
        self.entries.get_mut(index as usize)?.session.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, prop_assert_eq, prop_oneof, proptest};

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8, u8),
        Touch(u8),
        Remove(u8),
        Renew(u8),
        Expire,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..20u8, 1..4u8).prop_map(|(key, seconds)| Step::Insert(key, seconds)),
            3 => (0..20u8).prop_map(Step::Touch),
            1 => (0..20u8).prop_map(Step::Remove),
            1 => (0..20u8).prop_map(Step::Renew),
            1 => proptest::prelude::Just(Step::Expire),
        ]
    }

    proptest! {
        /// Against a list that is searched from end to end.
        #[test]
        fn it_is_as_a_plain_list(steps in proptest::collection::vec(step(), 0..200)) {
            let mut sessions = Sessions::default();
            // Key, slot, timeout, last use.
            let mut list: Vec<(u8, Slot, Duration, Instant)> = Vec::new();
            let mut dead: Vec<Slot> = Vec::new();
            let mut now = Instant::now();
            for step in steps {
                now += Duration::from_millis(250);
                let place = |list: &[(u8, Slot, Duration, Instant)], key| list.iter().position(|entry| entry.0 == key);
                match step {
                    Step::Insert(key, seconds) => if place(&list, key).is_none() {
                        let timeout = Duration::from_secs(seconds.into());
                        list.push((key, sessions.insert(key, key, timeout, now), timeout, now));
                    },
                    Step::Touch(key) => if let Some(place) = place(&list, key) {
                        sessions.touch(list[place].1, now);
                        list[place].3 = now;
                    },
                    Step::Remove(key) => if let Some(place) = place(&list, key) {
                        let (_, slot, ..) = list.remove(place);
                        prop_assert_eq!(sessions.remove(slot), Some(key));
                        dead.push(slot);
                    },
                    Step::Renew(key) => if let Some(place) = place(&list, key) {
                        dead.push(list[place].1);
                        list[place].1 = sessions.renew(list[place].1).unwrap();
                    },
                    Step::Expire => while let Some(slot) = sessions.expired(now) {
                        let place = list.iter().position(|entry| entry.1 == slot).unwrap();
                        prop_assert_eq!(list[place].3 + list[place].2 <= now, true);
                        sessions.remove(slot);
                        list.remove(place);
                        dead.push(slot);
                    },
                }
                prop_assert_eq!(sessions.len(), list.len());
                prop_assert_eq!(sessions.next_expiry(), list.iter().map(|entry| entry.3 + entry.2).min());
                let oldest = list.iter().min_by_key(|entry| entry.3);
                prop_assert_eq!(sessions.longest_unused(), oldest.map(|entry| entry.1));
                for &(key, slot, ..) in &list {
                    prop_assert_eq!(sessions.find(&key), Some(slot));
                    prop_assert_eq!(sessions.get(slot).copied(), Some(key));
                }
                for &slot in &dead {
                    prop_assert_eq!(sessions.get(slot), None);
                }
                prop_assert_eq!(sessions.select(|_| true).len(), list.len());
            }
        }
    }

    #[test]
    fn timeouts_that_nobody_has_any_more_leave_nothing() {
        let mut sessions = Sessions::default();
        let now = Instant::now();
        for seconds in 0..1000 {
            let slot = sessions.insert(1u8, (), Duration::from_secs(seconds), now);
            sessions.remove(slot);
        }
        assert_eq!((sessions.queues.len(), sessions.entries.len()), (1, 1));
    }
}
