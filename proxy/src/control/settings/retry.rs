//! How often an attempt to connect is made again.

use super::group::setting_group;
use super::number::number_setting;
use serde::{Deserialize, Serialize};

number_setting! {
    /// How many other backends are tried for a connection after the first: 0 to 10.
    Retries(u8), 0 to 10, default 2
}

/// How many retries all connections of a service may have together, so that a service whose backends fail does not put
/// many times its load on those that are left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct RetryBudget {
    /// Of the connections of the last ten seconds, so many percent may be retried.
    pub percent: RetryPercent,
    /// And so many a second in any case.
    pub minimum: RetryMinimum,
}

setting_group!(RetryBudget);

number_setting! {
    /// 0 to 1,000 percent.
    RetryPercent(u16), 0 to 1000, default 20
}

number_setting! {
    /// 0 to 65,535 a second.
    RetryMinimum(u16), 0 to 65535, default 10
}
