//! Against the kernel, in namespaces that end with this process. As root and as an ordinary user (see `unprivileged`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers fail the test")]

mod clearing;
mod connection_map;
mod datagrams;
mod fabric;
mod leftovers;
mod links;
mod memory;
mod namespaces;
mod neighbours;
mod programs;
mod sandbox;
mod session_map;
mod shortcuts;
mod steering;
mod support;
mod takeover;
mod unprivileged;

ringlb_netns::isolate_before_main!();
