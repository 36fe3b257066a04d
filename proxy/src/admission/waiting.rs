//! Who waits for a place at a full service.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use thiserror::Error;

/// A short queue: who has waited longest is served first, nobody waits beyond its deadline. All operations are O(log n), and
/// its memory is bounded by those who wait now.
#[derive(Debug, Clone)]
pub struct WaitingQueue<T> {
    waiting: BTreeMap<Ticket, Waiter<T>>,
    deadlines: BTreeSet<(Duration, Ticket)>,
    next: u64,
}

/// Stands for one who waits. No two in the life of a queue are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// There are as many in the queue as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the queue for a place is full: {limit} wait already")]
pub struct QueueFull {
    /// The limit that is reached.
    pub limit: usize,
}

#[derive(Debug, Clone)]
struct Waiter<T> {
    who: T,
    deadline: Duration,
}

impl<T> Default for WaitingQueue<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), deadlines: BTreeSet::new(), next: 0 }
    }
}

impl<T> WaitingQueue<T> {
    /// Lets `who` wait until `deadline`, behind all others.
    ///
    /// # Errors
    /// [`QueueFull`] if `limit` or more wait.
    pub fn push(&mut self, who: T, deadline: Duration, limit: usize) -> Result<Ticket, QueueFull> {
        if self.waiting.len() >= limit {
            return Err(QueueFull { limit });
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.insert(ticket, Waiter { who, deadline });
        self.deadlines.insert((deadline, ticket));
        Ok(ticket)
    }

    /// Takes out who has waited longest. Those whose deadline has passed are to be taken out by [`Self::expired`] before.
    pub fn pop(&mut self) -> Option<T> {
        let (ticket, waiter) = self.waiting.pop_first()?;
        self.deadlines.remove(&(waiter.deadline, ticket));
        Some(waiter.who)
    }

    /// Takes one out whose deadline has passed, the earliest deadline first.
    pub fn expired(&mut self, now: Duration) -> Option<T> {
        let &(_, ticket) = self.deadlines.first().filter(|&&(deadline, _)| deadline <= now)?;
        self.cancel(ticket)
    }

    /// Takes out who has this ticket, if it is still in the queue.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let waiter = self.waiting.remove(&ticket)?;
        self.deadlines.remove(&(waiter.deadline, ticket));
        Some(waiter.who)
    }

    /// When [`Self::expired`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push { wait: u64, limit: usize },
        Pop,
        Cancel(prop::sample::Index),
        CancelAgain(prop::sample::Index),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..50, prop_oneof![Just(8usize), 0usize..12]).prop_map(|(wait, limit)| Step::Push { wait, limit }),
            2 => Just(Step::Pop),
            1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            1 => any::<prop::sample::Index>().prop_map(Step::CancelAgain),
            2 => (0u64..20).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Against a plain list: whoever is served has waited longest of all that are there, whoever has not been served by
        /// its deadline is taken out then and not before, and everybody leaves in exactly one way.
        #[test]
        fn everybody_is_served_in_turn_or_told_in_time(steps in prop::collection::vec(step(), 0..200)) {
            let mut queue = WaitingQueue::default();
            let (mut plain, mut gone, mut now): (Vec<(u32, Ticket, u64)>, Vec<Ticket>, u64) = Default::default();
            let mut entered = 0;
            for step in steps {
                match step {
                    Step::Push { wait, limit } => {
                        let result = queue.push(entered, Duration::from_millis(now + wait), limit);
                        prop_assert_eq!(result.is_ok(), plain.len() < limit);
                        match result {
                            Ok(ticket) => plain.push((entered, ticket, now + wait)),
                            Err(full) => prop_assert_eq!(full, QueueFull { limit }),
                        }
                        entered += 1;
                    }
                    Step::Pop => {
                        let first = (!plain.is_empty()).then(|| plain.remove(0));
                        prop_assert_eq!(queue.pop(), first.map(|(who, ..)| who));
                        gone.extend(first.map(|(_, ticket, _)| ticket));
                    }
                    Step::Cancel(index) if !plain.is_empty() => {
                        let (who, ticket, _) = plain.remove(index.index(plain.len()));
                        prop_assert_eq!(queue.cancel(ticket), Some(who));
                        gone.push(ticket);
                    }
                    Step::CancelAgain(index) if !gone.is_empty() => {
                        prop_assert_eq!(queue.cancel(*index.get(&gone)), None);
                    }
                    Step::Cancel(_) | Step::CancelAgain(_) => prop_assert_eq!(queue.len(), plain.len()),
                    Step::Pass(time) => {
                        now += time;
                        let mut told = Vec::new();
                        while let Some(who) = queue.expired(Duration::from_millis(now)) {
                            told.push(who);
                        }
                        let mut late: Vec<_> = plain.iter().filter(|(_, _, deadline)| *deadline <= now).copied().collect();
                        late.sort_by_key(|&(_, ticket, deadline)| (deadline, ticket));
                        plain.retain(|(_, _, deadline)| *deadline > now);
                        gone.extend(late.iter().map(|&(_, ticket, _)| ticket));
                        prop_assert_eq!(told, late.into_iter().map(|(who, ..)| who).collect::<Vec<_>>());
                    }
                }
                let next = plain.iter().map(|&(_, _, deadline)| Duration::from_millis(deadline)).min();
                prop_assert_eq!((queue.len(), queue.next_deadline()), (plain.len(), next));
                prop_assert_eq!((queue.is_empty(), queue.deadlines.len()), (plain.is_empty(), plain.len()));
            }
        }
    }
}
