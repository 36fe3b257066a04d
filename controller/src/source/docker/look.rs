//! When something is looked at again.

use std::time::{Duration, Instant};

/// How long observations are collected before they are looked at together.
pub(super) const BURST: Duration = Duration::from_millis(5);

/// One thing that is looked at again and again, never twice at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    due: Instant,
    running: bool,
    /// Whether something happened while it was running, so that what it brings may be old.
    again: bool,
}

impl Look {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, running: false, again: false }
    }

    pub(super) fn hurry(&mut self, now: Instant) {
        if self.running {
            self.again = true;
        } else {
            self.due = self.due.min(now + BURST);
        }
    }

    /// Whether it is to begin now.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let begins = !self.running && now >= self.due;
        if begins {
            (self.running, self.again) = (true, false);
        }
        begins
    }

    pub(super) fn ended(&mut self, now: Instant, next: Duration) {
        self.running = false;
        self.due = now + if std::mem::take(&mut self.again) { BURST } else { next };
    }

    /// When it begins, if nothing happens before.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.running).then_some(self.due)
    }
}
