//! Which connections get a line in the access log.

use super::group::setting_group;
use super::number::number_setting;
use serde::{Deserialize, Serialize};

/// A line for each connection that ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct AccessLog {
    /// Whether there are lines, and how they are written.
    pub format: AccessLogFormat,
    /// One of so many connections gets a line, by chance.
    pub sample: AccessLogSample,
}

setting_group!(AccessLog);

/// How a line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessLogFormat {
    /// Not at all.
    #[default]
    Off,
    /// As `key=value` fields.
    Text,
    /// As a JSON object.
    Json,
}

number_setting! {
    /// 1 (all connections) to 1,000,000.
    AccessLogSample(u32), 1 to 1000000, default 1
}
