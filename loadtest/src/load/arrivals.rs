//! Which request is begun when.
//!
//! In a closed loop a worker that asks for the next request gets it at once. In an open loop requests become due by
//! the schedule, whether or not a worker is free; those that wait are no more than a number here, and each keeps the
//! time at which it should have begun.

use super::schedule::Schedule;
use crate::record::SharedRecorder;
use crate::uring;
use std::cell::Cell;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Shorter sleeps cost more than they bring; requests that are due within one are begun together after it.
const SHORTEST_SLEEP: Duration = Duration::from_micros(20);
/// A semaphore takes no more permits at once than it can hold; nobody will see so many requests wait.
const MOST_DUE_AT_ONCE: u64 = 1 << 20;

/// A request to begin now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// Its number, from 0.
    pub(super) index: u64,
    /// When it should have begun.
    pub(super) intended: Instant,
}

/// Hands out requests to the workers of one run.
#[derive(Debug)]
pub(super) struct Arrivals {
    schedule: Option<Schedule>,
    limit: u64,
    started: Instant,
    begun: Cell<u64>,
    released: Cell<u64>,
    due: Semaphore,
    stopped: Cell<bool>,
}

impl Arrivals {
    /// Starts the clock.
    pub(super) fn new(rate: Option<f64>, limit: Option<u64>) -> Self {
        Self {
            schedule: rate.map(Schedule::new),
            limit: limit.unwrap_or(u64::MAX),
            started: Instant::now(),
            begun: Cell::new(0),
            released: Cell::new(0),
            due: Semaphore::new(0),
            stopped: Cell::new(false),
        }
    }

    /// When the clock was started.
    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    /// The next request, as soon as it is due. `None`: there is none any more.
    pub(super) async fn next(&self) -> Option<Arrival> {
        if self.stopped() || self.begun.get() >= self.limit {
            return None;
        }
        let intended = match self.schedule {
            None => Instant::now(),
            Some(schedule) => {
                // Closed at the end of the run, which fails those who wait here.
                self.due.acquire().await.ok()?.forget();
                if self.stopped() {
                    return None;
                }
                self.started + schedule.time_of(self.begun.get())
            }
        };
        let index = self.begun.get();
        self.begun.set(index + 1);
        if index + 1 == self.limit {
            // Workers that still wait would wait for ever.
            self.due.close();
        }
        Some(Arrival { index, intended })
    }

    /// Makes requests due by the schedule, until all are or the run is stopped. Does nothing in a closed loop.
    pub(super) async fn pace(&self, recorder: &SharedRecorder) {
        let Some(schedule) = self.schedule else { return };
        while !self.stopped() {
            let released = self.released.get();
            let target = schedule.due(self.started.elapsed()).min(self.limit).min(released + MOST_DUE_AT_ONCE);
            if target > released {
                self.due.add_permits(usize::try_from(target - released).unwrap_or_default());
                self.released.set(target);
                recorder.lock().intended(target);
            }
            if target == self.limit {
                return;
            }
            let next = schedule.time_of(target).saturating_sub(self.started.elapsed());
            uring::sleep(next.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)).await;
        }
    }

    /// Begins no more requests.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        self.due.close();
    }

    /// Whether no more requests are begun because the run was ended, not because all were begun.
    pub(super) const fn stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Requests that were due and never begun.
    pub(super) const fn not_begun(&self) -> u64 {
        self.released.get().saturating_sub(self.begun.get())
    }
}

/// So that a stopped run is noticed although a dropped timer goes on in the kernel.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);
