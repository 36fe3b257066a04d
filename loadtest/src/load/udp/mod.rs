//! UDP: clients with a port each, and what they do.

pub(super) mod bulk;
pub(super) mod connect;
pub(super) mod context;
pub(super) mod pingpong;
pub(super) mod socket;

mod answers;
mod client;
