//! How times are sorted into buckets, the same on both ends of the control channel.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Buckets whose upper bounds grow by the same factor, a power of two, and one more for what is above them all. A time's
/// bucket is found by its number of leading zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// The first bound is 2 to the power of this, in microseconds.
    first: u32,
    /// Each bound is 2 to the power of this times the one before.
    step: u32,
    /// The number of bounds.
    bounds: u32,
}

/// For the time that connecting to a backend takes: 64 µs, 128 µs … 4.2 s.
pub const CONNECT: Scale = Scale { first: 6, step: 1, bounds: 17 };
/// For the time that a connection lasts: 1 ms, 4 ms … 19 h.
pub const SESSION: Scale = Scale { first: 10, step: 2, bounds: 14 };

/// Times in the buckets of a [`Scale`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// How many there are in each bucket, those below it not included.
    pub buckets: Vec<u64>,
    /// All of them added up, in microseconds.
    pub sum_us: u64,
}

impl Scale {
    /// The number of buckets.
    #[must_use]
    pub fn buckets(self) -> usize {
        self.bounds as usize + 1
    }

    /// The bucket of a time: the first one whose bound is not below it.
    #[must_use]
    pub fn bucket(self, microseconds: u64) -> usize {
        let exponent = u64::BITS - microseconds.saturating_sub(1).leading_zeros();
        exponent.saturating_sub(self.first).div_ceil(self.step).min(self.bounds) as usize
    }

    /// The upper bounds of all buckets but the last one, which has none.
    pub fn bounds(self) -> impl Iterator<Item = Duration> {
        (0..self.bounds).map(move |index| Duration::from_micros(1 << (self.first + index * self.step)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bounds_are_as_described() {
        let ends = |scale: Scale| {
            let bounds: Vec<_> = scale.bounds().map(|bound| bound.as_micros()).collect();
            (bounds[0], bounds[1], bounds[bounds.len() - 1], scale.buckets())
        };
        assert_eq!(ends(CONNECT), (64, 128, 4_194_304, 18));
        assert_eq!(ends(SESSION), (1024, 4096, 68_719_476_736, 15));
    }

    proptest! {
        #[test]
        fn a_time_is_in_the_first_bucket_that_is_large_enough(exponent in 0u32..63, offset in -2i64..3) {
            let microseconds = (1u64 << exponent).saturating_add_signed(offset);
            for scale in [CONNECT, SESSION] {
                let bounds: Vec<_> = scale.bounds().map(|bound| bound.as_micros() as u64).collect();
                let expected = bounds.iter().position(|&bound| microseconds <= bound).unwrap_or(bounds.len());
                prop_assert_eq!(scale.bucket(microseconds), expected, "{}", microseconds);
            }
        }
    }
}
