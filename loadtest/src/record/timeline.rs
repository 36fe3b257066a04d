//! What happened when, in bounded memory: buckets of equal width, which doubles when there would be too many.

use crate::{Timeline, TimelineBucket};
use std::time::Duration;

const FIRST_WIDTH: Duration = Duration::from_secs(1);
const MAX_BUCKETS: usize = 600;

/// A timeline being recorded.
#[derive(Debug)]
pub(super) struct Recording {
    width: Duration,
    buckets: Vec<TimelineBucket>,
}

impl Default for Recording {
    fn default() -> Self {
        Self { width: FIRST_WIDTH, buckets: Vec::new() }
    }
}

impl Recording {
    /// The bucket for what happens `after` the start.
    pub(super) fn bucket(&mut self, after: Duration) -> &mut TimelineBucket {
        while self.index(after) >= MAX_BUCKETS {
            self.double();
        }
        let index = self.index(after);
        if index >= self.buckets.len() {
            self.buckets.resize_with(index + 1, TimelineBucket::default);
        }
        &mut self.buckets[index]
    }

    fn index(&self, after: Duration) -> usize {
        usize::try_from(after.as_nanos() / self.width.as_nanos()).unwrap_or(usize::MAX)
    }

    fn double(&mut self) {
        self.width *= 2;
        self.buckets = self
            .buckets
            .chunks(2)
            .map(|pair| pair.iter().fold(TimelineBucket::default(), |sum, bucket| sum.plus(bucket)))
            .collect();
    }

    pub(super) fn report(&self) -> Timeline {
        Timeline { bucket_us: u64::try_from(self.width.as_micros()).unwrap_or(u64::MAX), buckets: self.buckets.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn things_are_counted_in_their_second() {
        let mut recording = Recording::default();
        recording.bucket(Duration::from_millis(999)).requests += 1;
        recording.bucket(Duration::from_millis(3000)).requests += 2;
        let timeline = recording.report();
        assert_eq!(timeline.bucket_us, 1_000_000);
        assert_eq!(timeline.buckets.iter().map(|bucket| bucket.requests).collect::<Vec<_>>(), [1, 0, 0, 2]);
    }

    #[test]
    fn a_long_run_stays_bounded_and_loses_nothing() {
        let mut recording = Recording::default();
        for second in 0..10_000 {
            let bucket = recording.bucket(Duration::from_secs(second));
            bucket.requests += 1;
            bucket.bytes_sent += 2;
            bucket.bytes_received += 3;
            bucket.max_us = bucket.max_us.max(second);
            *bucket.errors.entry(ErrorKind::Reset).or_default() += 1;
        }
        let timeline = recording.report();
        assert_eq!(timeline.bucket_us, 32_000_000);
        assert_eq!(timeline.buckets.len(), 313);
        let sum = timeline.buckets.iter().fold(TimelineBucket::default(), |sum, bucket| sum.plus(bucket));
        assert_eq!((sum.requests, sum.bytes_sent, sum.bytes_received, sum.max_us), (10_000, 20_000, 30_000, 9_999));
        assert_eq!(sum.errors[&ErrorKind::Reset], 10_000);
        assert_eq!(timeline.buckets[1].requests, 32);
    }

    #[test]
    fn an_absurd_time_ends() {
        let mut recording = Recording::default();
        recording.bucket(Duration::from_secs(u64::from(u32::MAX))).requests += 1;
        assert!(recording.report().buckets.len() <= MAX_BUCKETS);
    }
}
