//! Whichever of the two services is there first, the Engine's or ringlb's, all works in the end.

use super::unit::Unit;
use crate::cluster::Cluster;
use crate::requests::{ask, wait_for_servers};
use crate::wait::wait_until;
use crate::wire::port_of;
use std::time::Instant;

#[test]
fn the_service_comes_after_the_engine_and_does_without_it() {
    let cluster = Cluster::boot(1);
    cluster.create_network("net");
    let options = ["--network", "net", "--replicas", "2", "--publish", "8080:80", "--restart-delay", "0s"];
    cluster.create_service("web", &options);
    cluster.wait_for_replicas("web", 2);
    let published = port_of(1, 8080);
    let engine = cluster.manager();
    let machine = &engine.machine;
    let unit = Unit::install(engine);
    let stop_engine = || {
        // Its socket too, or else the first who asks starts it.
        machine.systemctl(&["stop", "docker.socket", "docker.service"]);
        // A service that is started that often is not started any more.
        machine.systemctl(&["reset-failed", "docker.service"]);
    };
    let moment = |unit: &str, property: &str| machine.property(unit, property).parse::<u64>().unwrap();

    // As when the machine starts, where both are wanted.
    machine.systemctl(&["enable", "--quiet", "docker"]);
    let before = cluster.servers_of("web");
    stop_engine();
    machine.systemctl(&["start", "multi-user.target"]);
    let ready = moment("docker", "ActiveEnterTimestampMonotonic");
    let started = moment("ringlb", "ExecMainStartTimestampMonotonic");
    assert!(0 < ready && ready <= started, "the Engine was ready at {ready} us, ringlb was started at {started} us");
    unit.wait_until_it_answers();
    let before = serves_other_tasks(&cluster, &before);

    let daemon = unit.main_pid();
    machine.systemctl(&["restart", "docker"]);
    let before = serves_other_tasks(&cluster, &before);
    assert_eq!((unit.main_pid(), unit.property("NRestarts").as_str()), (daemon, "0"));

    // ringlb is there first.
    stop_engine();
    unit.systemctl("restart");
    unit.wait_until_it_answers();
    let source = unit.admin.status()["sources"][0].clone();
    assert!(source["reachable"] == false && source["last_error"].is_string(), "{source:#}");
    ask(&cluster.wire.namespace, published).unwrap_err();
    machine.systemctl(&["start", "docker"]);
    serves_other_tasks(&cluster, &before);
    let client = engine.client("client", "net");
    wait_for_servers(&client, cluster.target("web", "net", 80), &cluster.servers_of("web"));
}

/// Waits until tasks run that are not those of before, and are served; gives their servers.
pub(super) fn serves_other_tasks(cluster: &Cluster, before: &[String]) -> Vec<String> {
    let begun = Instant::now();
    let is_new = |servers: &[String]| servers.len() == 2 && servers.iter().all(|server| !before.contains(server));
    wait_until("the tasks have been replaced", || {
        cluster.servers_if_running("web").is_some_and(|servers| is_new(&servers))
    });
    println!("the tasks run after {:?}", begun.elapsed());
    let servers = cluster.servers_of("web");
    wait_for_servers(&cluster.wire.namespace, port_of(1, 8080), &servers);
    println!("they are served after {:?}", begun.elapsed());
    servers
}
