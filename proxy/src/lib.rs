//! The data plane of one ringlb network.

pub mod control;
