//! The daemon's API and command line, against a real daemon.
//!
//! Each test runs in namespaces of its process's own, so that nothing of the host is touched and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod authorization;
mod bad_input;
mod command_line;
mod description;
mod fake_proxy;
mod health;
mod lifecycle;
mod metrics;
mod reconciling;
#[path = "../support/mod.rs"]
mod support;

ringlb_netns::isolate_before_main!();
