//! Published ports: TCP and UDP, changed while they are used, wanted twice, and taken.

use crate::cluster::Cluster;
use crate::lasting::Lasting;
use crate::load::SteadyLoad;
use crate::requests::{ask, ask_udp, wait_for_servers};
use crate::stops::assert_none_was_cut;
use crate::wait::wait_until;
use crate::wire::{ipv6_address_of, port_of};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Instant, SystemTime};

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
    cluster.create_service("other", &["--network", "net", "--publish", "9002:80"]);
    cluster.wait_for_replicas("other", 1);
    let _daemons = cluster.start_daemons();
    let outside = &cluster.wire.namespace;
    let (servers, others) = (cluster.servers_of("web"), cluster.servers_of("other"));
    wait_for_servers(outside, port_of(1, 9000), &servers);
    wait_for_servers(outside, port_of(1, 9002), &others);
    let load = SteadyLoad::start(outside, port_of(1, 9000), 100);
    let began = SystemTime::now();
    let lasting = Lasting::open(outside, port_of(1, 9000), &servers, 4);
    let untouched = Lasting::open(outside, port_of(1, 9002), &others, 4);
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
    // Another number for a port of the other service: Docker starts its task anew.
    let untouched_until = untouched.ends();
    assert!(untouched_until.is_empty(), "{untouched_until:?}");
    cluster.update_service("other", &["--publish-rm", "80", "--publish-add", "9003:80"]);
    cluster.wait_for_update("other");
    wait_for_servers(outside, port_of(1, 9003), &cluster.servers_of("other"));
    wait_until("the old number is closed", || ask(outside, port_of(1, 9002)).is_err());
    let record = load.stop();
    println!("{record}");
    record.assert_no_failure();
    // Docker's own updates end tasks, and these their connections; nothing else does.
    for lasting in [lasting, untouched] {
        assert_none_was_cut(&cluster, began, &lasting.close());
    }
}

/// The Engine's own ports in mode `host` are none of ringlb's.
#[test]
fn a_port_that_is_taken_is_reported_and_tried_again() {
    let cluster = Cluster::start(1);
    let engine = cluster.manager();
    cluster.create_network("net");
    let daemon = cluster.start_daemons().remove(0);
    // ringlb is there first, and would keep the Engine from it.
    let own = ["--publish", "mode=host,published=9100,target=80", "--publish", "9101:80"];
    cluster.create_service("host", &[&["--network", "net"][..], &own].concat());
    cluster.wait_for_replicas("host", 1);
    let node = &engine.machine.namespace;
    let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let taken = node.run(|| (TcpListener::bind(any(9200)), UdpSocket::bind(any(9300)))).unwrap();
    let taken = (taken.0.unwrap(), taken.1.unwrap());
    let ports = ["9200:80", "9201:80", "9300:80/udp", "9300:80/tcp"].map(|port| ["--publish", port]).concat();
    cluster.create_service("web", &[&["--network", "net"][..], &ports].concat());
    cluster.wait_for_replicas("web", 1);
    let outside = &cluster.wire.namespace;
    let servers = cluster.servers_of("web");
    for port in [9201, 9300] {
        wait_for_servers(outside, port_of(1, port), &servers);
    }
    let load = SteadyLoad::start(outside, port_of(1, 9201), 100);
    let failed = || daemon.network("ingress").unwrap()["failed_ports"].clone();
    wait_until("the taken ports are reported", || failed().as_object().is_some_and(|failed| failed.len() == 2));
    for port in ["9200/tcp", "9300/udp"] {
        let reason = failed()[port].as_str().unwrap().to_owned();
        assert!(reason.contains("service web") && reason.contains("another program has it"), "{reason}");
        let printed = daemon.command(&["status"]);
        assert!(printed.contains(&format!("published port {port} FAILED: {reason}")), "{printed}");
    }
    for port in [9100, 9101] {
        wait_for_servers(outside, port_of(1, port), &cluster.servers_of("host"));
    }
    let ingress = daemon.network("ingress").unwrap();
    assert!(!ingress.to_string().contains("9100") && ingress["error"].is_null(), "{ingress:#}");

    let freed = Instant::now();
    drop(taken);
    wait_for_servers(outside, port_of(1, 9200), &servers);
    wait_until("datagrams are answered", || ask_udp(outside, port_of(1, 9300)).is_ok());
    println!("served {:?} after the ports were free", freed.elapsed());
    wait_until("nothing is reported any more", || failed() == json!({}));
    let record = load.stop();
    println!("{record}");
    record.assert_no_failure();
}
