//! TCP: connections and what is done over them.

pub(super) mod bulk;
pub(super) mod connect;
pub(super) mod pingpong;

mod connection;
mod exchange;
