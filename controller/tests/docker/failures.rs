//! What dies takes nothing else with it, and whoever starts first, all works in the end.

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::lasting::{Lasting, end_undisturbed};
use crate::load::SteadyLoad;
use crate::requests::{ask, wait_for_servers};
use crate::wait::wait_until;
use crate::wire::port_of;
use std::time::Instant;

fn with_service(replicas: usize) -> Cluster {
    let cluster = Cluster::start(1);
    cluster.create_network("net");
    let count = replicas.to_string();
    // The Engine's default is to start a task anew after 5 s.
    let at_once = ["--restart-delay", "0s"];
    let options = ["--network", "net", "--publish", "8080:80", "--replicas", &count];
    cluster.create_service("web", &[&options[..], &at_once].concat());
    cluster.wait_for_replicas("web", replicas);
    cluster
}

#[test]
fn vips_outlive_a_killed_engine_and_follow_its_successor() {
    let mut cluster = with_service(2);
    let client = cluster.manager().client("client", "net");
    let vip = cluster.target("web", "net", 80);
    let _daemons = cluster.start_daemons();
    let before = cluster.servers_of("web");
    wait_for_servers(&client, vip, &before);
    wait_for_servers(&cluster.wire.namespace, port_of(1, 8080), &before);

    let loads =
        [SteadyLoad::start(&client, vip, 100), SteadyLoad::start(&cluster.wire.namespace, port_of(1, 8080), 100)];
    wait_until("there is load", || loads.iter().all(|load| load.answered() > 50));
    cluster.engines[0].kill();
    // Longer than what a source might do at once when its Engine is gone.
    let after = loads.each_ref().map(SteadyLoad::answered);
    wait_until("the load goes on", || loads.iter().zip(after).all(|(load, after)| load.answered() > after + 300));
    for load in loads {
        let record = load.stop();
        println!("without an Engine: {record}");
        record.assert_no_failure();
    }

    // It starts all tasks anew.
    let restarted = Instant::now();
    cluster.engines[0].start();
    cluster.engines[0].wait_until_ready();
    println!("after dockerd's start it answers at {:?}", restarted.elapsed());
    let client = cluster.manager().client("client2", "net");
    println!("a container is attached at {:?}", restarted.elapsed());
    wait_until("the tasks have been replaced", || {
        cluster.servers_if_running("web").is_some_and(|servers| servers.len() == 2 && servers != before)
    });
    println!("the tasks run at {:?}", restarted.elapsed());
    let servers = cluster.servers_of("web");
    wait_for_servers(&cluster.wire.namespace, port_of(1, 8080), &servers);
    println!("the published port serves them at {:?}", restarted.elapsed());
    wait_for_servers(&client, cluster.target("web", "net", 80), &servers);
    println!("the VIP serves them at {:?}", restarted.elapsed());
}

#[test]
fn connections_outlive_a_killed_daemon_and_the_next_one_takes_over() {
    let cluster = with_service(2);
    let engine = cluster.manager();
    let client = engine.client("client", "net");
    let vip = cluster.target("web", "net", 80);
    let mut daemon = Daemon::start(engine);
    daemon.wait_until_it_answers();
    let servers = cluster.servers_of("web");
    wait_for_servers(&client, vip, &servers);
    wait_for_servers(&cluster.wire.namespace, port_of(1, 8080), &servers);
    let lasting = [
        Lasting::open(&client, vip, &servers, 4),
        Lasting::open(&cluster.wire.namespace, port_of(1, 8080), &servers, 4),
    ];
    let loads =
        [SteadyLoad::start(&client, vip, 100), SteadyLoad::start(&cluster.wire.namespace, port_of(1, 8080), 100)];
    let goes_on = || {
        let after = loads.each_ref().map(SteadyLoad::answered);
        wait_until("the load goes on", || loads.iter().zip(after).all(|(load, after)| load.answered() > after + 100));
    };
    goes_on();
    let proxies = daemon.proxies();
    assert_eq!(proxies.len(), 2, "{proxies:?}");
    for _ in 0..2 {
        daemon.kill();
        goes_on();
        daemon = Daemon::start(engine);
        println!("the next daemon answers after {:?}", daemon.wait_until_it_answers());
        wait_until("the proxies are taken over", || daemon.proxies() == proxies);
    }
    // Taken over, and not only left alone.
    engine.docker(&["service", "scale", "--detach", "web=3"]);
    cluster.wait_for_replicas("web", 3);
    let servers = cluster.servers_of("web");
    wait_for_servers(&client, vip, &servers);
    wait_for_servers(&cluster.wire.namespace, port_of(1, 8080), &servers);
    goes_on();
    end_undisturbed(loads, lasting);
    assert_eq!(daemon.proxies(), proxies);
}

/// As when the machine starts again: every task and namespace is gone, and the daemon is there first.
#[test]
fn a_daemon_that_starts_before_the_engine_waits_for_it() {
    let mut cluster = with_service(2);
    let before = cluster.servers_of("web");
    cluster.engines[0].stop();
    let mut daemon = Daemon::start(cluster.manager());
    daemon.wait_until_it_answers();
    let source = daemon.status()["sources"][0].clone();
    assert!(source["reachable"] == false && source["last_error"].is_string(), "{source:#}");
    ask(&cluster.wire.namespace, port_of(1, 8080)).unwrap_err();
    cluster.engines[0].start();
    cluster.engines[0].wait_until_ready();
    // For a moment it still takes the tasks of before for running ones.
    wait_until("the tasks have been replaced", || {
        cluster.servers_if_running("web").is_some_and(|servers| servers.len() == 2 && servers != before)
    });
    let servers = cluster.servers_of("web");
    let running = Instant::now();
    wait_for_servers(&cluster.wire.namespace, port_of(1, 8080), &servers);
    let client = cluster.manager().client("client", "net");
    wait_for_servers(&client, cluster.target("web", "net", 80), &servers);
    println!("served {:?} after the tasks run", running.elapsed());
}
