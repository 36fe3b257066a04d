//! Whether a connection has lasted long enough.
//!
//! Pure: whoever asks brings the times.

use super::termination::Cause;
use crate::control::settings::ServiceSettings;
use std::time::Duration;

/// A connection that has reached its age ends once nothing was sent for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// A connection's times so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    /// Since it was accepted.
    pub lasted: Duration,
    /// Since data was sent to one of its ends.
    pub silent: Duration,
    /// Where in the last tenth of the maximum lifetime it ends: any number, always the same for one connection.
    pub lot: u8,
}

impl Age {
    /// Why the settings of its service end a connection of this age, if they do.
    #[must_use]
    pub fn expiry(self, settings: &ServiceSettings) -> Option<Cause> {
        if settings.idle_timeout.0.is_some_and(|limit| self.silent >= limit) {
            return Some(Cause::Idle);
        }
        let whole = settings.max_lifetime.0?;
        let wanted = whole - whole / 10 + whole / 10 * u32::from(self.lot) / u32::from(u8::MAX);
        let over = self.lasted >= whole || self.lasted >= wanted && self.silent >= PAUSE;
        over.then_some(Cause::Lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::settings::{IdleTimeout, MaxLifetime};
    use proptest::prelude::*;

    fn settings(idle: Option<u64>, lifetime: Option<u64>) -> ServiceSettings {
        ServiceSettings {
            idle_timeout: IdleTimeout(idle.map(Duration::from_secs)),
            max_lifetime: MaxLifetime(lifetime.map(Duration::from_secs)),
            ..ServiceSettings::default()
        }
    }

    proptest! {
        #[test]
        fn by_default_nothing_ends(lasted in any::<u32>(), silent in any::<u32>(), lot in any::<u8>()) {
            let age = Age { lasted: Duration::from_secs(lasted.into()), silent: Duration::from_secs(silent.into()), lot };
            prop_assert_eq!(age.expiry(&ServiceSettings::default()), None);
        }

        #[test]
        fn the_idle_time_is_kept_exactly(limit in 1u64..1_000_000, lasted in 0u64..1_000_000_000, silent in 0u64..1_000_000_000) {
            let age = Age { lasted: Duration::from_millis(lasted), silent: Duration::from_millis(silent), lot: 0 };
            let idle = silent >= limit * 1000;
            prop_assert_eq!(age.expiry(&settings(Some(limit), None)) == Some(Cause::Idle), idle);
        }

        /// Never before nine tenths; always at the end; in between only in a pause; and once it ends, it ends later too.
        #[test]
        fn a_lifetime_ends_in_its_last_tenth(
            limit in 1u64..1_000_000,
            lasted in 0u64..2_000_000_000,
            silent in 0u64..5_000,
            lot in any::<u8>(),
        ) {
            let limits = settings(None, Some(limit));
            let age = |lasted, silent| Age { lasted: Duration::from_millis(lasted), silent: Duration::from_millis(silent), lot };
            let ended = age(lasted, silent).expiry(&limits).is_some();
            prop_assert!(!ended || lasted >= limit * 900);
            prop_assert!(ended || lasted < limit * 1000);
            prop_assert!(!ended || silent >= 1000 || lasted >= limit * 1000);
            prop_assert!(!ended || age(lasted + 1, silent).expiry(&limits).is_some());
        }
    }

    #[test]
    fn lots_spread_over_the_last_tenth() {
        let limits = settings(None, Some(1000));
        let end = |lot| {
            (900..=1000).find(|&lasted| {
                let age = Age { lasted: Duration::from_secs(lasted), silent: Duration::from_secs(1), lot };
                age.expiry(&limits).is_some()
            })
        };
        assert_eq!((end(0), end(51), end(255)), (Some(900), Some(920), Some(1000)));
    }
}
