//! Leaving a backend out for a while because it could not be reached.
//!
//! **How long.** The n-th ejection lasts n times the base, at most the longest time (but no less than the base, if that is
//! longer), and up to a quarter more by chance, so
//! that backends that were ejected together do not all come back together. n counts one down for each base time that the
//! backend stays in use after an ejection: one that fails now and then starts at the bottom again, one that keeps failing
//! climbs.
//!
//! **How many.** Of n usable backends at most the largest integer within the service's largest share is ejected at a time,
//! but one of two or more always may be. A service's only backend is never ejected: there is nothing better.

use crate::control::settings::Ejection;
use std::time::{Duration, Instant};

/// What is added to an ejection by chance, as a share of it.
const JITTER: f64 = 0.25;

/// How many of a service's usable backends may be ejected at a time.
#[must_use]
pub fn most_ejected(usable: usize, settings: &Ejection) -> usize {
    match usable {
        0 | 1 => 0,
        usable => (usable * usize::from(settings.max_share.0) / 100).max(1),
    }
}

/// A backend's ejections.
#[derive(Debug, Default)]
pub struct Ejections {
    /// How many base times the last one was worth.
    times: u32,
    state: State,
    /// How many there were in all.
    count: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Never,
    Until(Instant),
    EndedAt(Instant),
}

impl Ejections {
    /// Ejects the backend; `chance` is a random number from 0 to 1. Gives the time that it lasts.
    pub fn begin(&mut self, settings: &Ejection, now: Instant, chance: f64) -> Duration {
        self.times = self.times_left(settings, now).saturating_add(1);
        self.count += 1;
        let plain = settings.base.0.saturating_mul(self.times).min(settings.longest.0.max(settings.base.0));
        let lasting = plain.mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0));
        self.state = State::Until(now + lasting);
        lasting
    }

    /// Ends the ejection if there is one, and its time has come.
    pub fn end_if_over(&mut self, now: Instant) -> bool {
        let over = self.until().is_some_and(|until| until <= now);
        if over {
            self.end(now);
        }
        over
    }

    /// Ends the ejection if there is one.
    pub fn end(&mut self, now: Instant) {
        if self.until().is_some() {
            self.state = State::EndedAt(now);
        }
    }

    /// When the ejection ends; none if there is none.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        match self.state {
            State::Until(until) => Some(until),
            State::Never | State::EndedAt(_) => None,
        }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What is left of the number of times after the time since the last ejection.
    fn times_left(&self, settings: &Ejection, now: Instant) -> u32 {
        match self.state {
            State::EndedAt(end) => {
                let passed = now.saturating_duration_since(end).as_nanos();
                let forgiven = passed / settings.base.0.as_nanos().max(1);
                self.times.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
            }
            State::Never | State::Until(_) => self.times,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::settings::{EjectionBase, EjectionLongest, EjectionShare};
    use proptest::prelude::*;

    fn settings(base: u64, longest: u64) -> Ejection {
        let seconds = Duration::from_secs;
        Ejection {
            base: EjectionBase(seconds(base)),
            longest: EjectionLongest(seconds(longest)),
            ..Ejection::default()
        }
    }

    #[test]
    fn each_ejection_in_short_order_lasts_longer() {
        let settings = settings(10, 35);
        let mut ejections = Ejections::default();
        let mut now = Instant::now();
        for seconds in [10, 20, 30, 35, 35] {
            assert_eq!(ejections.begin(&settings, now, 0.0), Duration::from_secs(seconds));
            now += Duration::from_secs(seconds);
            assert!(!ejections.end_if_over(now - Duration::from_nanos(1)));
            assert!(ejections.end_if_over(now) && ejections.until().is_none());
            now += Duration::from_secs(9);
        }
        // Five times, less three for three base times in use, and one more.
        now += Duration::from_secs(3 * 10 - 9);
        assert_eq!(ejections.begin(&settings, now, 0.0), Duration::from_secs(30));
        ejections.end(now);
        assert_eq!(ejections.begin(&settings, now + Duration::from_secs(1_000), 0.0), Duration::from_secs(10));
        assert_eq!(ejections.count(), 7);
    }

    proptest! {
        /// Whatever comes: an ejection lasts between the base and the longest time (the base if that is longer), and less than
        /// a quarter more.
        #[test]
        fn an_ejection_is_bounded(
            base in 1u64..100, longest in 1u64..1_000, waits in prop::collection::vec((0u64..2_000, 0.0f64..1.0), 1..30),
        ) {
            let settings = settings(base, longest);
            let mut ejections = Ejections::default();
            let mut now = Instant::now();
            for (wait, chance) in waits {
                let lasting = ejections.begin(&settings, now, chance).as_secs_f64();
                prop_assert!(lasting >= base as f64);
                prop_assert!(lasting <= longest.max(base) as f64 * 1.25);
                prop_assert_eq!(ejections.until().is_some(), true);
                now += Duration::from_secs(wait);
                ejections.end(now);
            }
        }

        /// At most the share, but one of several; never all of them with a share below 100 %.
        #[test]
        fn the_number_is_bounded(usable in 0usize..1_000, share in 1u16..=100) {
            let settings = Ejection { max_share: EjectionShare(share), ..Ejection::default() };
            let most = most_ejected(usable, &settings);
            prop_assert!(most * 100 <= usable * usize::from(share) || (most == 1 && usable > 1));
            prop_assert!((most + 1) * 100 > usable * usize::from(share));
            prop_assert_eq!(most == 0, usable < 2);
            prop_assert!(share == 100 || most < usable.max(1));
        }
    }
}
