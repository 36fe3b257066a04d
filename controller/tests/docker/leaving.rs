//! What is left of ringlb when it ends.

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::requests::{ask, wait_for_servers};
use crate::wait::{finish, wait_until};
use crate::wire::port_of;
use ringlb_netns::Namespace;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// A daemon that ends leaves nothing in any namespace, and Docker goes on as it would without it.
#[test]
fn a_daemon_that_ends_leaves_nothing_behind() {
    let cluster = Cluster::start(1);
    cluster.create_network("net");
    cluster.create_service("web", &["--network", "net", "--replicas", "2", "--publish", "8080:80"]);
    cluster.wait_for_replicas("web", 2);
    let engine = cluster.manager();
    let client = engine.client("client", "net");
    let vip = cluster.target("web", "net", 80);
    let namespaces = [&engine.machine.namespace, &engine.overlay_sandbox("net"), &engine.sandbox("ingress_sbox")];
    let before = namespaces.map(state_of);
    let mut daemon = Daemon::start(engine);
    daemon.wait_until_it_answers();
    let servers = cluster.servers_of("web");
    wait_for_servers(&client, vip, &servers);
    wait_for_servers(&cluster.wire.namespace, port_of(1, 8080), &servers);
    assert_ne!(namespaces.map(state_of), before);
    let proxies = daemon.proxies();
    daemon.end();
    for (network, pid) in proxies {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the proxy of {network} runs");
    }
    assert_eq!(namespaces.map(state_of), before);
    ask(&client, vip).unwrap_err();
    ask(&cluster.wire.namespace, port_of(1, 8080)).unwrap_err();

    engine.docker(&["service", "scale", "--detach", "web=3"]);
    cluster.wait_for_replicas("web", 3);
    wait_until("every task answers by its own address", || {
        let listed = engine.get("/networks/net?verbose=true");
        let tasks = listed["Services"]["web"]["Tasks"].as_array().cloned().unwrap_or_default();
        let address = |task: &serde_json::Value| task["EndpointIP"].as_str().unwrap().parse().unwrap();
        tasks.len() == 3 && tasks.iter().all(|task| ask(&client, SocketAddr::new(address(task), 80)).is_ok())
    });
    engine.docker(&["service", "rm", "web"]);
    engine.docker(&["rm", "-f", "client"]);
    wait_until("the network can be removed", || {
        engine.cli().args(["network", "rm", "net"]).output().unwrap().status.success()
    });
}

/// Addresses, routes, firewall rules and listening sockets of a namespace.
pub(crate) fn state_of(namespace: &Namespace) -> String {
    let commands = [
        "ip -o addr show",
        "ip route show table all",
        "ip rule show",
        "iptables-save -t mangle",
        "nft list tables",
        "ss -Hltun",
    ];
    let mut state = String::new();
    for words in commands {
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().unwrap());
        namespace.enter_on_exec(&mut command).unwrap();
        // Comments tell the time, and link-local addresses come and go with the kernel's own checks of them.
        let is_of_interest = |line: &&str| !line.starts_with('#') && !line.contains("fe80:") && !line.contains("ff00:");
        for line in finish(command.args(words)).lines().filter(is_of_interest) {
            state += line;
            state.push('\n');
        }
    }
    state
}
