//! When a network's task does something although nothing happens.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is set again only to ring earlier. It may ring too early, but never late.
///
/// Setting a timer to ring before all others costs a system call: the runtime's thread could be waiting for a later one.
/// Deadlines that move on with each change would cost one with each change.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    pub(super) async fn ring_by(&mut self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            match &mut self.0 {
                Some(set) if set.deadline() <= deadline => {}
                Some(set) => set.as_mut().reset(deadline),
                None => self.0 = Some(Box::pin(sleep_until(deadline))),
            }
        }
        match &mut self.0 {
            Some(set) => set.as_mut().await,
            None => pending().await,
        }
        self.0 = None;
    }
}

/// A pause that grows.
#[derive(Clone, Copy)]
pub(super) struct Pause {
    pub(super) first: Duration,
    pub(super) last: Duration,
}

/// Attempts at something that fails, with growing pauses between them.
pub(super) struct Attempts {
    pause: Pause,
    pub(super) count: u32,
    /// When the next one is due; none while the last one has not failed.
    pub(super) due: Option<Instant>,
}

impl Attempts {
    pub(super) fn new(pause: Pause) -> Self {
        Self { pause, count: 0, due: None }
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }

    pub(super) fn failed(&mut self) {
        let pause = self.pause.first.saturating_mul(1 << self.count.min(16)).min(self.pause.last);
        self.count = self.count.saturating_add(1);
        self.due = Some(Instant::now() + pause);
    }

    pub(super) fn succeeded(&mut self) {
        self.count = 0;
        self.due = None;
    }
}
