//! The Engine removes a network's sandbox with its last local endpoint and makes another one for the next.

use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::requests::{ask, wait_for_servers};
use crate::wait::{wait_until, wait_within};
use ringlb_netns::Namespace;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// The only task is replaced; nothing else of the node is on the network, so that its sandbox is replaced too.
#[test]
fn a_sandbox_made_anew_is_served_as_soon_as_the_task_listens() {
    let cluster = Cluster::start(1);
    cluster.create_network("net");
    let options = ["--network", "net", "--replicas", "1", "--update-order", "stop-first"];
    cluster.create_service_running("web", &options, &["serve", "--listen", "0.0.0.0:80", "--listen-after", "200ms"]);
    cluster.wait_for_replicas("web", 1);
    let engine = cluster.manager();
    let vip = cluster.target("web", "net", 80);
    let daemons = cluster.start_daemons();
    let mut servers = cluster.servers_of("web");
    // A task reaches its own VIP: no client is needed that would keep the sandbox.
    wait_for_servers(&engine.namespace_of(&servers[0]), vip, &servers);
    for round in 0..3 {
        let proxies = daemons[0].proxies();
        cluster.update_service("web", &["--force"]);
        let task = new_task(engine, &servers[0]);
        let (server, namespace) = &task;
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80);
        wait_until("the new task listens", || ask(namespace, local).is_ok());
        let listening = Instant::now();
        wait_within(Duration::from_secs(10), "the VIP serves it", || {
            ask(namespace, vip).is_ok_and(|answered| answered == *server)
        });
        println!("round {round}: traffic is back {:?} after the task listens", listening.elapsed());
        // Not the namespaces' numbers: the kernel gives the new one what the old one had.
        assert_ne!(daemons[0].proxies(), proxies, "the sandbox is still the old one");
        cluster.wait_for_update("web");
        servers = cluster.servers_of("web");
    }
}

/// Waits for another container than the old one; gives its server's name and its namespace.
fn new_task(engine: &Engine, old: &str) -> (String, Namespace) {
    let mut task = None;
    wait_until("there is another task", || {
        let running = engine.docker(&["ps", "-q", "--filter", "name=web"]);
        task = running.lines().find(|id| *id != old).map(|id| (id.to_owned(), engine.namespace_of(id)));
        task.is_some()
    });
    task.unwrap()
}
