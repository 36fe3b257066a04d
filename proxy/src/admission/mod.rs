//! Who may come in, and when: everything that says yes or no before a backend is picked.
//!
//! [`AccessList`] (which clients), [`RateLimiter`] (how often one client), [`ClientConnections`] (how many at once of one
//! client), [`Places`] (how many at once in all), [`WaitingQueue`] (who waits for a place), [`RetryBudget`] (whether one
//! more attempt is affordable). All pure: time is handed in, as the time since any fixed moment of a clock that never goes
//! back; what to do about a no is the caller's. What several data threads share is exact across them: a limit is never
//! exceeded because two threads asked at once. Limits are handed in with each question, so that a change of a setting
//! counts at once and loses no count.

mod access;
mod client;
mod client_connections;
mod places;
mod prefixes;
mod rate;
mod retry_budget;
mod waiting;

pub use access::AccessList;
pub use client::Client;
pub use client_connections::ClientConnections;
pub use places::Places;
pub use prefixes::PrefixSet;
pub use rate::{MAX_RATE, RateDecision, RateLimit, RateLimiter};
pub use retry_budget::{RetryBudget, RetryLimit};
pub use waiting::{QueueFull, Ticket, WaitingQueue};

/// Which service a count belongs to. The same number means the same service as long as anything is counted for it.
pub type Scope = u64;
