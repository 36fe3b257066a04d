//! Which backends are well. Pure: time and random numbers are passed in.
//!
//! [`ejection`] (what failed attempts to connect mean), [`checks`] (what health checks mean) and [`slow_start`] are about one
//! backend each; [`keeper`] puts them together for a whole table. Only backends that there is something to say about are kept.

pub mod checks;
pub mod ejection;
pub mod keeper;
pub mod slow_start;
