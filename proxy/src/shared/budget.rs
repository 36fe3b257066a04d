//! A number of things that all data threads may have together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// So many at most, counted exactly across threads: neither is one too many ever given, nor is one refused while
/// fewer are out.
///
/// It has a cache line of its own, as every thread writes it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Budget {
    out: AtomicUsize,
    most: usize,
}

impl Budget {
    /// A budget of which nothing is out.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { out: AtomicUsize::new(0), most }
    }

    /// Takes one; false if all are out.
    #[must_use]
    pub fn take(&self) -> bool {
        // Not add and look: an add that went too far would, for a moment, refuse another thread what there is.
        let one_more = |out| if out < self.most { Some(out + 1) } else { None };
        self.out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Gives back what [`Self::take`] gave.
    pub fn give_back(&self) {
        self.out.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are out.
    #[must_use]
    pub fn out(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }

    /// How many there are.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn what_is_given_is_exact() {
        let budget = Budget::new(1000);
        for _ in 0..20 {
            let start = Barrier::new(4);
            let taken: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            (0..500).filter(|_| budget.take()).count()
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!((taken, budget.out()), (1000, 1000));
            (0..1000).for_each(|_| budget.give_back());
        }
    }
}
