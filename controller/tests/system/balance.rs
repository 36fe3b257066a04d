//! How requests are shared out.

use crate::node::{Container, Node};
use ringlb_load::{LoadOptions, ServerHandle, ServerOptions, Workload};
use std::net::SocketAddr;
use std::time::Duration;

const TARGET: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 200, 1)), 80);

fn options(connections: usize, requests: u64) -> LoadOptions {
    let mut options = LoadOptions::new(vec![TARGET], Workload::Connect);
    options.connections = connections;
    options.requests = Some(requests);
    options
}

#[test]
fn round_robin_counts_differ_by_at_most_one() {
    let node = Node::with_network();
    let backends: Vec<_> = (11..=13).map(|last| node.container(last)).collect();
    let _servers: Vec<_> = backends.iter().map(|b| b.serve(&b.address.to_string(), 80)).collect();
    let client = node.container(100);
    node.service("web", TARGET.ip(), "rr", &backends.iter().collect::<Vec<_>>());
    let report = client.load(options(16, 10_000)).join().unwrap();
    let counts: Vec<_> = report.backends.iter().map(|backend| backend.requests).collect();
    assert_eq!((report.failures, counts.iter().sum::<u64>(), counts.len()), (0, 10_000, 3), "{report}");
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
}

/// Servers that answer after so many milliseconds each.
fn serve_after(backends: &[Container], delays: [u64; 3]) -> Vec<ServerHandle> {
    let serve = |(backend, delay): (&Container, u64)| {
        let mut options = ServerOptions::new(backend.address.to_string().parse().unwrap());
        options.listen = vec![SocketAddr::from(([0, 0, 0, 0], 80))];
        options.delay = Duration::from_millis(delay);
        backend.serve_with(options)
    };
    backends.iter().zip(delays).map(serve).collect()
}

/// Each backend takes 10 ms, so that which of them the machine runs first makes no difference to the load. Of 20,000
/// requests the share of one of three has a standard deviation of 67 even if the choice were random.
#[test]
fn p2c_is_even_under_equal_load() {
    let node = Node::with_network();
    let backends: Vec<_> = (11..=13).map(|last| node.container(last)).collect();
    let _servers = serve_after(&backends, [10; 3]);
    let client = node.container(100);
    node.service("web", TARGET.ip(), "p2c", &backends.iter().collect::<Vec<_>>());
    let report = client.load(options(32, 20_000)).join().unwrap();
    assert_eq!((report.failures, report.backends.len()), (0, 3), "{report}");
    for backend in &report.backends {
        assert!(backend.requests.abs_diff(6_667) <= 333, "{report}");
    }
}

#[test]
fn p2c_avoids_a_slow_backend() {
    let node = Node::with_network();
    let backends: Vec<_> = (11..=13).map(|last| node.container(last)).collect();
    // So much slower that a busy machine, which delays all alike, does not make them alike.
    let _servers = serve_after(&backends, [400, 10, 10]);
    let client = node.container(100);
    node.service("web", TARGET.ip(), "p2c", &backends.iter().collect::<Vec<_>>());
    let report = client.load(options(64, 8_000)).join().unwrap();
    let [slow, fast, other] = ["10.0.0.11", "10.0.0.12", "10.0.0.13"].map(|name| report.requests_of(name));
    assert_eq!(report.failures, 0, "{report}");
    assert!(slow * 5 < fast && slow * 5 < other, "{report}");
}

/// Turns 1 : 2 : 5, within 2 + log_φ(8000) = 20.7, whatever the order in which 16 connections at once are served.
#[test]
fn weighted_round_robin_follows_the_weights() {
    let node = Node::with_network();
    let backends: Vec<_> = (11..=13).map(|last| node.container(last)).collect();
    let _servers: Vec<_> = backends.iter().map(|b| b.serve(&b.address.to_string(), 80)).collect();
    let client = node.container(100);
    node.service("web", TARGET.ip(), "wrr", &[]);
    for (backend, weight) in backends.iter().zip(["1", "2", "5"]) {
        node.ringlb(&["backend", "add", "net", "web", &backend.address.to_string(), "--weight", weight]);
    }
    let report = client.load(options(16, 8_000)).join().unwrap();
    assert_eq!(report.failures, 0, "{report}");
    for (name, share) in [("10.0.0.11", 1_000u64), ("10.0.0.12", 2_000), ("10.0.0.13", 5_000)] {
        assert!(report.requests_of(name).abs_diff(share) <= 20, "{report}");
    }
}

/// Containers of several addresses each keep to one backend, also when another one is added and drained again. With five
/// backends and eight clients, all at one backend is a chance of 1 in 78,000; these addresses are not.
#[test]
fn a_client_keeps_its_backend() {
    let node = Node::with_network();
    let backends: Vec<_> = (11..=15).map(|last| node.container(last)).collect();
    let _servers: Vec<_> = backends.iter().map(|b| b.serve(&b.address.to_string(), 80)).collect();
    let clients: Vec<_> = (101..=108).map(|last| node.container(last)).collect();
    let only_backend = |client: &Container| {
        let report = client.load(options(4, 100)).join().unwrap();
        assert_eq!((report.failures, report.backends.len()), (0, 1), "{report}");
        report.backends[0].name.clone()
    };
    for algorithm in ["source-hash", "maglev"] {
        node.service("web", TARGET.ip(), algorithm, &backends.iter().collect::<Vec<_>>());
        let first: Vec<_> = clients.iter().map(only_backend).collect();
        assert!(first.iter().any(|name| *name != first[0]), "{algorithm}: {first:?}");
        node.ringlb(&["service", "create", "net", "other", "--vip", "10.0.200.2", "--algorithm", algorithm]);
        node.ringlb(&["backend", "add", "net", "web", "10.0.0.99", "--weight", "0"]);
        assert_eq!(clients.iter().map(only_backend).collect::<Vec<_>>(), first, "{algorithm}");
        node.ringlb(&["backend", "drain", "net", "web", "10.0.0.11"]);
        assert!(clients.iter().map(only_backend).all(|name| name != "10.0.0.11"), "{algorithm}");
        node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
        assert_eq!(clients.iter().map(only_backend).collect::<Vec<_>>(), first, "{algorithm}");
    }
}
