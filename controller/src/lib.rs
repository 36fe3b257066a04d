//! The ringlb node daemon and command line, as a library.
//!
//! Data flows one way: [`source`] → [`model`] → [`reconcile`] → control message. A source says what should be; the model
//! says whether that is valid; for each network one task makes it so, and alone tells the network's proxy.
#![forbid(unsafe_code)]

pub mod admin;
mod cleanup;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod demo;
mod hash;
pub mod model;
pub mod reconcile;
mod run_dir;
pub mod source;
