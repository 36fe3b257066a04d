//! What `bench` and `scale` measure with: programs and their costs, the API, system calls, statistics, and the files that
//! results go to.

pub(crate) mod accounting;
pub(crate) mod api;
pub(crate) mod containers;
pub(crate) mod document;
mod error;
pub(crate) mod files;
pub(crate) mod host;
pub(crate) mod numbers;
pub(crate) mod process;
pub(crate) mod processors;
pub(crate) mod programs;
pub(crate) mod statistics;
pub(crate) mod svg;
pub(crate) mod system_calls;

pub(crate) use error::BenchError;
