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
    let _servers = serve_after(&backends, [100, 10, 10]);
    let client = node.container(100);
    node.service("web", TARGET.ip(), "p2c", &backends.iter().collect::<Vec<_>>());
    let report = client.load(options(64, 8_000)).join().unwrap();
    let [slow, fast, other] = ["10.0.0.11", "10.0.0.12", "10.0.0.13"].map(|name| report.requests_of(name));
    assert_eq!(report.failures, 0, "{report}");
    assert!(slow * 5 < fast && slow * 5 < other, "{report}");
}
