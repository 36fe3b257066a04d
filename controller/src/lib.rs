//! The ringlb node daemon and command line, as a library.
#![forbid(unsafe_code)]

pub mod model;
pub mod reconcile;
