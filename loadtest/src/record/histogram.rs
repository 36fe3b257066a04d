//! Times, as HDR histograms of microseconds.

use crate::units::microseconds;
use crate::{LatencySummary, LoadError};
use hdrhistogram::Histogram as Hdr;
use std::time::Duration;

/// Longer times count as this long.
const LONGEST_US: u64 = 3_600_000_000;

/// A histogram of times.
#[derive(Debug, Clone)]
pub(super) struct Histogram(Hdr<u64>);

impl Histogram {
    /// Three digits.
    pub(super) fn precise() -> Result<Self, LoadError> {
        Self::with_digits(3)
    }

    /// Two digits, in a tenth of the memory: there may be thousands of these.
    pub(super) fn coarse() -> Result<Self, LoadError> {
        Self::with_digits(2)
    }

    fn with_digits(digits: u8) -> Result<Self, LoadError> {
        // Grows with what is recorded: most never see times of seconds.
        let mut histogram = Hdr::new_with_bounds(1, 1000, digits)
            .map_err(|error| LoadError::Histogram { reason: error.to_string() })?;
        histogram.auto(true);
        Ok(Self(histogram))
    }

    pub(super) fn record(&mut self, time: Duration) {
        let value = microseconds(time).min(LONGEST_US);
        if self.0.record(value).is_err() {
            // It could not grow, which no value up to the longest asks too much for; count it all the same.
            self.0.saturating_record(value);
        }
    }

    /// `None` if nothing was recorded.
    pub(super) fn summary(&self) -> Option<LatencySummary> {
        if self.0.is_empty() {
            return None;
        }
        // A value stands for a range; its upper end may lie beyond the largest value recorded.
        let max_us = self.0.max();
        let at = |quantile| self.0.value_at_quantile(quantile).min(max_us);
        Some(LatencySummary {
            count: self.0.len(),
            min_us: self.0.min(),
            mean_us: self.0.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(Histogram::precise().unwrap().summary(), None);
    }

    #[test]
    fn quantiles_are_ordered_and_close() {
        let mut histogram = Histogram::precise().unwrap();
        for time in 1..=100_000 {
            histogram.record(Duration::from_micros(time));
        }
        let summary = histogram.summary().unwrap();
        assert_eq!((summary.count, summary.min_us), (100_000, 1));
        for (value, expected) in [
            (summary.p50_us, 50_000),
            (summary.p90_us, 90_000),
            (summary.p99_us, 99_000),
            (summary.p999_us, 99_900),
            (summary.max_us, 100_000),
        ] {
            assert!(value.abs_diff(expected) <= expected / 500, "{value} is not {expected}");
        }
    }

    #[test]
    fn endless_times_are_counted_as_the_longest() {
        let mut histogram = Histogram::coarse().unwrap();
        histogram.record(Duration::MAX);
        histogram.record(Duration::ZERO);
        let summary = histogram.summary().unwrap();
        assert_eq!((summary.count, summary.min_us), (2, 0));
        assert!(summary.max_us >= LONGEST_US && summary.max_us < LONGEST_US / 100 * 102, "{}", summary.max_us);
    }
}
