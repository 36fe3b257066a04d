//! The data plane of one ringlb network.

pub mod balance;
pub mod control;
pub mod table;
