//! What Docker does by itself.

use crate::cluster::Cluster;
use crate::requests::ask;
use crate::wire::address_of;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// Without `ip_vs` in the kernel, VIPs and published ports of Docker lead nowhere, and tasks can be reached all the same.
/// With it they work; so every other test here would prove nothing there.
#[test]
fn without_ip_vs_neither_vips_nor_published_ports_work() {
    let cluster = Cluster::start(1);
    cluster.create_network("net");
    cluster.create_service("web", &["--network", "net", "--replicas", "2", "--publish", "8080:80"]);
    cluster.wait_for_replicas("web", 2);
    let client = cluster.manager().client("client", "net");
    let node = &cluster.manager().machine.namespace;
    let listed = cluster.manager().get("/networks/net?verbose=true");
    let tasks = listed["Services"]["web"]["Tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2, "{listed}");
    for task in tasks {
        let address: IpAddr = task["EndpointIP"].as_str().unwrap().parse().unwrap();
        ask(&client, SocketAddr::new(address, 80)).unwrap();
    }
    let works = Path::new("/proc/net/ip_vs").exists();
    let attempts = [
        ask(&client, cluster.target("web", "net", 80)),
        ask(node, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080)),
        ask(node, SocketAddr::new(address_of(1), 8080)),
        ask(&cluster.wire.namespace, SocketAddr::new(address_of(1), 8080)),
    ];
    for attempt in attempts {
        assert_eq!(attempt.is_ok(), works, "{attempt:?}, and the kernel has ip_vs: {works}");
    }
}
