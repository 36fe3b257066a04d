//! The share of a backend that has just become usable.
//!
//! It rises in a straight line from 0 to its whole weight over the service's slow start time, in steps of 5 % of the weight
//! so that a service is made anew at most twenty times. Between two steps it stays below the line; as nothing comes of a share
//! of 0, it is never less than one step.

use crate::control::message::ServiceSettings;
use crate::table::WARM;
use std::time::Duration;

/// The share, in percent, that a step adds.
const STEP: u8 = 5;
/// The share at the beginning.
pub const COLD: u8 = STEP;

/// Whether shares rise slowly in a service.
#[must_use]
pub fn is_on(settings: &ServiceSettings) -> bool {
    !settings.slow_start.0.is_zero()
}

/// The share, in percent of the weight, after that much of the whole time.
#[must_use]
pub fn warmth(passed: Duration, whole: Duration) -> u8 {
    if passed >= whole {
        return WARM;
    }
    // Below 1, as `passed` is smaller.
    let steps = passed.as_nanos() * u128::from(WARM / STEP) / whole.as_nanos();
    u8::try_from(steps).map_or(WARM, |steps| (steps * STEP).max(COLD))
}

/// From the beginning to the next step after that much time; `None` if there is no further one.
#[must_use]
pub fn next_step(passed: Duration, whole: Duration) -> Option<Duration> {
    if passed >= whole {
        return None;
    }
    let steps = u128::from(WARM / STEP);
    let next = passed.as_nanos() * steps / whole.as_nanos() + 1;
    let nanoseconds = (next * whole.as_nanos()).div_ceil(steps);
    Some(u64::try_from(nanoseconds).map_or(whole, Duration::from_nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The share never falls, is at most the line and less than a step below it (but for the first step), and what
        /// `next_step` names is when it changes: the steps lead from the beginning to the whole share, 20 of them at most.
        #[test]
        fn the_share_follows_the_line(milliseconds in 1u64..3_600_000, part in 0.0f64..1.0) {
            let whole = Duration::from_millis(milliseconds);
            let at = whole.mul_f64(part);
            let line = 100.0 * at.as_secs_f64() / whole.as_secs_f64();
            let share = f64::from(warmth(at, whole));
            prop_assert!(share <= line.max(5.0) + 1e-6, "{share} > {line}");
            prop_assert!(share > line - 5.0 - 1e-6, "{share} < {line}");

            let (mut now, mut before, mut steps) = (Duration::ZERO, warmth(Duration::ZERO, whole), 0);
            prop_assert_eq!(before, COLD);
            while let Some(next) = next_step(now, whole) {
                prop_assert!(next > now);
                prop_assert_eq!(warmth(next - Duration::from_nanos(1), whole), before);
                (now, before) = (next, warmth(next, whole));
                steps += 1;
            }
            prop_assert_eq!(before, WARM);
            prop_assert!(steps <= 20);
        }
    }

    #[test]
    fn without_a_time_the_share_is_whole_at_once() {
        assert_eq!(warmth(Duration::ZERO, Duration::ZERO), WARM);
        assert_eq!(next_step(Duration::ZERO, Duration::ZERO), None);
    }
}
