//! When the requests of an open loop are to begin: evenly spaced, the first at once.

use crate::units::to_float;
use std::time::Duration;

/// An even rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    per_second: f64,
}

impl Schedule {
    /// `per_second` is more than 0 and finite.
    pub(super) const fn new(per_second: f64) -> Self {
        Self { per_second }
    }

    /// When request `index` (from 0) is to begin, after the start of the run.
    pub(super) fn time_of(self, index: u64) -> Duration {
        Duration::try_from_secs_f64(to_float(index) / self.per_second).unwrap_or(Duration::MAX)
    }

    /// How many requests are to have begun when `elapsed` has passed.
    pub(super) fn due(self, elapsed: Duration) -> u64 {
        let mut due = whole(elapsed.as_secs_f64() * self.per_second).saturating_add(1);
        // Rounding may be off by one either way; `time_of` is what counts, or a pacer would wait for no time for ever.
        while due > 1 && self.time_of(due - 1) > elapsed {
            due -= 1;
        }
        while self.time_of(due) <= elapsed {
            due += 1;
        }
        due
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number, cut on purpose")]
const fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_evenly_spaced() {
        let schedule = Schedule::new(1000.0);
        assert_eq!(schedule.time_of(0), Duration::ZERO);
        assert_eq!(schedule.time_of(1), Duration::from_millis(1));
        assert_eq!(schedule.time_of(90_000), Duration::from_secs(90));
    }

    #[test]
    fn what_is_due_has_its_time_behind_it_and_the_next_ahead() {
        for per_second in [0.001, 0.3, 1.0, 3.0, 7.7, 999.9, 1000.0, 123_456.7, 10_000_000.0] {
            let schedule = Schedule::new(per_second);
            for nanoseconds in (0..60).map(|exponent| 3_u64.pow(exponent / 2) * (1 + u64::from(exponent % 2))) {
                let elapsed = Duration::from_nanos(nanoseconds);
                let due = schedule.due(elapsed);
                assert!(schedule.time_of(due - 1) <= elapsed, "{per_second} {nanoseconds}");
                assert!(schedule.time_of(due) > elapsed, "{per_second} {nanoseconds}");
            }
        }
    }

    #[test]
    fn what_is_due_at_a_requests_time_includes_it() {
        for per_second in [0.3, 3.0, 7.7, 1000.0, 123_456.7] {
            let schedule = Schedule::new(per_second);
            for index in (0..1_000_000).step_by(997) {
                assert_eq!(schedule.due(schedule.time_of(index)), index + 1, "{per_second} {index}");
            }
        }
    }
}
