//! How a connection ended, in two letters, after HAProxy's "Session state at disconnection" (configuration manual, 8.5),
//! for connections of which nothing is known but their bytes.
//!
//! The first letter says who ended it, the second one what it was doing:
//!
//! | first | ended by |
//! |---|---|
//! | `-` | both sides, each of which said that it was done |
//! | `C` | a reset from the client |
//! | `S` | the backend: a reset, or it refused or could not be reached |
//! | `s` | no answer from the backend within the connect timeout, or no place at one within the queue's |
//! | `c` | the idle timeout, or a PROXY protocol header that did not come in time |
//! | `P` | the proxy, which has no service or no eligible backend, may not try another one, or does not let the client in |
//! | `R` | a shortage of the proxy's: descriptors, source ports or memory |
//! | `D` | the removal of its backend or service |
//! | `K` | its backend's drain deadline, its maximum lifetime, or the end of the proxy |
//!
//! | second | while |
//! |---|---|
//! | `-` | nothing was left to do |
//! | `R` | its PROXY protocol header was being read |
//! | `Q` | it waited for a place at a backend, or could not |
//! | `C` | it was let in, or being connected to a backend |
//! | `D` | both directions were open |
//! | `L` | one side had said that it was done: the last data of the other one was under way |

use super::Ending;
use crate::admission::Refusal;
use std::fmt;

/// The two letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TerminationCode(char, char);

/// Why the proxy ended a connection, or found no backend for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// There is no service with the address that the client connected to.
    NoService,
    /// There is no eligible backend.
    NoBackend,
    /// The last attempt was refused or its backend could not be reached.
    Refused,
    /// The last attempt took too long.
    TimedOut,
    /// No further attempt was allowed.
    RetriesDenied,
    /// It was not let in.
    NotAdmitted(Refusal),
    /// Descriptors, source ports or memory were short.
    Shortage,
    /// Its backend or service was removed.
    Removed,
    /// Its backend's drain deadline passed.
    Drained,
    /// It was idle for too long.
    Idle,
    /// It reached its maximum lifetime.
    Lifetime,
    /// The proxy ends.
    Shutdown,
}

/// What a connection was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The client's header was being read.
    Header,
    /// It was being connected.
    Connecting,
    /// Both directions were open.
    Data,
    /// One side was done.
    LastData,
}

impl TerminationCode {
    /// The code of a connection that ended so. `cause` is the last one that was noted.
    #[must_use]
    pub fn new(ending: Ending, cause: Option<Cause>, stage: Stage) -> Self {
        let by = match (ending, cause) {
            (Ending::Completed, _) => return Self('-', '-'),
            (Ending::ClientReset, _) => 'C',
            (Ending::BackendReset, _) => 'S',
            (Ending::NoBackend | Ending::Refused | Ending::Aborted, Some(cause)) => cause.letter(),
            (Ending::NoBackend | Ending::Refused | Ending::Aborted, None) => 'P',
        };
        let doing = match stage {
            Stage::Header => 'R',
            Stage::Connecting if cause.is_some_and(Cause::is_of_queue) => 'Q',
            Stage::Connecting => 'C',
            Stage::Data => 'D',
            Stage::LastData => 'L',
        };
        Self(by, doing)
    }
}

impl Cause {
    fn is_of_queue(self) -> bool {
        matches!(self, Self::NotAdmitted(Refusal::BackendsFull | Refusal::QueueFull | Refusal::QueueTimeout))
    }

    fn letter(self) -> char {
        match self {
            Self::NotAdmitted(Refusal::QueueTimeout) => 's',
            Self::NotAdmitted(Refusal::HeaderTimeout) => 'c',
            Self::NoService | Self::NoBackend | Self::RetriesDenied | Self::NotAdmitted(_) => 'P',
            Self::Refused => 'S',
            Self::TimedOut => 's',
            Self::Shortage => 'R',
            Self::Removed => 'D',
            Self::Drained | Self::Lifetime | Self::Shutdown => 'K',
            Self::Idle => 'c',
        }
    }
}

impl fmt::Display for TerminationCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_who_and_when() {
        let code = |ending, cause, stage| TerminationCode::new(ending, cause, stage).to_string();
        assert_eq!(code(Ending::Completed, Some(Cause::Refused), Stage::LastData), "--");
        assert_eq!(code(Ending::ClientReset, Some(Cause::Refused), Stage::Data), "CD");
        assert_eq!(code(Ending::BackendReset, None, Stage::LastData), "SL");
        assert_eq!(code(Ending::NoBackend, Some(Cause::TimedOut), Stage::Connecting), "sC");
        assert_eq!(code(Ending::NoBackend, Some(Cause::Refused), Stage::Connecting), "SC");
        assert_eq!(code(Ending::NoBackend, Some(Cause::NoService), Stage::Connecting), "PC");
        assert_eq!(code(Ending::Aborted, Some(Cause::Removed), Stage::Data), "DD");
        assert_eq!(code(Ending::Aborted, Some(Cause::Lifetime), Stage::Data), "KD");
        assert_eq!(code(Ending::Aborted, Some(Cause::Idle), Stage::LastData), "cL");
        let refused = |refusal, stage| code(Ending::Refused, Some(Cause::NotAdmitted(refusal)), stage);
        assert_eq!(refused(Refusal::Denied, Stage::Connecting), "PC");
        assert_eq!(refused(Refusal::QueueTimeout, Stage::Connecting), "sQ");
        assert_eq!(refused(Refusal::BackendsFull, Stage::Connecting), "PQ");
        assert_eq!(refused(Refusal::HeaderInvalid, Stage::Header), "PR");
        assert_eq!(refused(Refusal::HeaderTimeout, Stage::Header), "cR");
    }
}
