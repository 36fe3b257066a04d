//! How backends are asked whether they are well.

use super::group::setting_group;
use super::number::number_setting;
use super::{CheckInterval, CheckTimeout};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The longest text of a check, in bytes.
pub const MAX_CHECK_TEXT: usize = 1024;

/// Active health: a connection to each backend at an interval, with an exchange of text if there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct HealthCheck {
    /// The backend's port; 0 for no checks.
    pub port: CheckPort,
    /// What is sent once the connection is there; empty for nothing.
    pub send: CheckText,
    /// What must be in the answer; empty if the connection is enough.
    pub expect: CheckText,
    /// The time from one check's end to the next one's start, on average.
    pub interval: CheckInterval,
    /// How long a whole check may take.
    pub timeout: CheckTimeout,
    /// After how many passed checks in a row an unhealthy backend is healthy again.
    pub rise: CheckRise,
    /// After how many failed checks in a row a healthy backend is unhealthy.
    pub fall: CheckFall,
}

setting_group!(HealthCheck);

impl HealthCheck {
    /// Whether there are checks.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.port.0 > 0
    }

    /// Whether the fields go together, each of them being right by itself.
    ///
    /// # Errors
    /// The one that does not, by its path, and the reason.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let needs_port = |text: &CheckText| !self.is_on() && !text.0.is_empty();
        if needs_port(&self.send) || needs_port(&self.expect) {
            return Err(("health_check.port", "is needed for a check with `send` or `expect`".to_owned()));
        }
        Ok(())
    }
}

/// A text of a check: at most [`MAX_CHECK_TEXT`] bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct CheckText(pub String);

impl<'de> Deserialize<'de> for CheckText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = CheckText;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a text of at most {MAX_CHECK_TEXT} bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<CheckText, E> {
                if text.len() > MAX_CHECK_TEXT {
                    return Err(E::invalid_length(text.len(), &self));
                }
                Ok(CheckText(text.to_owned()))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

number_setting! {
    /// The port that checks connect to; 0 for no checks.
    CheckPort(u16), 0 to 65535, default 0
}

number_setting! {
    /// After how many passed checks in a row an unhealthy backend is healthy again: 1 to 100.
    CheckRise(u16), 1 to 100, default 2
}

number_setting! {
    /// After how many failed checks in a row a healthy backend is unhealthy: 1 to 100.
    CheckFall(u16), 1 to 100, default 3
}
