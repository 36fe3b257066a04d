//! Medians and spreads of a few values, and quantiles of many times.

use ringlb_load::units::to_float;
use std::time::Duration;

/// Several values in three.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// Half are not larger.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of the values; `None` if there are none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = sorted[sorted.len() / 2];
        let lower = sorted[(sorted.len() - 1) / 2];
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

/// Times that something took, each of them kept.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// One more.
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// All those, too.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> f64 {
        to_float(self.0.len() as u64)
    }

    /// The time, in microseconds, that so many of a thousand do not exceed.
    pub(crate) fn per_mille(&mut self, share: usize) -> Option<u64> {
        self.0.sort_unstable();
        let position = (self.0.len() * share).div_ceil(1000).max(1) - 1;
        self.0.get(position).map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(Spread::of(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let mut times = Times::default();
        assert_eq!(times.per_mille(500), None);
        for microseconds in (1..=1000).rev() {
            times.push(Duration::from_micros(microseconds));
        }
        assert_eq!([1, 500, 990, 999, 1000].map(|share| times.per_mille(share)), [1, 500, 990, 999, 1000].map(Some));
        let mut few = Times::default();
        few.push(Duration::from_micros(7));
        few.append(Times(vec![Duration::from_micros(5)]));
        assert_eq!((few.count(), few.per_mille(500), few.per_mille(990)), (2.0, Some(5), Some(7)));
    }
}
