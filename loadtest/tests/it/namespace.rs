//! The function that is called first on a thread decides where the sockets are.

use crate::support::{options, run, server};
use nix::sched::{CloneFlags, unshare};
use ringlb_load::{ErrorKind, Load, Server, ServerOptions, Workload};
use std::io;

/// Moves the calling thread to an empty network namespace.
fn leave() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWNET)?)
}

#[test]
fn a_load_connects_from_the_namespace_that_its_thread_entered() {
    let server = server("a");
    let mut options = options(&[&server], Workload::Connect);
    options.requests = Some(3);
    // Loopback is down in a new namespace.
    let report = Load::start_in(options.clone(), leave).unwrap().join().unwrap();
    assert_eq!(report.failures_of(ErrorKind::Unreachable), 3, "{report}");
    assert_eq!(server.counters().accepted, 0);
    // This thread has not moved.
    assert_eq!(run(options).requests, 3);
}

#[test]
fn a_server_listens_in_the_namespace_that_its_thread_entered() {
    let here = server("here");
    let mut there_options = ServerOptions::new("there".parse().unwrap());
    there_options.listen = here.addresses().to_vec();
    // The same address, which is only free elsewhere.
    let there = Server::start_in(there_options, leave).unwrap();
    assert_eq!(there.addresses(), here.addresses());
}
