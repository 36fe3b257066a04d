//! Whether one more attempt is affordable.
//!
//! When many backends fail, retries multiply the load on the rest. So they are limited to a share of the connections of the
//! last ten seconds, plus a few, so that a quiet service can retry too. Finagle's and Envoy's budgets are of this kind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The window is this many whole seconds, the current one included: 9 to 10 seconds.
const SECONDS: u64 = 10;

/// How many retries are affordable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryLimit {
    /// Retries for 100 connections of the window.
    pub percent: u32,
    /// Retries for each second of the window, whatever the connections. In a pause they add up to ten times that.
    pub minimum_per_second: u32,
}

/// What a service has spent and what it may spend, shared by all threads.
#[derive(Debug, Default)]
pub struct RetryBudget {
    connections: Window,
    retries: Window,
}

impl RetryBudget {
    /// Counts a new connection, not an attempt.
    pub fn connection(&self, now: Duration) {
        self.connections.add(now.as_secs());
    }

    /// Whether a retry is affordable; if so, it is counted. There are never more than the limit allows; of threads that ask
    /// at the same moment for the last one all may be refused.
    #[must_use]
    pub fn try_retry(&self, limit: RetryLimit, now: Duration) -> bool {
        let second = now.as_secs();
        // Counted first and looked at then, so that of two that do so at least one sees both.
        if !self.retries.add(second) {
            return false;
        }
        let share = self.connections.sum(second) * u64::from(limit.percent) / 100;
        let affordable = share + SECONDS * u64::from(limit.minimum_per_second);
        if self.retries.sum(second) <= affordable {
            return true;
        }
        self.retries.take_back(second);
        false
    }
}

/// Counts of the last seconds. Each cell has the number of its second in the upper half and its count in the lower one, so
/// that a cell's reuse for a later second is one step.
#[derive(Debug, Default)]
struct Window([AtomicU64; SECONDS as usize]);

impl Window {
    /// False, and nothing is counted, if the second is out of the window already or its count is full.
    fn add(&self, second: u64) -> bool {
        self.change(second, |count| count.checked_add(1))
    }

    fn take_back(&self, second: u64) {
        self.change(second, |count| count.checked_sub(1));
    }

    fn change(&self, second: u64, change: impl Fn(u32) -> Option<u32>) -> bool {
        let second = second as u32;
        let next = |cell: u64| {
            let (held, count) = unpack(cell);
            let count = if held == second { count } else { 0 };
            (held <= second).then(|| change(count)).flatten().map(|count| pack(second, count))
        };
        // Sequentially consistent: see `try_retry`.
        self.0[index(second)].fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    fn sum(&self, second: u64) -> u64 {
        let cells = self.0.iter().map(|cell| unpack(cell.load(Ordering::SeqCst)));
        // A count of a second that another thread has begun already belongs here too.
        cells.filter(|&(held, _)| u64::from(held) + SECONDS > second).map(|(_, count)| u64::from(count)).sum()
    }
}

fn index(second: u32) -> usize {
    second as usize % SECONDS as usize
}

fn pack(second: u32, count: u32) -> u64 {
    u64::from(second) << 32 | u64::from(count)
}

fn unpack(cell: u64) -> (u32, u32) {
    ((cell >> 32) as u32, cell as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// The same as a list of all that happened. At every retry that is allowed, those of the window are within the limit;
        /// one more would not be at every one that is refused.
        #[test]
        fn retries_stay_within_their_share(
            percent in 0u32..150,
            minimum_per_second in 0u32..3,
            start in prop_oneof![Just(0u64), 1u64..1_000_000],
            steps in prop::collection::vec((any::<bool>(), prop_oneof![3 => Just(0u64), 3 => 0u64..1_500, 1 => 0u64..30_000]), 0..400),
        ) {
            let limit = RetryLimit { percent, minimum_per_second };
            let budget = RetryBudget::default();
            let (mut now, mut connections, mut retries) = (Duration::from_secs(start), Vec::new(), Vec::new());
            for (retry, pause) in steps {
                now += Duration::from_millis(pause);
                let window = |all: &[u64]| all.iter().filter(|&&at| at + SECONDS > now.as_secs()).count() as u64;
                if !retry {
                    budget.connection(now);
                    connections.push(now.as_secs());
                    continue;
                }
                let allowed = window(&connections) * u64::from(percent) / 100 + 10 * u64::from(minimum_per_second);
                let expected = window(&retries) < allowed;
                prop_assert_eq!(budget.try_retry(limit, now), expected);
                retries.extend(expected.then_some(now.as_secs()));
            }
        }
    }

    #[test]
    fn old_connections_pay_for_nothing() {
        let budget = RetryBudget::default();
        let limit = RetryLimit { percent: 20, minimum_per_second: 0 };
        let at = Duration::from_millis;
        (0..10).for_each(|_| budget.connection(at(500)));
        assert!(budget.try_retry(limit, at(600)) && budget.try_retry(limit, at(9_999)));
        assert!(!budget.try_retry(limit, at(9_999)));
        assert!(!budget.try_retry(limit, at(10_000)), "the connections are out of the window");
        // Who is more than a window behind counts nothing.
        budget.connection(at(20_000));
        (0..10).for_each(|_| budget.connection(at(500)));
        assert_eq!(budget.connections.sum(20), 1);
    }

    #[test]
    fn never_more_across_threads() {
        for _ in 0..50 {
            let (budget, now) = (RetryBudget::default(), Duration::from_secs(3));
            let limit = RetryLimit { percent: 10, minimum_per_second: 2 };
            let allowed = std::thread::scope(|scope| {
                let thread = || {
                    (0..500).for_each(|_| budget.connection(now));
                    (0..200).filter(|_| budget.try_retry(limit, now)).count()
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(thread)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
            });
            let rest = (0..1000).filter(|_| budget.try_retry(limit, now)).count();
            assert_eq!(allowed + rest, 2000 / 10 + 10 * 2);
        }
    }
}
