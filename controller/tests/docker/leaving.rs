//! What is left of ringlb when it ends.

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::requests::{ask, wait_for_servers};
use crate::state::{assert_same, state_of};
use crate::wait::wait_until;
use crate::wire::port_of;
use std::net::SocketAddr;
use std::path::Path;

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
    let ingress = engine.ingress_sandbox();
    let namespaces = [&engine.machine.namespace, &engine.overlay_sandbox("net"), &ingress];
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
    for ((name, namespace), before) in ["the node", "the sandbox", "the ingress"].iter().zip(namespaces).zip(&before) {
        assert_same(name, &state_of(namespace), before);
    }
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
