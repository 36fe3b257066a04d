//! Counting times.

use crate::control::histogram::{Scale, Times};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A count for each bucket of a scale, which all threads write.
#[derive(Debug)]
pub struct Histogram {
    scale: Scale,
    buckets: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

impl Histogram {
    /// Without any time in it.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        let buckets = (0..scale.buckets()).map(|_| AtomicU64::new(0)).collect();
        Self { scale, buckets, sum_us: AtomicU64::new(0) }
    }

    /// Counts a time.
    pub fn add(&self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(self.scale.bucket(microseconds)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// What has been counted so far.
    #[must_use]
    pub fn times(&self) -> Times {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Times { buckets, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::histogram::CONNECT;

    #[test]
    fn times_are_counted_where_they_belong() {
        let histogram = Histogram::new(CONNECT);
        for microseconds in [0, 64, 65, 5_000_000] {
            histogram.add(Duration::from_micros(microseconds));
        }
        let times = histogram.times();
        assert_eq!((times.buckets[0], times.buckets[1], times.buckets[17]), (2, 1, 1));
        assert_eq!((times.buckets.iter().sum::<u64>(), times.sum_us), (4, 5_000_129));
    }
}
