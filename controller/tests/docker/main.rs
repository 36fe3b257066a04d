//! Real Docker Engines: one or several nodes on one machine, each an Engine in namespaces of its own, on a wire of the
//! test's own. Needs root.
//!
//! Engines, containers, mounts and namespaces end with the process of the test, however it ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod admin;
mod before;
mod cleanup;
mod client_address;
mod cluster;
mod daemon;
mod dns;
mod engine;
mod failures;
mod feed;
mod held;
mod http;
mod image;
mod labels;
mod lasting;
mod leaving;
mod leftovers;
mod listing;
mod load;
mod machine;
mod many;
mod nodes;
mod packaging;
mod partition;
mod plain;
mod ports;
mod requests;
mod sandbox;
mod state;
mod stops;
mod updates;
mod wait;
mod wire;

ringlb_netns::isolate_before_main!();
