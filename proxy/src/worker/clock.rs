//! Times in few bytes: each connection has several.

use std::time::{Duration, Instant};

/// A moment, in microseconds since the proxy's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(u64);

/// A moment, in tenths of a second since the proxy's start: 13 years of them fit in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

/// A time of at most 71 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Microseconds(u32);

impl Moment {
    pub(super) fn at(now: Instant, started: Instant) -> Self {
        Self(u64::try_from((now - started).as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Tick {
    pub(super) fn at(now: Instant, started: Instant) -> Self {
        let since = now - started;
        // For each piece of data that is sent: no division of 128 bits.
        let tenths = since.as_secs() * 10 + u64::from(since.subsec_millis() / 100);
        Self(u32::try_from(tenths).unwrap_or(u32::MAX))
    }

    pub(super) fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u32::try_from(time.as_millis() / 100).unwrap_or(u32::MAX)))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::from(self.0.saturating_sub(earlier.0)) * 100)
    }
}

impl From<Duration> for Microseconds {
    fn from(time: Duration) -> Self {
        Self(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
    }
}

impl From<Microseconds> for Duration {
    fn from(time: Microseconds) -> Self {
        Self::from_micros(time.0.into())
    }
}
