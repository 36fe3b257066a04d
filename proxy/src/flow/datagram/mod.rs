//! UDP: what a session does next, and which sessions there are.
//!
//! A *session* is all that one client's address and port sends to one VIP:port, until it has been idle for a while. It
//! stays with the backend that its first datagram was given to. Pure, like all of `flow`: times are told, not looked up.

mod session;
mod sessions;

pub use session::{Ending, Event, Operation, Session};
pub use sessions::Sessions;

#[cfg(test)]
mod simulation;
