//! Who may come in, and when: everything that says yes or no before a backend is picked.
//!
//! [`Gate`] asks, for each connection: [`AccessList`] (which clients), [`RateLimiter`] (how often one client),
//! [`ClientConnections`] (how many at once of one client), [`Places`] (how many at once in all). Then [`WaitingQueue`] says who
//! waits for a place at a backend, and [`RetryBudget`] whether one more attempt is affordable.
//!
//! All pure: time is handed in, as the time since any fixed moment of a clock that never goes back; what to do about a no
//! is the caller's. What several data threads share is exact across them: a limit is never exceeded because two threads
//! asked at once. Limits are handed in with each question, so that a change of a setting counts at once and loses no
//! count.

use crate::ring::Slot;
use std::sync::atomic::{AtomicU64, Ordering};

mod access;
mod client;
mod client_connections;
mod gate;
mod places;
mod prefixes;
mod queue;
mod rate;
mod retry_budget;

pub use access::AccessList;
pub use client::Client;
pub use client_connections::ClientConnections;
pub use gate::{Admitted, Gate, Refusal};
pub use places::Places;
pub use prefixes::PrefixSet;
pub use queue::{QueueFull, Ticket, WaitingQueue};
pub use rate::{MAX_RATE, RateDecision, RateLimit, RateLimiter};
pub use retry_budget::{RetryBudget, RetryLimit};

/// Which service a count belongs to. The same number means the same service as long as anything is counted for it.
pub type Scope = u64;

/// A number that no other service of this process has had.
#[must_use]
pub fn new_scope() -> Scope {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// A connection that waits in a [`WaitingQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// The data thread that has it, by its place among all.
    pub thread: usize,
    /// By which the thread knows it.
    pub slot: Slot,
}
