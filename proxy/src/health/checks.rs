//! What a backend's checks say about it.
//!
//! A backend is healthy until a check says otherwise: whoever adds a backend means it to be used, and a service whose
//! backends are all new must not be without any. But as long as it has not passed one check, the first failure is enough.

use crate::control::settings::HealthCheck;

/// What checks have said so far.
#[derive(Debug, Default)]
pub struct Checks {
    unhealthy: bool,
    /// Whether a check was ever passed, or enough of them failed: whether it is known how the backend is.
    known: bool,
    /// How many checks in a row said the opposite of what holds.
    against: u16,
    failures: u64,
}

impl Checks {
    /// Takes note of a check.
    pub fn note(&mut self, passed: bool, settings: &HealthCheck) {
        self.failures += u64::from(!passed);
        if passed != self.unhealthy {
            self.against = 0;
            self.known = true;
            return;
        }
        self.against += 1;
        let needed = match (passed, self.known) {
            (true, _) => settings.rise.0,
            (false, true) => settings.fall.0,
            (false, false) => 1,
        };
        if self.against >= needed {
            self.unhealthy = !passed;
            self.against = 0;
            self.known = true;
        }
    }

    /// Whether the backend does not pass its checks.
    #[must_use]
    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy
    }

    /// How many checks failed in all.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Begins anew, as other checks are made from now on. Only the number of failures stays.
    pub fn reset(&mut self) {
        *self = Self { failures: self.failures, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::settings::{CheckFall, CheckRise};
    use proptest::prelude::*;

    fn settings(rise: u16, fall: u16) -> HealthCheck {
        HealthCheck { rise: CheckRise(rise), fall: CheckFall(fall), ..HealthCheck::default() }
    }

    #[test]
    fn it_takes_some_to_fall_and_some_to_rise() {
        let settings = settings(2, 3);
        let mut checks = Checks::default();
        let mut after = |passed| {
            checks.note(passed, &settings);
            checks.is_unhealthy()
        };
        assert_eq!([true, false, false, true, false, false].map(&mut after), [false; 6]);
        assert_eq!([false, true, false, true].map(&mut after), [true; 4]);
        assert!(!after(true));
        assert_eq!(checks.failures(), 6);
    }

    #[test]
    fn a_new_one_has_no_credit() {
        let mut checks = Checks::default();
        checks.note(false, &settings(2, 3));
        assert!(checks.is_unhealthy());
        checks.reset();
        assert!(!checks.is_unhealthy() && checks.failures() == 1);
    }

    proptest! {
        /// After any history the verdict is that of the last run of equal results that was long enough.
        #[test]
        fn the_verdict_is_that_of_the_last_long_run(
            rise in 1u16..5, fall in 1u16..5, results in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let settings = settings(rise, fall);
            let mut checks = Checks::default();
            let (mut run, mut last, mut unhealthy) = (0, None, false);
            for (place, passed) in results.into_iter().enumerate() {
                run = if last == Some(passed) { run + 1 } else { 1 };
                last = Some(passed);
                if passed && run >= rise {
                    unhealthy = false;
                } else if !passed && (run >= fall || place == 0) {
                    unhealthy = true;
                }
                checks.note(passed, &settings);
                prop_assert_eq!(checks.is_unhealthy(), unhealthy);
            }
        }
    }
}
