//! The servers and the load against each other and against servers that misbehave, over real sockets on loopback.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod bench;
mod command;
mod faults;
mod load;
mod namespace;
mod open_loop;
mod scale;
mod server;
mod support;
mod udp_faults;
mod udp_load;
mod udp_server;

// Root or not, the tests are root in namespaces of their own, where they may make further ones.
ringlb_netns::isolate_before_main!();
