//! A node that is cut off, and comes back.

use crate::cluster::Cluster;
use crate::load::SteadyLoad;
use crate::requests::wait_for_servers;
use crate::wait::wait_within;
use crate::wire::port_of;
use ringlb_netns::Namespace;
use std::time::{Duration, Instant};

/// Until the Engines have noticed, and for a good while after it, what is sent to the other side is lost; then nothing is.
const NOTICED: Duration = Duration::from_secs(10);
/// Longer than the Engines take to drop the node's tasks (5 s) and to start others in their place (15 s).
const CUT: Duration = Duration::from_secs(20);

#[test]
fn after_a_cut_no_stale_backend_stays_and_none_is_forgotten() {
    let cluster = Cluster::start(3);
    cluster.create_network("net");
    cluster.create_service("web", &["--network", "net", "--publish", "8080:80", "--replicas", "6"]);
    cluster.wait_for_replicas("web", 6);
    let vip = cluster.target("web", "net", 80);
    let clients: Vec<Namespace> =
        cluster.engines.iter().map(|engine| engine.client(&format!("client{}", engine.number), "net")).collect();
    let _daemons = cluster.start_daemons();
    let all_serve = || {
        let servers = cluster.servers_of("web");
        for (engine, client) in cluster.engines.iter().zip(&clients) {
            wait_for_servers(client, vip, &servers);
            wait_for_servers(&cluster.wire.namespace, port_of(engine.number, 8080), &servers);
        }
    };
    all_serve();

    // In the cut-off node's own part of the network as in the rest.
    let loads = [&clients[0], &clients[2]].map(|client| SteadyLoad::start(client, vip, 50));
    let begun = Instant::now();
    cluster.wire.set_connected(3, false);
    std::thread::sleep(CUT.saturating_sub(begun.elapsed()));
    cluster.wire.set_connected(3, true);
    let healed = Instant::now();
    for (load, side) in loads.into_iter().zip(["the rest", "the node that was cut off"]) {
        let record = load.stop();
        println!("{side}: {record}");
        let late = record.failures().into_iter().find(|request| request.begun > begun + NOTICED);
        assert!(late.is_none(), "{late:?}");
    }
    wait_within(Duration::from_secs(60), "all nodes are ready again", || {
        let nodes = cluster.manager().get("/nodes");
        nodes.as_array().unwrap().iter().all(|node| node["Status"]["State"] == "ready")
    });
    cluster.wait_for_replicas("web", 6);
    all_serve();
    println!("every node serves all tasks, and no others, {:?} after the cut", healed.elapsed());
}
