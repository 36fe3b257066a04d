//! Published ports: TCP and UDP, changed while they are used, wanted twice, and taken.

use crate::cluster::Cluster;
use crate::load::SteadyLoad;
use crate::requests::{ask, ask_udp, wait_for_servers};
use crate::wait::wait_until;
use crate::wire::{ipv6_address_of, port_of};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};

#[test]
fn one_number_can_be_published_for_tcp_and_udp() {
    let cluster = Cluster::start(1);
    cluster.create_network("net");
    let ports = ["--publish", "9000:80/tcp", "--publish", "9000:80/udp", "--publish", "9001:80/udp"];
    cluster.create_service("web", &[&["--network", "net", "--replicas", "2"][..], &ports].concat());
    // Two services of one number, each with a protocol.
    cluster.create_service("tcp", &["--network", "net", "--publish", "9002:80/tcp"]);
    cluster.create_service("udp", &["--network", "net", "--publish", "9002:80/udp"]);
    for (service, count) in [("web", 2), ("tcp", 1), ("udp", 1)] {
        cluster.wait_for_replicas(service, count);
    }
    let _daemons = cluster.start_daemons();
    let outside = &cluster.wire.namespace;
    let servers = cluster.servers_of("web");
    wait_for_servers(outside, port_of(1, 9000), &servers);
    for port in [9000, 9001] {
        for target in [port_of(1, port), SocketAddr::new(ipv6_address_of(1), port)] {
            let mut seen = BTreeSet::new();
            wait_until(&format!("all tasks answer datagrams to {target}"), || {
                seen.extend(ask_udp(outside, target));
                seen.iter().eq(&servers)
            });
        }
    }
    ask(outside, port_of(1, 9001)).unwrap_err();
    wait_for_servers(outside, port_of(1, 9002), &cluster.servers_of("tcp"));
    wait_until("the other service answers datagrams", || {
        ask_udp(outside, port_of(1, 9002)).is_ok_and(|server| [server] == cluster.servers_of("udp")[..])
    });
}

#[test]
fn changing_ports_keeps_the_others_working() {
    let cluster = Cluster::start(1);
    cluster.create_network("net");
    let options = ["--network", "net", "--replicas", "2", "--publish", "9000:80"];
    let arguments = ["serve", "--listen", "0.0.0.0:80", "--listen", "0.0.0.0:81"];
    cluster.create_service_running("web", &options, &arguments);
    cluster.wait_for_replicas("web", 2);
    let _daemons = cluster.start_daemons();
    let outside = &cluster.wire.namespace;
    wait_for_servers(outside, port_of(1, 9000), &cluster.servers_of("web"));
    let load = SteadyLoad::start(outside, port_of(1, 9000), 100);
    cluster.update_service("web", &["--publish-add", "9001:81"]);
    cluster.wait_for_update("web");
    wait_for_servers(outside, port_of(1, 9001), &cluster.servers_of("web"));
    // A second service that wants the port is refused by Docker, and nothing changes.
    let refused = cluster
        .manager()
        .cli()
        .args(["service", "create", "--detach", "--no-resolve-image", "--name", "late", "--publish", "9000:80"])
        .args([crate::image::IMAGE, "serve", "--listen", "0.0.0.0:80"])
        .output()
        .unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    // Docker takes the target port here.
    cluster.update_service("web", &["--publish-rm", "81"]);
    cluster.wait_for_update("web");
    wait_until("the removed port is closed", || ask(outside, port_of(1, 9001)).is_err());
    wait_for_servers(outside, port_of(1, 9000), &cluster.servers_of("web"));
    let record = load.stop();
    println!("{record}");
    record.assert_no_failure();
}

/// The Engine's own ports in mode `host` are none of ringlb's.
#[test]
fn a_port_that_is_taken_is_reported_and_tried_again() {
    let cluster = Cluster::start(1);
    let engine = cluster.manager();
    cluster.create_network("net");
    let host = "mode=host,published=9100,target=80";
    cluster.create_service("host", &["--network", "net", "--publish", host]);
    cluster.create_service("web", &["--network", "net", "--publish", "9200:80", "--publish", "9201:80"]);
    cluster.wait_for_replicas("host", 1);
    cluster.wait_for_replicas("web", 1);
    let node = &engine.machine.namespace;
    let any: SocketAddr = "0.0.0.0:9200".parse().unwrap();
    let taken = node.run(|| TcpListener::bind(any)).unwrap().unwrap();
    let daemons = cluster.start_daemons();
    let outside = &cluster.wire.namespace;
    wait_for_servers(outside, port_of(1, 9201), &cluster.servers_of("web"));
    wait_until("the taken port is reported", || {
        let ingress = daemons[0].network("ingress").unwrap();
        ingress["failed_ports"].to_string().contains("9200")
    });
    let ingress = daemons[0].network("ingress").unwrap();
    assert!(!ingress["failed_ports"].to_string().contains("9201"), "{ingress:#}");
    assert!(!ingress.to_string().contains("9100"), "{ingress:#}");
    wait_for_servers(outside, port_of(1, 9100), &cluster.servers_of("host"));
    drop(taken);
    wait_for_servers(outside, port_of(1, 9200), &cluster.servers_of("web"));
    wait_until("it is not reported any more", || {
        !daemons[0].network("ingress").unwrap()["failed_ports"].to_string().contains("9200")
    });
}
