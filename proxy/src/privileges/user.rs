//! A user of its own for each proxy, so that none can signal or trace another one, touch anybody's file, or use up what the
//! kernel gives each user.

use nix::errno::Errno;
use nix::sys::prctl::set_keepcaps;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use thiserror::Error;

/// The most process ids there can be (`PID_MAX_LIMIT`, include/linux/threads.h).
const MOST_PROCESSES: u32 = 4 << 20;
/// Below are users that people and packages have: numbers of 16 bits.
const LEAST: u32 = 1 << 16;
/// The last user is -1, which the kernel takes for none.
const MOST: u32 = u32::MAX - MOST_PROCESSES;
/// Above all that systemd and container runtimes give out by themselves, and far below the numbers that some programs
/// take for negative ones (<https://systemd.io/UIDS-GIDS/>).
const DEFAULT: u32 = 0x7000_0000;

/// Where the numbers of proxies' users and groups begin: a proxy's is this one and its process id. 0: proxies have the daemon's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstUser(Option<NonZeroU32>);

impl FirstUser {
    /// The user of the process with that id; none if proxies have the daemon's.
    #[must_use]
    pub fn of_process(self, process: u32) -> Option<u32> {
        self.0.map(|first| first.get() + process % MOST_PROCESSES)
    }
}

impl Default for FirstUser {
    fn default() -> Self {
        Self(NonZeroU32::new(DEFAULT))
    }
}

/// The text does not say where proxies' users begin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is neither 0 nor a number from {LEAST} to {MOST}")]
pub struct FirstUserError(String);

impl FromStr for FirstUser {
    type Err = FirstUserError;

    fn from_str(text: &str) -> Result<Self, FirstUserError> {
        match text.parse() {
            Ok(0) => Ok(Self(None)),
            Ok(first @ LEAST..=MOST) => Ok(Self(NonZeroU32::new(first))),
            _ => Err(FirstUserError(text.to_owned())),
        }
    }
}

impl fmt::Display for FirstUser {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(0, NonZeroU32::get).fmt(formatter)
    }
}

/// Whose a proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// Its own: that number.
    Own(u32),
    /// The daemon's, as it was told.
    Daemons,
    /// The daemon's, as the kernel refused another one: an ordinary user has no other, and most user namespaces know few.
    Refused(Errno),
}

impl fmt::Display for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(user) => write!(formatter, "user {user}"),
            Self::Daemons => formatter.write_str("the daemon's user"),
            Self::Refused(errno) => write!(formatter, "the daemon's user (another one is not to be had: {errno})"),
        }
    }
}

/// Gives the process a user and a group of its own and no further groups. What capabilities it may use is kept, but none is
/// effective after it.
pub(super) fn become_own(first: FirstUser) -> User {
    let Some(number) = first.of_process(std::process::id()) else { return User::Daemons };
    let (user, group) = (Uid::from_raw(number), Gid::from_raw(number));
    let change = || {
        set_keepcaps(true)?;
        setgroups(&[])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)
    };
    let changed = change();
    // Without an effect from here on; it cannot fail.
    let _ = set_keepcaps(false);
    changed.map_or_else(User::Refused, |()| User::Own(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_has_a_user_of_its_own() {
        let first: FirstUser = MOST.to_string().parse().unwrap();
        assert_eq!(first.of_process(MOST_PROCESSES - 1), Some(u32::MAX - 1));
        assert_eq!(FirstUser::default().of_process(1), Some(1_879_048_193));
        assert_eq!(FirstUser::default().to_string().parse(), Ok(FirstUser::default()));
        let none: FirstUser = "0".parse().unwrap();
        assert_eq!((none.of_process(7), none.to_string().as_str()), (None, "0"));
        for text in ["", "1", "1000", "65535", "-1", "4290772992", "root"] {
            assert!(text.parse::<FirstUser>().unwrap_err().to_string().contains("from 65536 to 4290772991"), "{text}");
        }
    }
}
