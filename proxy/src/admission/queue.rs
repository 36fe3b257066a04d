//! Who waits for a place at a full service.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// A short queue that all data threads share: only who has waited longest may take a place. All operations are O(log n), and
/// its memory is bounded by those who wait now.
///
/// Nobody is taken out by others. Whoever gives a place back, or leaves the queue for whatever reason, tells the
/// [first](Self::first) that it may try; the first leaves once it has got a place. A needless try does no harm.
///
/// No place is missed: who waits joins first and tries then, who gives a place back does that first and looks at the queue
/// then. As both are sequentially consistent, at least one of them sees the other.
#[derive(Debug)]
pub struct WaitingQueue<T> {
    line: Mutex<Line<T>>,
    length: AtomicUsize,
}

#[derive(Debug)]
struct Line<T> {
    waiting: BTreeMap<Ticket, T>,
    last: u64,
}

/// Stands for one who waits. No two in the life of a queue are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(NonZeroU64);

/// There are as many in the queue as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the queue for a place is full: {limit} wait already")]
pub struct QueueFull {
    /// The limit that is reached.
    pub limit: usize,
}

impl<T> Default for WaitingQueue<T> {
    fn default() -> Self {
        Self { line: Mutex::new(Line { waiting: BTreeMap::new(), last: 0 }), length: AtomicUsize::new(0) }
    }
}

impl<T: Copy> WaitingQueue<T> {
    /// Lets `who` wait behind all others.
    ///
    /// # Errors
    /// [`QueueFull`] if `limit` or more wait.
    pub fn join(&self, who: T, limit: usize) -> Result<Ticket, QueueFull> {
        let mut line = self.line();
        if line.waiting.len() >= limit {
            return Err(QueueFull { limit });
        }
        line.last += 1;
        let ticket = Ticket(NonZeroU64::MIN.saturating_add(line.last - 1));
        line.waiting.insert(ticket, who);
        self.length.store(line.waiting.len(), Ordering::SeqCst);
        Ok(ticket)
    }

    /// Takes out who has this ticket. False if it is not in the queue.
    pub fn leave(&self, ticket: Ticket) -> bool {
        let mut line = self.line();
        let was_there = line.waiting.remove(&ticket).is_some();
        self.length.store(line.waiting.len(), Ordering::SeqCst);
        was_there
    }

    /// Who has waited longest.
    #[must_use]
    pub fn first(&self) -> Option<(Ticket, T)> {
        if self.is_empty() {
            return None;
        }
        self.line().waiting.first_key_value().map(|(&ticket, &who)| (ticket, who))
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length.load(Ordering::SeqCst)
    }

    /// Whether nobody waits. Takes no lock.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn line(&self) -> MutexGuard<'_, Line<T>> {
        // It is never half changed.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Places;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicU64;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Against a plain list: the first has waited longest of all that are there, and everybody leaves once.
        #[test]
        fn everybody_has_its_turn(
            steps in prop::collection::vec((0u8..4, 0usize..12, any::<prop::sample::Index>()), 0..200),
        ) {
            let queue = WaitingQueue::default();
            let (mut plain, mut gone): (Vec<(u32, Ticket)>, Vec<Ticket>) = Default::default();
            for (number, (step, limit, index)) in (0u32..).zip(steps) {
                match step {
                    0 | 1 => match queue.join(number, limit) {
                        Ok(ticket) => {
                            prop_assert!(plain.len() < limit);
                            plain.push((number, ticket));
                        }
                        Err(full) => prop_assert_eq!((plain.len() >= limit, full), (true, QueueFull { limit })),
                    },
                    2 if !plain.is_empty() => {
                        let (_, ticket) = plain.remove(index.index(plain.len()));
                        prop_assert!(queue.leave(ticket));
                        gone.push(ticket);
                    }
                    3 if !gone.is_empty() => prop_assert!(!queue.leave(*index.get(&gone))),
                    _ => {}
                }
                let first = plain.first().map(|&(who, ticket)| (ticket, who));
                prop_assert_eq!((queue.len(), queue.is_empty(), queue.first()), (plain.len(), plain.is_empty(), first));
            }
        }
    }

    /// Threads that join and try for a place only when they are first, told so by nobody but those who leave: no place is
    /// missed, or a thread would wait for ever.
    #[test]
    fn no_place_is_missed() {
        const THREADS: usize = 6;
        let (queue, places, served) = (WaitingQueue::default(), Places::default(), AtomicU64::new(0));
        let turns: Vec<_> = (0..THREADS).map(|_| std::sync::mpsc::channel()).collect();
        let (senders, receivers): (Vec<_>, Vec<_>) = turns.into_iter().unzip();
        std::thread::scope(|scope| {
            for (thread, turn) in receivers.into_iter().enumerate() {
                let (queue, places, served, senders) = (&queue, &places, &served, senders.clone());
                scope.spawn(move || {
                    let tell_first = || {
                        if let Some((ticket, first)) = queue.first() {
                            // Whoever has all it wanted listens no more.
                            let _ = std::sync::mpsc::Sender::send(&senders[first], ticket);
                        }
                    };
                    for _ in 0..3_000 {
                        let ticket = queue.join(thread, THREADS).unwrap();
                        while !(queue.first().is_some_and(|(first, _)| first == ticket) && places.try_enter(2)) {
                            let wait = turn.recv_timeout(std::time::Duration::from_secs(20));
                            assert!(wait.is_ok(), "a place was missed");
                        }
                        queue.leave(ticket);
                        tell_first();
                        served.fetch_add(1, Ordering::Relaxed);
                        places.leave();
                        tell_first();
                    }
                });
            }
        });
        assert_eq!((served.into_inner(), places.taken(), queue.len()), (3_000 * THREADS as u64, 0, 0));
    }
}
