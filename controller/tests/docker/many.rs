//! Many services on one node: all are right, and being idle costs little.

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::listing::print_listing_times;
use crate::requests::{ask_all, wait_for_servers};
use ringlb_netns::Namespace;
use std::time::Duration;

const NETWORKS: usize = 4;
const SERVICES: usize = 20;
const REPLICAS: usize = 4;
/// Over how long idleness is measured.
const IDLE: Duration = Duration::from_secs(12);

#[test]
fn twenty_services_on_four_networks_are_served() {
    let cluster = Cluster::start(1);
    let engine = cluster.manager();
    let networks: Vec<String> = (0..NETWORKS).map(|number| format!("net{number}")).collect();
    // Internal, so that the Engine need not connect each of 80 containers to a second network: it takes seconds for each.
    networks.iter().for_each(|network| cluster.create_network_with(network, &["--internal"]));
    let services: Vec<(String, &String)> =
        (0..SERVICES).map(|number| (format!("web{number}"), &networks[number % NETWORKS])).collect();
    // One after the other: an Engine that starts 80 containers at once hardly gets on.
    for (service, network) in &services {
        cluster.create_service(service, &["--network", network, "--replicas", &REPLICAS.to_string()]);
        cluster.wait_for_replicas(service, REPLICAS);
    }
    let clients: Vec<Namespace> =
        networks.iter().map(|network| engine.client(&format!("client-{network}"), network)).collect();
    let mut daemon = Daemon::start(engine);
    daemon.wait_until_it_answers();
    for (number, (service, network)) in services.iter().enumerate() {
        cluster.wait_for_replicas(service, REPLICAS);
        let vip = cluster.target(service, network, 80);
        let servers = cluster.servers_of(service);
        wait_for_servers(&clients[number % NETWORKS], vip, &servers);
        let answers = ask_all(&clients[number % NETWORKS], vip, 8);
        assert_eq!(answers.values().copied().collect::<Vec<_>>(), [2; REPLICAS], "{service}: {answers:?}");
    }
    let proxies = daemon.proxies();
    let pids = || proxies.iter().map(|(_, pid)| *pid);
    let used = |daemon: &Daemon| (cpu_time(daemon.pid().as_raw().into()), pids().map(cpu_time).sum::<Duration>());
    let before = used(&daemon);
    std::thread::sleep(IDLE);
    let after = used(&daemon);
    let share = |after: Duration, before: Duration| (after - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    println!(
        "idle: daemon {:.2} % of a core, {} proxies {:.2} %",
        share(after.0, before.0),
        proxies.len(),
        share(after.1, before.1)
    );

    let (service, network) = &services[0];
    print_listing_times(&cluster, service, network, REPLICAS, &[(engine, &clients[0])]);
}

/// The processor time that a process has used (proc_pid_stat(5)).
fn cpu_time(pid: i64) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // `utime` and `stime` are the 14th and 15th of all, in ticks of 1/100 s.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
