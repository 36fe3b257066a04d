//! How many connections at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts connections up to a limit, from any thread. The count never exceeds the largest limit that it was asked with,
/// not even for a moment.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicU64,
}

impl Places {
    /// Takes a place if fewer than `limit` are taken. Each place that was taken must be given back by [`Self::leave`].
    #[must_use]
    pub fn try_enter(&self, limit: u64) -> bool {
        let more = |taken: u64| (taken < limit).then_some(taken + 1);
        // The count says nothing about other memory.
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives a place back.
    pub fn leave(&self) {
        let less = |taken: u64| taken.checked_sub(1);
        let left = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        debug_assert!(left.is_ok(), "a place was given back that nobody had taken");
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn a_limit_of_nothing_admits_nobody_and_a_lowered_one_counts_at_once() {
        let places = Places::default();
        assert!(!places.try_enter(0));
        assert!(places.try_enter(2) && places.try_enter(2) && !places.try_enter(2));
        assert!(places.try_enter(3), "raised");
        places.leave();
        assert!(!places.try_enter(1), "lowered below what is taken");
        assert_eq!(places.taken(), 2);
    }

    /// Threads that only enter: exactly as many get in as there are places. Threads that come and go: the count of those
    /// inside, kept beside, never exceeds the limit, and in the end nobody is inside.
    #[test]
    fn exact_across_threads() {
        const THREADS: usize = 8;
        const LIMIT: u64 = 5;
        for _ in 0..50 {
            let (places, start) = (Places::default(), Barrier::new(THREADS));
            let entered: usize = std::thread::scope(|scope| {
                let enter = || {
                    start.wait();
                    (0..LIMIT).filter(|_| places.try_enter(LIMIT)).count()
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(enter)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!((entered as u64, places.taken()), (LIMIT, LIMIT));
        }
        let (places, inside, refused) = (Places::default(), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if places.try_enter(LIMIT) {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < LIMIT);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            places.leave();
                        } else {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(places.taken(), 0);
        assert!(refused.into_inner() > 0, "the limit was never reached: the test shows nothing");
    }
}
