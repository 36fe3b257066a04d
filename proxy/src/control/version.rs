//! Which versions of the protocol an end of a control channel speaks, so that a daemon and a proxy of neighbouring versions
//! understand each other.
//!
//! A packet says in its header which version it is of. A proxy greets every connection in the oldest version that it speaks, and
//! answers each request in the version that the request has. A daemon that speaks a newer version than that of the greeting asks
//! for an introduction in its newest one ([`Request::Introduce`]): a proxy that knows that version answers, and an older one
//! closes the connection, and is spoken with in the version of its greeting from then on.
//!
//! What messages look like in one version stays as it is in the next. A new version adds messages at the ends of the lists of
//! requests and replies; what is to be said in addition is a message of its own, and whoever does not get it has a default for
//! it. So all that an older end says can be read by a newer one, and the newer one must only know what not to say
//! ([`Message::since`]).
//!
//! [`Request::Introduce`]: super::message::Request::Introduce

use super::message::{Reply, Request};
use std::str::FromStr;
use thiserror::Error;

/// The newest version that this program speaks.
pub const PROTOCOL_VERSION: u16 = 5;
/// The oldest one: the version before.
pub const OLDEST_VERSION: u16 = PROTOCOL_VERSION - 1;

/// The versions that an end speaks: all up to a newest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    most: u16,
}

/// The text names no version that can be spoken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no version of the control protocol that this program speaks: {OLDEST_VERSION} to {PROTOCOL_VERSION}")]
pub struct VersionError(String);

impl Versions {
    /// The oldest.
    #[must_use]
    pub fn least(self) -> u16 {
        OLDEST_VERSION
    }

    /// The newest.
    #[must_use]
    pub fn most(self) -> u16 {
        self.most
    }

    /// Whether that version is among them.
    #[must_use]
    pub fn contains(self, version: u16) -> bool {
        (self.least()..=self.most).contains(&version)
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self { most: PROTOCOL_VERSION }
    }
}

impl FromStr for Versions {
    type Err = VersionError;

    /// The newest one, as a number.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let most = text.parse().ok().filter(|most| Self::default().contains(*most));
        most.map(|most| Self { most }).ok_or_else(|| VersionError(text.to_owned()))
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.most.fmt(formatter)
    }
}

/// What can be sent over a control channel.
pub trait Message: serde::Serialize {
    /// The first version that has it.
    fn since(&self) -> u16;
}

impl Message for Request {
    fn since(&self) -> u16 {
        match self {
            Self::Introduce
            | Self::AwaitSessions
            | Self::ReceiveDatagrams
            | Self::Retire { .. }
            | Self::Digests
            | Self::AwaitBusySessions
            | Self::PassSessions(_) => 5,
            _ => OLDEST_VERSION,
        }
    }
}

impl Message for Reply {
    fn since(&self) -> u16 {
        match self {
            Self::Introduction(_) | Self::Retired(_) | Self::Digests(_) | Self::SessionsAreBusy(_) => 5,
            _ => OLDEST_VERSION,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_are_spoken_are_named() {
        let older: Versions = OLDEST_VERSION.to_string().parse().unwrap();
        assert_eq!((older.least(), older.most()), (OLDEST_VERSION, OLDEST_VERSION));
        assert!(!older.contains(PROTOCOL_VERSION) && Versions::default().contains(OLDEST_VERSION));
        assert_eq!(Versions::default().to_string().parse(), Ok(Versions::default()));
        for text in ["", "0", "3", "6", "-4", "new"] {
            assert!(text.parse::<Versions>().unwrap_err().to_string().contains("4 to 5"), "{text}");
        }
    }
}
