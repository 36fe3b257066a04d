//! Programs that people use, through a VIP.

mod http2;
mod idle;
mod nginx;
mod postgresql;
mod proxy_protocol;
mod redis;
mod ssh;
mod streams;

use crate::node::{Container, Node, Process, find};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::net::IpAddr;

const VIP: &str = "10.0.200.1";

fn vip() -> IpAddr {
    VIP.parse().unwrap()
}

fn one_backend() -> (Node, Container, Container) {
    let node = Node::with_network();
    let (backend, client) = (node.container(11), node.container(100));
    node.service("web", vip(), "rr", &[&backend]);
    (node, backend, client)
}

/// Two backends of one service, and a client. The service has every port, so each program takes its usual one.
struct Stage {
    backends: [Container; 2],
    client: Container,
    // Last, so that it is dropped after what the containers use.
    node: Node,
}

impl Stage {
    fn new() -> Self {
        let node = Node::with_network();
        let (backends, client) = ([node.container(11), node.container(12)], node.container(100));
        node.service("programs", vip(), "rr", &backends.each_ref());
        Self { backends, client, node }
    }

    /// How many connections each backend has been given.
    fn connections(&self) -> [u64; 2] {
        let status = self.node.ringlb(&["status"]);
        let backends = find(&status, "backends").unwrap_or_else(|| panic!("no backends in {status:#}"));
        [0, 1].map(|index| backends[index]["connections"].as_u64().unwrap_or_else(|| panic!("{status:#}")))
    }

    /// No connection was lost on the way: each found a backend at the first attempt.
    fn assert_nothing_failed(&self) {
        let status = self.node.ringlb(&["status"]);
        let counters = &status["networks"][0]["connections"];
        for counter in ["refused_at_limit", "no_service", "no_backend", "connect_failures", "retries"] {
            assert_eq!(counters[counter], Value::from(0), "{counter} in {status:#}");
        }
    }
}

/// A server that ends its own child processes, if it is asked to end by the signal that it knows.
struct Server {
    process: Process,
    end: Signal,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.signal(self.end);
        self.process.wait();
    }
}

fn text(output: Vec<u8>) -> String {
    String::from_utf8(output).unwrap()
}

/// The number before `word` in what a program said.
fn number_before(word: &str, said: &str) -> u64 {
    let before = said.split(word).next().filter(|before| before.len() < said.len());
    let number = before.and_then(|before| before.split_whitespace().last()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number before {word:?} in {said}"))
}

/// Bytes that look random and are the same each time.
fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}
