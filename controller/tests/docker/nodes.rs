//! VIPs and published ports work on every node.

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::requests::{ask, ask_all, wait_for_servers};
use crate::wait::finish;
use crate::wire::{ipv6_address_of, port_of};
use ringlb_netns::Namespace;
use serde_json::Value;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Instant;

#[test]
fn on_one_node_everything_works_that_docker_promises() {
    let cluster = Cluster::start(1);
    cluster.create_network("net");
    let arguments = ["serve", "--listen", "0.0.0.0:80", "--listen", "0.0.0.0:7777"];
    let options = ["--network", "net", "--replicas", "2", "--publish", "8080:80"];
    cluster.create_service_running("web", &options, &arguments);
    cluster.wait_for_replicas("web", 2);
    let engine = cluster.manager();
    let client = engine.client("client", "net");
    let vip = cluster.target("web", "net", 80);
    let servers = cluster.servers_of("web");
    let node = &engine.machine.namespace;
    let outside = &cluster.wire.namespace;
    ask(&client, vip).unwrap_err();

    let started = Instant::now();
    let _daemon = Daemon::start(engine);
    let port = |address: std::net::IpAddr| SocketAddr::new(address, 8080);
    let ways = [
        ("a container, by VIP", &client, vip),
        ("a container, by another port of the VIP", &client, SocketAddr::new(vip.ip(), 7777)),
        ("a container, by the node's address", &client, port_of(1, 8080)),
        ("the node, by localhost", node, port(Ipv4Addr::LOCALHOST.into())),
        ("the node, by IPv6 localhost", node, port(Ipv6Addr::LOCALHOST.into())),
        ("the node, by its address", node, port_of(1, 8080)),
        ("outside", outside, port_of(1, 8080)),
        ("outside, by IPv6", outside, port(ipv6_address_of(1))),
    ];
    for (way, from, target) in ways {
        wait_for_servers(from, target, &servers);
        println!("from {way}: served {:?} after the daemon's start", started.elapsed());
    }
    for (way, from, target) in ways {
        let answers = ask_all(from, target, 20);
        assert_eq!(answers.values().copied().collect::<Vec<_>>(), [10, 10], "from {way}: {answers:?}");
    }
    ask(&client, SocketAddr::new(vip.ip(), 9999)).unwrap_err();
}

#[test]
fn on_three_nodes_each_serves_all_tasks_by_its_own_sandbox() {
    let cluster = Cluster::start(3);
    cluster.create_network("net");
    let third = &cluster.engine(3).machine.name;
    let elsewhere = format!("node.hostname!={third}");
    let options = ["--network", "net", "--replicas", "4", "--publish", "8080:80", "--constraint", &elsewhere];
    cluster.create_service("web", &options);
    cluster.wait_for_replicas("web", 4);
    let servers = cluster.servers_of("web");
    let vip = cluster.target("web", "net", 80);
    let clients: Vec<Namespace> =
        cluster.engines.iter().map(|engine| engine.client(&format!("client{}", engine.number), "net")).collect();
    let _daemons = cluster.start_daemons();
    for (engine, client) in cluster.engines.iter().zip(&clients) {
        let number = engine.number;
        wait_for_servers(client, vip, &servers);
        wait_for_servers(&engine.machine.namespace, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080), &servers);
        wait_for_servers(&cluster.wire.namespace, port_of(number, 8080), &servers);
        wait_for_servers(client, port_of(number, 8080), &servers);
        for (from, target) in [(client, vip), (&cluster.wire.namespace, port_of(number, 8080))] {
            let answers = ask_all(from, target, 20);
            assert_eq!(answers.values().copied().collect::<Vec<_>>(), [5; 4], "node {number}: {answers:?}");
        }
        // Who answered for the VIP when the client asked by ARP, of the three sandboxes that have it?
        let sandbox = engine.overlay_sandbox("net");
        let address = json_of_ip(&sandbox, "-j link show eth0")[0]["address"].clone();
        let neighbour = json_of_ip(client, &format!("-j neigh show {}", vip.ip()))[0]["lladdr"].clone();
        assert_eq!(neighbour, address, "node {number}");
    }
}

fn json_of_ip(namespace: &Namespace, words: &str) -> Value {
    let mut command = Command::new("ip");
    namespace.enter_on_exec(&mut command).unwrap();
    serde_json::from_str(&finish(command.args(words.split(' ')))).unwrap()
}
