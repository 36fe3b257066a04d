//! Containers whose servers stop and start again.

use crate::node::{Node, find, wait_until};
use ringlb_load::{LoadOptions, Workload};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 200, 1));

fn backend(node: &Node, address: IpAddr) -> Value {
    let status = node.ringlb(&["status"]);
    let backends = find(&status, "backends").and_then(Value::as_array).unwrap().clone();
    backends.into_iter().find(|backend| backend["ip"] == address.to_string()).unwrap()
}

/// Under load no client notices that a server stops: first it is ejected, later it is used again. Then the same with health
/// checks, which find out without any connection.
#[test]
fn a_server_that_stops_is_left_out_until_it_is_back() {
    let node = Node::with_network();
    let (one, two) = (node.container(11), node.container(12));
    let serve = |container: &crate::node::Container| container.serve(&container.address.to_string(), 80);
    let first = serve(&one);
    let _second = serve(&two);
    let client = node.container(100);
    let settings =
        ["service", "create", "net", "web", "--vip", "10.0.200.1", "--ejection-failures", "3", "--ejection-base"];
    node.ringlb(&[&settings[..], &["1h"]].concat());
    for container in [&one, &two] {
        node.ringlb(&["backend", "add", "net", "web", &container.address.to_string()]);
    }
    let mut options = LoadOptions::new(vec![SocketAddr::new(VIP, 80)], Workload::Connect);
    options.connections = 4;
    options.rate = Some(500.0);
    options.timeout = crate::node::PATIENCE;
    let load = client.load(options);
    wait_until("both serve", || {
        [&one, &two].iter().all(|c| backend(&node, c.address)["connections"].as_u64() > Some(10))
    });
    // Idle servers only: a connection that is established is cut by its server's end, whoever is in between.
    let before = backend(&node, one.address)["ejections"].clone();
    assert_eq!(before, 0);
    node.ringlb(&["backend", "drain", "net", "web", &one.address.to_string()]);
    wait_until("the first is idle", || backend(&node, one.address)["active"] == 0);
    drop(first);
    node.ringlb(&["backend", "add", "net", "web", &one.address.to_string()]);
    wait_until("the first is ejected", || backend(&node, one.address)["health"] == "ejected");
    let status = node.ringlb(&["status"]);
    assert!(find(&status, "ejected_for_ms").and_then(Value::as_u64) > Some(3_000_000), "{status:#}");

    let first = serve(&one);
    let count = |address| backend(&node, address)["connections"].as_u64().unwrap();
    let served = count(one.address);
    // Ejections of an hour are what the settings no longer say.
    node.ringlb(&[&settings[..6], &["--ejection-failures", "0"]].concat());
    wait_until("the first is used again", || count(one.address) > served + 10);

    // From here on without the help of connections.
    load.stop();
    let report = load.join().unwrap();
    assert_eq!(report.failures, 0, "{report}");
    let check = ["--health-check-port", "80", "--health-check-interval", "100ms", "--health-check-fall", "1"];
    node.ringlb(&[&settings[..6], &check, &["--health-check-rise", "1"]].concat());
    drop(first);
    wait_until("the checks find out", || backend(&node, one.address)["health"] == "unhealthy");
    assert_eq!(backend(&node, two.address)["health"], "healthy");
    let _first = serve(&one);
    wait_until("the checks find that it is back", || backend(&node, one.address)["health"] == "healthy");
    assert!(backend(&node, one.address)["check_failures"].as_u64() > Some(0));
}

/// A container that is attached here is preferred as soon as it is, without a word about the service.
#[test]
fn an_attached_backend_is_preferred() {
    let node = Node::with_network();
    let (one, two) = (node.container(11), node.container(12));
    let _servers = [&one, &two].map(|container| container.serve(&container.address.to_string(), 80));
    let client = node.container(100);
    node.ringlb(&["service", "create", "net", "web", "--vip", "10.0.200.1", "--prefer-local"]);
    // Nobody is there: it is on another node.
    for address in ["10.0.0.99", "10.0.0.11", "10.0.0.12"] {
        node.ringlb(&["backend", "add", "net", "web", address]);
    }
    let mut options = LoadOptions::new(vec![SocketAddr::new(VIP, 80)], Workload::Connect);
    options.connections = 4;
    options.requests = Some(200);
    let report = client.load(options).join().unwrap();
    assert_eq!((report.failures, report.requests_of("10.0.0.11"), report.requests_of("10.0.0.12")), (0, 100, 100));
    let failures = ["10.0.0.99"].map(|address| backend(&node, address.parse().unwrap())["connect_failures"].clone());
    assert_eq!(failures, [0]);
}

/// All source ports towards the backends in use is no fault of theirs: it is counted by itself and ejects nobody.
#[test]
fn used_up_source_ports_eject_nobody() {
    let node = Node::with_network();
    let (one, two) = (node.container(11), node.container(12));
    let _servers = [&one, &two].map(|container| container.serve(&container.address.to_string(), 80));
    let client = node.container(100);
    node.ringlb(&["service", "create", "net", "web", "--vip", "10.0.200.1", "--ejection-failures", "1"]);
    for container in [&one, &two] {
        node.ringlb(&["backend", "add", "net", "web", &container.address.to_string()]);
    }
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    node.sandbox().run(|| std::fs::write(range, "50000 50007").unwrap()).unwrap();
    let mut open = Vec::new();
    let exhausted = || find(&node.ringlb(&["status"]), "ports_exhausted").and_then(Value::as_u64).unwrap();
    wait_until("source ports are used up", || {
        open.push(client.connect(SocketAddr::new(VIP, 80)));
        exhausted() > 0
    });
    for container in [&one, &two] {
        let backend = backend(&node, container.address);
        assert_eq!((&backend["health"], &backend["ejections"]), (&"healthy".into(), &0.into()));
    }
    drop(open);
}
