//! The whole system: a real daemon, real proxies, real namespaces, real programs.
//!
//! Each test runs in namespaces of its process's own, so that nothing of the host is touched and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod atomic;
mod balance;
mod burst;
mod changes;
mod cleanup;
mod demo;
#[path = "../support/exposition.rs"]
mod exposition;
mod failure;
mod families;
mod health;
mod ipvs;
mod metrics;
mod node;
mod observed;
mod privileges;
mod programs;
mod settings;
mod short_connections;
mod survival;
mod system_calls;
mod takeover;
mod tcp_past_the_proxy;
mod udp;
mod udp_past_the_proxy;
mod upgrade;
mod vip;

ringlb_netns::isolate_before_main!();
