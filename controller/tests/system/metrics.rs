//! The metrics of a real proxy.

use crate::exposition::Exposition;
use crate::node::{Node, wait_until};
use ringlb::admin::metrics::METRICS;
use ringlb_load::{LoadOptions, Workload};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

const TARGET: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 200, 1)), 80);
const NETWORK: [(&str, &str); 1] = [("network", "net")];

fn scrape(node: &Node) -> Exposition {
    let (status, text) = node.admin().request("GET", "/metrics", "");
    assert_eq!(status, 200, "{text}");
    let scraped = Exposition::read(&text);
    // With a service and a backend every metric has a series.
    assert_eq!(scraped.0.len(), METRICS.len());
    for metric in METRICS {
        let family = &scraped.0[metric.name];
        assert_eq!((family.kind.as_str(), family.help.as_str()), (metric.kind.name(), metric.help));
    }
    scraped
}

/// Counters grow with the load, by as much as was done, and say what the status says.
#[test]
fn counters_grow_with_load_and_match_the_status() {
    let node = Node::with_network();
    let backends = [node.container(11), node.container(12)];
    let _servers: Vec<_> = backends.iter().map(|backend| backend.serve(&backend.address.to_string(), 80)).collect();
    let client = node.container(100);
    node.service("web", TARGET.ip(), "rr", &backends.iter().collect::<Vec<_>>());
    let before = scrape(&node);
    assert_eq!(before.value("ringlb_proxy_connections_accepted_total", &NETWORK), Some(0));
    for total in [1_000, 2_000] {
        let mut options = LoadOptions::new(vec![TARGET], Workload::Connect);
        (options.connections, options.requests) = (8, Some(1_000));
        let report = client.load(options).join().unwrap();
        assert_eq!((report.requests, report.failures), (1_000, 0), "{report}");
        wait_until("all connections have ended", || {
            scrape(&node).value("ringlb_proxy_connections_active", &NETWORK) == Some(0)
        });
        let scraped = scrape(&node);
        assert_eq!(scraped.value("ringlb_proxy_connections_accepted_total", &NETWORK), Some(total));
        let service = [("network", "net"), ("service", "web")];
        assert_eq!(scraped.value("ringlb_service_connections_total", &service), Some(total));
        for backend in ["10.0.0.11", "10.0.0.12"] {
            let labels = [("network", "net"), ("service", "web"), ("backend", backend)];
            let value = |name: &str| scraped.value(&format!("ringlb_backend_{name}"), &labels).unwrap();
            assert_eq!(value("connections_total"), total / 2, "{backend}");
            assert!(value("sent_bytes_total") > 0 && value("received_bytes_total") > 0, "{backend}");
        }
        assert_matches_status(&node);
    }
    let enters = |scraped: &Exposition| scraped.value("ringlb_ring_enters_total", &NETWORK).unwrap();
    assert!(enters(&scrape(&node)) > enters(&before));
}

/// 8 MB through one connection are counted to the byte, and as splice moves them.
#[test]
fn bytes_are_counted() {
    const SIZE: usize = 8_000_000;
    let node = Node::with_network();
    let (backend, client) = (node.container(11), node.container(100));
    node.service("web", TARGET.ip(), "rr", &[&backend]);
    let listener = backend.listen(80);
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        stream.write_all(b"done").unwrap();
        received.len()
    });
    let mut stream = client.connect(TARGET);
    stream.write_all(&vec![b'x'; SIZE]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!((server.join().unwrap(), answer.as_str()), (SIZE, "done"));
    wait_until("the connection has ended", || {
        scrape(&node).value("ringlb_proxy_connections_active", &NETWORK) == Some(0)
    });
    let scraped = scrape(&node);
    let labels = [("network", "net"), ("service", "web"), ("backend", "10.0.0.11")];
    assert_eq!(scraped.value("ringlb_backend_sent_bytes_total", &labels), Some(SIZE as u64));
    assert_eq!(scraped.value("ringlb_backend_received_bytes_total", &labels), Some(4));
    let spliced = scraped.value("ringlb_ring_spliced_bytes_total", &NETWORK).unwrap();
    let directions = scraped.value("ringlb_ring_spliced_directions_total", &NETWORK).unwrap();
    assert!(spliced <= SIZE as u64 && (spliced > 0) == (directions > 0), "{spliced} bytes in {directions} directions");
    assert_matches_status(&node);
}

/// While nothing happens, both say the same.
fn assert_matches_status(node: &Node) {
    let status = node.ringlb(&["status"]);
    let scraped = scrape(node);
    let network = &status["networks"][0];
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} in {status:#}"));
    let said = |name: &str| scraped.value(&format!("ringlb_{name}"), &NETWORK).unwrap();
    for (name, value) in [
        ("network_generation", &network["generation"]),
        ("network_acknowledged_generation", &network["acknowledged_generation"]),
        ("proxy_restarts_total", &network["proxy"]["restarts"]),
        ("proxy_connections_accepted_total", &network["connections"]["accepted"]),
        ("proxy_connections_active", &network["connections"]["active"]),
        ("proxy_connections_no_service_total", &network["connections"]["no_service"]),
        ("proxy_connections_no_backend_total", &network["connections"]["no_backend"]),
        ("proxy_connect_failures_total", &network["connections"]["connect_failures"]),
        ("ring_spliced_bytes_total", &network["ring"]["spliced_bytes"]),
        ("ring_spliced_directions_total", &network["ring"]["spliced_directions"]),
    ] {
        assert_eq!(said(name), number(value), "{name}");
    }
    assert_eq!(said("proxy_up"), 1);
    for service in network["services"].as_array().unwrap() {
        for backend in service["backends"].as_array().unwrap() {
            let (service, address) = (service["name"].as_str().unwrap(), backend["ip"].as_str().unwrap());
            let labels = [("network", "net"), ("service", service), ("backend", address)];
            for (name, field) in [
                ("connections_total", "connections"),
                ("connections_active", "active"),
                ("connect_failures_total", "connect_failures"),
                ("sent_bytes_total", "bytes_to_backend"),
                ("received_bytes_total", "bytes_to_client"),
                ("weight", "weight"),
            ] {
                let said = scraped.value(&format!("ringlb_backend_{name}"), &labels);
                assert_eq!(said, Some(number(&backend[field])), "{name} of {address}");
            }
        }
    }
}
