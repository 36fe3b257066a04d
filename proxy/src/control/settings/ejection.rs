//! When a backend that cannot be reached is left out for a while.

use super::group::setting_group;
use super::number::number_setting;
use super::{EjectionBase, EjectionLongest};
use serde::{Deserialize, Serialize};

/// Passive health: what failed attempts to connect mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct Ejection {
    /// After how many failed attempts in a row a backend is ejected; 0 for never.
    pub failures: EjectionFailures,
    /// How long the first ejection lasts. The second in short order lasts twice, the third three times as long, and so on.
    pub base: EjectionBase,
    /// How long an ejection lasts at most; no less than the base, if that is longer.
    pub longest: EjectionLongest,
    /// The largest share of a service's backends that is ejected at a time, in percent. One of several always may be.
    pub max_share: EjectionShare,
}

setting_group!(Ejection);

impl Ejection {
    /// Whether there are ejections.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.failures.0 > 0
    }
}

number_setting! {
    /// After how many failed attempts to connect in a row a backend is ejected: 0 (never) to 1,000.
    EjectionFailures(u16), 0 to 1000, default 5
}

number_setting! {
    /// The largest share of a service's backends, in percent, that is ejected at a time: 1 to 100.
    EjectionShare(u16), 1 to 100, default 50
}
